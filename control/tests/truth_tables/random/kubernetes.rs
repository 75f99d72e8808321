//! Random policies of Kubernetes' kinds.

use serde_json::{Value, json};

use super::cluster::NAMESPACES;
use super::dice::Dice;

/// Blocks of addresses, of both families: those of the other one mean nobody.
pub(super) const BLOCKS: [&str; 14] = [
    "0.0.0.0/0",
    "10.0.0.0/16",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.3/32",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "198.51.100.128/25",
    "::/0",
    "fd10::/64",
    "fd10::/125",
    "fd10::3/128",
    "2001:db8::/32",
    "2001:db8::/64",
];

/// Names of which DNS has told, and others.
const DOMAINS: [&str; 6] = [
    "sip.example.org",
    "*.cdn.example.org",
    "cdn.example.org",
    "*.example.org",
    "*.b.cdn.example.org",
    "nobody.example.org",
];

/// A LabelSelector over pods' labels.
fn pods(dice: &mut Dice) -> Value {
    selector(dice, &[("app", "web"), ("app", "db"), ("tier", "1"), ("team", "none")])
}

fn namespaces(dice: &mut Dice) -> Value {
    selector(dice, &[("env", "prod"), ("env", "dev"), ("team", "red"), ("kubernetes.io/metadata.name", "b")])
}

fn selector(dice: &mut Dice, pairs: &[(&str, &str)]) -> Value {
    let (key, value) = dice.one_of(pairs);
    let (_, other) = dice.one_of(pairs);
    match dice.roll(8) {
        0..=2 => json!({}),
        3..=4 => json!({"matchLabels": {key: value}}),
        5 => json!({"matchExpressions": [
            {"key": key, "operator": dice.one_of(&["In", "NotIn"]), "values": [value, other]},
        ]}),
        6 => {
            json!({"matchExpressions": [{"key": key, "operator": dice.one_of(&["Exists", "DoesNotExist"])}]})
        }
        _ => {
            let (second, _) = dice.one_of(pairs);
            json!({
                "matchLabels": {key: value},
                "matchExpressions": [{"key": second, "operator": dice.one_of(&["Exists", "DoesNotExist"])}],
            })
        }
    }
}

/// NetworkPolicy of networking.k8s.io/v1.
pub(super) fn network_policy(dice: &mut Dice, number: usize) -> Value {
    let rules = |dice: &mut Dice, peers_field: &str| {
        dice.many(0, 2, |dice| {
            let peers = dice.many(0, 2, network_policy_peer);
            let ports = dice.many(0, 2, network_policy_port);
            json!({peers_field: peers, "ports": ports})
        })
    };
    let types = [json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])];
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": dice.one_of(&NAMESPACES), "name": format!("np{number}")},
        "spec": {
            "podSelector": pods(dice), "policyTypes": dice.one_of(&types),
            "ingress": rules(dice, "from"), "egress": rules(dice, "to"),
        },
    })
}

fn network_policy_peer(dice: &mut Dice) -> Value {
    match dice.roll(4) {
        0 => json!({"podSelector": pods(dice)}),
        1 => json!({"namespaceSelector": namespaces(dice)}),
        2 => json!({"podSelector": pods(dice), "namespaceSelector": namespaces(dice)}),
        _ => {
            let blocks = [
                json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/29", "192.0.2.11/32"]}),
                json!({"cidr": "10.0.0.0/16", "except": ["10.0.0.4/30"]}),
                json!({"cidr": "fd10::/64", "except": ["fd10::/125"]}),
            ];
            if dice.chance(40) {
                json!({"ipBlock": dice.one_of(&blocks)})
            } else {
                json!({"ipBlock": {"cidr": dice.one_of(&BLOCKS)}})
            }
        }
    }
}

fn network_policy_port(dice: &mut Dice) -> Value {
    let ports = [
        json!({"port": 80}),
        json!({"protocol": "UDP", "port": 53}),
        json!({"port": "http"}),
        json!({"protocol": "TCP", "port": "dns"}),
        json!({"protocol": "UDP", "port": "dns"}),
        json!({"protocol": "SCTP", "port": "sig"}),
        json!({"protocol": "UDP"}),
        json!({"protocol": "SCTP"}),
        json!({"port": 80, "endPort": 9000}),
        json!({"protocol": "UDP", "port": 1, "endPort": 65535}),
    ];
    dice.one_of(&ports)
}

