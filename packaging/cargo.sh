#!/usr/bin/env bash
# What maturin calls as cargo, so that it packs the program that `make` builds, portable, and compiles nothing twice.
set -euo pipefail
case ${1:-} in
  rustc) exec "$(dirname "$0")/program.sh" "$RESTOK_PROFILE" "$RESTOK_COPY" ;;
  *) exec "$(dirname "$0")/../tools/cargo.sh" "$@" ;;
esac
