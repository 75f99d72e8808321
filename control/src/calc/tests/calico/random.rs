//! Random policies of Calico's, beside Kubernetes': what is compiled agrees with what is explained.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};
use vswitch_datapath::policy::{FlowPorts, PolicyDirection, oracle};

use super::*;
use crate::calc::{End, Explainer};

/// Addresses in network sets, in none, and in the pods' range but nobody's.
const OTHERS: [&str; 4] = ["198.51.100.7", "203.0.113.7", "192.0.2.200", "10.0.0.200"];
const PODS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
/// Protocol and port, of ICMP type and code; and source port.
const TRAFFIC: [(u8, u16, u16); 10] = [
    (6, 80, 40_000),
    (6, 5060, 40_000),
    (17, 5060, 40_000),
    (17, 80, 40_000),
    (6, 80, 100),
    (17, 5060, 5060),
    (17, 80, 101),
    (1, 0x800, 0),
    (1, 0x301, 0),
    (47, 0, 0),
];

fn selector() -> impl Strategy<Value = &'static str> {
    select(vec![
        "all()",
        "app == 'web'",
        "app != 'web'",
        "!has(app)",
        "app in {'relay', 'caller'}",
        "from == 'far' || app starts with 'ca'",
        "has(from)",
        "projectcalico.org/namespace == 'media'",
        "pcns.team contains 'o'",
        "!(app == 'relay' && pcsa.kind == 'bot')",
    ])
}

fn namespaces() -> impl Strategy<Value = &'static str> {
    select(vec!["all()", "global()", "team == 'voice'", "!has(team)", "projectcalico.org/name == 'guest'"])
}

fn nets() -> impl Strategy<Value = Value> {
    let nets = vec!["10.0.0.0/24", "10.0.0.2/31", "198.51.100.0/24", "203.0.113.0/25", "192.0.0.0/8"];
    subsequence(nets, 1..3).prop_map(|nets| json!(nets))
}

/// One end: each field as likely as it needs to be for rules that match something.
fn entity() -> impl Strategy<Value = Map<String, Value>> {
    let accounts = select(vec![
        json!({"names": ["robot"]}),
        json!({"selector": "kind == 'bot'"}),
        json!({"names": ["default", "other"], "selector": "!has(kind)"}),
    ]);
    let field = |name: &'static str| move |value: Value| (name.to_owned(), value);
    let text = |name: &'static str| move |text: &str| (name.to_owned(), json!(text));
    let one = prop_oneof![
        3 => selector().prop_map(text("selector")),
        1 => selector().prop_map(text("notSelector")),
        1 => namespaces().prop_map(text("namespaceSelector")),
        2 => nets().prop_map(field("nets")),
        1 => nets().prop_map(field("notNets")),
        1 => accounts.prop_map(field("serviceAccounts")),
    ];
    prop_oneof![
        2 => Just(Map::new()),
        3 => prop::collection::vec(one, 1..3).prop_map(|fields| fields.into_iter().collect()),
    ]
}

/// The other end may be a service's.
fn peer() -> impl Strategy<Value = Map<String, Value>> {
    let service = json!({"services": {"name": "s", "namespace": "media"}});
    let service = service.as_object().cloned().unwrap_or_default();
    prop_oneof![6 => entity(), 1 => Just(service)]
}

/// What of a rule is not an end; `ports` and `notPorts` are the destination's, `from` and `notFrom` the source's.
fn traffic() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({}),
        json!({"protocol": "TCP"}),
        json!({"protocol": 47}),
        json!({"notProtocol": "UDP"}),
        json!({"protocol": "TCP", "ports": [80]}),
        json!({"protocol": "UDP", "ports": ["1:100", "sip"]}),
        json!({"protocol": "TCP", "notPorts": ["1:100"]}),
        json!({"protocol": "UDP", "notPorts": ["sip"]}),
        json!({"ports": ["sip"]}),
        json!({"notPorts": ["sip"]}),
        json!({"protocol": "TCP", "from": ["1:100"]}),
        json!({"protocol": "UDP", "notFrom": ["1:100", "sip"], "ports": [80]}),
        json!({"protocol": "UDP", "from": ["sip"], "ports": ["sip"]}),
        json!({"from": ["sip"]}),
        json!({"notFrom": ["sip"], "notPorts": ["sip"]}),
        json!({"protocol": "ICMP", "icmp": {"type": 8}}),
        json!({"protocol": "ICMP", "notICMP": {"type": 3, "code": 1}}),
        json!({"ipVersion": 4}),
    ])
}

fn rule(is_ingress: bool) -> impl Strategy<Value = Value> {
    let action = select(vec!["Allow", "Allow", "Deny", "Pass", "Log"]);
    (action, peer(), entity(), prop::bool::weighted(0.2), traffic()).prop_map(
        move |(action, peer, own, is_own, mut rule)| {
            let own = if is_own { own } else { Map::new() };
            let (mut source, mut destination) = if is_ingress { (peer, own) } else { (own, peer) };
            let mut take = |list| rule.as_object_mut().and_then(|rule| rule.remove(list));
            for (list, of_source) in [("ports", "from"), ("notPorts", "notFrom")] {
                // As a destination a service brings its own.
                if let Some(ports) = take(list).filter(|_| !destination.contains_key("services")) {
                    destination.insert(list.to_owned(), ports);
                }
                if let Some(ports) = take(of_source) {
                    source.insert(list.to_owned(), ports);
                }
            }
            rule["action"] = json!(action);
            rule["source"] = source.into();
            rule["destination"] = destination.into();
            rule
        },
    )
}

