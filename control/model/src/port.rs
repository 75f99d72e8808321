//! Ports the agent asks for: the engine's ends of pods.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Invalid, Mac};

/// Names a port; for a veth the name of its host end. 1 to 15 bytes, as the kernel's interface names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortName(String);

impl PortName {
    /// A name, when the kernel would take it (`dev_valid_name`, net/core/dev.c).
    pub fn new(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        if fits && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
            Ok(Self(name))
        } else {
            Err(Invalid::new(
                "",
                format!("{name:?} is not an interface name: 1 to 15 bytes without / : or blanks"),
            ))
        }
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for PortName {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        Self::new(name)
    }
}

impl From<PortName> for String {
    fn from(name: PortName) -> Self {
        name.0
    }
}

/// How frames get in and out of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attachment {
    /// A veth whose host end the engine opens with AF_XDP.
    Veth {
        /// Name of the host end.
        interface: PortName,
        /// Path of the network namespace the host end is in. None: the engine's own.
        netns: Option<String>,
    },
    /// A tun device in the pod, which the engine makes and keeps: IP packets without Ethernet. It stays when the engine
    /// goes; whoever made the pod's network deletes it.
    Tun {
        /// Its name in the pod.
        interface: PortName,
        /// Path of the pod's network namespace.
        netns: String,
    },
}

impl Attachment {
    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> PortKind {
        match self {
            Self::Veth { .. } => PortKind::Veth,
            Self::Tun { .. } => PortKind::Tun,
        }
    }

    /// Whether a pod attached so may have this Ethernet address: one of its own on a veth, zeros (none) on a tun.
    #[must_use]
    pub fn allows(&self, mac: Mac) -> bool {
        match self {
            Self::Veth { .. } => !mac.is_multicast() && mac != Mac::default() && mac != Mac::GATEWAY,
            Self::Tun { .. } => mac == Mac::default(),
        }
    }
}

/// The kinds of pods' ports, as people name them: `veth`, `tun`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PortKind {
    /// A veth with AF_XDP: Ethernet, and the lowest delay.
    #[default]
    Veth,
    /// A tun: IP only, with segmentation offloads.
    Tun,
}

impl PortKind {
    /// Annotation of a pod, or of an IP pool, that chooses the kind of a pod's port.
    pub const ANNOTATION: &'static str = "vswitch/port";

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Tun => "tun",
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for PortKind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "veth" => Ok(Self::Veth),
            "tun" => Ok(Self::Tun),
            _ => Err(Invalid::new("", format!("\"{text}\" is no kind of port: veth or tun would be right"))),
        }
    }
}

/// One pod's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name, unique on the node.
    pub name: PortName,
    /// How it is attached.
    pub attachment: Attachment,
    /// The pod's Ethernet address: the only source it may use, and the destination of what it gets. Zeros on a tun.
    pub mac: Mac,
    /// The pod's addresses: the only sources it may use, and what is delivered to it.
    pub addresses: Vec<IpAddr>,
    /// The pod's MTU in bytes, [`crate::limits::MTU_MIN`] to [`crate::limits::MTU_MAX`].
    pub mtu: u16,
    /// Whose it is, for people: `namespace/pod`.
    pub workload: String,
}
