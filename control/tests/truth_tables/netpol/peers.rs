//! Who may come in: selectors of pods and namespaces.

use super::Spec;
use crate::scene::{SCTP, UDP};

pub(super) fn specs() -> Vec<Spec> {
    let mut specs = isolating();
    specs.extend(selecting());
    specs.extend(by_namespace_and_pod());
    specs
}

fn default_deny_ingress() -> Spec {
    Spec::new("should support a 'default-deny-ingress' policy", &["x/a", "x/b", "y/a", "y/b"]).policy(
        "x",
        "deny-ingress",
        "{podSelector: {}, policyTypes: [Ingress]}",
    )
}

fn isolating() -> Vec<Spec> {
    let deny =
        |protocol| default_deny_ingress().with_protocol(protocol).denied(80, |_, to| to.starts_with("x/"));
    vec![
        default_deny_ingress().denied(80, |_, to| to.starts_with("x/")),
        deny(UDP),
        deny(SCTP),
        Spec::new("should support a 'default-deny-all' policy", &["x/a", "x/b", "y/a"])
            .policy("x", "deny-all", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
            .denied(80, |from, to| from.starts_with("x/") || to.starts_with("x/")),
        Spec::new("should support allow-all policy", &["x/a", "x/b", "y/a"])
            .policy("x", "allow-all", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}")
            .allowed(80)
            .allowed(81),
        Spec::new("should enforce policy to allow ingress traffic for a target", &["x/a", "x/b", "y/a"])
            .policy("x", "deny-all", "{podSelector: {}, policyTypes: [Ingress]}")
            .policy(
                "x",
                "allow-all-to-a",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress],
                  ingress: [{from: [{podSelector: {}, namespaceSelector: {}}]}]}",
            )
            .denied(80, |_, to| to == "x/b"),
        Spec::new("should deny ingress from pods on other namespaces", &["x/a", "x/b", "y/a", "z/a"])
            .policy(
                "x",
                "deny-empty-policy",
                "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {}}}]}]}",
            )
            .denied(80, |from, to| to.starts_with("x/") && !from.starts_with("x/")),
    ]
}

fn selecting() -> Vec<Spec> {
    vec![
        Spec::new(
            "should enforce policy to allow traffic from pods within server namespace based on PodSelector",
            &["x/a", "x/b", "x/c", "y/a"],
        )
        .policy("x", "x-a-allows-x-b", from_pod_b("matchLabels: {pod: b}"))
        .denied(80, |from, to| to == "x/a" && from != "x/b"),
        Spec::new(
            "should enforce policy to allow ingress traffic from pods in all namespaces",
            &["x/a", "x/b", "y/a", "z/a"],
        )
        .policy(
            "x",
            "allow-from-another-ns",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}]}]}",
        )
        .allowed(80),
        from_namespace_y(
            "should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
            FROM_Y_BY_LABEL,
        ),
        from_namespace_y(
            "should enforce policy to allow traffic based on NamespaceSelector with MatchLabels using default ns label",
            FROM_Y_BY_LABEL,
        ),
        from_namespace_y(
            "should enforce policy based on NamespaceSelector with MatchExpressions",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector:
              {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [y]}]}}]}]}",
        ),
        Spec::new("should enforce policy based on PodSelector with MatchExpressions", &["x/a", "x/b", "y/a"])
            .policy("x", "x-a-allows-x-b", from_pod_b("matchExpressions: [{key: pod, operator: In, values: [b]}]"))
            .denied(80, |from, to| to == "x/a" && from != "x/b"),
        Spec::new("should enforce policy based on any PodSelectors", &["x/a", "x/b", "x/c"])
            .policy(
                "x",
                "allow-ns-x-pod-b-c",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [
                  {podSelector: {matchLabels: {pod: b}}}, {podSelector: {matchLabels: {pod: c}}}]}]}",
            )
            .allowed(80),
    ]
}

const FROM_Y_BY_LABEL: &str = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress],
    ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}";

fn from_namespace_y(name: &str, policy: &'static str) -> Spec {
    Spec::new(name, &["x/a", "x/b", "y/a", "z/a"])
        .policy("x", "allow-client-a-via-ns-selector", policy)
        .denied(80, |from, to| to == "x/a" && !from.starts_with("y/"))
}

/// x/a is reached by pods of its namespace that are selected so.
fn from_pod_b(selector: &'static str) -> &'static str {
    if selector.starts_with("matchLabels") {
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress],
          ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"
    } else {
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [
          {podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}]}}]}]}"
    }
}

fn by_namespace_and_pod() -> Vec<Spec> {
    let only_from_y_a = || {
        Spec::new(
            "should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector",
            &["x/a", "x/b", "y/a", "y/b", "z/a"],
        )
    };
    let from_y_a = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [
        {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}, podSelector: {matchLabels: {pod: a}}}]}]}";
    let checked = |spec: Spec| {
        spec.policy("x", "allow-ns-y-pod-a-via-namespace-pod-selector", from_y_a)
            .denied(80, |from, to| to == "x/a" && from != "y/a")
    };
    vec![
        Spec::new("should enforce policy based on PodSelector or NamespaceSelector", &["x/a", "x/b", "x/c", "y/a"])
            .policy(
                "x",
                "allow-ns-y-match-selector",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [
                  {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]}},
                  {podSelector: {matchLabels: {pod: b}}}]}]}",
            )
            .denied(80, |from, to| to == "x/a" && from == "x/c"),
        Spec::new(
            "should enforce policy based on PodSelector and NamespaceSelector",
            &["x/a", "x/b", "y/a", "y/b", "z/b"],
        )
        .policy(
            "x",
            "allow-ns-y-podselector-and-nsselector",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [
              {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]},
               podSelector: {matchLabels: {pod: b}}}]}]}",
        )
        .denied(80, |from, to| to == "x/a" && !["y/b", "z/b"].contains(&from)),
        Spec::new(
            "should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
            &["x/a", "x/b", "y/a", "y/b", "y/c"],
        )
        .policy(
            "x",
            "allow-ns-y-z-pod-b-c",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [
              {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]},
               podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}}]}]}",
        )
        .denied(80, |from, to| to == "x/a" && !["y/b", "y/c"].contains(&from)),
        checked(only_from_y_a()),
        checked(only_from_y_a().with_protocol(UDP)),
        checked(only_from_y_a().with_protocol(SCTP)),
    ]
}
