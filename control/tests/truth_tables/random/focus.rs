//! States about one field of one kind: few policies, in which what the field says decides, and packets that it tells
//! apart. Among many policies a field that were ignored would seldom be missed.

use serde_json::{Value, json};

use super::cluster::{GRE, MESSAGES_V4, MESSAGES_V6};
use super::dice::Dice;
use super::{calico, kubernetes};
use crate::scene::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// Policies, and the traffic they are about: protocol and port. Without traffic, any.
#[derive(Default)]
pub(super) struct Focus {
    pub(super) objects: Vec<Value>,
    pub(super) traffic: Vec<(u8, u16)>,
}

/// A state about a field. Names of objects have `number` in them.
pub(super) fn roll(dice: &mut Dice, number: usize, is_ipv4: bool) -> Focus {
    if dice.chance(65) { field(dice, number, is_ipv4) } else { kind(dice, number) }
}

/// A policy of Calico's with rules about one field.
fn field(dice: &mut Dice, number: usize, is_ipv4: bool) -> Focus {
    let mut focus = Focus { objects: calico::tiers().collect(), traffic: Vec::new() };
    let about = match dice.roll(18) {
        0..=1 => {
            let (about, traffic) = source_ports(dice);
            focus.traffic = traffic;
            about
        }
        2..=8 => {
            let (about, traffic) = traffic(dice, is_ipv4);
            focus.traffic = traffic;
            about
        }
        _ => {
            // Whoever is meant: at one port, so that it is not the port that decides.
            focus.traffic = vec![(TCP, 80)];
            let field = dice.one_of(&calico::END_FIELDS);
            let end = dice.one_of(&["source", "destination"]);
            json!({end: calico::end_field(dice, field, is_ipv4)})
        }
    };
    if dice.chance(30) {
        focus.objects.push(calico::network_set(dice, number));
    }
    focus.objects.extend(around(dice, number, &about));
    focus
}

/// A policy whose rules are `about` something and do the contrary with everything else; and what comes after it.
fn around(dice: &mut Dice, number: usize, about: &Value) -> Vec<Value> {
    let tier = dice.one_of(&["default", "default", "first", "security", "kube-admin"]);
    let mut spec = json!({"tier": tier, "order": 7, "selector": "all()", "types": ["Ingress", "Egress"]});
    for direction in ["ingress", "egress"] {
        let action = dice.one_of(&["Allow", "Deny", "Pass", "Log"]);
        let rest = match action {
            "Deny" => "Allow",
            "Log" => dice.one_of(&["Allow", "Deny"]),
            _ => "Deny",
        };
        let mut rule = about.clone();
        rule["action"] = action.into();
        for end in ["source", "destination"] {
            if about[end].get("services").is_some() {
                // Services are for the other end alone.
                let other = if direction == "ingress" { "source" } else { "destination" };
                rule = json!({"action": action, other: about[end]});
            }
        }
        spec[direction] = json!([rule, {"action": rest}]);
        if dice.chance(30) {
            // The other direction alone is asked.
            spec[direction] = json!([{"action": "Allow"}]);
        }
    }
    let metadata = json!({"name": format!("{tier}.about{number}")});
    let mut policies = vec![json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": metadata, "spec": spec,
    })];
    if dice.chance(40) {
        policies[0]["kind"] = "NetworkPolicy".into();
        policies[0]["metadata"]["namespace"] = dice.one_of(&super::cluster::NAMESPACES).into();
    }
    if dice.chance(40) {
        // What is passed is not allowed yet.
        policies.push(json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": format!("kube-baseline.after{number}")},
            "spec": {
                "tier": "kube-baseline", "order": 1, "types": ["Ingress", "Egress"],
                "ingress": [{"action": "Deny"}], "egress": [{"action": "Deny"}],
            },
        }));
    }
    policies
}

/// What a rule says of protocols and ports, and packets of this kind and others.
fn traffic(dice: &mut Dice, is_ipv4: bool) -> (Value, Vec<(u8, u16)>) {
    let (icmp, name, messages) =
        if is_ipv4 { (ICMP, "ICMP", MESSAGES_V4) } else { (ICMPV6, "ICMPv6", MESSAGES_V6) };
    let all_messages: Vec<_> = messages.iter().map(|message| (icmp, *message)).collect();
    match dice.roll(8) {
        0..=2 => {
            let [kind, code] = dice.one_of(&messages).to_be_bytes();
            let said =
                if dice.chance(50) { json!({"type": kind}) } else { json!({"type": kind, "code": code}) };
            let rule = json!({"protocol": name, dice.one_of(&["icmp", "notICMP"]): said});
            (rule, all_messages)
        }
        3 => {
            let field = dice.one_of(&["protocol", "notProtocol"]);
            let protocol =
                dice.one_of(&[json!("TCP"), json!("UDP"), json!("SCTP"), json!(name), json!(17), json!(GRE)]);
            let some = [(TCP, 80), (UDP, 80), (SCTP, 80), (GRE, 0)];
            (json!({field: protocol}), some.into_iter().chain(all_messages).collect())
        }
        4 => {
            let version = dice.one_of(&[4, 6]);
            (json!({"ipVersion": version}), vec![(TCP, 80), (UDP, 53)])
        }
        _ => {
            let protocol = dice.one_of(&[TCP, UDP, SCTP]);
            let ports = [
                json!(80),
                json!(443),
                json!("80:8080"),
                json!("54:3867"),
                json!("http"),
                json!("dns"),
                json!("sig"),
            ];
            let mut rule = json!({"protocol": protocol});
            match dice.roll(3) {
                0 => rule["destination"] = json!({"ports": dice.some_of(&ports, 1, 3)}),
                1 => rule["destination"] = json!({"notPorts": dice.some_of(&ports, 1, 3)}),
                _ => {
                    rule["destination"] =
                        json!({"ports": ["1:9000", "http"], "notPorts": dice.some_of(&ports, 1, 2)});
                }
            }
            let numbers = [53, 54, 79, 80, 443, 3867, 3868, 8080, 8081];
            let asked = dice.one_of(&[protocol, protocol, protocol, TCP]);
            (rule, numbers.into_iter().map(|port| (asked, port)).collect())
        }
    }
}

