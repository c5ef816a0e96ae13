#!/usr/bin/env bash
# Builds what check_gpu.py runs and links it into a folder, whose name it prints.
#
#   build.sh release    what is measured
#   build.sh dev        what the tests use: shares its build with `make test`
set -euo pipefail
cd "$(dirname "$0")/../.."

profile=${1:-release}
case $profile in
  release | dev) ;;
  *) echo "build.sh: release or dev, not $profile" >&2; exit 2 ;;
esac
cargo=cargo
# It chooses the release of tch that fits the libtorch in use.
if [ -x tools/cargo.sh ]; then cargo=tools/cargo.sh; fi
folder=${CARGO_TARGET_DIR:-target}/check-gpu/$profile
mkdir -p "$folder"

# Cargo says where it put the executable of a target: its name holds a hash.
executable() {
  python3 -c '
import json, sys
kind, name = sys.argv[1:]
found = [line["executable"] for line in map(json.loads, sys.stdin)
         if line.get("executable") and line["target"]["name"] == name and kind in line["target"]["kind"]]
print(found[-1])' "$1" "$2"
}
place() { ln -f "$1" "$folder/$2" 2>/dev/null || cp -f "$1" "$folder/$2"; }

case $profile in
  release)
    place "$($cargo build --locked --release --package jobs --message-format=json-render-diagnostics | executable bin restok)" restok
    messages=$($cargo test --locked --release --package models --no-run --message-format=json-render-diagnostics)
    place "$(executable test it <<<"$messages")" models-integration
    place "$(executable lib models <<<"$messages")" models-unit
    messages=$($cargo bench --locked --package models --bench check_gpu --no-run --message-format=json-render-diagnostics)
    place "$(executable bench check_gpu <<<"$messages")" check_gpu
    ;;
  dev)
    # All of the workspace at once, as `make test` builds it: the same dependencies with the same features.
    messages=$($cargo build --locked --workspace --bins --bench check_gpu --test it --message-format=json-render-diagnostics)
    place "$(executable bin restok <<<"$messages")" restok
    place "$(executable bench check_gpu <<<"$messages")" check_gpu
    place "$(python3 -c '
import json, sys
print([line["executable"] for line in map(json.loads, sys.stdin) if line.get("executable") and line["target"]["name"] == "it"
       and line["target"]["src_path"].endswith("/models/tests/it/main.rs")][-1])' <<<"$messages")" models-integration
    ;;
esac
echo "$folder"
