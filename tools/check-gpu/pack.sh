#!/usr/bin/env bash
# Packs what `make check-gpu` needs on a machine without cargo into .gpu/, to be copied there with the checkout:
#
#   tools/check-gpu/pack.sh                          programs for the libtorch in use (LIBTORCH, or that of `make setup`)
#   tools/check-gpu/pack.sh CHECKOUT [WHEELS]        and the Python files of the published code, with the wheels that it needs
#
# There, in the root of the checkout: python3 .gpu/check_gpu.py. That machine's libtorch must be of the version that was built against; it is
# found in the `torch` of the python3 that runs it, or named by --libtorch.
#
# PROGRAMS=FOLDER takes the programs that build.sh placed there before. PACK_LIMIT_MIB=60 fails where checkout and .gpu are larger together.
set -euo pipefail
cd "$(dirname "$0")/../.."

published=${1:-}
wheels=${2:-}
programs=${PROGRAMS:-$(tools/check-gpu/build.sh release)}
rm -rf .gpu
mkdir .gpu
for program in restok check_gpu models-integration models-unit; do
  strip --strip-all -o ".gpu/$program" "$programs/$program"
  xz --threads=0 -6 ".gpu/$program"
done
cp tools/check-gpu/*.py .gpu/
git describe --always --dirty >.gpu/commit
if [ -n "$published" ]; then
  # Its code and its configurations, without history, weights and pictures.
  (cd "$published" && find . -name .git -prune -o \( -name '*.py' -o -name '*.yaml' \) -print0 | tar --create --null --files-from=-) \
    | { mkdir .gpu/published; tar --extract --directory .gpu/published; }
fi
if [ -n "$wheels" ]; then mkdir .gpu/wheels; cp "$wheels"/*.whl .gpu/wheels/; fi

# What is copied: the files that git knows or would, and the folder, which it ignores.
bytes=$({ git ls-files -z --cached --others --exclude-standard; find .gpu -type f -print0; } \
  | xargs -0 -r stat --format=%s 2>/dev/null | awk '{ sum += $1 } END { print sum }')
du -h .gpu/*
mib=$(( (bytes + (1 << 20) - 1) >> 20 ))
echo "checkout and .gpu together: $mib MiB"
if [ -n "${PACK_LIMIT_MIB:-}" ] && [ "$mib" -gt "$PACK_LIMIT_MIB" ]; then
  echo "pack.sh: that is more than PACK_LIMIT_MIB=$PACK_LIMIT_MIB" >&2
  exit 1
fi
