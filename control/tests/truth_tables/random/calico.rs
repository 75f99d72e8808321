//! Random objects of Calico's kinds.

use serde_json::{Value, json};

use super::cluster::{ACCOUNTS, NAMESPACES};
use super::dice::Dice;
use super::kubernetes::BLOCKS;

/// Tiers before, between and after those that are always there, and one without an order, which is last.
const TIERS: [(&str, Option<u32>, &str); 5] = [
    ("first", Some(500), "Pass"),
    ("security", Some(2000), "Deny"),
    ("platform", Some(3000), "Pass"),
    ("after", Some(20_000_000), "Deny"),
    ("last", None, "Pass"),
];

pub(super) fn tiers() -> impl Iterator<Item = Value> {
    TIERS.into_iter().map(|(name, order, end)| {
        let mut spec = json!({"defaultAction": end});
        if let Some(order) = order {
            spec["order"] = order.into();
        }
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name}, "spec": spec})
    })
}

/// The profile of a namespace or of a service account.
pub(super) fn profile(dice: &mut Dice, is_of_namespace: bool) -> Value {
    let namespace = dice.one_of(&NAMESPACES);
    let name = if is_of_namespace {
        format!("kns.{namespace}")
    } else {
        format!("ksa.{namespace}.{}", dice.one_of(&ACCOUNTS))
    };
    let rules = |dice: &mut Dice| {
        dice.many(0, 3, |dice| {
            loop {
                let rule = rule(dice);
                // After profiles there is nothing to pass to.
                if rule["action"] != "Pass" {
                    break rule;
                }
            }
        })
    };
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Profile", "metadata": {"name": name},
        "spec": {"ingress": rules(dice), "egress": rules(dice)},
    })
}

/// A NetworkSet or a GlobalNetworkSet.
pub(super) fn network_set(dice: &mut Dice, number: usize) -> Value {
    let labels =
        dice.one_of(&[json!({"app": "web"}), json!({"app": "db", "tier": "1"}), json!({"kind": "feed"})]);
    let mut set = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": format!("set{number}"), "labels": labels},
        "spec": {"nets": dice.some_of(&BLOCKS, 1, 3)},
    });
    if dice.chance(50) {
        set["kind"] = "NetworkSet".into();
        set["metadata"]["namespace"] = dice.one_of(&NAMESPACES).into();
    }
    set
}

