//! NetworkPolicy truth tables that nobody on the project wrote (kubernetes-sigs and cyclonus agree on them), against
//! three readings of the same objects: the desired state read rule by rule, the class tables the engine compiles from
//! it, and what `explain` says.
//!
//! Read from `$VSWITCH_CASES`, or `../shared/cases/netpol` beside the repository; where they are absent the test says
//! so and passes, unless `VSWITCH_CASES` is set.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};
use vswitch_control::calc::{CalcConfig, End, Explainer, Inputs, Numbering, Question, calculate};
use vswitch_control::object::manifest::from_value;
use vswitch_datapath::policy::{PolicyDirection, Verdict, oracle};
use vswitch_datapath::tables::Revision;
use vswitch_datapath::{CompileInputs, PortMap, Tables, Underlay, compile};
use vswitch_model::{DesiredState, Generation, IdentityId};

const NODES: [&str; 3] = ["n0", "n1", "n2"];

#[derive(Deserialize)]
struct Case {
    id: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    namespaces: Vec<Value>,
    pods: Vec<CasePod>,
    policies: Vec<Value>,
    order: Vec<String>,
    expected: BTreeMap<String, Vec<String>>,
    ingress: BTreeMap<String, Vec<String>>,
    egress: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct CasePod {
    namespace: String,
    name: String,
    labels: Value,
    ip: IpAddr,
    ports: Vec<Value>,
}

impl CasePod {
    /// Where we put it: pods of one namespace are spread over all nodes.
    fn node(&self) -> &'static str {
        NODES[usize::from(self.name.bytes().last().unwrap_or_default()) % NODES.len()]
    }

    fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn objects(&self, number: usize) -> [Value; 2] {
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|port| json!({"name": port["name"], "containerPort": port["port"], "protocol": port["protocol"]}))
            .collect();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": self.labels},
            "spec": {"nodeName": self.node(), "containers": [{"name": "c", "ports": ports}]},
        });
        let port = format!("veth{number}");
        let endpoint = json!({
            "apiVersion": "vswitch/v1", "kind": "Endpoint", "metadata": {"name": format!("c{number}.eth0")},
            "spec": {
                "node": self.node(), "namespace": self.namespace, "pod": self.name,
                "containerId": format!("c{number}"), "interface": "eth0", "port": port,
                "attachment": {"veth": {"interface": port, "netns": null}},
                "mac": format!("02:00:00:00:01:{number:02x}"), "addresses": [self.ip], "mtu": 1450,
            },
        });
        [pod, endpoint]
    }
}

impl Step {
    /// One step of each file gives two pods one address, which no cluster can have. The second gets another then; as
    /// no policy of that step speaks of addresses, it makes no difference to the verdicts.
    fn part_shared_addresses(&mut self) {
        let mut seen = BTreeSet::new();
        for pod in &mut self.pods {
            while !seen.insert(pod.ip) {
                assert!(!self.policies.iter().any(|policy| policy.to_string().contains("ipBlock")));
                pod.ip = match pod.ip {
                    IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ 0x8000).into(),
                    IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() ^ 0x8000).into(),
                };
            }
        }
    }

    fn inputs(&self) -> Inputs {
        let nodes = NODES.iter().enumerate().map(|(index, name)| {
            let address = format!("192.0.2.{}/24", index + 1);
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "annotations": {"projectcalico.org/IPv4Address": address}},
            })
        });
        let namespaces = self
            .namespaces
            .iter()
            .map(|ns| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns["name"], "labels": ns["labels"]}}));
        let pods = self.pods.iter().enumerate().flat_map(|(number, pod)| pod.objects(number));
        let all = nodes.chain(namespaces).chain(pods).chain(self.policies.iter().cloned());
        all.map(|value| from_value("case", "default", 1, value).unwrap()).collect()
    }
}

/// One node's three readings.
struct Reading {
    state: DesiredState,
    tables: Tables,
    identities: BTreeMap<IpAddr, IdentityId>,
}

impl Reading {
    fn of(inputs: &Inputs, node: &str, addresses: &[IpAddr], numbering: &mut Numbering) -> Self {
        let calculated = calculate(inputs, node, &CalcConfig::default(), numbering);
        assert_eq!(calculated.problems, [] as [&str; 0]);
        let state = calculated.state;
        state.check().unwrap();
        let (ports, underlay) = (PortMap::default(), Underlay::default());
        let tables = compile(&CompileInputs {
            generation: Generation(1),
            revision: Revision(1),
            desired: &state,
            ports: &ports,
            underlay: &underlay,
        });
        let identity = |address: &IpAddr| {
            let prefixes = state.prefixes.iter().filter(|(prefix, _)| prefix.contains(address));
            let longest = prefixes.max_by_key(|(prefix, _)| prefix.prefix_len());
            (*address, longest.map_or(IdentityId::UNKNOWN, |(_, id)| *id))
        };
        Self { identities: addresses.iter().map(identity).collect(), tables: tables.unwrap(), state }
    }

