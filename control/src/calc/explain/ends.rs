//! The ends of a flow, from how people name them.

use std::net::IpAddr;

use super::{End, ExplainError, Place, Question};
use crate::calc::Inputs;
use crate::calc::cluster::Cluster;

/// What stands before the name of a node, where a namespace would.
const NODE: &str = "node";

/// Where both ends are, in a family that both have.
pub(super) fn ends<'a>(
    inputs: &Inputs,
    cluster: &Cluster<'a>,
    question: &Question,
) -> Result<(Place<'a>, Place<'a>), ExplainError> {
    let (from, to) = (addresses(inputs, cluster, &question.from)?, addresses(inputs, cluster, &question.to)?);
    let families = match question.is_ipv4 {
        None => vec![true, false],
        Some(is_ipv4) => vec![is_ipv4],
    };
    let of_family =
        |addresses: &[IpAddr], is_ipv4| addresses.iter().copied().find(|a| a.is_ipv4() == is_ipv4);
    let pair =
        families.into_iter().find_map(|is_ipv4| Some((of_family(&from, is_ipv4)?, of_family(&to, is_ipv4)?)));
    let Some((from, to)) = pair else {
        let asked = match question.is_ipv4 {
            None => "",
            Some(true) => ": IPv4 was asked for",
            Some(false) => ": IPv6 was asked for",
        };
        return Err(ExplainError::NoFamily(question.from.clone(), question.to.clone(), asked));
    };
    let place = |address| Place { address, owner: cluster.owners.get(&address).copied() };
    Ok((place(from), place(to)))
}

fn addresses(inputs: &Inputs, cluster: &Cluster<'_>, end: &End) -> Result<Vec<IpAddr>, ExplainError> {
    let (namespace, name) = match end {
        End::Address(address) => return Ok(vec![*address]),
        End::Pod(namespace, name) => (namespace, name),
    };
    let pod = cluster.pods.iter().find(|pod| pod.namespace == namespace && pod.name == name);
    let mut found: Vec<IpAddr> = pod.map(|pod| pod.addresses.keys().copied().collect()).unwrap_or_default();
    if let Some(object) = inputs.pods.get(&(namespace.clone(), name.clone()))
        && object.spec.host_network
        && let Some(node) = object.spec.node_name.as_deref().and_then(|node| cluster.nodes.get(node))
    {
        found.extend(&node.addresses);
    }
    if found.is_empty() && pod.is_none() && namespace == NODE {
        found.extend(cluster.nodes.get(name.as_str()).into_iter().flat_map(|node| &node.addresses));
    }
    if found.is_empty() { Err(missing(inputs, cluster, end, namespace, name)) } else { Ok(found) }
}

/// Why a name leads to no address.
fn missing(inputs: &Inputs, cluster: &Cluster<'_>, end: &End, namespace: &str, name: &str) -> ExplainError {
    if let Some(pod) = inputs.pods.get(&(namespace.to_owned(), name.to_owned())) {
        let why = match pod.status.phase.as_deref() {
            Some("Succeeded" | "Failed") => "it has ended",
            _ if pod.spec.host_network => {
                "it is on the host's network, and its node is not there or has none"
            }
            _ => "it is not attached, and its status names none",
        };
        return ExplainError::NoAddress(end.clone(), why);
    }
    let is_like_address = |text: &str| {
        text.contains(':') || text.contains('.') && text.bytes().all(|c| c.is_ascii_digit() || c == b'.')
    };
    if is_like_address(name) {
        return ExplainError::NotAnAddress(name.to_owned());
    }
    if is_like_address(namespace) {
        return ExplainError::NotAnAddress(format!("{namespace}/{name}"));
    }
    let elsewhere = inputs.pods.keys().find(|(_, other)| other == name);
    let hint = match elsewhere {
        _ if namespace == NODE => "; nor is a node of this name".to_owned(),
        Some((other, _)) => format!("; {other}/{name} is"),
        None if cluster.nodes.contains_key(name) => format!("; {NODE}/{name} is a node"),
        None if name.contains('.') => "; a name of DNS cannot be asked for, give its address".to_owned(),
        None => String::new(),
    };
    ExplainError::NoPod(end.clone(), hint)
}
