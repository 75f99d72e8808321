//! Random small clusters of policies of every kind, one after another: what is calculated agrees with what is explained,
//! down to the rule, is whole, and does not depend on what was there before.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod calico;
mod following;
mod kubernetes;
mod names;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use vswitch_control::calc::{CalcConfig, End, Explainer, Inputs, Numbering, Question, Side, calculate};
use vswitch_control::object::Object;
use vswitch_control::object::manifest::from_value;
use vswitch_datapath::policy::{FlowPorts, PolicyDirection, Verdict, View, oracle};
use vswitch_model::{DesiredState, IdentityId, IdentityKind, PolicyId, SetId, Subject, Tier};

const NODES: [&str; 2] = ["n0", "n1"];
/// Pods: namespace, name, and the node they are on. The nth has addresses 10.0.0.n and fd00::n, counted from 1.
const PODS: [(&str, &str, usize); 6] =
    [("a", "p0", 0), ("a", "p1", 1), ("a", "p2", 0), ("b", "p0", 1), ("b", "p1", 0), ("c", "p0", 0)];
/// Of each family an address of nobody in the cluster and one in the pool, and those of the nodes.
const OTHERS: [&str; 8] = [
    "198.51.100.7",
    "203.0.113.9",
    "10.0.0.200",
    "192.0.2.1",
    "192.0.2.2",
    "2001:db8::1",
    "fd00::200",
    "2001:db8::a",
];
/// Protocol, port or ICMP message, and source port.
const PORTS: [(u8, u16, u16); 10] = [
    (6, 80, 40_000),
    (6, 80, 80),
    (6, 8080, 9005),
    (6, 9005, 8080),
    (17, 80, 5500),
    (17, 5060, 40_000),
    (1, 8 << 8, 0),
    (1, 3 << 8 | 1, 0),
    (58, 128 << 8, 0),
    (47, 0, 0),
];

fn cluster() -> impl Strategy<Value = Inputs> {
    let unreadable = prop::option::weighted(0.2, unknown::key());
    (objects(), names::learned(), unreadable).prop_map(|(objects, names, unreadable)| {
        let inputs = Inputs { names, ..objects.into_iter().collect() };
        unreadable.into_iter().fold(inputs, unknown::without)
    })
}

