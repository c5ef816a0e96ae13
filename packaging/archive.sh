#!/usr/bin/env bash
# Packs the program with the script that fetches libtorch into a folder, and prints the path of the archive.
#
#   packaging/archive.sh release dist   what people unpack
#   packaging/archive.sh dev FOLDER     what the tests use
set -euo pipefail
if [ $# != 2 ]; then echo "usage: packaging/archive.sh release|dev FOLDER" >&2; exit 2; fi
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."

version=$(sed -n '/^\[workspace\.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=restok-$version-$(uname -m)-linux
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/$name/bin"
packaging/program.sh "$1" "$work/$name/bin/restok" >/dev/null
cp packaging/archive/* tools/requirements-torch-cpu.txt tools/requirements-torch-cuda.txt LICENSE "$work/$name/"
# Gzip, which every tar unpacks. The same program packs to the same bytes, whenever and by whom.
tar --create --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
  --mtime="@${SOURCE_DATE_EPOCH:-315532800}" "$name" \
  | gzip --no-name -9 >"$work/archive"
mv "$work/archive" "$folder/$name.tar.gz"
echo "$folder/$name.tar.gz"
