#!/usr/bin/env bash
# Makes the archives of images that a cluster and upstream's tests need, in $cache/images, from what build.sh built and this
# machine's own tools. What is there and still right is left alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

images=$cache/images
mkdir -p "$images"

# fresh NAME FILE...: whether the archive NAME is newer than the files and the scripts here
fresh() {
  local name=$1 file
  shift
  for file in "$@" "$here/oci.sh" "$here/images.sh"; do
    [ "$images/$name.tar" -nt "$file" ] || return 1
  done
}

# tools_tree DIR: what Alpine's packages are in upstream's agnhost image: a shell, and the tools that tests run in pods
tools_tree() {
  local tree=$1
  mkdir -p "$tree"/{etc,root,tmp,uploads,usr/bin,usr/sbin,var/tmp}
  chmod 1777 "$tree/tmp" "$tree/var/tmp"
  ln -s usr/bin "$tree/bin"
  ln -s usr/sbin "$tree/sbin"
  printf '%s\n' 'root:x:0:0::/root:/bin/sh' 'user-defined-in-image:x:1000:1000::/:/bin/sh' 'nobody:x:65534:65534::/:/bin/sh' >"$tree/etc/passwd"
  printf '%s\n' root:x:0: user-defined-in-image:x:1000: group-defined-in-image:x:50000:user-defined-in-image nogroup:x:65534: >"$tree/etc/group"
  echo 'hosts: files dns' >"$tree/etc/nsswitch.conf"
}

if ! fresh pause "$cache/bin/pause"; then
  "$here/oci.sh" "$images/pause.tar" --add "$cache/bin/pause:/pause" --as "$pause_image=/pause"
fi
if ! fresh coredns "$cache/bin/coredns"; then
  "$here/oci.sh" "$images/coredns.tar" --add "$cache/bin/coredns:/coredns" --as "$coredns_image=/coredns"
fi
if ! fresh tools "$cache/bin/agnhost"; then
  say "making the image of upstream's test tools"
  tree=$(mktemp -d)
  trap 'rm -rf "$tree"' EXIT
  tools_tree "$tree"
  busybox=$(debian_busybox)
  # What upstream's image has beside agnhost, for its server of TLS.
  find_go
  porter=$(go list -C "$here/go" -f '{{.Dir}}' k8s.io/kubernetes/test/images/agnhost)/porter
  add=(--add "$busybox:/usr/bin/busybox" --add "$cache/bin/agnhost:/agnhost" --link agnhost:/agnhost-2
    --add "$porter/localhost.crt:/localhost.crt" --add "$porter/localhost.key:/localhost.key")
  for tool in bash curl dig iperf nc ip ss getent; do
    add+=(--add "$(readlink -f "$(command -v "$tool")"):/usr/bin/$tool")
  done
  while read -r applet; do
    case $applet in bash | curl | dig | iperf | nc | ip | ss | getent) ;; *) add+=(--link "busybox:/usr/bin/$applet") ;; esac
  done < <("$busybox" --list)
  names=("$agnhost_image=/agnhost pause")
  for image in $busybox_images; do names+=("$image=/bin/sh"); done
  named=()
  for name in "${names[@]}"; do named+=(--as "$name"); done
  "$here/oci.sh" "$images/tools.tar" --tree "$tree" "${add[@]}" "${named[@]}"
fi