fn objects() -> impl Strategy<Value = Vec<Object>> {
    let pods: Vec<_> =
        (0..PODS.len()).map(|number| prop::option::weighted(0.8, kubernetes::pod(number))).collect();
    let namespaces = prop::collection::vec(prop::option::weighted(0.7, kubernetes::labels()), 2);
    let policies = prop_oneof![
        2 => kubernetes::network_policy(),
        2 => kubernetes::cluster_policy(),
        4 => calico::policy(),
    ];
    let policies = prop::collection::vec(policies, 0..7);
    let mode = select(vec!["Never", "Always", "CrossSubnet"]);
    let account_and_nodes = (kubernetes::labels(), prop::collection::vec(kubernetes::labels(), 2));
    let all = (pods, namespaces, policies, mode, account_and_nodes, calico::others());
    all.prop_map(|(pods, namespaces, policies, mode, (account, nodes), others)| {
        let mut values: Vec<Value> = pods.into_iter().flatten().flatten().collect();
        for (name, labels) in ["a", "b"].iter().zip(namespaces) {
            let metadata = labels.map(|labels| json!({"name": name, "labels": labels}));
            values.extend(metadata.map(|m| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": m})));
        }
        values.extend(policies);
        values.extend(kubernetes::referred(mode, &account, &nodes));
        values.extend(others);
        let object = |value: Value| {
            from_value("random", "default", 1, value.clone()).map_err(|e| format!("{e}: {value}"))
        };
        values.into_iter().map(|value| object(value).unwrap()).collect()
    })
}

fn identity(state: &DesiredState, address: IpAddr) -> IdentityId {
    let prefixes = state.prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
    prefixes.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(IdentityId::UNKNOWN, |(_, id)| *id)
}

/// Every flow between any two addresses is judged alike by the state and by the explanation, by the same rule, and with
/// what is staged, too.
fn agree(inputs: &Inputs, states: &[DesiredState]) {
    let explainer = Explainer::new(inputs);
    let pods = (1..=PODS.len()).flat_map(|number| [format!("10.0.0.{number}"), format!("fd00::{number}")]);
    let all: Vec<IpAddr> = pods.chain(OTHERS.map(str::to_owned)).map(|text| text.parse().unwrap()).collect();
    let on = |address: &IpAddr| {
        states.iter().find(|state| state.ports.values().any(|port| port.addresses.contains(address)))
    };
    for from in &all {
        for to in all.iter().filter(|to| *to != from && to.is_ipv4() == from.is_ipv4()) {
            for (protocol, port, source) in PORTS {
                let (from_end, to_end) = (End::Address(*from), End::Address(*to));
                let source_port = Some(source);
                let question =
                    Question { from: from_end, to: to_end, protocol, port, source_port, is_ipv4: None };
                let ports = FlowPorts { protocol, destination: port, source };
                let said = explainer.explain(&question).unwrap();
                let ends = [
                    (PolicyDirection::Egress, from, to, &said.egress),
                    (PolicyDirection::Ingress, to, from, &said.ingress),
                ];
                for (direction, own, other, side) in ends {
                    let Some(state) = on(own) else { continue };
                    let (own, other) = (identity(state, *own), identity(state, *other));
                    let verdict = |view| oracle::verdict_in(view, state, direction, own, other, ports);
                    let context = || format!("{direction:?}, {ports:?}: {said}");
                    let (now, staged) = (verdict(View::InForce), verdict(View::Staged));
                    assert_eq!(now.allow, side.allowed, "{}", context());
                    assert_same_rule(state, now, side, &context);
                    let would_be = match side.staged.as_str() {
                        "" => now.allow,
                        text => text.starts_with("it would be allowed"),
                    };
                    assert_eq!(staged.allow, would_be, "staged, {}", context());
                }
            }
        }
    }
}

/// The rule of the verdict is written where the explanation says; what it was narrowed to comes after that. The one that
/// marks the flow for the log is named, too.
fn assert_same_rule(state: &DesiredState, verdict: Verdict, side: &Side, context: &dyn Fn() -> String) {
    let find = |id| {
        let rules =
            state.policies.values().flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
        rules.into_iter().find(|(_, rule)| rule.id == id)
    };
    let is_narrower = |position: &str, than: &str| {
        position.strip_prefix(than).is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
    };
    match find(verdict.rule) {
        None => assert_eq!((side.policy.as_str(), side.position.as_str()), ("", ""), "{}", context()),
        Some((policy, rule)) => {
            assert_eq!(policy.name, side.policy, "{}", context());
            assert!(is_narrower(&rule.position, &side.position), "{}", context());
        }
    }
    let logged = side.reason.strip_prefix("logged by ");
    match verdict.log.and_then(find) {
        None => assert_eq!(logged, None, "{}", context()),
        Some((policy, rule)) => {
            let first = logged.and_then(|logged| logged.split("; ").next()?.split(", then ").next());
            let position = first.and_then(|first| first.strip_prefix(&format!("{}, ", policy.name)));
            assert!(position.is_some_and(|than| is_narrower(&rule.position, than)), "{}", context());
        }
    }
}

/// A state with its numbers replaced by what they stand for.
fn canonical(state: &DesiredState) -> Value {
    let identity = |id: &IdentityId| -> Vec<IpNet> {
        state.prefixes.iter().filter(|(_, other)| *other == id).map(|(prefix, _)| *prefix).collect()
    };
    let set = |id: SetId| state.sets[&id].members.iter().map(identity).collect::<BTreeSet<_>>();
    let policy = |id: &PolicyId| {
        let policy = &state.policies[id];
        let rules: Vec<_> = policy
            .rules
            .iter()
            .map(|rule| {
                let sets = [rule.peers, rule.not_peers, rule.subjects, rule.not_subjects];
                json!([rule.position, rule.action, rule.ports, sets.map(|id| id.map(set))])
            })
            .collect();
        json!([policy.name, policy.standing, rules])
    };
    let subject = |subject: &Subject| {
        let tiers = [&subject.ingress, &subject.egress].map(|tiers| {
            let tier = |tier: &Tier| {
                json!([tier.name, tier.default, tier.policies.iter().map(policy).collect::<Vec<_>>()])
            };
            tiers.iter().map(tier).collect::<Vec<_>>()
        });
        json!([identity(&subject.identity), tiers])
    };
    let routes: Vec<_> = state
        .routes
        .iter()
        .map(|(prefix, way)| match way {
            vswitch_model::NextHop::Tunnel(id) => {
                json!([prefix, state.tunnels[id].node, state.tunnels[id].remote])
            }
            other => json!([prefix, other]),
        })
        .collect();
    let mut subjects: Vec<_> = state.subjects.values().map(subject).collect();
    subjects.sort_by_key(ToString::to_string);
    let used: BTreeSet<_> = state.policies.keys().map(policy).map(|value| value.to_string()).collect();
    json!([subjects, used, routes, state.local, state.ports.values().collect::<Vec<_>>()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_cluster_may_follow_any(clusters in prop::collection::vec(cluster(), 1..4)) {
        let config = CalcConfig::default();
        let mut numberings: [Numbering; 2] = Default::default();
        for inputs in &clusters {
            let mut states = Vec::new();
            for (node, numbering) in NODES.iter().zip(&mut numberings) {
                let calculated = calculate(inputs, node, &config, numbering);
                let state = calculated.state;
                state.check().unwrap();
                prop_assert!(
                    calculated.problems.iter().all(|problem| problem.contains(" which is not there: ")),
                    "{:?}",
                    calculated.problems
                );
                let fresh = calculate(inputs, node, &config, &mut Numbering::default()).state;
                prop_assert_eq!(canonical(&state), canonical(&fresh), "history shows");
                let again = calculate(inputs, node, &config, numbering).state;
                prop_assert_eq!(&again, &state, "the same objects, other numbers");
                states.push(state);
            }
            agree(inputs, &states);
        }
    }

    #[test]
    fn what_stays_keeps_its_number(inputs in cluster(), other in cluster()) {
        let config = CalcConfig::default();
        let mut numbering = Numbering::default();
        let before = calculate(&inputs, "n0", &config, &mut numbering).state;
        // The policies stay as they are, and all but one pod; another cluster's pod comes in its place.
        let mut changed = inputs.clone();
        changed.pods.remove(&("a".into(), "p0".into()));
        changed.endpoints.remove("c0.eth0");
        if let Some(pod) = other.pods.get(&("a".to_owned(), "p0".to_owned())) {
            changed.pods.insert(("a".into(), "p0".into()), pod.clone());
        }
        let after = calculate(&changed, "n0", &config, &mut numbering).state;
        // A policy that selected only the pod that went is out of force, and its CIDRs part no addresses any more.
        let parted = |state: &DesiredState| -> BTreeSet<_> {
            let world = state.identities.values().filter(|identity| identity.kind == IdentityKind::World);
            world.map(|identity| identity.description.clone()).collect()
        };
        if after.policies.len() == before.policies.len() && parted(&after) == parted(&before) {
            for (id, policy) in &after.policies {
                if let Some(same) = before.policies.get(id) {
                    prop_assert_eq!(&same.name, &policy.name);
                }
            }
            let rules = |state: &DesiredState| -> BTreeMap<_, _> {
                let rules = state.policies.values().flat_map(|policy| &policy.rules);
                rules.map(|rule| (rule.id, rule.position.clone())).collect()
            };
            let known = rules(&before);
            for (id, position) in rules(&after) {
                if let Some(same) = known.get(&id) {
                    prop_assert_eq!(same, &position);
                }
            }
            for number in 1..PODS.len() {
                let address: IpAddr = format!("10.0.0.{}", number + 1).parse().unwrap();
                prop_assert_eq!(identity(&before, address), identity(&after, address));
            }
        }
    }
}
