#!/usr/bin/env bash
# Makes a cluster's keys, certificates and kubeconfigs in $state.
#
# usage: pki.sh NODE...
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
umask 077
cd "$state"

key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1.key"; }

# certificate FILE SUBJECT USAGE [SUBJECT-ALTERNATIVE-NAMES]
certificate() {
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
    -extfile <(printf 'extendedKeyUsage=%s\n%s\n' "$3" "${4:+subjectAltName=$4}") 2>/dev/null
  rm "$1.csr"
}

# kubeconfig FILE: for the holder of FILE.crt
kubeconfig() {
  cat >"$1.conf" <<end
apiVersion: v1
kind: Config
clusters: [{ name: c, cluster: { server: "$api", certificate-authority-data: "$(base64 -w0 ca.crt)" } }]
users: [{ name: u, user: { client-certificate-data: "$(base64 -w0 "$1.crt")", client-key-data: "$(base64 -w0 "$1.key")" } }]
contexts: [{ name: c, context: { cluster: c, user: u } }]
current-context: c
end
}

key ca
openssl req -x509 -new -key ca.key -subj /CN=vswitch-testbed -days 30 -out ca.crt
key service-accounts
certificate apiserver /CN=kube-apiserver serverAuth \
  "IP:$control_v4,IP:$control_v6,IP:${service_v4%.*}.1,IP:${service_v6%/*}1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
certificate admin /O=system:masters/CN=admin clientAuth
certificate manager /CN=system:kube-controller-manager clientAuth
certificate scheduler /CN=system:kube-scheduler clientAuth
certificate proxy /CN=system:kube-proxy clientAuth
for node in "$@"; do certificate "$node" "/O=system:nodes/CN=system:node:$node" clientAuth; done
for who in admin manager scheduler proxy "$@"; do kubeconfig "$who"; done
