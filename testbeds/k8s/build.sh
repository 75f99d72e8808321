#!/usr/bin/env bash
# Builds Kubernetes, its tests and what else a cluster needs from Go modules, into $cache/bin. What is there already and of
# this version is left alone, so that a second call costs nothing.
#
# usage: build.sh [--only NAME]...       NAME: kubernetes, pause, coredns, cnitool, agnhost, e2e.test
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=common.sh
. ./common.sh

cnitool=github.com/containernetworking/cni/cnitool@v1.3.1
all=(kubernetes pause coredns cnitool agnhost e2e.test)

only=()
while [ $# -gt 0 ]; do
  case $1 in
    --only) only+=("${2:?--only wants a name: ${all[*]}}"); shift 2 ;;
    *) fail "build.sh: $1 is no option; only --only NAME is" ;;
  esac
done
[ ${#only[@]} -gt 0 ] || only=("${all[@]}")

find_go
version=$(go list -C go -m -f '{{.Version}}' k8s.io/kubernetes)
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath -p=${VSWITCH_K8S_JOBS:-$(nproc)}"
flags="-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/client-go/pkg/version.gitVersion=$version"

# one_program NAME: builds it to $cache/bin/NAME.new
one_program() {
  local out=$cache/bin/$1.new
  case $1 in
    kubernetes | pause | coredns) go build -C go -ldflags "$flags" -o "$out" "./$1" ;;
    agnhost) go build -C go -ldflags "$flags" -o "$out" k8s.io/kubernetes/test/images/agnhost ;;
    e2e.test) go test -C go -c -vet=off -ldflags "$flags" -o "$out" k8s.io/kubernetes/test/e2e ;;
    # A module of its own: its dependencies and Kubernetes' need not agree.
    cnitool)
      GOBIN=$cache/bin/install go install -ldflags '-s -w' "$cnitool"
      mv "$cache/bin/install/$1" "$out"
      ;;
    *) fail "build.sh: there is no $1 to build, only ${all[*]}" ;;
  esac
}

mkdir -p "$cache/bin"
sources=$(cat build.sh go/go.mod go/go.sum | sha256sum)
for name in "${only[@]}"; do
  own=
  if [ -d "go/$name" ]; then own=$(cat "go/$name"/*.go | sha256sum); fi
  stamp="$(go env GOVERSION) ${sources%% *} ${own%% *}"
  if [ -x "$cache/bin/$name" ] && [ "$(cat "$cache/bin/$name.stamp" 2>/dev/null)" = "$stamp" ]; then continue; fi
  say "building $name"
  started=$SECONDS
  one_program "$name"
  mv "$cache/bin/$name.new" "$cache/bin/$name"
  echo "$stamp" >"$cache/bin/$name.stamp"
  say "built $name in $((SECONDS - started)) s"
done
for link in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
  ln -sfn kubernetes "$cache/bin/$link"
done
