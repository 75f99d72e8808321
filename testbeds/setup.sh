# To be sourced by the scripts here, in the repository's top folder, as root: installs the packages that are missing
# and finds cargo. Nothing is done twice.

[ "$(id -u)" = 0 ] || { echo "network namespaces need root: run this with sudo" >&2; exit 1; }

# To build: the steering program (clang, llvm), libxdp (the rest up to zlib1g-dev), the etcd client (protobuf), libFuzzer (g++).
# To run: namespaces and their tools, etcd, the traffic of demo and tests, and what counts instructions. What only
# the tests need is in packages_too.
packages=(
  gcc g++ make pkg-config clang llvm m4 libclang-dev libelf-dev zlib1g-dev linux-libc-dev libc6-dev
  protobuf-compiler libprotobuf-dev
  iproute2 procps util-linux ethtool nftables iputils-ping etcd-server
  sip-tester iperf3 tcpdump tshark
  valgrind
  ${packages_too[@]+"${packages_too[@]}"}
)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >&2
fi

# Under sudo, cargo is most often the caller's: his toolchain builds, and his folders stay his.
builder=()
if ! command -v cargo >/dev/null; then
  for home in "$HOME" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
    [ -x "$home/.cargo/bin/cargo" ] || continue
    export PATH="$home/.cargo/bin:$PATH" RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup} CARGO_HOME=${CARGO_HOME:-$home/.cargo}
    break
  done
  command -v cargo >/dev/null || { echo "no cargo here: install Rust (https://rustup.rs)" >&2; exit 1; }
fi
if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ] && [ "$(stat -c %U .)" = "$SUDO_USER" ]; then
  builder=(sudo -H -u "$SUDO_USER" env "PATH=$PATH")
  [ -z "${CARGO_TARGET_DIR:-}" ] || builder+=("CARGO_TARGET_DIR=$CARGO_TARGET_DIR")
fi
target=${CARGO_TARGET_DIR:-$PWD/target}