/// What a rule says of source ports, beside a port of the destination or none, and packets to there and elsewhere.
fn source_ports(dice: &mut Dice) -> (Value, Vec<(u8, u16)>) {
    let names = [json!("http"), json!("dns"), json!("sig")];
    let numbers =
        [json!(80), json!(65_535), json!("1:1023"), json!("1024:65535"), json!("80:9000"), json!(53)];
    let protocol = dice.one_of(&[TCP, UDP, SCTP]);
    let traffic = vec![(protocol, 80), (protocol, 80), (protocol, 53), (TCP, 80)];
    let mut rule = json!({"protocol": protocol});
    let some = dice.some_of(&[&names[..], &numbers[..]].concat(), 1, 3);
    match dice.roll(5) {
        0 => rule["source"] = json!({"ports": some}),
        1 => rule["source"] = json!({"notPorts": some}),
        2 => rule["source"] = json!({"ports": ["80:9000", "http"], "notPorts": some}),
        3 => {
            rule["source"] = json!({"ports": some});
            rule["destination"] =
                json!({dice.one_of(&["ports", "notPorts"]): [dice.one_of(&["http", "dns"])]});
        }
        // Without a protocol there are only names.
        _ => rule = json!({"source": {dice.one_of(&["ports", "notPorts"]): dice.some_of(&names, 1, 2)}}),
    }
    (rule, traffic)
}

/// One or two policies of one kind, alone but for what they refer to.
fn kind(dice: &mut Dice, number: usize) -> Focus {
    let mut objects: Vec<Value> = calico::tiers().collect();
    let mut traffic = Vec::new();
    let count = 1 + dice.roll(2);
    let which = dice.roll(7);
    if which <= 3 {
        // Where their ranges end, and what has names.
        let numbers = [53, 79, 80, 3868, 4000, 4001, 8080, 9000, 9001];
        traffic.extend([TCP, UDP, SCTP].into_iter().flat_map(|it| numbers.map(|port| (it, port))));
    }
    match which {
        0..=1 => {
            objects.extend((0..count).map(|of| kubernetes::network_policy(dice, number + of)));
        }
        2 => objects
            .extend((0..count).map(|of| kubernetes::cluster_network_policy(dice, number + of, 10 + of))),
        3 if dice.chance(70) => {
            objects.extend(
                (0..count).map(|of| kubernetes::admin_network_policy(dice, number + of, Some(10 + of))),
            );
        }
        3 => objects.push(kubernetes::admin_network_policy(dice, 0, None)),
        4 => objects.extend(staged(dice, number)),
        5 => {
            // Profiles are asked of what passed the tiers.
            objects.extend([calico::profile(dice, true), calico::profile(dice, false)]);
            traffic.extend([(TCP, 80), (UDP, 53)]);
        }
        _ => objects.extend((0..count).map(|of| calico::policy(dice, number + of, 1001 + of))),
    }
    Focus { objects, traffic }
}

/// A policy, and what is staged in its place.
fn staged(dice: &mut Dice, number: usize) -> Vec<Value> {
    if dice.chance(30) {
        let there = kubernetes::network_policy(dice, number);
        let mut other = kubernetes::network_policy(dice, number);
        other["metadata"] = there["metadata"].clone();
        return vec![there, calico::staged_kubernetes(other)];
    }
    let about = json!({"destination": calico::end_field(dice, "selector", true)});
    let mut there = around(dice, number, &about);
    there.truncate(1);
    let mut other = there[0].clone();
    other["kind"] = format!("Staged{}", there[0]["kind"].as_str().unwrap()).into();
    if dice.chance(30) {
        other["spec"] = json!({"tier": other["spec"]["tier"], "stagedAction": "Delete"});
    } else {
        other["spec"]["ingress"] = json!([{"action": dice.one_of(&["Allow", "Deny", "Pass"])}]);
    }
    if dice.chance(30) {
        // Of a name that nobody has yet.
        there.clear();
    }
    there.push(other);
    there
}
