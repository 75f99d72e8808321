# To be sourced by the scripts here: what all of them share.
# shellcheck shell=bash

cache=${VSWITCH_K8S_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vswitch-k8s}

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# find_go: puts Go on the path, where it is in none of the usual places of it.
find_go() {
  command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
  command -v go >/dev/null || fail "no Go here: install 1.26 or later (https://go.dev/dl)"
}

# Images by the names that Kubernetes 1.36.3 and its tests have for them (e2e.test --list-images).
registry=registry.k8s.io
# shellcheck disable=SC2034
{
  pause_image=$registry/pause:3.10.2
  coredns_image=$registry/coredns/coredns:v1.14.1
  agnhost_image=$registry/e2e-test-images/agnhost:2.63.0
  # What wants a shell and little else.
  busybox_images="$registry/e2e-test-images/busybox:1.37.0-1 $registry/e2e-test-images/glibc-dns-testing:2.0.0"
}

# debian_busybox: prints the path of Debian's busybox, linked with the C library. The static one, which is installed more often,
# crashes when it resolves names in a pod, and both cannot be installed, so that this one is only unpacked.
debian_busybox() {
  local folder=$cache/debian
  if [ ! -x "$folder/bin/busybox" ]; then
    mkdir -p "$folder"
    (cd "$folder" && apt-get download -q -o APT::Sandbox::User=root busybox >&2 && dpkg-deb -x busybox_*.deb .)
  fi
  echo "$folder/bin/busybox"
}

# Where a cluster that stands has what: the same names whatever its number of nodes, since there is one at a time.
# shellcheck disable=SC2034
{
  prefix=vsw-k8s                       # of network namespaces and cgroups
  state=/run/$prefix                   # certificates, configurations, logs: goes with down.sh
  data=/var/lib/$prefix                # the nodes' disks: goes with down.sh
  control_v4=10.93.0.1 control_v6=fd93::1
  service_v4=10.96.0.0/16 service_v6=fd96::/112
  pods_v4=10.245.0.0/16 pods_v6=fd45::/56
  api=https://$control_v4:6443
}

need_root() { [ "$(id -u)" = 0 ] || fail "network namespaces need root: run this with sudo"; }

# in_control COMMAND...: runs it where the control plane is
in_control() { nsenter --net="/run/netns/$prefix-control" -- "$@"; }

# k ARGUMENT...: kubectl, as the cluster's administrator
k() { in_control "$cache/bin/kubectl" --kubeconfig "$state/admin.conf" "$@"; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; what it said last is told when it never does
wait_for() {
  local limit=$1 what=$2 until=$((SECONDS + $1)) said
  shift 2
  until said=$("$@" 2>&1); do
    if [ $SECONDS -ge "$until" ]; then
      say "$what: not within $limit s; at last:"
      fail "${said:-$* failed and said nothing}"
    fi
    read -r -t 0.2 <> <(:) || true
  done
}

# cgroup_roots: the top of each hierarchy of cgroups: one of version 2, several of version 1, or both
cgroup_roots() { awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts | sort -u; }

# The cgroup whose members are the processes that up.sh started, those of the nodes' pods not among them.
ours() {
  local root=/sys/fs/cgroup
  [ ! -d $root/unified ] || root=$root/unified
  echo "$root/$prefix.processes"
}

# node_process NODE: the id of its first process
node_process() {
  local id netns
  netns=$(stat -Lc %i "/run/netns/$prefix-$1")
  while read -r id; do
    # The first of a process namespace one below this one, in the node's network.
    if [ "$(awk '$1 == "NSpid:" { print NF, $NF }' "/proc/$id/status" 2>/dev/null)" = "3 1" ] &&
      [ "$(stat -Lc %i "/proc/$id/ns/net" 2>/dev/null)" = "$netns" ]; then
      echo "$id"
      return
    fi
  done <"$(ours)/cgroup.procs"
  fail "$1 does not run: $state/logs/$1.log"
}

# in_node NODE COMMAND...: runs it on a node
in_node() {
  local node=$1
  shift
  nsenter --target "$(node_process "$node")" --all -- "$@"
}

# install_packages PACKAGE...: of Debian, those that are missing
install_packages() {
  local package missing=()
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >&2
}
