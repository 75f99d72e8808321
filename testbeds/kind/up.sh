#!/usr/bin/env bash
# A cluster of kind with the switch as its network, from the manifest that users install. Wants Docker, kind and kubectl, and
# the programs of a release build (VSWITCH_BIN_DIR: where they are).
#
# usage: up.sh [NAME]       NAME: of the cluster, default vswitch; kind delete cluster --name NAME takes it away
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=${1:-vswitch}
programs=${VSWITCH_BIN_DIR:-${CARGO_TARGET_DIR:-$here/../../target}/release}

for program in docker kind kubectl; do
  command -v "$program" >/dev/null || { echo "$program is needed, and not here" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../k8s/image.sh" "$programs" "$work/vswitch.tar"
kind create cluster --name "$name" --config "$here/cluster.yaml"
kind load image-archive --name "$name" "$work/vswitch.tar"
# The agents' store, which they share: an etcd of its own, in the network of the control plane's node.
kubectl --context "kind-$name" apply -f "$here/etcd.yaml"
control=$(kubectl --context "kind-$name" get nodes -l node-role.kubernetes.io/control-plane \
  -o 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
read -r control _ <<<"$control"
mkdir "$work/switch"
cp -r "$here/../../deploy/base" "$work/base"
cat >"$work/switch/kustomization.yaml" <<end
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: kube-system
resources: [../base]
configMapGenerator:
  - { name: vswitch, behavior: merge, files: [agent.toml] }
end
printf '[store]\netcd = ["http://%s:2479"]\n' "$control" >"$work/switch/agent.toml"
kubectl --context "kind-$name" apply -k "$work/switch"
kubectl --context "kind-$name" -n kube-system rollout status daemonset/vswitch --timeout=120s
kubectl --context "kind-$name" -n kube-system exec -i daemonset/vswitch -c agent -- vsctl apply -f - <"$here/../k8s/switch/pools.yaml"
kubectl --context "kind-$name" wait --for=condition=Ready node --all --timeout=120s
