//! Calico's objects: policies, staged ones, tiers, network sets and profiles.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::kubernetes::{NETS, labels, network_policy_spec};

fn selector() -> impl Strategy<Value = &'static str> {
    let written = select(vec![
        "all()",
        "app == 'web'",
        "app != 'web'",
        "has(tier)",
        "!has(app) || tier starts with '1'",
        "app in {'web', 'set'} && !(tier == '1')",
        "app not in {'db'}",
        "projectcalico.org/namespace == 'a'",
        "projectcalico.org/serviceaccount == 'sip'",
        "lent == 'yes'",
    ]);
    prop_oneof![3 => Just(""), 2 => written]
}

fn namespace_selector() -> impl Strategy<Value = &'static str> {
    let written = select(vec!["all()", "app == 'web'", "!has(tier)", "projectcalico.org/name == 'b'"]);
    prop_oneof![3 => Just(""), 1 => written]
}

/// One end: of CIDRs of one family (None: of none), pods, or a service where `service` allows one.
fn entity(family: Option<bool>, service: bool) -> impl Strategy<Value = Value> {
    let nets: Vec<_> = NETS.into_iter().filter(|nets| family == Some(!nets[0].contains(':'))).collect();
    let all_but: Vec<_> = nets.iter().copied().filter(|nets| !nets[0].ends_with("/0")).collect();
    let one_of = |lists: Vec<&'static [&'static str]>| {
        let lists: Vec<_> = lists.into_iter().map(|nets| json!(nets)).chain([json!([])]).collect();
        prop_oneof![3 => Just(json!([])), 1 => select(lists)]
    };
    let namespaces = prop_oneof![9 => namespace_selector(), 1 => Just("global()")];
    let accounts = select(vec![
        json!({"names": ["sip"]}),
        json!({"selector": "app == 'web'"}),
        json!({"selector": "projectcalico.org/name == 'default'"}),
    ]);
    let accounts = prop_oneof![8 => Just(json!(null)), 1 => accounts];
    let not = prop_oneof![2 => Just(""), 1 => selector()];
    let of_pods = (selector(), not, namespaces, accounts, one_of(nets), one_of(all_but)).prop_map(
        |(selector, not, namespaces, accounts, nets, not_nets)| {
            let mut entity = json!({
                "selector": selector, "notSelector": not, "namespaceSelector": namespaces,
                "nets": nets, "notNets": not_nets,
            });
            if !accounts.is_null() {
                entity["serviceAccounts"] = accounts;
            }
            entity
        },
    );
    let of_service = Just(json!({"services": {"namespace": "a", "name": "s"}}));
    if service {
        prop_oneof![2 => Just(json!({})), 4 => of_pods, 1 => of_service].boxed()
    } else {
        prop_oneof![Just(json!({})), of_pods].boxed()
    }
}

/// Protocols and ports of a rule, and ports of one of its ends or of both.
fn traffic() -> impl Strategy<Value = (Value, Value)> {
    select(vec![
        (json!({}), json!({})),
        (json!({}), json!({})),
        (json!({"protocol": "TCP"}), json!({})),
        (json!({"protocol": "TCP"}), json!({"ports": [80, "http", "9000:9010"]})),
        (json!({"protocol": "TCP"}), json!({"notPorts": [80]})),
        (json!({"protocol": "TCP"}), json!({"notPorts": ["http"]})),
        (json!({"protocol": "TCP"}), json!({"ports": ["1:9000", "http"], "notPorts": ["http", 22]})),
        (json!({"protocol": "UDP"}), json!({"ports": ["5000:6000"]})),
        (json!({"notProtocol": "UDP"}), json!({})),
        (json!({}), json!({"ports": ["http"]})),
        (json!({"protocol": "ICMP", "icmp": {"type": 8}}), json!({})),
        (json!({"protocol": "ICMP", "notICMP": {"type": 3, "code": 1}}), json!({})),
        (json!({"protocol": "ICMPv6", "icmp": {"type": 128, "code": 0}}), json!({})),
    ])
}

fn rule(ingress: bool) -> impl Strategy<Value = Value> {
    let families = select(vec![None, None, None, Some(true), Some(false)]);
    let ends = families.prop_flat_map(move |family| {
        (Just(family), entity(family, ingress), entity(family, !ingress), any::<bool>())
    });
    let action = select(vec!["Allow", "Allow", "Deny", "Log", "Pass"]);
    let with_ports =
        select(vec![&["destination"][..], &["destination"], &["source"], &["source", "destination"]]);
    (action, ends, traffic(), with_ports).prop_map(|(action, ends, (given, ports), with_ports)| {
        let (family, source, destination, says_so) = ends;
        let mut rule = json!({"action": action, "source": source, "destination": destination});
        let is_icmp = given["protocol"].as_str().is_some_and(|protocol| protocol.starts_with("ICMP"));
        for end in with_ports {
            // As a destination a service brings its own.
            if *end == "source" || rule["destination"].get("services").is_none() {
                rule[end].as_object_mut().unwrap().extend(ports.as_object().unwrap().clone());
            }
        }
        rule.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        if let Some(is_four) = family.filter(|_| says_so && !is_icmp) {
            rule["ipVersion"] = json!(if is_four { 4 } else { 6 });
        }
        rule
    })
}

