#!/usr/bin/env bash
# kubectl, as the administrator of the cluster that up.sh started.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_root
[ -e "$state/admin.conf" ] || fail "no cluster stands here: up.sh starts one"
k "$@"