/// A NetworkPolicy or a GlobalNetworkPolicy; sometimes its staged kind, which changes nothing. Equal orders would be
/// told apart by names in ways that are Calico's alone, so each has its own.
pub(super) fn policy(dice: &mut Dice, number: usize, order: usize) -> Value {
    let tier = match dice.roll(8) {
        0..=2 => "default",
        3 => dice.one_of(&["kube-admin", "kube-baseline"]),
        _ => dice.one_of(&TIERS).0,
    };
    let is_global = dice.chance(50);
    let is_staged = dice.chance(15);
    let name = format!("cal{number}");
    let mut metadata = json!({"name": if tier == "default" { name } else { format!("{tier}.{name}") }});
    let mut spec = json!({"tier": tier, "order": order, "selector": selector(dice, POD_LABELS)});
    if dice.chance(30) {
        spec["types"] = dice.one_of(&[json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    }
    let types = spec["types"].clone();
    for (direction, field) in [("Ingress", "ingress"), ("Egress", "egress")] {
        // Rules of a direction that the types leave out would be refused.
        let may_have = types.as_array().is_none_or(|types| types.iter().any(|kind| kind == direction));
        if may_have && dice.chance(70) {
            spec[field] = dice.many(0, 3, |dice| rule_or_service(dice, direction)).into();
        }
    }
    if dice.chance(15) {
        spec["serviceAccountSelector"] = selector(dice, ACCOUNT_LABELS).into();
    }
    if is_global && dice.chance(40) {
        spec["namespaceSelector"] = selector(dice, NAMESPACE_LABELS).into();
    }
    if !is_global {
        metadata["namespace"] = dice.one_of(&NAMESPACES).into();
    }
    let kind = match (is_staged, is_global) {
        (false, false) => "NetworkPolicy",
        (false, true) => "GlobalNetworkPolicy",
        (true, false) => "StagedNetworkPolicy",
        (true, true) => "StagedGlobalNetworkPolicy",
    };
    if is_staged && dice.chance(30) {
        // It says no more than that the other would go.
        spec = json!({"tier": tier, "stagedAction": "Delete"});
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

/// A NetworkPolicy of Kubernetes that is only staged, in place of the one of its name.
pub(super) fn staged_kubernetes(mut policy: Value) -> Value {
    policy["apiVersion"] = "projectcalico.org/v3".into();
    policy["kind"] = "StagedKubernetesNetworkPolicy".into();
    policy
}

const POD_LABELS: &[(&str, &str)] = &[
    ("app", "web"),
    ("app", "db"),
    ("tier", "1"),
    ("kind", "feed"),
    ("projectcalico.org/namespace", "a"),
    ("projectcalico.org/serviceaccount", "web"),
];
const NAMESPACE_LABELS: &[(&str, &str)] =
    &[("env", "prod"), ("team", "red"), ("projectcalico.org/name", "b")];
const ACCOUNT_LABELS: &[(&str, &str)] =
    &[("level", "high"), ("level", "low"), ("projectcalico.org/name", "batch")];

/// A selector, not too deep.
fn selector(dice: &mut Dice, pairs: &[(&str, &str)]) -> String {
    let (key, value) = dice.one_of(pairs);
    let (_, other) = dice.one_of(pairs);
    match dice.roll(14) {
        0..=1 => "all()".to_owned(),
        2..=3 => format!("{key} == '{value}'"),
        4 => format!("{key} != \"{value}\""),
        5 => format!("has({key})"),
        6 => format!("!has({key})"),
        7 => format!("{key} in {{'{value}', '{other}'}}"),
        8 => format!("{key} not in {{'{value}'}}"),
        9 => format!("{key} contains '{}'", &value[..1]),
        10 => {
            // A letter from anywhere in it, which may be where another value begins or ends.
            let (at, operator) = (dice.roll(value.len()), dice.one_of(&["starts with", "ends with"]));
            format!("{key} {operator} '{}'", &value[at..=at])
        }
        11 => format!("{} && {}", selector(dice, pairs), selector(dice, pairs)),
        12 => format!("({} || {})", selector(dice, pairs), selector(dice, pairs)),
        _ => format!("!({})", selector(dice, pairs)),
    }
}

/// A rule; now and then one about the endpoints of a service, as a rule may be that says nothing else of that end.
fn rule_or_service(dice: &mut Dice, direction: &str) -> Value {
    if dice.chance(92) {
        return rule(dice);
    }
    let service =
        json!({"services": {"name": dice.one_of(&SERVICES), "namespace": dice.one_of(&NAMESPACES)}});
    let end = if direction == "Ingress" { "source" } else { "destination" };
    json!({"action": dice.one_of(&["Allow", "Deny", "Pass"]), end: service})
}

const SERVICES: [&str; 2] = ["front", "back"];

/// The endpoints of a service: of any addresses, whoever has them.
pub(super) fn endpoint_slice(dice: &mut Dice, number: usize, is_ipv4: bool) -> Value {
    let addresses: &[&str] = if is_ipv4 {
        &["10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.8", "198.51.100.7"]
    } else {
        &["fd10::1", "fd10::2", "fd10::5", "fd10::8", "2001:db8::7"]
    };
    let ports = [
        json!({"name": "http", "port": 80, "protocol": "TCP"}),
        json!({"name": "dns", "port": 53, "protocol": "UDP"}),
        json!({"name": "sig", "port": 3868, "protocol": "SCTP"}),
    ];
    let endpoints: Vec<_> =
        dice.some_of(addresses, 0, 3).into_iter().map(|address| json!({"addresses": [address]})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": dice.one_of(&NAMESPACES), "name": format!("slice{number}"),
            "labels": {"kubernetes.io/service-name": dice.one_of(&SERVICES)},
        },
        "addressType": if is_ipv4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints, "ports": dice.some_of(&ports, 1, 2),
    })
}

fn rule(dice: &mut Dice) -> Value {
    let mut rule = json!({"action": dice.one_of(&["Allow", "Allow", "Deny", "Pass", "Log"])});
    let mut has_ports = false;
    match dice.roll(10) {
        0..=3 => {
            rule["protocol"] = dice.one_of(&[json!("TCP"), json!("UDP"), json!("SCTP"), json!(6)]);
            has_ports = true;
        }
        4 => {
            rule["protocol"] = "ICMP".into();
            rule[dice.one_of(&["icmp", "notICMP"])] = dice.one_of(&[
                json!({"type": 8}),
                json!({"type": 8, "code": 0}),
                json!({"type": 13, "code": 1}),
            ]);
        }
        5 => rule["notProtocol"] = dice.one_of(&[json!("TCP"), json!("ICMP"), json!(47)]),
        6 => rule["protocol"] = dice.one_of(&[json!("ICMPv6"), json!("UDPLite"), json!(47)]),
        _ => {}
    }
    // A rule is of one family as soon as it speaks of addresses.
    let is_ipv4 = dice.chance(65);
    if rule.get("protocol").is_none() && rule.get("notProtocol").is_none() && dice.chance(10) {
        rule["ipVersion"] = if is_ipv4 { 4 } else { 6 }.into();
    }
    for end in ["source", "destination"] {
        let mut entity = entity(dice, is_ipv4);
        if has_ports && dice.chance(if end == "destination" { 60 } else { 25 }) {
            let ports =
                [json!(80), json!("80:9000"), json!(53), json!("http"), json!("dns"), json!("1:65535")];
            entity[dice.one_of(&["ports", "ports", "notPorts"])] = dice.some_of(&ports, 1, 2).into();
        }
        if entity.as_object().is_some_and(|fields| !fields.is_empty()) {
            rule[end] = entity;
        }
    }
    rule
}

/// What one end of a rule may be asked to be.
pub(super) const END_FIELDS: [&str; 7] =
    ["selector", "notSelector", "namespaceSelector", "serviceAccounts", "nets", "notNets", "services"];

/// An end of which a rule says one thing.
pub(super) fn end_field(dice: &mut Dice, field: &str, is_ipv4: bool) -> Value {
    json!({field: said_of_end(dice, field, is_ipv4)})
}

fn said_of_end(dice: &mut Dice, field: &str, is_ipv4: bool) -> Value {
    match field {
        "selector" | "notSelector" => selector(dice, POD_LABELS).into(),
        "namespaceSelector" if dice.chance(15) => "global()".into(),
        "namespaceSelector" => selector(dice, NAMESPACE_LABELS).into(),
        "serviceAccounts" => {
            let by_name = json!({"names": dice.some_of(&ACCOUNTS, 1, 2)});
            let by_label = json!({"selector": selector(dice, ACCOUNT_LABELS)});
            dice.one_of(&[by_name, by_label])
        }
        "services" => json!({"name": dice.one_of(&SERVICES), "namespace": dice.one_of(&NAMESPACES)}),
        _ => {
            // Not to be anywhere is refused.
            let may_be =
                |block: &&str| block.contains(':') != is_ipv4 && (field == "nets" || !block.ends_with("/0"));
            let blocks: Vec<_> = BLOCKS.into_iter().filter(may_be).collect();
            dice.some_of(&blocks, 1, 2).into()
        }
    }
}

fn entity(dice: &mut Dice, is_ipv4: bool) -> Value {
    let mut entity = json!({});
    let chances = [25, 12, 15, 10, 12, 12];
    for (field, chance) in END_FIELDS.into_iter().zip(chances) {
        if dice.chance(chance) {
            entity[field] = said_of_end(dice, field, is_ipv4);
        }
    }
    entity
}
