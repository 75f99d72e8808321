//! What flannel's daemon writes at the object of its node, for the others to reach it by
//! (flannel `pkg/subnet/kube/annotations.go`, `pkg/backend/vxlan/vxlan.go`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use vswitch_model::{Invalid, Mac, Vni};

use super::Node;
use super::meta::check_address;

/// Annotation: `true` where flannel keeps its state at the nodes' objects.
const SUBNET_MANAGER: &str = "flannel.alpha.coreos.com/kube-subnet-manager";
/// Annotation: how its nodes send to each other; `vxlan`.
const BACKEND_TYPE: &str = "flannel.alpha.coreos.com/backend-type";
/// Annotation: the node's end of the VXLAN network, [`Data`].
const BACKEND_DATA: &str = "flannel.alpha.coreos.com/backend-data";
/// Annotation: the same over IPv6; `null` where there is none.
const BACKEND_DATA_V6: &str = "flannel.alpha.coreos.com/backend-v6-data";
/// Annotation: the node's address on the underlay.
const PUBLIC_IP: &str = "flannel.alpha.coreos.com/public-ip";
/// Annotation: the same of IPv6.
const PUBLIC_IP_V6: &str = "flannel.alpha.coreos.com/public-ipv6";

/// A node of flannel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flannel {
    /// How its nodes send to each other.
    pub backend: String,
    /// Its end of the VXLAN network over IPv4.
    pub v4: Option<Vtep>,
    /// The same over IPv6.
    pub v6: Option<Vtep>,
}

/// An end of flannel's VXLAN network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep {
    /// The node's address on the underlay.
    pub address: IpAddr,
    /// The network.
    pub vni: Vni,
    /// Its Ethernet address in the network.
    pub mac: Mac,
}

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    /// Older versions write none; it is 1 by default.
    #[serde(rename = "VNI", default = "default_vni")]
    vni: u32,
    #[serde(rename = "VtepMAC")]
    mac: Mac,
}

fn default_vni() -> u32 {
    Vni::FLANNEL.get()
}

impl Flannel {
    /// Annotations that say these things.
    pub const ANNOTATIONS: [&str; 6] =
        [SUBNET_MANAGER, BACKEND_TYPE, BACKEND_DATA, BACKEND_DATA_V6, PUBLIC_IP, PUBLIC_IP_V6];

    /// What a node says of itself; None where flannel does not run. A family of which it says something wrong is left out:
    /// the other is no worse for it ([`Flannel::check`] tells).
    #[must_use]
    pub fn of(node: &Node) -> Option<Self> {
        let backend = backend(node)?;
        let [v4, v6] = [true, false].map(|is_ipv4| vtep(node, is_ipv4).ok().flatten());
        Some(Self { backend: backend.to_owned(), v4, v6 })
    }

    /// Whether all that a node says of itself is right; the error names the annotation.
    pub fn check(node: &Node) -> Result<(), Invalid> {
        vtep(node, true)?;
        vtep(node, false).map(drop)
    }

    /// One of VXLAN with these ends.
    #[must_use]
    pub fn vxlan(v4: Option<Vtep>, v6: Option<Vtep>) -> Self {
        Self { backend: "vxlan".to_owned(), v4, v6 }
    }

    /// Its end over a family of the underlay.
    #[must_use]
    pub fn over(&self, is_ipv4: bool) -> Option<Vtep> {
        if is_ipv4 { self.v4 } else { self.v6 }
    }

    /// What a node writes at its object that is this.
    #[must_use]
    pub fn annotations(&self) -> Vec<(&'static str, String)> {
        let data = |vtep: &Option<Vtep>| {
            let data = vtep.map(|vtep| Data { vni: vtep.vni.get(), mac: vtep.mac });
            serde_json::to_string(&data).unwrap_or_default()
        };
        let mut all = vec![
            (SUBNET_MANAGER, "true".to_owned()),
            (BACKEND_TYPE, self.backend.clone()),
            (BACKEND_DATA, data(&self.v4)),
            (BACKEND_DATA_V6, data(&self.v6)),
        ];
        all.extend(self.v4.map(|vtep| (PUBLIC_IP, vtep.address.to_string())));
        all.extend(self.v6.map(|vtep| (PUBLIC_IP_V6, vtep.address.to_string())));
        all
    }
}

fn annotation<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.metadata.annotations.get(name).map(String::as_str)
}

/// How the nodes of flannel's send to each other, where it runs.
fn backend(node: &Node) -> Option<&str> {
    annotation(node, BACKEND_TYPE).filter(|_| annotation(node, SUBNET_MANAGER) == Some("true"))
}

/// A node's end of the VXLAN network over a family; None where it has none.
fn vtep(node: &Node, is_ipv4: bool) -> Result<Option<Vtep>, Invalid> {
    let (data, public) = if is_ipv4 { (BACKEND_DATA, PUBLIC_IP) } else { (BACKEND_DATA_V6, PUBLIC_IP_V6) };
    let text = annotation(node, data).filter(|_| backend(node) == Some("vxlan"));
    let read = text.map_or(Ok(None), read).map_err(|problem| {
        let like = r#"{"VNI":1,"VtepMAC":"0a:58:0a:f4:01:00"}"#;
        Invalid::new(field(data), format!("{problem}; a value like {like} would be right"))
    })?;
    let Some((vni, mac)) = read else { return Ok(None) };
    let address = if is_ipv4 {
        node.annotation(public, "192.0.2.1")?.map(|address: Ipv4Addr| IpAddr::V4(address))
    } else {
        node.annotation(public, "2001:db8::1")?.map(|address: Ipv6Addr| IpAddr::V6(address))
    };
    let missing = || format!("is missing, and {data} says that the node is reached over this family");
    let address = address.ok_or_else(|| Invalid::new(field(public), missing()))?;
    check_address(address).map_err(|problem| Invalid::new(field(public), problem))?;
    Ok(Some(Vtep { address, vni, mac }))
}

