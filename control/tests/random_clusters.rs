//! Random small clusters, one after another: what is calculated agrees with what is explained, is whole, and does not
//! depend on what was there before.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use vswitch_control::calc::{CalcConfig, End, Explainer, Inputs, Numbering, Question, calculate};
use vswitch_control::object::manifest::from_value;
use vswitch_datapath::policy::{PolicyDirection, oracle};
use vswitch_model::{DesiredState, IdentityId, IdentityKind, PolicyId, SetId, Subject};

const NODES: [&str; 2] = ["n0", "n1"];
/// Pods: namespace, name, and the node they are on.
const PODS: [(&str, &str, usize); 6] =
    [("a", "p0", 0), ("a", "p1", 1), ("a", "p2", 0), ("b", "p0", 1), ("b", "p1", 0), ("c", "p0", 0)];
/// An address of nobody in the cluster, one in the pool, and those of the nodes.
const OTHERS: [&str; 4] = ["198.51.100.7", "10.0.0.200", "192.0.2.1", "192.0.2.2"];
const PORTS: [(u8, u16); 5] = [(6, 80), (6, 8080), (17, 80), (17, 5060), (1, 0)];

fn labels() -> impl Strategy<Value = Value> {
    let pairs = vec![("app", "web"), ("app", "db"), ("tier", "1"), ("tier", "2")];
    subsequence(pairs, 0..=2)
        .prop_map(|pairs| pairs.into_iter().collect::<BTreeMap<_, _>>())
        .prop_map(|map| json!(map))
}

fn selector() -> impl Strategy<Value = Value> {
    let expression = prop_oneof![
        (
            select(vec!["app", "tier", "team"]),
            select(vec!["In", "NotIn"]),
            subsequence(vec!["web", "db", "1"], 1..=2)
        )
            .prop_map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values})),
        (select(vec!["app", "tier", "team"]), select(vec!["Exists", "DoesNotExist"]))
            .prop_map(|(key, operator)| json!({"key": key, "operator": operator})),
    ];
    prop_oneof![
        2 => Just(json!({})),
        2 => labels().prop_map(|labels| json!({"matchLabels": labels})),
        1 => expression.prop_map(|expression| json!({"matchExpressions": [expression]})),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let blocks = vec![
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "10.0.0.0/16", "except": ["10.0.0.0/30"]}),
        json!({"cidr": "10.0.0.0/30"}),
        json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/16", "192.0.2.1/32"]}),
        json!({"cidr": "192.0.2.0/24"}),
        json!({"cidr": "10.0.0.2/32"}),
    ];
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), selector()).prop_map(|(pods, ns)| json!({"podSelector": pods, "namespaceSelector": ns})),
        select(blocks).prop_map(|block| json!({"ipBlock": block})),
    ]
}

fn rule(peers_field: &'static str) -> impl Strategy<Value = Value> {
    let ports = vec![
        json!({"port": 80}),
        json!({"port": "http"}),
        json!({"protocol": "UDP"}),
        json!({"protocol": "UDP", "port": "http"}),
        json!({"port": 80, "endPort": 9000}),
        json!({"protocol": "UDP", "port": 5060}),
    ];
    let lists = (prop::collection::vec(peer(), 0..3), subsequence(ports, 0..=3));
    lists.prop_map(move |(peers, ports)| json!({peers_field: peers, "ports": ports}))
}

