#!/bin/sh
# Build the container image: with docker where its engine answers, with buildah elsewhere.
#
#   deploy/image.sh build    the image (make image)
#   deploy/image.sh base     a BASE_IMAGE from Debian's packages, by debootstrap, for machines that reach no
#                            image registry (buildah only)
#
# Settings, from the environment:
#   VARIANT     cpu (default) or cuda
#   IMAGE       what the image is called; default dropserve:VARIANT
#   BASE_IMAGE  default: the Dockerfile's
#   WHEELS      a folder of wheels to install from, and from nowhere else; default: none
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL   for a registry of your own
set -eu
cd "$(dirname "$0")/.."

VARIANT=${VARIANT:-cpu}
IMAGE=${IMAGE:-dropserve:$VARIANT}

fail() {
    echo "image: $*" >&2
    exit 1
}

if docker info >/dev/null 2>&1; then
    engine=docker
elif command -v buildah >/dev/null; then
    engine=buildah
    # Chroot needs no daemon, and no rights that a container lacks. HEALTHCHECK exists in docker's format only.
    export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}" BUILDAH_FORMAT=docker
else
    fail "no docker engine answers, and buildah is not installed"
fi

build() {
    set -- --build-arg "VARIANT=$VARIANT" --tag "$IMAGE"
    [ -z "${BASE_IMAGE:-}" ] || set -- "$@" --build-arg "BASE_IMAGE=$BASE_IMAGE"
    [ -z "${PIP_INDEX_URL:-}" ] || set -- "$@" --build-arg "PIP_INDEX_URL=$PIP_INDEX_URL"
    [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || set -- "$@" --build-arg "PIP_EXTRA_INDEX_URL=$PIP_EXTRA_INDEX_URL"
    [ -z "${WHEELS:-}" ] || set -- "$@" --build-arg PIP_NO_INDEX=1 --build-context "wheels=$(realpath "$WHEELS")"
    $engine build "$@" .
    $engine images "$IMAGE"
}

base() {
    [ "$engine" = buildah ] || fail "this is for buildah; docker pulls a base image"
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" /
    buildah commit --quiet --rm "$container" "${BASE_IMAGE:-localhost/dropserve-base}"
}

case "${1:-}" in
build | base) "$1" ;;
*) fail "say build or base" ;;
esac
