//! Names and addresses that follow from an attachment alone, so that a repeated ADD, a DEL without a result and a GC
//! all find the same interface.

use sha1::{Digest, Sha1};
use vswitch_model::Mac;

/// What the name of every host end starts with.
pub const HOST_PREFIX: &str = "vsw";
/// Hexadecimal digits after [`HOST_PREFIX`]: together 14 bytes, one less than the kernel allows.
const HOST_DIGITS: usize = 11;

/// One attachment: a container's interface on one network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId {
    /// The runtime's id of the container (of its sandbox).
    pub container: String,
    /// Name of the interface in the pod.
    pub ifname: String,
}

impl AttachmentId {
    /// The attachment of `ifname` in `container`.
    pub fn new(container: impl Into<String>, ifname: impl Into<String>) -> Self {
        Self { container: container.into(), ifname: ifname.into() }
    }

    /// Name of the veth's host end: `vsw` and 44 bits of SHA-1 over container id and interface name.
    #[must_use]
    pub fn host_interface(&self) -> String {
        let digest = self.digest("");
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{HOST_PREFIX}{}", &hex[..HOST_DIGITS])
    }

    /// Ethernet address of the pod's end: unicast, locally administered, 46 bits of SHA-1.
    #[must_use]
    pub fn pod_mac(&self) -> Mac {
        let digest = self.digest("mac");
        let mut mac = [0; 6];
        mac.copy_from_slice(&digest[..6]);
        mac[0] = mac[0] & 0xfc | 0x02;
        Mac(mac)
    }

    /// Container ids hold no NUL byte and neither do interface names, so the parts cannot run into each other.
    fn digest(&self, salt: &str) -> [u8; 20] {
        let mut hash = Sha1::new();
        for part in [&self.container, "\0", &self.ifname, "\0", salt] {
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }
}

/// Whether `name` has the form of a host end of ours.
#[must_use]
pub fn is_host_interface(name: &str) -> bool {
    name.strip_prefix(HOST_PREFIX).is_some_and(|digits| {
        digits.len() == HOST_DIGITS
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// The alias of a host end, `vswitch-cni/NETWORK/CONTAINER/IFNAME`: whose it is, for people and for GC.
#[must_use]
pub fn host_alias(network: &str, id: &AttachmentId) -> String {
    // The kernel keeps at most 255 bytes (IFALIASZ); the front is what GC looks at.
    let mut alias = format!("{}{}/{}", alias_prefix(network), id.container, id.ifname);
    alias.truncate(alias.floor_char_boundary(255));
    alias
}

/// What the alias of every host end of `network` starts with.
#[must_use]
pub fn alias_prefix(network: &str) -> String {
    format!("vswitch-cni/{network}/")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn host_ends_are_named_by_container_and_interface() {
        let id = AttachmentId::new("0123abcd", "eth0");
        let name = id.host_interface();
        assert_eq!(name.len(), 14);
        assert!(is_host_interface(&name), "{name}");
        assert_eq!(name, AttachmentId::new("0123abcd", "eth0").host_interface());
        let others = [("0123abcd", "eth1"), ("0123abc", "deth0"), ("0123abce", "eth0")];
        let names: HashSet<_> =
            others.iter().map(|(c, i)| AttachmentId::new(*c, *i).host_interface()).collect();
        assert_eq!(names.len(), 3);
        assert!(!names.contains(&name));
    }

    #[test]
    fn the_host_port_is_not_mistaken_for_a_pods() {
        for name in ["vswitch0", "vsw", "vsw0123456789", "vsw0123456789g", "vsw0123456789A", "eth0"] {
            assert!(!is_host_interface(name), "{name}");
        }
    }

    #[test]
    fn pod_macs_are_local_unicast() {
        for n in 0..64 {
            let Mac(mac) = AttachmentId::new(format!("c{n}"), "eth0").pod_mac();
            assert_eq!(mac[0] & 0b11, 0b10);
        }
    }
}
