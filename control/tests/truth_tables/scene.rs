//! One state of a cluster, and what is asked about it: objects as people write them, who has which address, and flows
//! with the verdict they should have.

use std::fmt;
use std::net::IpAddr;

use serde_json::{Value, json};

/// IP protocol numbers.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// What DNS told the pods of every node, in any scene: names and addresses of theirs.
pub(crate) const LEARNED: [(&str, &str); 8] = [
    ("sip.example.org", "198.51.100.7"),
    ("sip.example.org", "2001:db8::7"),
    ("a.cdn.example.org", "198.51.100.200"),
    ("a.b.cdn.example.org", "203.0.113.1"),
    ("a.cdn.example.org", "2001:db8:0:1::7"),
    ("cdn.example.org", "10.0.0.99"),
    ("cdn.example.org", "fd10::99"),
    // A pod's.
    ("pod.example.org", "10.0.0.3"),
];

/// The source port of a flow where nothing depends on it. It is nobody's destination port.
pub(crate) const SOURCE_PORT: u16 = 40_000;

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// A pod with a port of its own.
    Pod { namespace: String, name: String },
    /// A node, or a pod on its network.
    Node,
    /// Nobody in the cluster.
    World,
}

/// One end of a flow.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) who: Who,
    pub(crate) address: IpAddr,
    /// Where it is. What is nowhere in the cluster comes in by this node.
    pub(crate) node: String,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Pod { namespace, name } => write!(f, "{namespace}/{name} {}", self.address),
            Who::Node => write!(f, "node {}", self.node),
            Who::World => self.address.fmt(f),
        }
    }
}

/// What should become of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Whether its first packet reaches the receiver.
    pub(crate) allowed: bool,
    /// Whether the sender's egress and the receiver's ingress let it, where that is known.
    pub(crate) sides: Option<[bool; 2]>,
    /// Whether a rule of each end marks it for the log, where that is known.
    pub(crate) logged: Option<[bool; 2]>,
    /// Whether each end would let it, were what is staged in force; where that is known.
    pub(crate) staged: Option<[bool; 2]>,
}

impl Expected {
    /// Of a flow of which no more is known than whether it passes.
    pub(crate) const fn new(allowed: bool) -> Self {
        Self { allowed, sides: None, logged: None, staged: None }
    }
}

/// A flow asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    /// Place of the sender in [`Scene::ends`].
    pub(crate) from: usize,
    /// Of the receiver.
    pub(crate) to: usize,
    pub(crate) protocol: u8,
    /// Destination port; of ICMP type and code, as `type << 8 | code`; 0 where there is none.
    pub(crate) port: u16,
    /// Means nothing but for TCP, UDP and SCTP.
    pub(crate) source_port: u16,
    pub(crate) expected: Expected,
}

/// A state and what is asked about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scene {
    /// For people: which case and step.
    pub(crate) name: String,
    /// As they would be applied.
    pub(crate) objects: Vec<Value>,
    pub(crate) ends: Vec<End>,
    pub(crate) probes: Vec<Probe>,
}

impl Scene {
    /// For people: which flow of which case.
    pub(crate) fn describe(&self, probe: &Probe) -> String {
        let Probe { from, to, protocol, port, source_port, .. } = probe;
        let by = if *source_port == SOURCE_PORT { String::new() } else { format!(" from {source_port}") };
        let protocol = match *protocol {
            TCP => "TCP".to_owned(),
            UDP => "UDP".to_owned(),
            SCTP => "SCTP".to_owned(),
            other => format!("protocol {other}"),
        };
        format!("{}: {} -> {} {port}/{protocol}{by}", self.name, self.ends[*from], self.ends[*to])
    }
}

/// The number of a protocol as Kubernetes spells it.
pub(crate) fn protocol_number(name: &str) -> u8 {
    match name {
        "TCP" => TCP,
        "UDP" => UDP,
        "SCTP" => SCTP,
        other => panic!("no protocol of Kubernetes: {other}"),
    }
}

/// A node. Its number, from 0, gives its address on the underlay: 192.0.2.11 and on.
pub(crate) fn node(number: usize, name: &str, labels: &Value) -> Value {
    let address = node_address(number);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "labels": labels,
            "annotations": {"projectcalico.org/IPv4Address": format!("{address}/24")},
        },
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

pub(crate) fn node_address(number: usize) -> IpAddr {
    format!("192.0.2.{}", 11 + number).parse().unwrap()
}

pub(crate) fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A pod as cases tell of it.
#[derive(Debug, Clone)]
pub(crate) struct PodSpec<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) labels: &'a Value,
    /// `{name, port, protocol}`, as the cases write them.
    pub(crate) ports: &'a [Value],
    pub(crate) node: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) host_network: bool,
    /// Empty: not said.
    pub(crate) service_account: &'a str,
}

impl PodSpec<'_> {
    /// The Pod, and its Endpoint unless it is on its node's network. `number` is below 250 and its own.
    pub(crate) fn objects(&self, number: usize) -> Vec<Value> {
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|port| json!({"name": port["name"], "containerPort": port["port"], "protocol": port["protocol"]}))
            .collect();
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": self.labels},
            "spec": {
                "nodeName": self.node, "hostNetwork": self.host_network,
                "containers": [{"name": "c", "ports": ports}],
            },
            "status": {"podIPs": [{"ip": self.address}]},
        });
        if !self.service_account.is_empty() {
            pod["spec"]["serviceAccountName"] = self.service_account.into();
        }
        if self.host_network {
            return vec![pod];
        }
        let port = format!("veth{number}");
        let endpoint = json!({
            "apiVersion": "vswitch.internal/v1", "kind": "Endpoint",
            "metadata": {"name": format!("c{number}.eth0")},
            "spec": {
                "node": self.node, "namespace": self.namespace, "pod": self.name,
                "containerId": format!("c{number}"), "interface": "eth0", "port": port,
                "attachment": {"veth": {"interface": port, "netns": null}},
                "mac": format!("02:00:00:00:01:{number:02x}"), "addresses": [self.address], "mtu": 1450,
            },
        });
        vec![pod, endpoint]
    }

    pub(crate) fn end(&self) -> End {
        let who = if self.host_network {
            Who::Node
        } else {
            Who::Pod { namespace: self.namespace.to_owned(), name: self.name.to_owned() }
        };
        End { who, address: self.address, node: self.node.to_owned() }
    }
}
