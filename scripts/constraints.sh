#!/bin/sh
# Rewrite constraints.txt: its first comment lines and its torch stay, everything else becomes what pip
# resolves today for every extra and every development tool.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

grep '^torch==' constraints.txt > "$work/torch"
"$PYTHON" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip -qq --disable-pip-version-check "$@"; }
pip install --upgrade pip
pip install --constraint "$work/torch" '.[all]' --group dev

# Local labels (+cpu) and the CUDA packages, which torch pins itself, belong to the machine.
# onnxruntime and onnxruntime-gpu are the same release for different platforms.
pip freeze --all | sed -E 's/\+[a-z0-9]+$//' | grep -vE '^(dropserve|nvidia-|cuda-|triton)' > "$work/pins"
sed -nE 's/^onnxruntime(-gpu)?==/==/p' "$work/pins" | sed 's/.*/onnxruntime&\nonnxruntime-gpu&/' >> "$work/pins"
{ grep '^#' constraints.txt; sort -fu "$work/pins"; } > "$work/constraints.txt"
cp "$work/constraints.txt" constraints.txt
