#!/usr/bin/env bash
# Two nodes on this machine, real calls between pods with policy on, and a report.
#   --json   one JSON object in place of text        --keep   leave all standing, print five commands worth trying
#   --down   take away what was left standing        --help   the rest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# To help and to take away, what was built before will do.
built="${CARGO_TARGET_DIR:-target}/release/vswitch-testbed"
for word; do
  case $word in
    -h | --help | --down) [ ! -x "$built" ] || exec "$built" demo "$@" ;;
  esac
done
. testbeds/setup.sh
"${builder[@]}" cargo build --release --locked --workspace --bins >&2
exec "$target/release/vswitch-testbed" demo "$@"
