//! Kubernetes' objects: pods, namespaces, policies of a namespace and of the cluster.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{NODES, PODS, names};

pub(crate) fn labels() -> impl Strategy<Value = Value> {
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

/// CIDRs of one family a list.
pub(crate) const NETS: [&[&str]; 7] = [
    &["0.0.0.0/0"],
    &["10.0.0.0/16"],
    &["10.0.0.0/30", "198.51.100.0/24"],
    &["192.0.2.0/24"],
    &["10.0.0.2/32"],
    &["::/0"],
    &["fd00::/126", "2001:db8::1/128"],
];

fn peer() -> impl Strategy<Value = Value> {
    let blocks = vec![
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "10.0.0.0/16", "except": ["10.0.0.0/30"]}),
        json!({"cidr": "10.0.0.0/30"}),
        json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/16", "192.0.2.1/32"]}),
        json!({"cidr": "192.0.2.0/24"}),
        json!({"cidr": "10.0.0.2/32"}),
        json!({"cidr": "::/0", "except": ["fd00::/126"]}),
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

fn policy_types() -> impl Strategy<Value = Value> {
    select(vec![json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])])
}

pub(crate) fn network_policy_spec() -> impl Strategy<Value = Value> {
    let rules = (prop::collection::vec(rule("from"), 0..3), prop::collection::vec(rule("to"), 0..3));
    (selector(), policy_types(), rules).prop_map(
        |(pods, types, (ingress, egress))| json!({"podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress}),
    )
}

pub(crate) fn network_policy() -> impl Strategy<Value = Value> {
    let object = |(namespace, number, spec)| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace, "name": format!("policy{number}")}, "spec": spec,
        })
    };
    (select(vec!["a", "b"]), 0..4, network_policy_spec()).prop_map(object)
}

fn namespaced_pods() -> impl Strategy<Value = Value> {
    let pods = (selector(), selector()).prop_map(
        |(namespaces, pods)| json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}}),
    );
    prop_oneof![selector().prop_map(|namespaces| json!({"namespaces": namespaces})), pods]
}

fn cluster_rule(peers_field: &'static str) -> impl Strategy<Value = Value> {
    let protocols = vec![
        json!({"tcp": {"destinationPort": {"number": 80}}}),
        json!({"tcp": {"destinationPort": {"range": {"start": 1000, "end": 9000}}}}),
        json!({"udp": {"destinationPort": {"number": 5060}}}),
        json!({"destinationNamedPort": "http"}),
    ];
    let beyond = prop_oneof![
        selector().prop_map(|nodes| (json!({"nodes": nodes}), false)),
        select(NETS.to_vec()).prop_map(|nets| (json!({"networks": nets}), false)),
        select(names::PATTERNS.to_vec()).prop_map(|names| (json!({"domainNames": names}), false)),
    ];
    let pods = namespaced_pods().prop_map(|pods| (pods, true));
    let peer = if peers_field == "to" { prop_oneof![pods, beyond].boxed() } else { pods.boxed() };
    let lists = (prop::collection::vec(peer, 1..3), subsequence(protocols, 0..=2));
    (select(vec!["Accept", "Deny", "Pass"]), lists).prop_map(move |(action, (mut peers, mut protocols))| {
        // Names can only be accepted.
        let is_named = |(peer, _): &(Value, bool)| peer.get("domainNames").is_some();
        let action = if peers.iter().all(is_named) { "Accept" } else { action };
        peers.retain(|peer| action == "Accept" || !is_named(peer));
        // Where there are no pods there are no names of ports.
        if peers.iter().any(|(_, are_pods)| !are_pods) {
            protocols.retain(|protocol| protocol.get("destinationNamedPort").is_none());
        }
        let peers: Vec<_> = peers.into_iter().map(|(peer, _)| peer).collect();
        let mut rule = json!({"action": action, peers_field: peers});
        if !protocols.is_empty() {
            rule["protocols"] = json!(protocols);
        }
        rule
    })
}

pub(crate) fn cluster_policy() -> impl Strategy<Value = Value> {
    let rules =
        (prop::collection::vec(cluster_rule("from"), 0..3), prop::collection::vec(cluster_rule("to"), 0..3));
    let object = |(number, tier, priority, subject, (ingress, egress))| {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": format!("cluster{number}")},
            "spec": {"tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress},
        })
    };
    (0..3, select(vec!["Admin", "Baseline"]), 0..3, namespaced_pods(), rules).prop_map(object)
}

/// A pod, how its ports are called, and whether another engine attached it (it has no endpoint then).
pub(crate) fn pod(number: usize) -> impl Strategy<Value = Vec<Value>> {
    let (namespace, name, node) = PODS[number];
    let ports = vec![
        json!({"name": "http", "containerPort": 80}),
        json!({"name": "http", "containerPort": 8080}),
        json!({"name": "http", "containerPort": 80, "protocol": "UDP"}),
    ];
    let addresses = [format!("10.0.0.{}", number + 1), format!("fd00::{}", number + 1)];
    let account = select(vec![json!(null), json!("sip")]);
    let given = (labels(), subsequence(ports, 1..=2), any::<bool>(), prop::bool::weighted(0.8), account);
    given.prop_map(move |(labels, ports, attached, known, account)| {
        let mut objects = Vec::new();
        if known || !attached {
            objects.push(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "name": name, "labels": labels},
                "spec": {
                    "nodeName": NODES[node], "serviceAccountName": account,
                    "containers": [{"name": "c", "ports": ports}],
                },
                "status": {"podIPs": [{"ip": addresses[0]}, {"ip": addresses[1]}]},
            }));
        }
        if attached {
            objects.push(json!({
                "apiVersion": "vswitch.internal/v1", "kind": "Endpoint", "metadata": {"name": format!("c{number}.eth0")},
                "spec": {
                    "node": NODES[node], "namespace": namespace, "pod": name, "containerId": format!("c{number}"),
                    "interface": "eth0", "port": format!("v{number}"),
                    "attachment": {"veth": {"interface": format!("v{number}"), "netns": null}},
                    "mac": format!("02:00:00:00:00:0{number}"), "addresses": addresses, "mtu": 1400,
                },
            }));
        }
        objects
    })
}

/// What policies refer to besides pods: a service account with labels, a service's endpoints, nodes.
pub(crate) fn referred(mode: &str, account: &Value, labels_of_nodes: &[Value]) -> Vec<Value> {
    let mut values = vec![
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": "a", "name": "sip", "labels": account},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "a", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "endpoints": [{"addresses": ["10.0.0.2", "198.51.100.7"]}],
            "ports": [{"protocol": "TCP", "port": 8080}, {"protocol": "UDP", "port": 5060}],
        }),
    ];
    for (name, cidr) in [("pool", "10.0.0.0/16"), ("pool6", "fd00::/64")] {
        values.push(json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name},
            "spec": {"cidr": cidr, "vxlanMode": mode},
        }));
    }
    for (number, (name, labels)) in NODES.iter().zip(labels_of_nodes).enumerate() {
        let annotations = json!({
            "projectcalico.org/IPv4Address": format!("192.0.2.{}/24", number + 1),
            "projectcalico.org/IPv6Address": format!("2001:db8::{:x}/64", number + 10),
        });
        let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
        values.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}));
    }
    values
}
