//! Calico's policies end to end: what is compiled and what is explained both come to what Calico says.

mod many_ports;
mod matches;
mod order;
mod random;
mod source_ports;

use vswitch_datapath::policy::{FlowPorts, PolicyDirection, oracle};

use super::*;
use crate::calc::{Explanation, Question, explain};
use crate::object::{Key, Kind, Object};

/// Four pods on one node, two namespaces, a service account.
fn base() -> String {
    let namespace = |name: &str, labels: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}\n"
        )
    };
    let sip = "containers: [{name: c, ports: [{name: sip, containerPort: 5060, protocol: UDP}]}]";
    [
        node("n0", "IPv4Address=192.0.2.1/24"),
        namespace("media", "team: voice"),
        namespace("guest", ""),
        "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: media, labels: {kind: bot}}}\n".into(),
        pod("media/relay", "app: relay", &format!("spec: {{serviceAccountName: robot, {sip}}}")),
        pod("media/web", "app: web", "spec: {containers: []}"),
        pod("guest/caller", "app: caller", "spec: {containers: []}"),
        pod("guest/web", "app: web", "spec: {containers: []}"),
        endpoint("v1", "n0", "media/relay", "10.0.0.1, 'fd00::1'"),
        endpoint("v2", "n0", "media/web", "10.0.0.2, 'fd00::2'"),
        endpoint("v3", "n0", "guest/caller", "10.0.0.3, 'fd00::3'"),
        endpoint("v4", "n0", "guest/web", "10.0.0.4, 'fd00::4'"),
    ]
    .concat()
}

/// An object of Calico's; the path has the namespace where the kind has one.
fn calico(kind: &str, path: &str, rest: &str) -> String {
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    let namespace = if namespace.is_empty() { String::new() } else { format!("namespace: {namespace}, ") };
    format!(
        "---\n{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{{namespace}name: {name}}}, spec: {{{rest}}}}}\n"
    )
}

fn global(name: &str, spec: &str) -> String {
    calico("GlobalNetworkPolicy", name, spec)
}

/// `guest/caller media/relay udp/5060`, `guest/caller media/relay udp/5060<4000` with the source port,
/// `198.51.100.7 media/relay icmp/8` with the type in place of the port.
fn question(text: &str) -> Question {
    let words: Vec<_> = text.split(' ').collect();
    let [from, to, traffic] = words[..] else { panic!("{text}") };
    let (traffic, source_port) = traffic.split_once('<').map_or((traffic, None), |(to, by)| (to, Some(by)));
    let (protocol, port) = traffic.split_once('/').unwrap();
    let (protocol, shift) = match protocol {
        "tcp" => (6, 0),
        "udp" => (17, 0),
        "icmp" => (1, 8),
        number => (number.parse().unwrap(), 0),
    };
    let port = port.parse::<u16>().unwrap() << shift;
    let source_port = source_port.map(|port| port.parse().unwrap());
    Question {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        protocol,
        port,
        source_port,
        is_ipv4: None,
    }
}

/// Each flow is allowed or not, by both ways.
fn check(objects: &str, flows: &[(&str, bool)]) -> Vec<Explanation> {
    let inputs = inputs(&(base() + objects));
    let calculated = calculated(&inputs, "n0");
    let state = &calculated.state;
    let compiled = |direction, own: IpAddr, other: IpAddr, ports: FlowPorts| {
        let is_local = state.ports.values().any(|port| port.addresses.contains(&own));
        let [own, other] = [own, other].map(|address| identity(state, &address.to_string()).0);
        !is_local || oracle::verdict(state, direction, own, other, ports).allow
    };
    let judge = |(text, allowed): &(&str, bool)| {
        let question = question(text);
        let said = explain(&inputs, &question).unwrap();
        assert_eq!(said.allowed, *allowed, "{text}: explained\n{said}\n{objects}");
        let (from, to) = (said.from_address, said.to_address);
        let Question { protocol, port: destination, .. } = question;
        let ports = FlowPorts { protocol, destination, source: said.source_port };
        let sent = compiled(PolicyDirection::Egress, from, to, ports);
        let received = compiled(PolicyDirection::Ingress, to, from, ports);
        assert_eq!(sent && received, *allowed, "{text}: compiled\n{objects}");
        said
    };
    flows.iter().map(judge).collect()
}

/// A policy for media/relay that allows what comes by TCP to port 80.
fn allow_80() -> String {
    calico(
        "NetworkPolicy",
        "media/allow",
        "selector: app == 'relay', ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]",
    )
}

const TO_80: &str = "guest/caller media/relay tcp/80";
const TO_81: &str = "guest/caller media/relay tcp/81";

/// What stands in for a policy that cannot be read lets nothing reach the pods it may be for, nor leave them. (No object can
/// stand in for one of the whole cluster: see `cluster_policies`.)
#[test]
fn a_policy_that_cannot_be_read_closes() {
    let from_pod = "guest/caller media/relay tcp/80";
    for (kind, to_guest) in
        [(Kind::NetworkPolicy, true), (Kind::CalicoNetworkPolicy, true), (Kind::GlobalNetworkPolicy, false)]
    {
        let closed = Object::closed(&Key::new(kind, "media", "p")).unwrap();
        let flows = [
            (from_pod, false),
            ("media/relay 198.51.100.7 tcp/80", false),
            ("guest/caller guest/web tcp/80", to_guest),
            ("198.51.100.7 media/relay tcp/80", false),
        ];
        check(&format!("---\n{}\n", closed.to_value()), &flows);
    }
}
