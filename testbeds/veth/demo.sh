#!/usr/bin/env bash
# Two nodes on this machine, real calls between pods with policy on, and a report.
#   --json   one JSON object in place of text        --keep   leave all standing, print five commands worth trying
#   --down   take away what was left standing        --help   the rest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. testbeds/setup.sh
"${builder[@]}" cargo build --release --locked --workspace --bins >&2
exec "$target/release/vswitch-testbed" demo "$@"
