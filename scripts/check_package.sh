#!/usr/bin/env bash
# Build sdist and wheel into a folder, check them, and install the wheel alone into a fresh environment:
#     scripts/check_package.sh DIR
# Prints how long that takes and how large it is. Fails over 50 MB, or if the build leaves a file in the checkout.
set -euo pipefail
[ $# = 1 ] || { echo "usage: scripts/check_package.sh DIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
[ -z "$(ls -A "$out")" ] || { echo "$out is not empty: name a new folder" >&2; exit 2; }
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
before=$(git status --short --ignored)

"$python" -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install --quiet --disable-pip-version-check build==1.6.1 twine==7.0.0 check-wheel-contents==0.6.3
"$scratch/tools/bin/python" -m build --outdir "$out" . >"$scratch/build.log" || { cat "$scratch/build.log" >&2; exit 1; }
"$scratch/tools/bin/twine" check --strict "$out"/*
"$scratch/tools/bin/check-wheel-contents" "$out"/*.whl
[ "$before" = "$(git status --short --ignored)" ] || { echo "the build left files in the checkout" >&2; exit 1; }

"$python" -m venv "$scratch/alone"
empty=$(du -sm "$scratch/alone" | cut -f1)
start=$(date +%s)
"$scratch/alone/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir "$out"/*.whl
seconds=$(($(date +%s) - start))
size=$(($(du -sm "$scratch/alone" | cut -f1) - empty))
(cd "$scratch" && alone/bin/visionserve --version && alone/bin/python -c "from visionserve.client import Client; Client('https://localhost')")
echo "pip install of the wheel: $size MB in $seconds s"
[ "$size" -le 50 ] || { echo "more than 50 MB" >&2; exit 1; }
