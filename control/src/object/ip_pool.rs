//! `projectcalico.org/v3` IPPool, as far as this engine can do what it says.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::ObjectMeta;
use super::ranges::check_cidr;

/// A range that addresses of pods and tunnels come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpPool {
    /// Its name.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: IpPoolSpec,
}

/// What an IPPool says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The range.
    pub cidr: IpNet,
    /// Prefix length of the blocks nodes get: 20 to 32, default 26; for IPv6 116 to 128, default 122.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// When packets to another node's pods travel in VXLAN.
    #[serde(default)]
    pub vxlan_mode: EncapsulationMode,
    /// When they travel in IP-in-IP: of the two modes one at least is Never. Either family, where Calico has IPv4 alone.
    #[serde(default, skip_serializing_if = "EncapsulationMode::is_never")]
    pub ipip_mode: EncapsulationMode,
    /// Translation of pods' addresses towards the outside: only false is supported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nat_outgoing: bool,
    /// No new addresses come from it; those in use stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// The nodes that may take blocks: only `all()` is supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<String>,
    /// What its addresses are for. Missing or empty: Workload and Tunnel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_uses: Vec<AllowedUse>,
    /// Whether its routes may be told to BGP peers; nothing here speaks BGP, so only the default, false, is supported.
    #[serde(default, rename = "disableBGPExport", skip_serializing_if = "std::ops::Not::not")]
    pub disable_bgp_export: bool,
    /// How addresses are assigned: only Automatic is supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_mode: Option<String>,
}

/// When packets to other nodes' pods are encapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EncapsulationMode {
    /// Never: the underlay routes pods' addresses.
    #[default]
    Never,
    /// Always.
    Always,
    /// Only to nodes in another subnet of the underlay.
    CrossSubnet,
}

/// What addresses of a pool are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AllowedUse {
    /// Pods.
    Workload,
    /// Nodes' own addresses in the pods' network.
    Tunnel,
}

/// Ranges whose addresses no pod may have, and why.
const UNFIT: [(IpNet, &str); 7] = [
    (v4([0, 0, 0, 0], 8), "no station has such an address (RFC 1122, section 3.2.1.3)"),
    (v4([127, 0, 0, 0], 8), "the addresses of each station for itself"),
    (v4([169, 254, 0, 0], 16), "addresses of one link, no further"),
    (v4([224, 0, 0, 0], 3), "addresses of groups, and those that are for nobody"),
    (v6(0, 127), "the addresses of each station for itself"),
    (v6(0xfe80, 10), "addresses of one link, no further"),
    (v6(0xff00, 8), "addresses of groups"),
];

const fn v4(first: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = first;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(first: u16, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length))
}

fn overlaps(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

impl EncapsulationMode {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
    fn is_never(&self) -> bool {
        *self == Self::Never
    }
}

impl IpPool {
    /// Prefix length of its blocks.
    #[must_use]
    pub fn block_size(&self) -> u8 {
        self.spec.block_size.unwrap_or(if self.is_ipv4() { 26 } else { 122 })
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        matches!(self.spec.cidr, IpNet::V4(_))
    }

    /// When packets to other nodes' pods are encapsulated, whether in VXLAN or in IP-in-IP.
    #[must_use]
    pub fn encapsulation_mode(&self) -> EncapsulationMode {
        if self.is_ip_in_ip() { self.spec.ipip_mode } else { self.spec.vxlan_mode }
    }

    /// Whether what is encapsulated is in IP-in-IP; else it is in VXLAN.
    #[must_use]
    pub fn is_ip_in_ip(&self) -> bool {
        self.spec.ipip_mode != EncapsulationMode::Never
    }

    /// Whether new addresses may come from it for this use.
    #[must_use]
    pub fn serves(&self, purpose: AllowedUse) -> bool {
        !self.spec.disabled
            && (self.spec.allowed_uses.is_empty() || self.spec.allowed_uses.contains(&purpose))
    }

    /// Whether pods may have its addresses. A pool that is in use already is kept when not.
    pub fn check_fit(&self) -> Result<(), Invalid> {
        let cidr = self.spec.cidr;
        match UNFIT.into_iter().find(|(range, _)| overlaps(*range, cidr)) {
            Some((range, what)) => Err(Invalid::new("spec.cidr", format!("{cidr} overlaps {range}: {what}"))),
            None => Ok(()),
        }
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        let wrong = |field: &str, problem: String| Err(Invalid::new(format!("spec.{field}"), problem));
        check_cidr(spec.cidr).map_err(|problem| Invalid::new("spec.cidr", problem))?;
        let (first, last) = if self.is_ipv4() { (20, 32) } else { (116, 128) };
        let size = self.block_size();
        if !(first..=last).contains(&size) {
            return wrong("blockSize", format!("{size} is out of range: {first} to {last}"));
        }
        if size < spec.cidr.prefix_len() {
            return wrong("blockSize", format!("a block of /{size} does not fit the pool {}", spec.cidr));
        }
        if spec.ipip_mode != EncapsulationMode::Never && spec.vxlan_mode != EncapsulationMode::Never {
            return wrong(
                "ipipMode",
                format!(
                    "{:?} beside vxlanMode {:?}: one of them has to be Never",
                    spec.ipip_mode, spec.vxlan_mode
                ),
            );
        }
        if spec.nat_outgoing {
            return wrong("natOutgoing", "true is not supported yet; leave it out or set false".into());
        }
        if spec.disable_bgp_export {
            return wrong(
                "disableBGPExport",
                "true is not supported: nothing here speaks BGP; leave it out".into(),
            );
        }
        if let Some(selector) =
            spec.node_selector.as_deref().filter(|s| !s.trim().is_empty() && s.trim() != "all()")
        {
            return wrong(
                "nodeSelector",
                format!("\"{selector}\" is not supported yet; all() is, or leave it out"),
            );
        }
        if let Some(mode) = spec.assignment_mode.as_deref().filter(|mode| *mode != "Automatic") {
            return wrong(
                "assignmentMode",
                format!("\"{mode}\" is not supported yet; Automatic is, or leave it out"),
            );
        }
        Ok(())
    }
}
