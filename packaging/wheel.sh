#!/usr/bin/env bash
# Builds the wheel with the program into a folder, and prints its path.
#
#   packaging/wheel.sh release dist   what people install
#   packaging/wheel.sh dev FOLDER     what the tests use
set -euo pipefail
if [ $# != 2 ]; then echo "usage: packaging/wheel.sh release|dev FOLDER" >&2; exit 2; fi
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."

maturin=.deps/maturin/bin/maturin
if [ ! -x "$maturin" ]; then
  echo "wheel.sh: error: $(cat .deps/no-maturin 2>/dev/null || echo "$maturin is missing: run 'make setup-wheel'")" >&2
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Its warning that libtorch could be copied into the wheel is as it should be.
RESTOK_PROFILE=$1 RESTOK_COPY=$work/restok CARGO=$(pwd)/packaging/cargo.sh "$maturin" build --out "$work/wheels" >&2
# Nothing else lies there, whatever was built into the folder before.
wheel=$(cd "$work/wheels" && echo *.whl)
mv "$work/wheels/$wheel" "$folder/$wheel"
echo "$folder/$wheel"