fn field(annotation: &str) -> String {
    format!("metadata.annotations[{annotation}]")
}

fn read(text: &str) -> Result<Option<(Vni, Mac)>, String> {
    let data: Option<Data> = serde_json::from_str(text).map_err(|error| format!("{text}: {error}"))?;
    let Some(Data { vni, mac }) = data else { return Ok(None) };
    // One station's, not a group's (IEEE 802, section 8.2).
    if mac == Mac::default() || mac.is_multicast() {
        return Err(format!("VtepMAC: {mac} is no station's Ethernet address"));
    }
    Ok(Some((Vni::new(vni).map_err(|error| error.problem)?, mac)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Object, ObjectMeta};

    fn node(annotations: &[(&str, &str)]) -> Node {
        let mut metadata = ObjectMeta::named("n1");
        metadata.annotations = annotations
            .iter()
            .map(|(name, value)| (format!("flannel.alpha.coreos.com/{name}"), (*value).to_owned()))
            .collect();
        Node { metadata, ..Node::default() }
    }

    const WHOLE: [(&str, &str); 6] = [
        ("kube-subnet-manager", "true"),
        ("backend-type", "vxlan"),
        ("backend-data", r#"{"VNI":1,"VtepMAC":"7e:42:00:00:00:01"}"#),
        ("backend-v6-data", r#"{"VNI":1,"VtepMAC":"7e:42:00:00:00:02"}"#),
        ("public-ip", "192.0.2.7"),
        ("public-ipv6", "2001:db8::7"),
    ];

    #[test]
    fn what_is_written_is_what_flannel_writes() {
        let vtep = |address: &str, last| Vtep {
            address: address.parse().unwrap(),
            vni: Vni::FLANNEL,
            mac: Mac([0x7e, 0x42, 0, 0, 0, last]),
        };
        let whole = Flannel::vxlan(Some(vtep("192.0.2.7", 1)), Some(vtep("2001:db8::7", 2)));
        assert_eq!(Flannel::of(&node(&WHOLE)), Some(whole.clone()));
        let written: Vec<_> = whole.annotations();
        let names = written.iter().map(|(name, value)| (name.rsplit('/').next().unwrap(), value.as_str()));
        assert_eq!(names.collect::<Vec<_>>(), WHOLE);
        // One family alone.
        let mut one = WHOLE[..5].to_vec();
        one[3].1 = "null";
        let v4 = Flannel::vxlan(whole.v4, None);
        assert_eq!(Flannel::of(&node(&one)), Some(v4.clone()));
        assert_eq!(v4.annotations().len(), 5);
        // An older version.
        one[2].1 = r#"{"VtepMAC":"7e:42:00:00:00:01"}"#;
        assert_eq!(Flannel::of(&node(&one)), Some(v4));
    }

    #[test]
    fn who_does_not_run_flannel_says_nothing_of_it() {
        assert_eq!(Flannel::of(&node(&[])), None);
        assert_eq!(Flannel::of(&node(&[("backend-type", "vxlan")])), None);
        let other = Flannel::of(&node(&[WHOLE[0], ("backend-type", "host-gw")])).unwrap();
        assert_eq!((other.backend.as_str(), other.v4, other.v6), ("host-gw", None, None));
    }

    #[test]
    fn what_is_wrong_is_named_and_the_other_family_is_taken() {
        let whole = Flannel::of(&node(&WHOLE)).unwrap();
        for (at, value, expected) in [
            (2, "VNI=1", "metadata.annotations[flannel.alpha.coreos.com/backend-data]: VNI=1: "),
            (2, r#"{"VNI":16777216,"VtepMAC":"7e:42:00:00:00:01"}"#, "16777216 is not a VNI"),
            (3, r#"{"VNI":1,"VtepMAC":"7e:42"}"#, "backend-v6-data]: {\"VNI\":1,\"VtepMAC\":\"7e:42\"}: "),
            (2, r#"{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}"#, "VtepMAC: 00:00:00:00:00:00 is no station's"),
            (3, r#"{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}"#, "VtepMAC: ff:ff:ff:ff:ff:ff is no station's"),
            (4, "192.0.2", "public-ip]: \"192.0.2\" cannot be read"),
            (4, "127.0.0.1", "public-ip]: "),
        ] {
            let mut annotations = WHOLE;
            annotations[at].1 = value;
            let node = node(&annotations);
            let error = Flannel::check(&node).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            let other = if at == 3 {
                Flannel { v6: None, ..whole.clone() }
            } else {
                Flannel { v4: None, ..whole.clone() }
            };
            assert_eq!(Flannel::of(&node), Some(other), "{value}");
            let stored = Object::from_json(&Object::from(node.clone()).to_json()).unwrap();
            assert_eq!(
                (stored.unenforced().is_err(), stored),
                (true, node.into()),
                "the node is read all the same"
            );
        }
        let v4_alone = node(&WHOLE[..5]);
        assert_eq!(Flannel::of(&v4_alone), Some(Flannel { v6: None, ..whole }));
        let error = Flannel::check(&v4_alone).unwrap_err().to_string();
        assert!(
            error.contains("public-ipv6]: is missing, and flannel.alpha.coreos.com/backend-v6-data"),
            "{error}"
        );
    }
}
