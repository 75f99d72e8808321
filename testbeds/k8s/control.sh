# To be sourced by up.sh: the underlay and the control plane on it.
# shellcheck shell=bash disable=SC2154

# start LOG COMMAND...: a daemon; it is in the cgroup that up.sh is in, by which down.sh finds it
start() {
  local log=$1
  shift
  setsid "$@" >"$state/logs/$log" 2>&1 </dev/null &
}

# The wire: a namespace with a bridge that every node is plugged into, as in ../src/bed.
build_underlay() {
  local ns=$prefix-control
  ip netns add "$ns"
  ip -n "$ns" link set lo up
  ip -n "$ns" link add br0 address 02:00:00:00:bb:01 type bridge forward_delay 0 mcast_snooping 0
  ip -n "$ns" link set br0 up
  ip -n "$ns" addr add "$control_v4/24" dev br0
  ip -n "$ns" addr add "$control_v6/64" dev br0 nodad
}

start_control() {
  local bin=$cache/bin ns=$prefix-control
  start etcd.log nsenter --net="/run/netns/$ns" -- "$bin/etcd" --data-dir "$data/etcd" --unsafe-no-fsync \
    --listen-client-urls "http://127.0.0.1:2379" --advertise-client-urls "http://127.0.0.1:2379" \
    --listen-peer-urls "http://127.0.0.1:2380" --log-level warn
  start apiserver.log nsenter --net="/run/netns/$ns" -- "$bin/kube-apiserver" \
    --etcd-servers http://127.0.0.1:2379 --advertise-address "$control_v4" --authorization-mode Node,RBAC \
    --allow-privileged --client-ca-file "$state/ca.crt" \
    --tls-cert-file "$state/apiserver.crt" --tls-private-key-file "$state/apiserver.key" \
    --kubelet-client-certificate "$state/admin.crt" --kubelet-client-key "$state/admin.key" \
    --kubelet-preferred-address-types InternalIP --service-cluster-ip-range "$service_v4,$service_v6" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$state/service-accounts.key" --service-account-signing-key-file "$state/service-accounts.key" \
    --enable-admission-plugins NodeRestriction --profiling=false
  wait_for 120 "the API server, $state/logs/apiserver.log" k get --raw /readyz
  start manager.log nsenter --net="/run/netns/$ns" -- "$bin/kube-controller-manager" --kubeconfig "$state/manager.conf" \
    --leader-elect=false --allocate-node-cidrs --cluster-cidr "$pods_v4,$pods_v6" --node-cidr-mask-size-ipv6 64 \
    --service-cluster-ip-range "$service_v4,$service_v6" --root-ca-file "$state/ca.crt" \
    --cluster-signing-cert-file "$state/ca.crt" --cluster-signing-key-file "$state/ca.key" \
    --service-account-private-key-file "$state/service-accounts.key" --use-service-account-credentials
  start scheduler.log nsenter --net="/run/netns/$ns" -- "$bin/kube-scheduler" --kubeconfig "$state/scheduler.conf" --leader-elect=false
}
