//! Upstream's Netpol specs (kubernetes test/e2e/network/netpol/network_policy.go), each by its name as a scenario: the
//! pods, what is done, and who may not reach whom after it. Each runs in both families, in every way, and as one state
//! follows the other.
//!
//! Two further specs, of network_policy_api.go, are about the API and not about packets: [`api`] is one, the other is not a
//! scenario. `README.md` here has all names, each with what covers it.

mod api;
mod changes;
mod egress;
mod peers;
mod ports;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::cases::check_alone;
use crate::report::{Report, Way};
use crate::scene::{self, Expected, PodSpec, Probe, SCTP, SOURCE_PORT, Scene, TCP, UDP};
use crate::switch::Switch;

pub(crate) use api::end_ports;

/// The table of all specs: name, and what covers it.
const LIST: &str = include_str!("README.md");

/// The rows of the table: name, and the file here that has its scenario, or words that say why none has.
pub(crate) fn listed() -> Vec<(&'static str, &'static str)> {
    let rows = LIST.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.skip(1).collect()
}

/// One spec. Without more said, its protocol is TCP.
pub(crate) struct Spec {
    pub(crate) name: String,
    protocol: u8,
    pods: &'static [&'static str],
    steps: Vec<Step>,
}

/// What is done, and what is so then.
enum Step {
    /// A policy of a namespace comes, or takes the place of the one of its name: name and spec. `{y/b}` in it stands
    /// for the CIDR of that pod alone, `{y/b wide}` for the sixteenth of all addresses that it is in.
    Policy(&'static str, &'static str, &'static str),
    /// All policies go.
    NoPolicies,
    /// A namespace has this label besides.
    NamespaceLabel(&'static str, &'static str, &'static str),
    /// A pod has this label besides.
    PodLabel(&'static str, &'static str, &'static str),
    /// Those of whom it says so do not get through to that port, all others do.
    Denied(u8, u16, fn(from: &str, to: &str) -> bool),
}

impl Spec {
    fn new(name: &str, pods: &'static [&'static str]) -> Self {
        Self { name: format!("Netpol {name}"), protocol: TCP, pods, steps: Vec::new() }
    }

    /// The same spec with UDP or SCTP, which upstream has in a suite of its own.
    fn with_protocol(mut self, protocol: u8) -> Self {
        let suite = match protocol {
            UDP => "Netpol [LinuxOnly] using UDP ",
            SCTP => "Netpol [LinuxOnly] using SCTP ",
            _ => "Netpol ",
        };
        self.name = self.name.replacen("Netpol ", suite, 1);
        self.protocol = protocol;
        self
    }

    fn policy(mut self, namespace: &'static str, name: &'static str, spec: &'static str) -> Self {
        self.steps.push(Step::Policy(namespace, name, spec));
        self
    }

    fn no_policies(mut self) -> Self {
        self.steps.push(Step::NoPolicies);
        self
    }

    fn namespace_label(mut self, namespace: &'static str, key: &'static str, value: &'static str) -> Self {
        self.steps.push(Step::NamespaceLabel(namespace, key, value));
        self
    }

    fn pod_label(mut self, pod: &'static str, key: &'static str, value: &'static str) -> Self {
        self.steps.push(Step::PodLabel(pod, key, value));
        self
    }

    fn denied(mut self, port: u16, who: fn(&str, &str) -> bool) -> Self {
        self.steps.push(Step::Denied(self.protocol, port, who));
        self
    }

    fn denied_of(mut self, protocol: u8, port: u16, who: fn(&str, &str) -> bool) -> Self {
        self.steps.push(Step::Denied(protocol, port, who));
        self
    }

    fn allowed(self, port: u16) -> Self {
        self.denied(port, |_, _| false)
    }

    /// Runs it in one family.
    pub(crate) fn run(&self, is_ipv4: bool, report: &mut Report) {
        let mut cluster = Cluster::new(self.pods, is_ipv4);
        let mut switch = Switch::default();
        for (number, step) in self.steps.iter().enumerate() {
            let Step::Denied(protocol, port, denied) = step else {
                cluster.act(step);
                continue;
            };
            let name = format!("{}, step {}", self.name, number + 1);
            let scene = cluster.scene(name, *protocol, *port, *denied);
            report.states += 1;
            report.probes += scene.probes.len();
            check_alone(&scene, report);
            switch.apply(&scene.objects);
            switch.send(Way::Changed, &scene, report);
        }
    }
}

/// The specs about packets, each with the name of its file here.
pub(crate) fn specs() -> Vec<(&'static str, Spec)> {
    let files = [
        ("`peers.rs`", peers::specs()),
        ("`ports.rs`", ports::specs()),
        ("`changes.rs`", changes::specs()),
        ("`egress.rs`", egress::specs()),
    ];
    files.into_iter().flat_map(|(file, specs)| specs.into_iter().map(move |spec| (file, spec))).collect()
}

struct Cluster {
    policies: BTreeMap<(&'static str, &'static str), Value>,
    namespaces: BTreeMap<&'static str, Value>,
    /// Labels and address.
    pods: BTreeMap<&'static str, (Value, IpAddr)>,
}

impl Cluster {
    fn new(paths: &[&'static str], is_ipv4: bool) -> Self {
        let address = |number| if is_ipv4 { format!("10.0.0.{number}") } else { format!("fd10::{number}") };
        let pod = |(number, path): (usize, &&'static str)| {
            let (_, name) = path.split_once('/').unwrap();
            (*path, (json!({"pod": name}), address(number + 16).parse().unwrap()))
        };
        let namespaces = ["x", "y", "z"].map(|name| (name, json!({"ns": name}))).into();
        Self { policies: BTreeMap::new(), namespaces, pods: paths.iter().enumerate().map(pod).collect() }
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Policy(namespace, name, spec) => {
                let mut text = (*spec).to_owned();
                for (path, (_, address)) in &self.pods {
                    let wide = IpNet::new(*address, 4).unwrap().trunc();
                    text = text.replace(&format!("{{{path} wide}}"), &wide.to_string());
                    text = text.replace(&format!("{{{path}}}"), &IpNet::from(*address).to_string());
                }
                let spec: Value = serde_yaml_ng::from_str(&text).unwrap();
                let policy = json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "metadata": {"namespace": namespace, "name": name}, "spec": spec,
                });
                self.policies.insert((namespace, name), policy);
            }
            Step::NoPolicies => self.policies.clear(),
            Step::NamespaceLabel(namespace, key, value) => {
                self.namespaces.get_mut(namespace).unwrap()[key] = (*value).into();
            }
            Step::PodLabel(pod, key, value) => self.pods.get_mut(pod).unwrap().0[key] = (*value).into(),
            Step::Denied(..) => {}
        }
    }

