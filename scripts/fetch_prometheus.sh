#!/bin/sh
# Unpack Debian's Prometheus into a folder, for the tests that ask one. Installing the package would start it.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

download() { timeout 120 apt-get -qq -o APT::Sandbox::User=root download prometheus 2>"$work/errors"; }
# Downloading needs no privileges, renewing the list of packages does.
if ! download; then
    if [ "$(id -u)" = 0 ]; then timeout 120 apt-get -qq update; else timeout 120 sudo -n apt-get -qq update; fi || true
    download || { cat "$work/errors" >&2; exit 1; }
fi
dpkg-deb --extract prometheus_*.deb "$folder"