    fn judge(
        &self,
        direction: PolicyDirection,
        own: IpAddr,
        other: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Verdict {
        let (own, other) = (self.identities[&own], self.identities[&other]);
        let verdict = oracle::verdict(&self.state, direction, own, other, protocol, port);
        assert_eq!(self.tables.policy.verdict(direction, own, other, protocol, port), verdict);
        verdict
    }
}

/// Checks every probe of a step; gives how many there were.
fn check(case: &str, step: &Step, numberings: &mut [Numbering; 3]) -> usize {
    let inputs = step.inputs();
    let addresses: Vec<_> = step.pods.iter().map(|pod| pod.ip).collect();
    let readings: BTreeMap<&str, Reading> = NODES
        .into_iter()
        .zip(numberings)
        .map(|(node, numbering)| (node, Reading::of(&inputs, node, &addresses, numbering)))
        .collect();
    let pods: Vec<&CasePod> =
        step.order.iter().map(|path| step.pods.iter().find(|pod| pod.path() == *path).unwrap()).collect();
    let explainer = Explainer::new(&inputs);
    let mut probes = 0;
    for (port, rows) in &step.expected {
        let (number, protocol) = port.split_once('/').unwrap();
        let number: u16 = number.parse().unwrap();
        let protocol = match protocol {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            other => panic!("{other}"),
        };
        for (i, from) in pods.iter().enumerate() {
            for (j, to) in pods.iter().enumerate() {
                let cell = |rows: &[String]| rows[i].as_bytes()[j];
                if i == j || cell(rows) == b'-' {
                    continue;
                }
                let place = || format!("{case}: {} -> {} {port}", from.path(), to.path());
                let expected = [&step.egress[port], &step.ingress[port]].map(|rows| cell(rows) == b'.');
                assert_eq!(expected[0] && expected[1], cell(rows) == b'.', "{}: the case itself", place());
                let egress =
                    readings[from.node()].judge(PolicyDirection::Egress, from.ip, to.ip, protocol, number);
                let ingress =
                    readings[to.node()].judge(PolicyDirection::Ingress, to.ip, from.ip, protocol, number);
                assert_eq!([egress.allow, ingress.allow], expected, "{}: [egress, ingress]", place());
                let question = Question {
                    from: End::Pod(from.namespace.clone(), from.name.clone()),
                    to: End::Address(to.ip),
                    protocol,
                    port: number,
                    is_ipv4: None,
                };
                let said = explainer.explain(&question).unwrap();
                assert_eq!([said.egress.allowed, said.ingress.allowed], expected, "{}: {said}", place());
                for (verdict, node, side) in
                    [(egress, from.node(), &said.egress), (ingress, to.node(), &said.ingress)]
                {
                    let named = name_of_rule(&readings[node].state, verdict);
                    assert_eq!(named, (side.policy.as_str(), side.position.as_str()), "{}", place());
                }
                probes += 1;
            }
        }
    }
    probes
}

/// Policy and position of the deciding rule, without the named port the state says besides.
fn name_of_rule(state: &DesiredState, verdict: Verdict) -> (&str, &str) {
    let rules =
        state.policies.values().flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
    let found = rules.into_iter().find(|(_, rule)| rule.id == verdict.rule);
    found.map_or(("", ""), |(policy, rule)| {
        (policy.name.as_str(), rule.position.split(", port ").next().unwrap_or_default())
    })
}

fn run(file: &str) {
    let from_environment = std::env::var_os("VSWITCH_CASES").map(PathBuf::from);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/netpol");
    let path = from_environment.clone().unwrap_or(beside).join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(from_environment.is_none(), "VSWITCH_CASES is set, but {} cannot be read", path.display());
        eprintln!("SKIPPED: no truth tables at {}", path.display());
        return;
    };
    let (mut steps, mut probes) = (0, 0);
    for line in text.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let mut numberings: [Numbering; 3] = Default::default();
        for (index, mut step) in case.steps.into_iter().enumerate() {
            step.part_shared_addresses();
            probes += check(&format!("{} step {index}", case.id), &step, &mut numberings);
            steps += 1;
        }
    }
    assert!(steps > 200 && probes > 100_000, "{steps} steps, {probes} probes: the file is not whole");
    eprintln!("{file}: {steps} steps, {probes} probes");
}

#[test]
fn cyclonus_ipv4() {
    run("cyclonus-v4.jsonl");
}

#[test]
fn cyclonus_ipv6() {
    run("cyclonus-v6.jsonl");
}
