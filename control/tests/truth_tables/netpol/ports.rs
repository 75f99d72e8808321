//! Ports, by number and by name, and protocols.

use super::Spec;
use crate::scene::{SCTP, TCP, UDP};

pub(super) fn specs() -> Vec<Spec> {
    let mut specs = by_number();
    specs.extend(by_name());
    specs.extend(protocols());
    specs
}

fn by_number() -> Vec<Spec> {
    let ports = |spec: &'static str, protocol| {
        Spec::new("should enforce policy based on Ports", &["x/a", "x/b", "y/a", "y/b", "z/a"])
            .with_protocol(protocol)
            .policy("x", "allow-client-a-via-ns-selector", spec)
            .denied(81, |from, to| to == "x/a" && !from.starts_with("y/"))
    };
    vec![
        ports(FROM_Y_TO_81_TCP, TCP),
        ports(
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{ports: [{port: 81, protocol: UDP}],
              from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}",
            UDP,
        ),
        ports(
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{ports: [{port: 81, protocol: SCTP}],
              from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}",
            SCTP,
        ),
        Spec::new(
            "should enforce multiple, stacked policies with overlapping podSelectors",
            &["x/a", "x/b", "y/a", "y/b", "z/a"],
        )
        .policy("x", "allow-client-a-via-ns-selector", FROM_Y_TO_81_TCP)
        .denied(81, |from, to| to == "x/a" && !from.starts_with("y/"))
        .denied(80, |_, to| to == "x/a")
        .policy(
            "x",
            "allow-client-a-via-ns-selector-80",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80, protocol: TCP}],
              from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}",
        )
        .denied(80, |from, to| to == "x/a" && !from.starts_with("y/")),
    ]
}

const FROM_Y_TO_81_TCP: &str = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress],
    ingress: [{ports: [{port: 81, protocol: TCP}],
    from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}";

fn by_name() -> Vec<Spec> {
    vec![
        Spec::new("should allow ingress access on one named port", &["x/a", "x/b", "y/a"])
            .policy(
                "x",
                "allow-all",
                "{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: serve-81-tcp}]}]}",
            )
            .allowed(81)
            .denied(80, |_, to| to.starts_with("x/")),
        Spec::new(
            "should allow ingress access from namespace on one named port",
            &["x/a", "x/b", "y/a", "z/a"],
        )
        .policy(
            "x",
            "allow-client-a-via-ns-selector-80",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress],
              ingress: [{ports: [{port: serve-80-tcp, protocol: TCP}],
              from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}",
        )
        .denied(80, |from, to| to == "x/a" && !from.starts_with("y/"))
        .denied(81, |_, to| to == "x/a"),
        Spec::new("should allow egress access on one named port", &["x/a", "y/a"])
            .policy(
                "x",
                "allow-egress",
                "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}",
            )
            .allowed(80)
            .denied(81, |from, _| from.starts_with("x/")),
    ]
}

fn protocols() -> Vec<Spec> {
    vec![
        Spec::new(
            "should enforce ingress policy allowing any port traffic to a server on a specific protocol",
            &["x/a", "y/a"],
        )
        .policy(
            "x",
            "allow-ingress-by-proto",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{ports: [{protocol: TCP}]}]}",
        )
        .denied_of(TCP, 80, |_, _| false)
        .denied_of(UDP, 80, |_, to| to == "x/a"),
        Spec::new(
            "should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if the plugin doesn't support SCTP",
            &["x/a", "y/a"],
        )
        .policy("x", "deny-ingress", "{podSelector: {}, policyTypes: [Ingress]}")
        .policy(
            "x",
            "allow-only-sctp-ingress-on-port-81",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{ports: [{port: 81, protocol: SCTP}]}]}",
        )
        .denied(81, |_, to| to == "x/a")
        .denied_of(SCTP, 81, |_, _| false),
        Spec::new(
            "should properly isolate pods that are selected by a policy allowing SCTP, even if the plugin doesn't support SCTP",
            &["x/a", "y/a"],
        )
        .policy(
            "x",
            "allow-only-sctp-ingress-on-port-80",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80, protocol: SCTP}]}]}",
        )
        .denied(81, |_, to| to == "x/a"),
        Spec::new("should not allow access by TCP when a policy specifies only UDP", &["x/a", "y/a"])
            .policy(
                "x",
                "allow-only-udp-ingress-on-port-81",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{ports: [{port: 81, protocol: UDP}]}]}",
            )
            .denied(81, |_, to| to == "x/a")
            .denied_of(UDP, 81, |_, _| false),
    ]
}
