#!/usr/bin/env bash
# Holds the arrows between rooms: which crates each room may never pull in, and within a room, that its modules depend on each other
# in one direction. ARCHITECTURE.md has the picture.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

# forbid ROOM CRATE...: none of the crates may be among ROOM's dependencies, with all its features.
forbid() {
  local package=$1 crate tree; shift
  # Build dependencies count too: a build script that needs libtorch breaks `make test-data` all the same.
  tree=$(cargo tree --locked --quiet --package "$package" --edges normal,build --all-features --prefix none --format '{lib}' | sort -u)
  [ -n "$tree" ] || { echo "arrows: cargo tree printed nothing for $package" >&2; exit 1; }
  for crate in "$@"; do
    if grep -qx "$crate" <<<"$tree"; then
      echo "arrows: $package must not depend on $crate; 'cargo tree --package $package --invert $crate' shows the way" >&2
      failed=1
    fi
  done
}

forbid schemas pipeline report models jobs tch torch_sys tokio object_store parquet reqwest hyper image rayon
forbid pipeline models report jobs tch torch_sys
forbid report models jobs tch torch_sys
forbid models pipeline report jobs tokio object_store parquet reqwest hyper rayon
forbid jobs tests
python3 tools/module_cycles.py || failed=1

# Libraries name options as their callers do, `image_id`; which of them are flags, only the program knows (`with_flags` in jobs/src/cli.rs).
# Flags of other programs may be named: tar's, the CUDA compiler's, CSS's.
flags=$(grep -rnE --include='*.rs' -- '(^|[^-[:alnum:]])--[a-z][a-z-]+' schemas/src pipeline/src report/src models/src |
  grep -vE '^[^:]+:[0-9]+:[[:space:]]*//' | grep -vE '^models/src/kernels/|write the shard |--dash: ' || true)
if [ -n "$flags" ]; then
  echo "arrows: libraries name flags:" >&2
  echo "$flags" >&2
  failed=1
fi
[ "$failed" = 0 ] && echo "arrows: every crate depends only on what it may"
exit "$failed"
