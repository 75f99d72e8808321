//! Random objects of Calico's kinds.

use serde_json::{Value, json};

use super::cluster::{ACCOUNTS, NAMESPACES};
use super::dice::Dice;
use super::kubernetes::BLOCKS;

/// Tiers with the order of Calico's own in between: `default` has 1,000,000.
pub(super) const TIERS: [(&str, u32, &str); 3] =
    [("security", 2000, "Deny"), ("platform", 3000, "Pass"), ("last", 2_000_000, "Deny")];

pub(super) fn tiers() -> impl Iterator<Item = Value> {
    TIERS.into_iter().map(|(name, order, end)| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name},
            "spec": {"order": order, "defaultAction": end},
        })
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
    let tier = dice.one_of(&["default", "default", TIERS[0].0, TIERS[1].0, TIERS[2].0]);
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
            spec[field] = dice.many(0, 3, rule).into();
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
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

const POD_LABELS: &[(&str, &str)] = &[("app", "web"), ("app", "db"), ("tier", "1"), ("kind", "feed")];
const NAMESPACE_LABELS: &[(&str, &str)] =
    &[("env", "prod"), ("team", "red"), ("projectcalico.org/name", "b")];
const ACCOUNT_LABELS: &[(&str, &str)] = &[("level", "high"), ("level", "low")];

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
            format!("{key} starts with '{}' || {key} ends with '{}'", &value[..1], &value[value.len() - 1..])
        }
        11 => format!("{} && {}", selector(dice, pairs), selector(dice, pairs)),
        12 => format!("({} || {})", selector(dice, pairs), selector(dice, pairs)),
        _ => format!("!({})", selector(dice, pairs)),
    }
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
    if rule.get("protocol").is_none() && dice.chance(10) {
        rule["ipVersion"] = if is_ipv4 { 4 } else { 6 }.into();
    }
    for end in ["source", "destination"] {
        let mut entity = entity(dice, is_ipv4);
        if end == "destination" && has_ports && dice.chance(60) {
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

fn entity(dice: &mut Dice, is_ipv4: bool) -> Value {
    let mut entity = json!({});
    if dice.chance(25) {
        entity["selector"] = selector(dice, POD_LABELS).into();
    }
    if dice.chance(12) {
        entity["notSelector"] = selector(dice, POD_LABELS).into();
    }
    if dice.chance(15) {
        entity["namespaceSelector"] =
            if dice.chance(15) { "global()".to_owned() } else { selector(dice, NAMESPACE_LABELS) }.into();
    }
    if dice.chance(10) {
        let by_name = json!({"names": dice.some_of(&ACCOUNTS, 1, 2)});
        let by_label = json!({"selector": selector(dice, ACCOUNT_LABELS)});
        entity["serviceAccounts"] = dice.one_of(&[by_name, by_label]);
    }
    let blocks: Vec<_> = BLOCKS.into_iter().filter(|block| block.contains(':') != is_ipv4).collect();
    for field in ["nets", "notNets"] {
        if dice.chance(12) {
            entity[field] = dice.some_of(&blocks, 1, 2).into();
        }
    }
    entity
}
