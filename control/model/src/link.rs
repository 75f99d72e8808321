//! Link-layer values: Ethernet addresses and VXLAN network identifiers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::Invalid;

/// An Ethernet address, printed and read as `ee:ee:ee:ee:ee:ee`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of every pod's gateway (Calico's convention).
    pub const GATEWAY: Self = Self([0xee; 6]);
    /// Every station of the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The VTEP address Calico derives for a node's IPv4 tunnel: 0x66, then five bytes of SHA-1 of the node's name.
    #[must_use]
    pub fn vtep_v4(node: &str) -> Self {
        Self::vtep(node)
    }

    /// The same for the IPv6 tunnel, whose hash covers the name followed by `-v6`.
    #[must_use]
    pub fn vtep_v6(node: &str) -> Self {
        Self::vtep(&format!("{node}-v6"))
    }

    fn vtep(hashed: &str) -> Self {
        let digest = Sha1::digest(hashed.as_bytes());
        let mut mac = [0x66, 0, 0, 0, 0, 0];
        mac[1..].copy_from_slice(&digest[..5]);
        Self(mac)
    }

    /// Whether the address names a group of stations, broadcast included.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong =
            || Invalid::new("", format!("\"{text}\" is not an Ethernet address such as 0a:58:0a:00:00:01"));
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(mac)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// A VXLAN network identifier, 24 bits wide (RFC 7348, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// Largest identifier.
    pub const MAX: u32 = (1 << 24) - 1;
    /// Calico's network.
    pub const CALICO: Self = Self(4096);
    /// flannel's network.
    pub const FLANNEL: Self = Self(1);

    /// The identifier `value`, when it fits 24 bits.
    pub fn new(value: u32) -> Result<Self, Invalid> {
        if value <= Self::MAX {
            Ok(Self(value))
        } else {
            Err(Invalid::new("", format!("{value} is not a VNI: 0 to {}", Self::MAX)))
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = Invalid;

    fn try_from(value: u32) -> Result<Self, Invalid> {
        Self::new(value)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_as_it_is_printed() {
        let mac = Mac([0x02, 0, 0x0a, 0xff, 1, 0x10]);
        assert_eq!(mac.to_string(), "02:00:0a:ff:01:10");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for wrong in
            ["", "02:00", "2:0:a:f:1:1", "02:00:0a:ff:01:10:11", "02-00-0a-ff-01-10", "0g:00:0a:ff:01:10"]
        {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn vtep_addresses_follow_calicos_rule() {
        // What `printf %s node-1 | sha1sum` begins with, and the same for node-1-v6.
        assert_eq!(Mac::vtep_v4("node-1").to_string(), "66:b3:68:28:39:8e");
        assert_eq!(Mac::vtep_v6("node-1").to_string(), "66:24:ac:63:df:6c");
    }

    #[test]
    fn a_vni_has_24_bits() {
        assert_eq!(Vni::new(4096), Ok(Vni::CALICO));
        assert!(Vni::new(1 << 24).is_err());
    }
}
