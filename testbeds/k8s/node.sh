#!/usr/bin/env bash
# The first process of a node: a machine of its own, as far as namespaces go (network, mounts, processes, host name), so that
# containerd and kubelet have their usual paths, and end, mounts and all, with this process.
#
# usage: node.sh NAME ADDRESSES CNI       called by up.sh within the namespaces
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
name=$1 addresses=$2 cni=$3
disk=$data/$name

hostname "$name"
mount --make-rprivate /
# /run is new; certificates and this node's disk are taken along, since what follows covers the folders they are in.
new=$state/$name.run
mkdir -p "$new" "$disk"/{containerd,kubelet,logs,etc,etc.work,opt,opt.work,var,var.work}
mount -t tmpfs tmpfs "$new"
mkdir "$new"/{disk,lock,mount,"$prefix"}
mount --bind "$disk" "$new/disk"
mount --bind "$state" "$new/$prefix"
mount --no-mtab --move "$new" /run
# What is written to these is the node's own; the machine's stay as they are.
for folder in etc opt var; do
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=/run/disk/$folder,workdir=/run/disk/$folder.work" "/$folder"
done
mkdir -p /var/lib/{containerd,kubelet} /var/log/pods /etc/cni/net.d /opt/cni/bin
rm -rf /etc/cni/net.d/* /opt/cni/bin/*
mount --bind /run/disk/containerd /var/lib/containerd
mount --bind /run/disk/kubelet /var/lib/kubelet
mount --bind /run/disk/logs /var/log/pods
# This namespace's devices, not the machine's; the cgroups as they were.
mkdir /run/cgroups
mount --rbind /sys/fs/cgroup /run/cgroups
mount -t sysfs sysfs /sys
mount --rbind /run/cgroups /sys/fs/cgroup
umount -l /run/cgroups
mount -t bpf bpf /sys/fs/bpf
mount --make-rshared /

# kubelet sets these for the whole machine when they are otherwise. It finds them as it wants them, in files of its own.
for setting in kernel/panic:10 kernel/panic_on_oops:1 kernel/keys/root_maxkeys:1000000 kernel/keys/root_maxbytes:25000000 \
  vm/overcommit_memory:1 vm/panic_on_oom:0; do
  file=/run/$(tr / . <<<"${setting%:*}")
  echo "${setting#*:}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%:*}"
done
cp /usr/lib/cni/loopback /opt/cni/bin/

echo "nameserver $control_v4" >/run/resolv.conf
cat >/run/containerd.toml <<end
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  # Without CAP_SYS_RESOURCE nothing may lower what it has.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
end
containerd --config /run/containerd.toml >"$state/logs/$name.containerd.log" 2>&1 &

ctr() { command ctr --namespace k8s.io "$@"; }
wait_for 30 "containerd of $name, $state/logs/$name.containerd.log" ctr version
for archive in "$state"/images/*.tar; do ctr images import "$archive" >/dev/null; done

cat >/run/kubelet.yaml <<end
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { x509: { clientCAFile: $state/ca.crt }, webhook: { enabled: true }, anonymous: { enabled: false } }
authorization: { mode: Webhook }
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$prefix/$name
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
# The machine's disk is everybody's: how full it is says nothing about a node.
evictionHard: { memory.available: 100Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%, imagefs.inodesFree: 0% }
imageGCHighThresholdPercent: 100
clusterDNS: [10.93.0.11]
clusterDomain: cluster.local
resolvConf: /run/resolv.conf
makeIPTablesUtilChains: false
maxPods: 260
registryPullQPS: 0
end
"$cache/bin/kubelet" --config /run/kubelet.yaml --kubeconfig "$state/$name.conf" --hostname-override "$name" \
  --node-ip "$addresses" >"$state/logs/$name.kubelet.log" 2>&1 &
if [ "$cni" = bridge ]; then
  cat >/run/proxy.yaml <<end
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: $state/proxy.conf }
hostnameOverride: $name
mode: nftables
clusterCIDR: "$pods_v4,$pods_v6"
# 0: the machine's own settings stay.
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
end
  "$cache/bin/kube-proxy" --config /run/proxy.yaml >"$state/logs/$name.proxy.log" 2>&1 &
fi
# Processes whose parents are gone come to this one, and waiting takes them away.
wait
