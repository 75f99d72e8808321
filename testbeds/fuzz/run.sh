#!/usr/bin/env bash
# Runs every fuzz target for so many seconds (default 20): on the stable compiler, without cargo-fuzz and without a
# sanitizer, as `cargo fuzz run -s none` would. What is found stays in corpus/ and artifacts/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-20}
host=x86_64-unknown-linux-gnu
# The flags of cargo-fuzz: coverage that libFuzzer reads. Given for the target only, so that build scripts go without.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}/fuzz
cargo build --release --locked --target "$host"
for target in walk large_packets dns_answers cni_input api_messages manifests; do
  mkdir -p "corpus/$target" "artifacts/$target"
  echo "== $target, $seconds s"
  "$CARGO_TARGET_DIR/$host/release/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" \
    -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=4096 -print_final_stats=1
done
