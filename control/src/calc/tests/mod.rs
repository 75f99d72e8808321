//! Clusters written as manifests, and what is made of them.

mod calico;
mod cluster_policies;
mod explaining;
mod following;
mod names;
mod policies;
mod routing;
mod tiers;
mod unlabelled;

use std::net::IpAddr;

use super::{CalcConfig, Calculated, Inputs, Numbering, calculate};
use crate::object::manifest;
use vswitch_model::{DesiredState, IdentityId, IdentityKind};

/// The objects of manifests in one text.
fn inputs(text: &str) -> Inputs {
    manifest::parse("test", "default", text).unwrap().into_iter().map(|document| document.object).collect()
}

fn calculated(inputs: &Inputs, node: &str) -> Calculated {
    let calculated = calculate(inputs, node, &CalcConfig::default(), &mut Numbering::default());
    calculated.state.check().unwrap();
    calculated
}

/// The state of a node of a cluster in which nothing is wrong.
fn state(inputs: &Inputs, node: &str) -> DesiredState {
    let calculated = calculated(inputs, node);
    assert_eq!(calculated.problems, [] as [&str; 0]);
    calculated.state
}

fn node(name: &str, annotations: &str) -> String {
    let calico: Vec<_> =
        annotations.split_whitespace().map(|pair| format!("projectcalico.org/{pair}")).collect();
    let annotations = calico.join(", ").replace('=', ": ");
    format!(
        "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}, annotations: {{{annotations}}}}}}}\n"
    )
}

fn pool(name: &str, cidr: &str, mode: &str) -> String {
    format!(
        "---\n{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: {name}}}, \
         spec: {{cidr: '{cidr}', vxlanMode: {mode}}}}}\n"
    )
}

fn block(cidr: &str, node: &str) -> String {
    let name = cidr.replace('/', "-");
    format!(
        "---\n{{apiVersion: vswitch.internal/v1, kind: Block, metadata: {{name: '{name}'}}, \
         spec: {{cidr: '{cidr}', node: {node}, anything: of IPAM}}}}\n"
    )
}

/// An endpoint whose container is named like its port.
fn endpoint(port: &str, node: &str, pod: &str, addresses: &str) -> String {
    let whose =
        pod.split_once('/').map(|(ns, name)| format!("namespace: {ns}, pod: {name}, ")).unwrap_or_default();
    format!(
        "---\n{{apiVersion: vswitch.internal/v1, kind: Endpoint, metadata: {{name: {port}.eth0}}, spec: {{node: {node}, {whose}\
         containerId: {port}, interface: eth0, port: {port}, attachment: {{veth: {{interface: {port}, netns: null}}}}, \
         mac: '0a:00:00:00:00:01', addresses: [{addresses}], mtu: 1400}}}}\n"
    )
}

fn pod(path: &str, labels: &str, spec: &str) -> String {
    let (namespace, name) = path.split_once('/').unwrap();
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{namespace: {namespace}, name: {name}, labels: {{{labels}}}}}, \
         {spec}}}\n"
    )
}

fn policy(path: &str, spec: &str) -> String {
    let (namespace, name) = path.split_once('/').unwrap();
    format!(
        "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
         metadata: {{namespace: {namespace}, name: {name}}}, spec: {{{spec}}}}}\n"
    )
}

/// Identity of an address by longest match.
fn identity(state: &DesiredState, address: &str) -> (IdentityId, IdentityKind) {
    let address: IpAddr = address.parse().unwrap();
    let prefixes = state.prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
    let (_, id) = prefixes.max_by_key(|(prefix, _)| prefix.prefix_len()).unwrap();
    (*id, state.identities[id].kind)
}
