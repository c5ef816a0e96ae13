#!/usr/bin/env bash
# cargo, with the release of tch that fits the libtorch in use.
#
#   tools/cargo.sh build --locked --release --package jobs                        the libtorch of `make setup`: plain cargo
#   LIBTORCH=/opt/torch tools/cargo.sh build --locked --release --package jobs    2.9, 2.10 or 2.11: the same source over another tch
#
# Bindings are generated for one version of libtorch, and cargo lets a workspace lock only one release of a crate that links a native
# library. So for another version this script lays a second workspace into .deps: links to the same folders, with another tch in
# Cargo.toml and Cargo.lock. Everything else is locked as it is, and what is built goes to target/ as always.
# tools/torch-versions.txt says which tch fits which libtorch.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
readonly root

fail() { printf 'cargo.sh: error: %s\n' "$*" >&2; exit 1; }

# The release of tch that the workspace whose files lie in a folder asks for.
tch_in() { sed -n 's/^tch = { version = "\([^"]*\)".*/\1/p' "$1/Cargo.toml"; }

# Major and minor version of a libtorch, from its headers. From 2.10 on they are not where they were.
libtorch_version() {
  local folder=${LIBTORCH_INCLUDE:-$1}/include/torch header
  for header in "$folder/headeronly/version.h" "$folder/csrc/api/include/torch/version.h"; do
    if [ -e "$header" ]; then
      sed -n 's/^#define TORCH_VERSION_M[A-Z]*OR \([0-9]*\)$/\1/p' "$header" | paste -sd .
      return
    fi
  done
  fail "$1 is no libtorch with headers: ${header} is missing. Run 'make setup', or name one by LIBTORCH"
}

libtorch=${LIBTORCH:-$root/.deps/libtorch}
version=$(libtorch_version "$libtorch")
tch=$(awk -v version="$version" '$1 == version { print $2 }' "$root/tools/torch-versions.txt")
[ -n "$tch" ] || fail "$libtorch is libtorch $version, which no release of tch is made for. Versions that build: $(
  awk '!/^#/ { print $1 }' "$root/tools/torch-versions.txt" | paste -sd ' ')"
cd "$root"
# Cargo goes by the path of libtorch: what was compiled against another version under the same one would stay.
seen=$root/.deps/stamps/libtorch-versions place=$(realpath "$libtorch")
before=$(awk -F '\t' -v place="$place" '$1 == place { print $2 }' "$seen" 2>/dev/null | tail -n 1 || true)
if [ -n "$before" ] && [ "$before" != "$version" ]; then
  cargo clean --quiet --package torch-sys
  rm -rf "$root/.deps/workspace-torch-$before"
fi
if [ "$before" != "$version" ] && [ -e "$libtorch/lib/libtorch_cpu.so" ]; then
  mkdir -p "$root/.deps/stamps"
  printf '%s\t%s\n' "$place" "$version" >>"$seen"
fi
if [ "$tch" = "$(tch_in .)" ]; then exec cargo "$@"; fi

workspace=$root/.deps/workspace-torch-$version
mkdir -p "$workspace"
for entry in schemas pipeline report models jobs tests samples tools docs Makefile README.md rustfmt.toml clippy.toml .config; do
  ln -sfn "$root/$entry" "$workspace/$entry"
done
# Renamed into place, so that two builds that start at once do not read half a file; left alone while nothing changes, because cargo goes by times.
inputs=$(cat Cargo.toml Cargo.lock tools/torch-versions.txt tools/cargo.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$workspace/inputs" 2>/dev/null)" != "$inputs" ]; then
  locking=$(mktemp -d "$root/.deps/locking.XXXXXX")
  trap 'rm -rf "$locking"' EXIT
  sed "s/^\(tch\|torch-sys\) = { version = \"[^\"]*\"/\1 = { version = \"=$tch\"/" Cargo.toml >"$locking/Cargo.toml"
  cp Cargo.lock "$locking/Cargo.lock"
  for member in schemas pipeline report models jobs tests; do ln -s "$root/$member" "$locking/$member"; done
  (cd "$locking" && cargo update --workspace --quiet) || fail "tch $tch cannot be taken into Cargo.lock; it is fetched from the crate registry"
  for file in Cargo.toml Cargo.lock; do mv "$locking/$file" "$workspace/$file"; done
  printf '%s\n' "$inputs" >"$workspace/inputs"
  rm -rf "$locking"; trap - EXIT
fi
cd "$workspace"
export LIBTORCH=$libtorch CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
exec cargo "$@"