fn policy() -> impl Strategy<Value = Value> {
    let kind = select(vec![
        "NetworkPolicy",
        "NetworkPolicy",
        "GlobalNetworkPolicy",
        "GlobalNetworkPolicy",
        "StagedNetworkPolicy",
        "StagedGlobalNetworkPolicy",
    ]);
    let place =
        (select(vec!["default", "first", "last", "gone"]), prop::option::of(select(vec![1, 1000, 2000])));
    let types = subsequence(vec!["Ingress", "Egress"], 0..=2);
    let rules = (prop::collection::vec(rule(true), 0..4), prop::collection::vec(rule(false), 0..3));
    let subject = (selector(), prop::option::weighted(0.2, Just("kind == 'bot'")));
    (kind, select(vec!["media", "guest"]), place, types, rules, subject).prop_map(
        |(kind, namespace, (tier, order), types, (ingress, egress), (selector, account))| {
            let is_global = kind.contains("Global");
            let mut spec = json!({"tier": tier, "selector": selector, "ingress": ingress, "egress": egress});
            for (field, value) in [
                ("order", order.map(Value::from)),
                ("types", (!types.is_empty()).then(|| json!(types))),
                ("serviceAccountSelector", account.map(Value::from)),
            ] {
                value.into_iter().for_each(|value| spec[field] = value);
            }
            let namespace = if is_global { Value::Null } else { namespace.into() };
            json!({"kind": kind, "namespace": namespace, "spec": spec})
        },
    )
}

fn profile() -> impl Strategy<Value = Value> {
    let without_pass = |rule: &Value| rule["action"] != "Pass";
    let rules =
        move |is_ingress| prop::collection::vec(rule(is_ingress).prop_filter("no tier", without_pass), 0..3);
    let name = select(vec!["kns.media", "kns.guest", "ksa.media.robot"]);
    (name, rules(true), rules(false)).prop_map(|(name, ingress, egress)| {
        json!({"kind": "Profile", "name": name, "spec": {"ingress": ingress, "egress": egress, "labelsToApply": {"app": "web", "from": "far"}}})
    })
}

/// What policies of any cluster here may refer to.
fn referred(default_of_last: &str) -> String {
    let object = |kind: &str, metadata: &str, spec: &str| {
        format!(
            "---\n{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{{metadata}}}, spec: {{{spec}}}}}\n"
        )
    };
    object("Tier", "name: first", "order: 5")
        + &object("Tier", "name: last", &format!("defaultAction: {default_of_last}"))
        + &object("GlobalNetworkSet", "name: far, labels: {from: far}", "nets: [198.51.100.0/24]")
        + &object(
            "NetworkSet",
            "name: far, namespace: media, labels: {from: far}",
            "nets: [203.0.113.0/25, 10.0.0.3/32]",
        )
        + "---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: media, name: s-1, labels: {kubernetes.io/service-name: s}}, \
           addressType: IPv4, endpoints: [{addresses: [10.0.0.2, 10.0.0.4, 192.0.2.200]}], ports: [{port: 80}, {port: 5060, protocol: UDP}]}\n"
}

fn cluster() -> impl Strategy<Value = Inputs> {
    let policies = prop::collection::vec(policy(), 1..6);
    let profile = prop::option::weighted(0.3, profile());
    (policies, profile, select(vec!["Deny", "Pass"]), any::<bool>()).prop_map(
        |(policies, profile, default_of_last, kubernetes)| {
            let mut inputs = inputs(&(base() + &referred(default_of_last)));
            for (number, policy) in policies.into_iter().chain(profile).enumerate() {
                let name = policy.get("name").cloned().unwrap_or_else(|| json!(format!("p{number}")));
                let mut metadata = json!({"name": name});
                if policy["namespace"].is_string() {
                    metadata["namespace"] = policy["namespace"].clone();
                }
                let object = json!({
                    "apiVersion": "projectcalico.org/v3", "kind": policy["kind"], "metadata": metadata, "spec": policy["spec"],
                });
                let read = manifest::from_value("random", "default", 1, object.clone());
                inputs.set(read.unwrap_or_else(|error| panic!("{error}: {object}")));
            }
            if kubernetes {
                let text = super::policy("media/k", "podSelector: {}, ingress: [{ports: [{port: 80}]}]");
                manifest::parse("k", "", &text).unwrap().into_iter().for_each(|d| inputs.set(d.object));
            }
            inputs
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_compiled_is_what_is_explained(inputs in cluster()) {
        let state = calculated(&inputs, "n0").state;
        let explainer = Explainer::new(&inputs);
        let all: Vec<IpAddr> = PODS.iter().chain(&OTHERS).map(|text| text.parse().unwrap()).collect();
        let is_pod = |address: &IpAddr| all[..PODS.len()].contains(address);
        let number = |address: &IpAddr| identity(&state, &address.to_string()).0;
        let pairs = all.iter().flat_map(|from| all.iter().map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| from != to && (is_pod(from) || is_pod(to))) {
            for (protocol, port, source) in TRAFFIC {
                let (from_end, to_end) = (End::Address(*from), End::Address(*to));
                let source_port = Some(source);
                let question = Question { from: from_end, to: to_end, protocol, port, source_port, is_ipv4: None };
                let ports = FlowPorts { protocol, destination: port, source };
                let said = explainer.explain(&question).unwrap();
                for (direction, own, other, expected) in [
                    (PolicyDirection::Egress, from, to, said.egress.allowed),
                    (PolicyDirection::Ingress, to, from, said.ingress.allowed),
                ] {
                    if is_pod(own) {
                        let verdict = oracle::verdict(&state, direction, number(own), number(other), ports);
                        prop_assert_eq!(verdict.allow, expected, "{:?}, {:?}: {}", direction, ports, said);
                    }
                }
            }
        }
    }
}
