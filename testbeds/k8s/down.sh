#!/usr/bin/env bash
# Takes away what up.sh made, as far as it came. Ends only processes that are in the cgroups up.sh made, by their ids.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_root

# members: the ids of all processes in our cgroups, those of pods among them
members() {
  local root
  for root in "$(ours)" $(cgroup_roots | sed "s|\$|/$prefix|"); do
    [ ! -d "$root" ] || find "$root" -name cgroup.procs -exec cat {} + 2>/dev/null
  done | sort -un
}

# A node's first process takes everything of the node along.
none_left() {
  local left
  left=$(members)
  [ -n "$left" ] || return 0
  # shellcheck disable=SC2086
  kill -KILL $left 2>/dev/null || true
  # shellcheck disable=SC2086
  ps -o pid,stat,args $left
  return 1
}
wait_for 30 "the end of all processes" none_left

for root in "$(ours)" $(cgroup_roots | sed "s|\$|/$prefix|"); do
  [ -d "$root" ] || continue
  find "$root" -depth -type d | while read -r folder; do wait_for 10 "the cgroup $folder" rmdir "$folder"; done
done
ip netns list | awk -v prefix="$prefix-" 'index($1, prefix) == 1 { print $1 }' | while read -r ns; do ip netns del "$ns"; done
rm -rf --one-file-system "$data" "$state"
