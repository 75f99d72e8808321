#!/usr/bin/env bash
# Makes an OCI archive of files, without Docker: the same bytes for the same files, wherever and whenever it is made.
# Programs bring along the shared libraries they are linked with, so what is inside is of this machine.
#
# usage: oci.sh OUT.tar --as NAME[=PROGRAM [ARGUMENT...]]... [--add FILE:PATH]... [--tree DIR]... [--link TARGET:PATH]...
#   --as     a name for it, with what a container runs by default; several names share the files
#   --add    a file (of a program: with its libraries) and its absolute path inside
#   --tree   everything in a folder, as it is there
#   --link   a symbolic link
set -euo pipefail
umask 022

usage() {
  sed -n '/^# usage/,/^[^#]/s/^# \?//p' "$0" >&2
  exit 2
}

[ $# -gt 2 ] || usage
out=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root blobs=$work/oci/blobs/sha256
mkdir -p "$root" "$blobs"
names=()

add() {
  local from=${1%%:*} to=${1#*:} library
  [ -f "$from" ] || { echo "oci.sh: there is no file $from" >&2; exit 1; }
  mkdir -p "$root/$(dirname "$to")"
  cp -L --preserve=mode "$from" "$root/$to"
  # Of what is no program ldd says so and fails; of a static one as well.
  { ldd "$from" 2>/dev/null || true; } | { grep -oE '/[^ ]+' || true; } | while read -r library; do
    mkdir -p "$root/$(dirname "$library")"
    cp -L --preserve=mode "$library" "$root/$library"
  done
}

while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case $1 in
    --as) names+=("$2") ;;
    --add) add "$2" ;;
    --tree) cp -r --preserve=mode,links "$2/." "$root/" ;;
    --link) mkdir -p "$root/$(dirname "${2#*:}")" && ln -sfn "${2%%:*}" "$root/${2#*:}" ;;
    *) usage ;;
  esac
  shift 2
done
[ ${#names[@]} -gt 0 ] || usage

archive() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -C "$1" -cf "$2" .; }

# blob FILE: moves it among the blobs; prints "DIGEST SIZE"
blob() {
  local sum size
  sum=$(sha256sum "$1" | cut -d' ' -f1)
  size=$(stat -c %s "$1")
  mv "$1" "$blobs/$sum"
  echo "$sum $size"
}

# descriptor TYPE DIGEST SIZE [MORE]
descriptor() { printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s%s}' "$1" "$2" "$3" "${4:-}"; }

# as_list WORD...: a JSON list of strings; words here hold neither quotes nor backslashes
as_list() {
  local list
  list=$(printf '"%s",' "$@")
  echo "[${list%,}]"
}

archive "$root" "$work/layer"
read -r layer layer_size < <(blob "$work/layer")
manifests=()
for entry in "${names[@]}"; do
  name=${entry%%=*} config='"Env":["PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin"]'
  if [ "$name" != "$entry" ]; then
    read -r -a words <<<"${entry#*=}"
    config+=",\"Entrypoint\":$(as_list "${words[0]}")"
    [ ${#words[@]} -lt 2 ] || config+=",\"Cmd\":$(as_list "${words[@]:1}")"
  fi
  printf '{"architecture":"amd64","os":"linux","config":{%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$config" "$layer" >"$work/config"
  read -r digest size < <(blob "$work/config")
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$(descriptor config.v1+json "$digest" "$size")" "$(descriptor layer.v1.tar "$layer" "$layer_size")" >"$work/manifest"
  read -r digest size < <(blob "$work/manifest")
  manifests+=("$(descriptor manifest.v1+json "$digest" "$size" \
    ",\"annotations\":{\"io.containerd.image.name\":\"$name\",\"org.opencontainers.image.ref.name\":\"${name##*:}\"},\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\"}")")
done
printf '{"schemaVersion":2,"manifests":[%s]}' "$(IFS=,; echo "${manifests[*]}")" >"$work/oci/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
archive "$work/oci" "$work/out.tar"
mkdir -p "$(dirname "$out")"
mv "$work/out.tar" "$out"
