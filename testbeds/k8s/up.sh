#!/usr/bin/env bash
# Starts a Kubernetes of several nodes on this machine, with cluster DNS, and ends when nodes and DNS are ready.
#
# usage: up.sh [--cni bridge|vswitch] [--keep-failed] [NODES]
#   NODES          1 to 9, default 2: node1, node2, ...
#   --cni          what attaches pods; default vswitch: what ../../deploy installs. bridge: upstream's reference plugins and kube-proxy,
#                  to know what is the testbed's own doing
#   --keep-failed  leaves everything standing when a step fails
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"
# shellcheck source=control.sh
. "$here/control.sh"
# shellcheck source=cni.sh
. "$here/cni.sh"

cni=vswitch nodes=2 keep_failed=
while [ $# -gt 0 ]; do
  case $1 in
    --cni) cni=${2:-}; shift ;;
    --keep-failed) keep_failed=1 ;;
    [1-9]) nodes=$1 ;;
    *) fail "up.sh: $1 is neither an option (--cni bridge|vswitch, --keep-failed) nor a number of nodes from 1 to 9" ;;
  esac
  shift
done
case $cni in bridge | vswitch) ;; *) fail "up.sh: --cni is bridge or vswitch, not ${cni:-nothing}" ;; esac
need_root
if [ -e "$state" ] || [ -e "$data" ] || [ -e "$(ours)" ]; then
  fail "a cluster stands here, or what is left of one: $here/down.sh takes it away"
fi

install_packages containerd runc containernetworking-plugins iptables nftables conntrack iproute2 ethtool openssl procps util-linux \
  binutils curl bind9-dnsutils netcat-openbsd iperf
"$here/build.sh" --only kubernetes --only pause --only coredns --only agnhost
"$here/images.sh"

ended() {
  local status=$? kept
  [ $status != 0 ] || return 0
  if [ -n "$keep_failed" ]; then
    say "left as it is; logs: $state/logs"
  else
    kept=$(mktemp -d -t vsw-k8s-logs.XXXX)
    cp -r "$state/logs/." "$kept" 2>/dev/null || true
    say "logs of what failed: $kept"
    echo $$ >"$(ours)/../cgroup.procs"
    "$here/down.sh"
  fi
  exit $status
}

# cgroup_of_node NAME: the parent of its pods' cgroups, in each hierarchy; what has to be there is not made by itself in version 1
cgroup_of_node() {
  local root folder file
  for root in $(cgroup_roots); do
    for folder in "$root/$prefix" "$root/$prefix/$1"; do
      mkdir -p "$folder"
      for file in cpuset.cpus cpuset.mems; do
        [ ! -e "$root/cgroup.clone_children" ] || [ ! -e "$folder/$file" ] || cat "$folder/../$file" >"$folder/$file"
      done
      [ ! -e "$folder/cgroup.subtree_control" ] ||
        sed 's/\([a-z]\+\)/+\1/g' "$folder/cgroup.controllers" >"$folder/cgroup.subtree_control"
    done
  done
}

# node NUMBER: its network, plugged into the underlay, and its first process
node() {
  local name=node$1 ns=$prefix-node$1 v4=10.93.0.1$1 v6=fd93::1$1
  cgroup_of_node "$name"
  ip netns add "$ns"
  ip -n "$ns" link set lo up
  # A cable: no offloads, as frames on a wire are whole.
  ip -n "$ns" link add eth0 mtu 1500 type veth peer name "$name" mtu 1500 netns "$prefix-control"
  ip -n "$prefix-control" link set "$name" master br0 up
  in_control ethtool -K "$name" tx off gro on >/dev/null
  ip netns exec "$ns" ethtool -K eth0 tx off gro on >/dev/null
  ip -n "$ns" addr add "$v4/24" dev eth0
  ip -n "$ns" addr add "$v6/64" dev eth0 nodad
  ip -n "$ns" link set eth0 up
  ip -n "$ns" route add default via "$control_v4"
  ip -n "$ns" route add default via "$control_v6"
  start "$name.log" nsenter --net="/run/netns/$ns" -- \
    unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc -- "$here/node.sh" "$name" "$v4,$v6" "$cni"
}

trap ended EXIT
umask 022
mkdir -p "$(ours)" "$state/logs" "$state/images" "$data"
# This one and all it starts, to be found by down.sh.
echo $$ >"$(ours)/cgroup.procs"
echo "$cni" >"$state/cni"
for image in pause coredns tools; do ln -s "$cache/images/$image.tar" "$state/images/"; done
mapfile -t names < <(seq -f 'node%g' "$nodes")
"$here/pki.sh" "${names[@]}"
build_underlay
prepare_"$cni"
for number in $(seq "$nodes"); do node "$number"; done
start_control
for name in "${names[@]}"; do wait_for 120 "$name at the API server, $state/logs/$name.kubelet.log" k get node "$name"; done
install_"$cni"
k wait --for=condition=Ready node --all --timeout=120s >/dev/null || fail "$(k describe nodes | grep -A12 '^Conditions')"
say "$nodes nodes ready after $SECONDS s"
k apply -f "$here/coredns.yaml" >/dev/null
k -n kube-system rollout status deployment/coredns --timeout=120s >/dev/null ||
  fail "$(k -n kube-system describe pods; k -n kube-system logs deployment/coredns)"
say "cluster DNS ready after $SECONDS s; $here/kubectl.sh is its kubectl"
