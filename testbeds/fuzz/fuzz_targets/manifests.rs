//! Manifests, as people give them to vsctl: objects or an error, never a panic; what was taken is kept as it was read.
#![no_main]

use vswitch_control::object::{ClusterPolicy, Object, PolicyType, manifest};
use vswitch_fuzz::seed;

/// One manifest of each kind, with as many of its fields as fit.
const SEEDS: &[(&str, &str)] = &[
    (
        "list",
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {a: b}}}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeName: n, serviceAccountName: s, hostNetwork: true, containers: [{name: c, ports: [{name: http, containerPort: 80, protocol: UDP}]}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n, annotations: {projectcalico.org/IPv4Address: 192.0.2.1/24}}, spec: {podCIDRs: [10.0.0.0/24]}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: v4}, spec: {cidr: 10.0.0.0/16, blockSize: 26, vxlanMode: CrossSubnet}}",
    ),
    (
        "networkpolicy",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{protocol: SCTP, port: 1, endPort: 9}, {port: http}]}], egress: [{to: []}]}}",
    ),
    (
        "clusternetworkpolicy",
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p}, spec: {tier: Baseline, priority: 9, subject: {pods: {podSelector: {}}}, ingress: [{name: i, action: Pass, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}, {udp: {destinationPort: {range: {start: 1, end: 2}}}}]}], egress: [{action: Accept, to: [{nodes: {}}, {networks: ['::/0']}, {domainNames: ['*.a.b']}], protocols: [{tcp: {destinationPort: {number: 1}}}]}]}}",
    ),
    (
        "adminnetworkpolicy",
        "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: p}, spec: {priority: 9, subject: {namespaces: {}}, egress: [{action: Allow, to: [{pods: {namespaceSelector: {}, podSelector: {}}}], ports: [{portNumber: {port: 1}}, {namedPort: a}, {portRange: {protocol: UDP, start: 1, end: 2}}]}]}}
---
{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {name: default}, spec: {subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}",
    ),
    (
        "services",
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: s}}
---
{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: ClusterIP, clusterIPs: [None], selector: {a: b}, ports: [{name: p, port: 1}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, labels: {kubernetes.io/service-name: s}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}], ports: [{name: p, port: 1, protocol: TCP}]}",
    ),
];

libfuzzer_sys::fuzz_target!(
    init: {
        for (name, text) in SEEDS {
            seed(name, text.as_bytes());
        }
    },
    |data: &[u8]| {
        let Ok(text) = std::str::from_utf8(data) else { return };
        match manifest::parse("m", "default", text) {
            Ok(documents) => documents.iter().for_each(|document| taken(&document.object)),
            Err(error) => assert!(!error.problem.is_empty()),
        }
    }
);

fn taken(object: &Object) {
    assert_eq!(Object::from_json(&object.to_json()).as_ref(), Ok(object), "kept otherwise than it was read");
    // Nothing past the parser judges an object again, so that reading what it means must not fail.
    let policy: &dyn ClusterPolicy = match object {
        Object::ClusterNetworkPolicy(policy) => policy,
        Object::AdminNetworkPolicy(policy) => policy,
        Object::BaselineAdminNetworkPolicy(policy) => policy,
        _ => return,
    };
    let _ = (policy.tier(), policy.priority(), policy.subject(), object.unenforced());
    for direction in PolicyType::ALL {
        assert!(policy.rules(direction).iter().all(|rule| !rule.peers.is_empty()));
    }
}
