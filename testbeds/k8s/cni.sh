# To be sourced by up.sh: what attaches pods. For each kind prepare_KIND, before the nodes start, and install_KIND, once the API
# server knows them.
# shellcheck shell=bash disable=SC2154

prepare_bridge() { :; }

# The reference plugins, with addresses of the ranges that the controller manager gave each node, and routes between these.
install_bridge() {
  local name other v4 v6
  for name in "${names[@]}"; do
    wait_for 30 "ranges of pods for $name" has_ranges "$name"
    read -r v4 v6 < <(ranges "$name")
    # shellcheck disable=SC2016
    in_node "$name" sh -c 'cp /usr/lib/cni/bridge /usr/lib/cni/host-local /usr/lib/cni/portmap /opt/cni/bin/ &&
      cat >/etc/cni/net.d/10-bridge.conflist.new && mv /etc/cni/net.d/10-bridge.conflist.new /etc/cni/net.d/10-bridge.conflist' <<end
{ "cniVersion": "1.0.0", "name": "pods", "plugins": [
  { "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
    "type": "host-local", "dataDir": "/run/cni", "ranges": [[{ "subnet": "$v4" }], [{ "subnet": "$v6" }]],
    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true } } ] }
end
    for other in control "${names[@]}"; do
      [ "$other" != "$name" ] || continue
      ip -n "$prefix-$other" route add "$v4" via "10.93.0.1${name#node}"
      ip -n "$prefix-$other" route add "$v6" via "fd93::1${name#node}"
    done
  done
}

# ranges NODE: its podCIDRs, IPv4 first
ranges() { k get node "$1" -o 'jsonpath={.spec.podCIDRs[0]} {.spec.podCIDRs[1]}{"\n"}'; }

has_ranges() { ranges "$1" | grep -q :; }

# The store of the switch's agents, an etcd of its own, and the image, from $VSWITCH_BIN_DIR (default: the release build).
prepare_vswitch() {
  local programs=${VSWITCH_BIN_DIR:-${CARGO_TARGET_DIR:-$here/../../target}/release}
  "$here/image.sh" "$programs" "$state/images/vswitch.tar"
  start switch-etcd.log nsenter --net="/run/netns/$prefix-control" -- "$cache/bin/etcd" --data-dir "$data/switch-etcd" --unsafe-no-fsync \
    --listen-client-urls "http://$control_v4:2479" --advertise-client-urls "http://$control_v4:2479" \
    --listen-peer-urls http://127.0.0.1:2480 --log-level warn
}

install_vswitch() {
  k apply -k "$here/switch" >/dev/null
  k -n kube-system rollout status daemonset/vswitch --timeout=120s >/dev/null || fail "$(k -n kube-system describe pods)"
  k -n kube-system exec -i daemonset/vswitch -c agent -- vsctl apply -f - <"$here/switch/pools.yaml" >/dev/null
}
