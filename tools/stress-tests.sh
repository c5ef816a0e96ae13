#!/usr/bin/env bash
# Runs the tests many times while the machine has much else to do, for a test that passes by luck fails sooner or later then.
#
#   tools/stress-tests.sh [COUNT] [arguments of cargo nextest run...]
#   tools/stress-tests.sh 20 -p pipeline -E 'test(training_tokens)'
#
# COUNT is 20 where it is left out. Without arguments it is the whole workspace. The last line says how it went; any failure makes the
# exit code 1. CARGO names another cargo; STRESS_LOG keeps what nextest says in a file of that name.
set -euo pipefail
cd "$(dirname "$0")/.."

count=20
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  count=$1
  shift
fi
(($# > 0)) || set -- --workspace
((count > 0)) || { echo "COUNT is 0, expected at least 1" >&2; exit 2; }

read -ra cargo <<<"${CARGO:-cargo}"
"${cargo[@]}" nextest --version >/dev/null || { echo "cargo-nextest is needed: cargo install --locked cargo-nextest" >&2; exit 2; }

log=${STRESS_LOG:-$(mktemp)}
load=()
# Whatever ends this script, an interrupt included, ends the load. stress-ng takes its own workers with it.
end() {
  trap - EXIT INT TERM
  ((${#load[@]} == 0)) || kill "${load[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  [[ -n ${STRESS_LOG:-} ]] || rm -f "$log"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Other cases of the property tests than `make test` draws; shown, so that a failure can be repeated.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-$(od -An -N7 -tu8 /dev/urandom | tr -d ' ')}
echo "PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED"

# Built before the load begins: it would only take longer.
"${cargo[@]}" nextest run --locked --no-run "$@"

if command -v stress-ng >/dev/null; then
  stress-ng --quiet --cpu 2 --vm 1 &
  load+=($!)
else
  echo "stress-ng is not installed: two busy loops instead" >&2
  for _ in 1 2; do
    (while :; do :; done) &
    load+=($!)
  done
fi

# What a failing test prints is shown; one that hangs is ended by .config/nextest.toml. A run that fails does not end the others.
code=0
"${cargo[@]}" nextest run --locked --stress-count "$count" --no-fail-fast --color never "$@" 2>&1 | tee "$log" || code=$?

# nextest names a failure where it happens and again at the end: `FAIL [   1.2s] [2/20] (3/9) package::binary test`. Once a run counts.
failures() { sed -nE 's/^ *(FAIL|TIMEOUT|ABORT|LEAK-FAIL|XFAIL|SIG[A-Z0-9]+) \[[^]]*\] +(\[[^]]*\] +)?(\([^)]*\) +)?(.*)$/\2\4/p' "$log" | sort -u | sed -E 's/^\[[^]]*\] +//'; }
failed=$(failures | sort | uniq -c | sort -rn | sed -E 's/^ *([0-9]+) (.*)$/\2 (\1)/' | paste -sd, | sed 's/,/, /g')
passed_tests=$(grep -cE '^ *(PASS|LEAK) \[' "$log" || true)
failed_tests=$(failures | wc -l)
runs=$(grep -cE '^ *Stress test \[' "$log" || true)
failed_runs=$(grep -cE '^ *Stress test \[.* (failed|timed out)' "$log" || true)
summary="stress: $((runs - failed_runs)) of $count runs passed, $failed_runs failed; $passed_tests tests passed, $failed_tests failed"
echo
if ((code == 0)); then
  echo "$summary"
else
  echo "$summary: ${failed:-none by name, see above} (exit code $code)"
  exit 1
fi