fn policy() -> impl Strategy<Value = Value> {
    let types = select(vec![json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let rules = (prop::collection::vec(rule("from"), 0..3), prop::collection::vec(rule("to"), 0..3));
    (selector(), types, rules).prop_map(
        |(pods, types, (ingress, egress))| json!({"podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress}),
    )
}

/// A pod, how its ports are called, and whether another engine attached it (it has no endpoint then).
fn pod(number: usize) -> impl Strategy<Value = Vec<Value>> {
    let (namespace, name, node) = PODS[number];
    let ports = vec![
        json!({"name": "http", "containerPort": 80}),
        json!({"name": "http", "containerPort": 8080}),
        json!({"name": "http", "containerPort": 80, "protocol": "UDP"}),
    ];
    let address = format!("10.0.0.{}", number + 1);
    (labels(), subsequence(ports, 1..=2), any::<bool>(), prop::bool::weighted(0.8)).prop_map(move |(labels, ports, attached, known)| {
        let mut objects = Vec::new();
        if known || !attached {
            objects.push(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "name": name, "labels": labels},
                "spec": {"nodeName": NODES[node], "containers": [{"name": "c", "ports": ports}]},
                "status": {"podIPs": [{"ip": address}]},
            }));
        }
        if attached {
            objects.push(json!({
                "apiVersion": "vswitch/v1", "kind": "Endpoint", "metadata": {"name": format!("c{number}.eth0")},
                "spec": {
                    "node": NODES[node], "namespace": namespace, "pod": name, "containerId": format!("c{number}"),
                    "interface": "eth0", "port": format!("v{number}"),
                    "attachment": {"veth": {"interface": format!("v{number}"), "netns": null}},
                    "mac": format!("02:00:00:00:00:0{number}"), "addresses": [address], "mtu": 1400,
                },
            }));
        }
        objects
    })
}

fn cluster() -> impl Strategy<Value = Inputs> {
    let pods: Vec<_> = (0..PODS.len()).map(|number| prop::option::weighted(0.8, pod(number))).collect();
    let namespaces = prop::collection::vec(prop::option::weighted(0.7, labels()), 2);
    let policies = prop::collection::vec((select(vec!["a", "b"]), policy()), 0..5);
    let mode = select(vec!["Never", "Always", "CrossSubnet"]);
    (pods, namespaces, policies, mode).prop_map(|(pods, namespaces, policies, mode)| {
        let mut values: Vec<Value> = pods.into_iter().flatten().flatten().collect();
        for (name, labels) in ["a", "b"].iter().zip(namespaces) {
            let metadata = labels.map(|labels| json!({"name": name, "labels": labels}));
            values.extend(metadata.map(|m| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": m})));
        }
        for (number, (namespace, spec)) in policies.into_iter().enumerate() {
            let metadata = json!({"namespace": namespace, "name": format!("policy{number}")});
            values.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec,
            }));
        }
        for (number, name) in NODES.iter().enumerate() {
            let annotations = json!({"projectcalico.org/IPv4Address": format!("192.0.2.{}/24", number + 1)});
            let metadata = json!({"name": name, "annotations": annotations});
            values.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}));
        }
        values.push(json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pool"},
            "spec": {"cidr": "10.0.0.0/16", "vxlanMode": mode},
        }));
        values.into_iter().map(|value| from_value("random", "default", 1, value).unwrap()).collect()
    })
}

fn identity(state: &DesiredState, address: IpAddr) -> IdentityId {
    let prefixes = state.prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
    prefixes.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(IdentityId::UNKNOWN, |(_, id)| *id)
}

/// Every flow between any two addresses is judged alike by the state and by the explanation.
fn agree(inputs: &Inputs, states: &[DesiredState]) {
    let explainer = Explainer::new(inputs);
    let pods = (1..=PODS.len()).map(|number| format!("10.0.0.{number}"));
    let all: Vec<IpAddr> = pods.chain(OTHERS.map(str::to_owned)).map(|text| text.parse().unwrap()).collect();
    let on = |address: &IpAddr| {
        states.iter().find(|state| state.ports.values().any(|port| port.addresses.contains(address)))
    };
    for from in &all {
        for to in all.iter().filter(|to| *to != from) {
            for (protocol, port) in PORTS {
                let (from_end, to_end) = (End::Address(*from), End::Address(*to));
                let question = Question { from: from_end, to: to_end, protocol, port, is_ipv4: None };
                let said = explainer.explain(&question).unwrap();
                let ends = [
                    (PolicyDirection::Egress, from, to, said.egress.allowed),
                    (PolicyDirection::Ingress, to, from, said.ingress.allowed),
                ];
                for (direction, own, other, expected) in ends {
                    let Some(state) = on(own) else { continue };
                    let (own, other) = (identity(state, *own), identity(state, *other));
                    let verdict = oracle::verdict(state, direction, own, other, protocol, port);
                    assert_eq!(
                        verdict.allow, expected,
                        "{direction:?}, protocol {protocol} port {port}: {said}"
                    );
                }
            }
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
            .map(|rule| (&rule.position, &rule.ports, rule.peers.map(set), rule.subjects.map(set)))
            .collect();
        json!([policy.name, rules])
    };
    let subject = |subject: &Subject| {
        let tiers = [&subject.ingress, &subject.egress]
            .map(|tiers| tiers.iter().flat_map(|tier| &tier.policies).map(policy).collect::<Vec<_>>());
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
                prop_assert_eq!(&calculated.problems, &[] as &[String]);
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
                prop_assert_eq!(&before.policies[id].name, &policy.name);
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
