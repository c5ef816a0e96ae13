#!/usr/bin/env bash
# Measures restok beside what it replaces, in one run on one machine, and prints a table. `make bench` builds what it needs first.
#
#   RESTOK_PUBLISHED=FOLDER         a checkout of the published implementation; its rows are left out without it
#   RESTOK_PUBLISHED_PYTHON=PYTHON  an interpreter that can run it; without it, one is set up in .deps/published (some gigabytes)
#   BENCH_ARGS=--quick              few views and repeats: does everything run?
#   BENCH_ARGS='--only scores'      some parts: decode, tables, memory, scores, generator, group, encode
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -n "${RESTOK_PUBLISHED:-}" ] && [ -z "${RESTOK_PUBLISHED_PYTHON:-}" ]; then
  export RESTOK_PUBLISHED_PYTHON=$PWD/.deps/published/bin/python
  if [ "$(cat .deps/published/requirements.txt 2>/dev/null)" != "$(cat tools/requirements-bench.txt)" ]; then
    echo "bench: setting up Python for the published implementation in .deps/published" >&2
    python3 -m venv .deps/published
    "$RESTOK_PUBLISHED_PYTHON" -m pip install --quiet --disable-pip-version-check --requirement tools/requirements-bench.txt
    cp tools/requirements-bench.txt .deps/published/requirements.txt
  fi
fi

# Cargo says where it put a program.
program() {
  tools/cargo.sh bench --locked --package "$1" --bench "$2" --no-run --message-format=json-render-diagnostics |
    .venv/bin/python -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")][-1])'
}
measure=$(program tests measure)
check=$(program models check_gpu)
exec .venv/bin/python tools/bench/bench.py --measure "$measure" --check "$check" --restok target/release/restok "$@"
