//! Offloads by ethtool's netlink family (Documentation/networking/ethtool-netlink.rst), by the names `ethtool -k` has.

use std::collections::BTreeSet;
use std::io;

use super::genl::{Genl, attributes, find, flag, nest, number, text};

// linux/ethtool_netlink.h
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const HEADER_DEV_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
const FLAG_OMIT_REPLY: u32 = 1 << 1;
const BITSET_NOMASK: u16 = 1;
const BITSET_BITS: u16 = 3;
const BITSET_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// Checksums of what the pod sends are left to the device: of TCP and UDP, and SCTP's. Behind a veth nobody would
/// write them.
pub const TX_CHECKSUMS: [&str; 2] = ["tx-checksum-ip-generic", "tx-checksum-sctp"];
/// Packets that arrive are joined before the stack sees them; on a veth this is also what gives it NAPI.
pub const RX_GRO: &str = "rx-gro";

/// Offloads of interfaces in the namespace of the thread that opened it.
pub struct Ethtool {
    genl: Genl,
}

impl Ethtool {
    /// A socket to the family. ENOENT: the kernel has none (before 5.6, or built without).
    pub fn open() -> io::Result<Self> {
        Ok(Self { genl: Genl::open("ethtool", 1)? })
    }

    /// Switches one offload. The kernel refuses a name it does not know (EOPNOTSUPP); that it granted the wish is seen
    /// only in [`Ethtool::active`].
    pub fn set(&mut self, index: u32, feature: &str, on: bool) -> io::Result<()> {
        let mut bit = vec![text(BIT_NAME, feature)];
        if on {
            bit.push(flag(BIT_VALUE));
        }
        let bits = nest(BITSET_BITS, &[nest(BITSET_BIT, &bit)]);
        let header =
            nest(FEATURES_HEADER, &[number(HEADER_DEV_INDEX, index), number(HEADER_FLAGS, FLAG_OMIT_REPLY)]);
        self.genl.call(FEATURES_SET, &[header, nest(FEATURES_WANTED, &[bits])]).map(drop)
    }

    /// The offloads that are on now.
    pub fn active(&mut self, index: u32) -> io::Result<BTreeSet<String>> {
        let header = nest(FEATURES_HEADER, &[number(HEADER_DEV_INDEX, index)]);
        let answers = self.genl.call(FEATURES_GET, &[header])?;
        let active = answers.iter().find_map(|answer| find(answer, FEATURES_ACTIVE)).unwrap_or_default();
        Ok(names(active))
    }
}

/// The names of the bits that are set. A bitset without a mask lists only those; one with a mask marks them.
fn names(bitset: &[u8]) -> BTreeSet<String> {
    let lists_only_set = find(bitset, BITSET_NOMASK).is_some();
    let bits = find(bitset, BITSET_BITS).unwrap_or_default();
    attributes(bits)
        .filter(|(kind, bit)| *kind == BITSET_BIT && (lists_only_set || find(bit, BIT_VALUE).is_some()))
        .filter_map(|(_, bit)| find(bit, BIT_NAME))
        .map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
        .collect()
}