    fn scene(&self, name: String, protocol: u8, port: u16, denied: fn(&str, &str) -> bool) -> Scene {
        let nodes = ["n0", "n1"];
        let mut objects: Vec<_> =
            nodes.iter().enumerate().map(|(number, name)| scene::node(number, name, &json!({}))).collect();
        objects.extend(self.namespaces.iter().map(|(name, labels)| scene::namespace(name, labels)));
        let ports = [(80, "TCP"), (81, "TCP"), (80, "UDP"), (81, "UDP"), (80, "SCTP"), (81, "SCTP")].map(
            |(port, protocol)| {
                let name = format!("serve-{port}-{}", protocol.to_lowercase());
                json!({"name": name, "port": port, "protocol": protocol})
            },
        );
        let mut ends = Vec::new();
        for (number, (path, (labels, address))) in self.pods.iter().enumerate() {
            let (namespace, name) = path.split_once('/').unwrap();
            let (node, address) = (nodes[number % nodes.len()], *address);
            let (host_network, service_account) = (false, "");
            let pod = PodSpec {
                namespace,
                name,
                labels,
                ports: &ports,
                node,
                address,
                host_network,
                service_account,
            };
            objects.extend(pod.objects(number));
            ends.push(pod.end());
        }
        objects.extend(self.policies.values().cloned());
        let paths: Vec<&str> = self.pods.keys().copied().collect();
        let pairs = (0..paths.len()).flat_map(|from| (0..paths.len()).map(move |to| (from, to)));
        let probes = pairs.filter(|(from, to)| from != to).map(|(from, to)| {
            let expected = Expected::new(!denied(paths[from], paths[to]));
            Probe { from, to, protocol, port, source_port: SOURCE_PORT, expected }
        });
        Scene { name, probes: probes.collect(), objects, ends }
    }
}
