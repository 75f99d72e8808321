#!/usr/bin/env bash
# Makes the switch's container image, an OCI archive, from a folder of its programs (built on Debian 12). It has a shell
# (busybox), too: for the step that installs the CNI plugins, and for people.
#
# usage: image.sh PROGRAMS OUT.tar [NAME]        NAME: default docker.io/vswitch/vswitch:dev
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

[ $# -ge 2 ] || fail "usage: image.sh PROGRAMS OUT.tar [NAME]"
programs=$1 out=$2 name=${3:-docker.io/vswitch/vswitch:dev}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

add=()
for program in vswitchd vswitch-agent vsctl vswitch-cni vswitch-ipam; do
  [ -x "$programs/$program" ] || fail "image.sh: there is no $programs/$program: cargo build --release --workspace --bins"
  # What a debugger wants is most of a program's size, and nobody has one there.
  strip --strip-debug -o "$work/$program" "$programs/$program"
  case $program in
    vswitch-cni | vswitch-ipam) add+=(--add "$work/$program:/opt/cni/bin/$program") ;;
    *) add+=(--add "$work/$program:/usr/bin/$program") ;;
  esac
done
busybox=$(debian_busybox)
add+=(--add "$busybox:/usr/bin/busybox")
for applet in "[" sh cp mv rm mkdir chmod cat ls; do add+=(--link "busybox:/usr/bin/$applet"); done
# Runtimes name network namespaces by the older path.
add+=(--link usr/bin:/bin --link ../run:/var/run)
"$here/oci.sh" "$out" --as "$name" "${add[@]}"