/// What a policy says that is Calico's; `tier` is there, or `gone` is not.
fn spec(is_global: bool) -> impl Strategy<Value = Value> {
    let rules = (prop::collection::vec(rule(true), 0..3), prop::collection::vec(rule(false), 0..3));
    let types = select(vec![json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let tier = prop_oneof![8 => Just("default"), 8 => Just("security"), 2 => Just("late"), 1 => Just("gone")];
    let order = select(vec![json!(null), json!(10), json!(1000), json!(1500.5)]);
    let accounts = select(vec!["", "", "", "", "app == 'web'"]);
    (tier, order, selector(), namespace_selector(), accounts, types, rules).prop_map(
        move |(tier, order, selector, namespaces, accounts, types, (ingress, egress))| {
            let mut spec = json!({
                "tier": tier, "selector": selector, "serviceAccountSelector": accounts, "types": types,
                "ingress": ingress, "egress": egress,
            });
            if !order.is_null() {
                spec["order"] = order;
            }
            if is_global {
                spec["namespaceSelector"] = json!(namespaces);
            }
            spec
        },
    )
}

#[expect(clippy::needless_pass_by_value, reason = "what it takes is written in place")]
fn object(kind: &str, metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

/// A policy, in force or staged.
pub(crate) fn policy() -> impl Strategy<Value = Value> {
    let namespaced = (
        select(vec!["NetworkPolicy", "NetworkPolicy", "StagedNetworkPolicy"]),
        0..3,
        select(vec!["a", "b"]),
        spec(false),
    );
    let namespaced = namespaced.prop_map(|(kind, number, namespace, spec)| {
        let name = format!("{}.calico{number}", spec["tier"].as_str().unwrap());
        object(kind, json!({"namespace": namespace, "name": name}), spec)
    });
    let global = (
        select(vec!["GlobalNetworkPolicy", "GlobalNetworkPolicy", "StagedGlobalNetworkPolicy"]),
        0..3,
        spec(true),
    );
    let global = global.prop_map(|(kind, number, spec)| {
        let name = format!("{}.global{number}", spec["tier"].as_str().unwrap());
        object(kind, json!({"name": name}), spec)
    });
    let kubernetes = (0..4, select(vec!["a", "b"]), network_policy_spec(), any::<bool>());
    let kubernetes = kubernetes.prop_map(|(number, namespace, mut spec, is_removal)| {
        if is_removal {
            spec = json!({"stagedAction": "Delete"});
        }
        let metadata = json!({"namespace": namespace, "name": format!("policy{number}")});
        object("StagedKubernetesNetworkPolicy", metadata, spec)
    });
    prop_oneof![4 => namespaced, 4 => global, 1 => kubernetes]
}

/// Tiers, network sets and profiles, each there or not.
pub(crate) fn others() -> impl Strategy<Value = Vec<Value>> {
    let tier = (
        select(vec![
            json!({"order": 100}),
            json!({"order": 2e6}),
            json!({"order": 500, "defaultAction": "Pass"}),
        ]),
        any::<bool>(),
    )
        .prop_map(|(spec, late_too)| {
            let mut tiers = vec![object("Tier", json!({"name": "security"}), spec)];
            // Of no order: after the baseline.
            tiers.extend(late_too.then(|| object("Tier", json!({"name": "late"}), json!({}))));
            tiers
        });
    let nets = || select(NETS.to_vec());
    let sets = (labels(), nets(), nets()).prop_map(|(own, one, other)| {
        vec![
            object(
                "NetworkSet",
                json!({"namespace": "a", "name": "set", "labels": own}),
                json!({"nets": one}),
            ),
            object(
                "GlobalNetworkSet",
                json!({"name": "set", "labels": {"app": "set"}}),
                json!({"nets": other}),
            ),
        ]
    });
    let mut rules = (
        prop::collection::vec(rule(true), 0..2),
        prop::collection::vec(rule(false), 0..2),
        select(vec!["kns.a", "ksa.a.sip"]),
    )
        .prop_map(|(ingress, egress, name)| {
            let mut spec = json!({"ingress": ingress, "egress": egress, "labelsToApply": {"lent": "yes"}});
            for direction in ["ingress", "egress"] {
                spec[direction].as_array_mut().unwrap().retain(|rule| rule["action"] != "Pass");
            }
            vec![object("Profile", json!({"name": name}), spec)]
        })
        .boxed();
    rules = prop::collection::vec(rules, 0..3).prop_map(|profiles| profiles.concat()).boxed();
    let maybe = |objects: BoxedStrategy<Vec<Value>>, weight| {
        prop::option::weighted(weight, objects).prop_map(Option::unwrap_or_default)
    };
    let all = (maybe(tier.boxed(), 0.9), maybe(sets.boxed(), 0.6), maybe(rules, 0.3));
    all.prop_map(|(tiers, sets, profiles)| [tiers, sets, profiles].concat())
}
