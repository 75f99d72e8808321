//! Cases of network-policy-api's conformance tests: states, each with what is asked in it. They know of nodes, of pods
//! on their nodes' networks, and of the whole verdict only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::check_alone;
use crate::report::{Report, Way};
use crate::scene::{self, Expected, PodSpec, Probe, SOURCE_PORT, Scene, protocol_number};
use crate::switch::Switch;

#[derive(Deserialize)]
pub(super) struct Case {
    id: String,
    /// Labels by name.
    nodes: BTreeMap<String, Value>,
    pods: Vec<Pod>,
    states: Vec<State>,
    probes: Vec<CaseProbe>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    namespace: String,
    name: String,
    labels: Value,
    ip: IpAddr,
    node: String,
    host_network: bool,
    ports: Vec<Value>,
}

#[derive(Deserialize)]
struct State {
    /// Labels by name.
    namespaces: BTreeMap<String, Value>,
    clusternetworkpolicies: Vec<Value>,
    networkpolicies: Vec<Value>,
}

#[derive(Deserialize)]
struct CaseProbe {
    subtest: String,
    state: usize,
    from: String,
    to: String,
    to_ip: IpAddr,
    port: u16,
    protocol: String,
    expected: bool,
}

impl Pod {
    fn spec(&self) -> PodSpec<'_> {
        PodSpec {
            namespace: &self.namespace,
            name: &self.name,
            labels: &self.labels,
            ports: &self.ports,
            node: &self.node,
            address: self.ip,
            host_network: self.host_network,
            service_account: "",
        }
    }
}

impl Case {
    fn scene(&self, number: usize) -> Scene {
        let state = &self.states[number];
        let nodes = self.nodes.iter().enumerate();
        let mut objects: Vec<_> =
            nodes.map(|(number, (name, labels))| scene::node(number, name, labels)).collect();
        objects.extend(state.namespaces.iter().map(|(name, labels)| scene::namespace(name, labels)));
        objects.extend(self.pods.iter().enumerate().flat_map(|(number, pod)| pod.spec().objects(number)));
        objects.extend(state.clusternetworkpolicies.iter().chain(&state.networkpolicies).cloned());
        let ends = self.pods.iter().map(|pod| pod.spec().end()).collect();
        let probes = self.probes.iter().filter(|probe| probe.state == number);
        let probes = probes.map(|probe| self.probe(probe)).collect();
        Scene { name: format!("{} state {number}", self.id), objects, ends, probes }
    }

    fn probe(&self, probe: &CaseProbe) -> Probe {
        let place = |path: &str| {
            let mut pods = self.pods.iter();
            let place = pods.position(|pod| format!("{}/{}", pod.namespace, pod.name) == path);
            place.unwrap_or_else(|| panic!("{}: {}: no pod {path}", self.id, probe.subtest))
        };
        let (from, to) = (place(&probe.from), place(&probe.to));
        assert_eq!(self.pods[to].ip, probe.to_ip, "{}", probe.subtest);
        let expected = Expected::new(probe.expected);
        let (protocol, source_port) = (protocol_number(&probe.protocol), SOURCE_PORT);
        Probe { from, to, protocol, port: probe.port, source_port, expected }
    }
}

/// Checks each state alone, and as it follows the one before.
pub(super) fn check(case: &Case, report: &mut Report) {
    let mut switch = Switch::default();
    for number in 0..case.states.len() {
        let scene = case.scene(number);
        report.states += 1;
        report.probes += scene.probes.len();
        check_alone(&scene, report);
        switch.apply(&scene.objects);
        switch.send(Way::Changed, &scene, report);
    }
}
