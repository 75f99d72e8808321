#!/usr/bin/env bash
# Every check and every test. Green means: exit status 0. The demo's report and the log of each section stay in
# target/test-logs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The first looks at the report of vswitch-perf; the second is a second Linux for the scenarios of IP-in-IP; the third finds
# path MTUs; the last reads scripts.
packages_too=(chromium user-mode-linux iputils-tracepath shellcheck)
. testbeds/setup.sh
export CI=1                      # a test that cannot run fails, where it would be skipped on a desk
logs=$target/test-logs
"${builder[@]}" mkdir -p "$logs"
# Tests run as root, and leave files of root's where they were built.
[ ${#builder[@]} = 0 ] || trap 'chown -R "$SUDO_USER" "$target" testbeds/fuzz' EXIT
times=()

# section NAME COMMAND...: runs it, its output in a log; on failure prints the end of that.
section() {
  local name=$1 start=$SECONDS
  shift
  printf '%-8s ' "$name" >&2
  if ! "$@" >"$logs/$name.log" 2>&1; then
    echo "FAILED after $((SECONDS - start)) s; the end of $logs/$name.log:" >&2
    tail -n 60 "$logs/$name.log" >&2
    exit 1
  fi
  times+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
  echo "$((SECONDS - start)) s" >&2
}

demo() {
  "$target/release/vswitch-testbed" demo --json --id "check$$"
}

section format cargo fmt --all --check
section scripts shellcheck testbeds/k8s/*.sh testbeds/kind/*.sh
section clippy "${builder[@]}" cargo clippy --locked --workspace --all-targets -- -D warnings
section docs "${builder[@]}" env RUSTDOCFLAGS=-Dwarnings cargo doc --locked --workspace --no-deps --document-private-items
section release "${builder[@]}" cargo build --release --locked --workspace --bins
section counts "$target/release/vswitch-perf" instructions --no-progress
section build "${builder[@]}" cargo test --locked --workspace --no-run
section fuzz testbeds/fuzz/run.sh "${FUZZ_SECONDS:-20}"
section demo demo
tail -n 1 "$logs/demo.log"

# Scenarios run the release build, as the demo does.
start=$SECONDS
outcome=0
VSWITCH_BIN_DIR=$target/release cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$logs/tests.log" || outcome=$?
times+=("$(printf '%5d s  tests' $((SECONDS - start)))")

echo
printf '%s\n' "${times[@]}"
printf '%5d s  in all\n' "$SECONDS"
grep -E '^(test .* FAILED|test result:)' "$logs/tests.log"
exit "$outcome"
