//! Random sequences of changes: what is calculated from what has changed is what is calculated from nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use vswitch_control::calc::{CalcConfig, Calculator, Inputs, LearnedNames, Numbering, calculate};
use vswitch_control::object::manifest::from_value;
use vswitch_control::object::{Key, Kind, Object};
use vswitch_model::DesiredState;

use super::NODES;

/// Objects that contradict others, or of kinds that a cluster here has none of.
fn contrary() -> impl Strategy<Value = Value> {
    let endpoint = |name: &str, node: &str, pod: &str, addresses: Value| {
        json!({
            "apiVersion": "vswitch.internal/v1", "kind": "Endpoint", "metadata": {"name": format!("{name}.eth0")},
            "spec": {
                "node": node, "namespace": "a", "pod": pod, "containerId": name, "interface": "eth0",
                "port": name, "attachment": {"veth": {"interface": name, "netns": null}},
                "mac": "02:00:00:00:01:01", "addresses": addresses, "mtu": 1400,
            },
        })
    };
    let nameless = json!({
        "apiVersion": "vswitch.internal/v1", "kind": "Endpoint", "metadata": {"name": "x.eth0"},
        "spec": {
            "node": "n0", "containerId": "x", "interface": "eth0", "port": "x",
            "attachment": {"veth": {"interface": "x", "netns": null}},
            "mac": "02:00:00:00:01:02", "addresses": ["10.0.0.77"], "mtu": 1400,
        },
    });
    let block = |cidr: &str, node: &str| {
        json!({
            "apiVersion": "vswitch.internal/v1", "kind": "Block", "metadata": {"name": cidr.replace('/', "-")},
            "spec": {"cidr": cidr, "node": node},
        })
    };
    let pod = |path: &str, spec: Value, ip: &str| {
        let (namespace, name) = path.split_once('/').unwrap();
        let metadata = json!({"namespace": namespace, "name": name, "labels": {"app": "web"}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"podIP": ip}})
    };
    select(vec![
        endpoint("c1", "n0", "p1", json!(["10.0.0.2"])),
        endpoint("again", "n0", "p0", json!(["10.0.0.1", "10.0.0.70"])),
        endpoint("again", "n1", "p2", json!(["10.0.0.71"])),
        nameless,
        block("10.0.0.0/26", "n0"),
        block("10.0.0.64/26", "n1"),
        block("10.0.0.64/26", "gone"),
        pod("a/p0", json!({"nodeName": "n1"}), "10.0.0.1"),
        pod("a/p0", json!({"nodeName": "n0", "hostNetwork": true}), "192.0.2.1"),
        pod("b/new", json!({"nodeName": "n0"}), "10.0.0.72"),
        pod("b/new", json!({}), "10.0.0.6"),
        pod("elsewhere/new", json!({"nodeName": "n1"}), "10.0.0.73"),
        pod("elsewhere/new", json!({"nodeName": "n1"}), "192.0.2.2"),
    ])
}

/// One object more, or one less.
enum Change {
    Set(Box<Object>),
    Remove(Key),
    Unreadable(Key),
    Unlabelled(Key),
    Names(Arc<LearnedNames>),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(object) => write!(f, "{}", object.to_value()),
            Self::Remove(key) => write!(f, "without {key}"),
            Self::Names(names) => write!(f, "{names:?}"),
            Self::Unreadable(key) | Self::Unlabelled(key) => write!(f, "unreadable {key}"),
        }
    }
}

impl Change {
    fn apply(self, inputs: &mut Inputs) {
        match self {
            Self::Set(object) => inputs.set(*object),
            Self::Remove(key) => inputs.remove(&key),
            Self::Unreadable(key) => {
                inputs.remove(&key);
                inputs.unreadable.insert(key);
            }
            Self::Unlabelled(key) => {
                inputs.remove(&key);
                inputs.unlabelled.insert(key);
            }
            Self::Names(names) => inputs.names = names,
        }
    }
}

/// Changes that lead one object after another from these to the others, in an order that `order` says.
fn changes(before: &[Object], after: Vec<Object>, order: &[Index]) -> Vec<Change> {
    let mut left: BTreeMap<Key, Change> =
        before.iter().map(|object| (object.key(), Change::Remove(object.key()))).collect();
    left.extend(after.into_iter().map(|object| (object.key(), Change::Set(object.into()))));
    let mut left: Vec<_> = left.into_values().collect();
    let mut changes = Vec::new();
    for index in order {
        if !left.is_empty() {
            changes.push(left.remove(index.index(left.len())));
        }
    }
    changes
}

fn contrary_change() -> impl Strategy<Value = Change> {
    let object = |value: Value| from_value("random", "default", 1, value).unwrap();
    let unreadable = Key::cluster(Kind::ClusterNetworkPolicy, "cluster0");
    prop_oneof![
        6 => contrary().prop_map(move |value| Change::Set(object(value).into())),
        4 => contrary().prop_map(move |value| Change::Remove(object(value).key())),
        1 => Just(()).prop_map(move |()| Change::Unreadable(unreadable.clone())),
        1 => super::unknown::key().prop_map(Change::Unlabelled),
        6 => super::names::learned().prop_map(Change::Names),
    ]
}

fn sequence() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let order = prop::collection::vec(any::<Index>(), 1..24);
    let contrary = prop::collection::vec((any::<Index>(), contrary_change()), 0..6);
    let sizes = prop::collection::vec(1..4_usize, 24);
    (super::objects(), super::objects(), order, contrary, sizes).prop_map(
        |(before, after, order, contrary, sizes)| {
            let mut all = changes(&before, after, &order);
            for (place, change) in contrary {
                all.insert(place.index(all.len() + 1), change);
            }
            let mut steps = vec![before.into_iter().map(|object| Change::Set(object.into())).collect()];
            let mut all = all.into_iter().peekable();
            for size in sizes.into_iter().cycle() {
                steps.push(all.by_ref().take(size).collect());
                if all.peek().is_none() {
                    break;
                }
            }
            steps
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn changes_end_in_what_comes_from_nothing(steps in sequence()) {
        let config = CalcConfig::default();
        let mut calculators = NODES.map(|node| Calculator::new(node, config));
        let mut numberings: [Numbering; 2] = Default::default();
        let mut engines: [DesiredState; 2] = Default::default();
        let mut inputs = Inputs::default();
        for step in steps {
            let told = format!("{step:?}");
            step.into_iter().for_each(|change| change.apply(&mut inputs));
            for (number, node) in NODES.iter().enumerate() {
                let fresh = calculate(&inputs, node, &config, &mut numberings[number]);
                let calculator = &mut calculators[number];
                let touched = calculator.calculate(&inputs);
                prop_assert_eq!(calculator.state(), &fresh.state, "{}", told);
                prop_assert_eq!(calculator.problems(), &fresh.problems, "{}", told);
                prop_assert_eq!(calculator.names(), fresh.names, "{}", told);
                let engine = &mut engines[number];
                touched.changes(calculator.state()).into_iter().for_each(|change| engine.apply(change));
                prop_assert_eq!(&*engine, calculator.state(), "not all was told of {}", told);
            }
        }
    }
}
