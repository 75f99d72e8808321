//! A cluster as objects: what an agent makes a node's desired state of.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use vswitch_control::calc::Inputs;
use vswitch_control::object::Object;

use super::node::{Node, port_name};
use crate::{Error, Result};

/// So many pods and policies, as in clusters that many teams share.
///
/// Pods are spread over the nodes, then over the namespaces, and bear five labels. Each policy is of one app in one
/// namespace, and lets in an app of the same namespace, and one of the namespaces of another team; every tenth also a
/// CIDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Pods of each node, at most 250.
    pub pods_per_node: usize,
    /// Nodes, at most 250.
    pub nodes: usize,
    /// Policies.
    pub policies: usize,
}

/// Namespaces, and apps in each.
const NAMESPACES: usize = 250;
const APPS: usize = 10;
const TEAMS: usize = 25;

impl Cluster {
    /// All pods.
    #[must_use]
    pub const fn pods(self) -> usize {
        self.pods_per_node * self.nodes
    }

    /// The node whose agent it is: [`Node::in_memory`] without pods, so that its pods are those of the objects.
    #[must_use]
    pub fn node(self) -> Node {
        Node::in_memory(0, self.nodes - 1)
    }

    /// The objects.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when one is none.
    pub fn inputs(self) -> Result<Inputs> {
        let pool = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pods"},
            "spec": {"cidr": "10.200.0.0/16", "vxlanMode": "Always"}});
        let mut inputs = Inputs::default();
        inputs.set(object(&pool)?);
        for number in 0..NAMESPACES {
            inputs.set(object(&namespace(number))?);
        }
        for number in 0..self.nodes {
            for value in [node(number), block(number)] {
                inputs.set(object(&value)?);
            }
        }
        for number in 0..self.pods() {
            inputs.set(self.pod(number, 0)?);
            inputs.set(object(&self.endpoint(number))?);
        }
        for number in 0..self.policies {
            inputs.set(object(&policy(number))?);
        }
        Ok(inputs)
    }

    /// Pod number `number`, those of the first node first, its app so many further than it begins with.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when it is none.
    pub fn pod(self, number: usize, further: usize) -> Result<Object> {
        let app = (number / NAMESPACES + further) % APPS;
        object(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": format!("ns-{}", number % NAMESPACES), "name": format!("pod-{number}"),
                "labels": {"app": format!("app-{app}"), "tier": format!("tier-{}", app % 3),
                    "version": format!("v{}", number % 4), "chart": "web-1.2.3", "heritage": "helm"}},
            "spec": {"nodeName": node_name(number / self.pods_per_node)},
            "status": {"podIPs": [{"ip": self.address(number)}]}}))
    }

    /// The address of pod number `number`.
    #[must_use]
    pub fn address(self, number: usize) -> Ipv4Addr {
        let (node, pod) = (number / self.pods_per_node, number % self.pods_per_node);
        Ipv4Addr::new(10, 200, node as u8, pod as u8 + 2)
    }

    fn endpoint(self, number: usize) -> Value {
        let (sandbox, port) = (format!("sandbox-{number}"), port_name(&format!("pod-{number}")));
        json!({"apiVersion": "vswitch.internal/v1", "kind": "Endpoint", "metadata": {"name": format!("{sandbox}.eth0")},
            "spec": {"node": node_name(number / self.pods_per_node), "namespace": format!("ns-{}", number % NAMESPACES),
                "pod": format!("pod-{number}"), "containerId": sandbox, "interface": "eth0", "port": port.as_str(),
                "attachment": {"veth": {"interface": port.as_str(), "netns": null}},
                "mac": format!("0a:58:0a:c8:{:02x}:{:02x}", number >> 8, number & 255),
                "addresses": [self.address(number)], "mtu": 1450}})
    }
}

/// As [`Node::in_memory`] calls its nodes, itself the first.
fn node_name(number: usize) -> String {
    format!("node-{}", number + 1)
}

fn namespace(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": format!("ns-{number}"), "labels": {"team": format!("team-{}", number % TEAMS)}}})
}

fn node(number: usize) -> Value {
    let [high, low] = (number as u16 + 1).to_be_bytes();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name(number), "annotations": {
        "projectcalico.org/IPv4Address": format!("192.168.{high}.{low}/16"),
        "projectcalico.org/IPv4VXLANTunnelAddr": format!("10.200.{number}.1")}}})
}

fn block(number: usize) -> Value {
    let cidr = format!("10.200.{number}.0/24");
    json!({"apiVersion": "vswitch.internal/v1", "kind": "Block", "metadata": {"name": cidr.replace('/', "-")},
        "spec": {"cidr": cidr, "node": node_name(number)}})
}

fn policy(number: usize) -> Value {
    let (namespace, app) = (number % NAMESPACES, number / NAMESPACES % APPS);
    let of = |step: usize| json!({"matchLabels": {"app": format!("app-{}", (app + step) % APPS)}});
    let team = json!({"matchLabels": {"team": format!("team-{}", (namespace + 7) % TEAMS)}});
    let mut from =
        vec![json!({"podSelector": of(1)}), json!({"namespaceSelector": team, "podSelector": of(2)})];
    if number.is_multiple_of(10) {
        let cidr = format!("172.16.{}.0/24", number / 10 % 256);
        from.push(json!({"ipBlock": {"cidr": cidr, "except": [cidr.replace(".0/24", ".128/25")]}}));
    }
    let ports =
        json!([{"protocol": "TCP", "port": 8080}, {"protocol": "TCP", "port": 9000, "endPort": 9009}]);
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": format!("ns-{namespace}"), "name": format!("policy-{number}")},
        "spec": {"podSelector": of(0), "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": from, "ports": ports}], "egress": [{"to": [{"podSelector": of(3)}]}]}})
}

fn object(value: &Value) -> Result<Object> {
    let text = value.to_string();
    Object::from_json(text.as_bytes())
        .map_err(|error| Error::setup(format!("make an object of {text}"), error))
}