/// ClusterNetworkPolicy of v1alpha2. Equal priorities would leave the order open, so each has its own.
pub(super) fn cluster_network_policy(dice: &mut Dice, number: usize, priority: usize) -> Value {
    let tier = dice.one_of(&["Admin", "Baseline"]);
    let rules = |dice: &mut Dice, is_egress| {
        dice.many(0, 3, |dice| {
            let action = dice.one_of(&["Accept", "Deny", "Pass"]);
            let mut rule = json!({"action": action});
            let peers = dice.many(1, 2, |dice| cluster_peer(dice, is_egress, action == "Accept"));
            let names = peers.iter().all(is_pods);
            if dice.chance(60) {
                rule["protocols"] = dice.many(1, 2, |dice| cluster_protocol(dice, names)).into();
            }
            rule[if is_egress { "to" } else { "from" }] = peers.into();
            rule
        })
    };
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": format!("cnp{number}")},
        "spec": {
            "tier": tier, "priority": priority, "subject": cluster_pods(dice),
            "ingress": rules(dice, false), "egress": rules(dice, true),
        },
    })
}

/// A subject, or a peer that is pods.
fn cluster_pods(dice: &mut Dice) -> Value {
    if dice.chance(50) {
        json!({"namespaces": namespaces(dice)})
    } else {
        json!({"pods": {"namespaceSelector": namespaces(dice), "podSelector": pods(dice)}})
    }
}

/// A peer of a rule. Names are for egress rules that accept.
fn cluster_peer(dice: &mut Dice, is_egress: bool, may_be_named: bool) -> Value {
    let kinds = match (is_egress, may_be_named) {
        (true, true) => 6,
        (true, false) => 4,
        (false, _) => 2,
    };
    match dice.roll(kinds) {
        0 | 1 => cluster_pods(dice),
        4 | 5 => json!({"domainNames": dice.some_of(&DOMAINS, 1, 2)}),
        2 => json!({"nodes": selector(dice, &[("zone", "east"), ("zone", "west"), ("gpu", "yes")])}),
        _ => json!({"networks": dice.some_of(&BLOCKS, 1, 3)}),
    }
}

/// Names of ports mean something on pods alone.
fn is_pods(peer: &Value) -> bool {
    peer.get("namespaces").is_some() || peer.get("pods").is_some()
}

fn cluster_protocol(dice: &mut Dice, names: bool) -> Value {
    let protocols = [
        json!({"tcp": {"destinationPort": {"number": 80}}}),
        json!({"tcp": {"destinationPort": {"range": {"start": 80, "end": 9000}}}}),
        json!({"udp": {"destinationPort": {"number": 53}}}),
        json!({"udp": {"destinationPort": {"range": {"start": 1, "end": 65535}}}}),
        json!({"sctp": {"destinationPort": {"number": 3868}}}),
        json!({"destinationNamedPort": "http"}),
        json!({"destinationNamedPort": "dns"}),
        json!({"destinationNamedPort": "sig"}),
    ];
    dice.one_of(&protocols[..if names { protocols.len() } else { 5 }])
}

/// AdminNetworkPolicy of v1alpha1, or BaselineAdminNetworkPolicy, of which there is one.
pub(super) fn admin_network_policy(dice: &mut Dice, number: usize, priority: Option<usize>) -> Value {
    let actions: &[&str] = if priority.is_some() { &["Allow", "Deny", "Pass"] } else { &["Allow", "Deny"] };
    let rules = |dice: &mut Dice, is_egress| {
        dice.many(0, 3, |dice| {
            let action = dice.one_of(actions);
            let mut rule = json!({"action": action});
            // A baseline has no names.
            let may_be_named = action == "Allow" && priority.is_some();
            let peers = dice.many(1, 2, |dice| cluster_peer(dice, is_egress, may_be_named));
            let names = peers.iter().all(is_pods);
            if dice.chance(60) {
                rule["ports"] = dice.many(1, 2, |dice| admin_port(dice, names)).into();
            }
            rule[if is_egress { "to" } else { "from" }] = peers.into();
            rule
        })
    };
    let mut policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "spec": {"subject": cluster_pods(dice), "ingress": rules(dice, false), "egress": rules(dice, true)},
    });
    match priority {
        Some(priority) => {
            policy["kind"] = "AdminNetworkPolicy".into();
            policy["metadata"] = json!({"name": format!("anp{number}")});
            policy["spec"]["priority"] = priority.into();
        }
        None => {
            policy["kind"] = "BaselineAdminNetworkPolicy".into();
            policy["metadata"] = json!({"name": "default"});
        }
    }
    policy
}

fn admin_port(dice: &mut Dice, names: bool) -> Value {
    let ports = [
        json!({"portNumber": {"protocol": "TCP", "port": 80}}),
        json!({"portNumber": {"protocol": "UDP", "port": 53}}),
        json!({"portRange": {"protocol": "TCP", "start": 80, "end": 9000}}),
        json!({"portRange": {"protocol": "SCTP", "start": 1, "end": 4000}}),
        json!({"namedPort": "http"}),
        json!({"namedPort": "dns"}),
    ];
    dice.one_of(&ports[..if names { ports.len() } else { 4 }])
}
