//! Where the pods that a question is about are, as far as their manifests leave it open.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_model::{Attachment, Mac, PortName};

use crate::calc::{End, Inputs, NamespacedName, Question};
use crate::object::{AllowedUse, Endpoint, EndpointSpec, Node, ObjectMeta, Pod};

/// Where addresses come from when there is no pool: networks set aside for tests and examples (RFC 2544, RFC 3849).
const SPARE: [&str; 2] = ["198.18.0.0/15", "2001:db8::/64"];
/// The node of a pod that names none. No object can have this name.
const NO_NODE: &str = "(no node)";
/// MTU of the ports; nothing that is asked depends on it.
const MTU: u16 = 1450;

/// Attaches the pods of a question, which gives those an address that have none. What was made up is told.
pub(super) fn ends(inputs: &mut Inputs, question: &Question) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    let ends: BTreeSet<NamespacedName> =
        [&question.from, &question.to].into_iter().filter_map(|end| pod_of(inputs, end)).collect();
    for (number, full_name) in (1..).zip(ends) {
        let attached = inputs.endpoints.values().map(|endpoint| &endpoint.spec);
        let (namespace, name) = &full_name;
        if attached.into_iter().any(|spec| spec.namespace == *namespace && spec.pod == *name) {
            continue;
        }
        let Some(pod) = inputs.pods.get(&full_name).cloned() else { continue };
        let mut addresses: Vec<IpAddr> = pod.addresses().into_iter().collect();
        if addresses.is_empty() {
            if !wants_address(&pod) {
                continue;
            }
            let given = give(inputs).map_err(|pool| {
                format!(
                    "pod {namespace}/{name} has no address in these files, and {pool} has none left to give it"
                )
            })?;
            let words: Vec<_> = given.iter().map(ToString::to_string).collect();
            notes.push(format!(
                "pod {namespace}/{name} has no address in these files, and was given {}",
                words.join(" and ")
            ));
            addresses = given;
        }
        let node = pod.spec.node_name.clone().unwrap_or_else(|| NO_NODE.to_owned());
        let new = || std::sync::Arc::new(Node { metadata: ObjectMeta::named(&node), ..Node::default() });
        inputs.nodes.entry(node.clone()).or_insert_with(new);
        inputs.set(endpoint(&full_name, number, node, addresses).into());
    }
    Ok(notes)
}

/// The pod that is meant, if it is one of these objects.
fn pod_of(inputs: &Inputs, end: &End) -> Option<NamespacedName> {
    match end {
        End::Pod(namespace, name) => Some((namespace.clone(), name.clone())),
        End::Address(address) => {
            let mut pods = inputs.pods.iter();
            pods.find(|(_, pod)| pod.addresses().contains(address)).map(|(full_name, _)| full_name.clone())
        }
    }
}

/// One on the host's network is its node; one that has ended has nothing any more.
fn wants_address(pod: &Pod) -> bool {
    !pod.spec.host_network && !matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The first free address of each family that has a pool, or where there are no pools of each family. The error is the
/// range that has none.
fn give(inputs: &Inputs) -> Result<Vec<IpAddr>, IpNet> {
    let pools = inputs.pools.values().filter(|pool| !pool.spec.disabled && pool.serves(AllowedUse::Workload));
    let mut ranges: Vec<IpNet> = pools.map(|pool| pool.spec.cidr).collect();
    if ranges.is_empty() {
        ranges = SPARE.iter().filter_map(|range| range.parse().ok()).collect();
    }
    let used: BTreeSet<IpAddr> = inputs
        .pods
        .values()
        .flat_map(|pod| pod.addresses())
        .chain(inputs.endpoints.values().flat_map(|endpoint| endpoint.spec.addresses.iter().copied()))
        .chain(inputs.nodes.values().flat_map(|node| addresses_of(node)))
        .collect();
    let mut given = Vec::new();
    for is_ipv4 in [true, false] {
        let of_family: Vec<_> = ranges.iter().filter(|range| range.addr().is_ipv4() == is_ipv4).collect();
        // Not a range's own address: of IPv6 it means its routers (RFC 4291, section 2.6.1).
        let is_free = |range: &IpNet, address: &IpAddr| {
            !used.contains(address)
                && (*address != range.network() || range.prefix_len() == range.max_prefix_len())
        };
        let free = of_family.iter().find_map(|range| range.hosts().find(|address| is_free(range, address)));
        match (free, of_family.last()) {
            (Some(address), _) => given.push(address),
            (None, Some(range)) => return Err(**range),
            (None, None) => {}
        }
    }
    Ok(given)
}

fn addresses_of(node: &Node) -> impl Iterator<Item = IpAddr> {
    let status = node.status.addresses.iter().map(|address| address.address.as_str());
    let annotations = node.metadata.annotations.values().map(String::as_str);
    status.chain(annotations).filter_map(|text| text.split('/').next()?.parse().ok())
}

fn endpoint((namespace, pod): &NamespacedName, number: u8, node: String, addresses: Vec<IpAddr>) -> Endpoint {
    let port: PortName = PortName::new(format!("end{number}")).expect("short, without blanks");
    Endpoint::new(EndpointSpec {
        node,
        namespace: namespace.clone(),
        pod: pod.clone(),
        pod_uid: None,
        container_id: format!("end{number}"),
        interface: "eth0".to_owned(),
        network: String::new(),
        attachment: Attachment::Veth { interface: port.clone(), netns: None },
        port,
        mac: Mac([2, 0, 0, 0, 1, number]),
        addresses,
        mtu: MTU,
    })
}
