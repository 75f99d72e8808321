//! Where pods may go to: selectors, and blocks of addresses.

use super::Spec;

pub(super) fn specs() -> Vec<Spec> {
    let mut specs = by_selector();
    specs.extend(with_ingress());
    specs.extend(by_block());
    specs
}

fn by_selector() -> Vec<Spec> {
    vec![
        Spec::new("should deny egress from pods based on PodSelector", &["x/a", "x/b", "y/a"])
            .policy("x", "deny-egress-pod-a", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}")
            .denied(80, |from, _| from == "x/a"),
        Spec::new("should deny egress from all pods in a namespace", &["x/a", "x/b", "y/a"])
            .policy("x", "deny-egress-ns-x", "{podSelector: {}, policyTypes: [Egress]}")
            .denied(80, |from, _| from.starts_with("x/")),
        Spec::new(
            "should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and NamespaceSelector",
            &["x/a", "y/a", "y/b"],
        )
        .policy("x", "allow-to-ns-y-pod-a", TO_Y_A)
        .denied(80, |from, to| from == "x/a" && to != "y/a"),
        Spec::new(
            "should enforce policy based on NamespaceSelector with MatchExpressions using default ns label",
            &["x/a", "x/b", "y/a", "z/a"],
        )
        .policy(
            "x",
            "allow-ns-y-match-selector-for-immutable-ns-label",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector:
              {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [y]}]}}]}]}",
        )
        .denied(80, |from, to| from == "x/a" && to.starts_with("y/")),
    ]
}

const TO_Y_A: &str = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [
    {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}, podSelector: {matchLabels: {pod: a}}}]}]}";

fn with_ingress() -> Vec<Spec> {
    vec![
        Spec::new("should work with Ingress, Egress specified together", &["x/a", "x/b", "x/c", "y/a"])
            .policy(
                "x",
                "allow-client-a-via-pod-selector",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress, Ingress],
                  ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}], egress: [{ports: [{port: 80}]}]}",
            )
            .denied(80, |from, to| to == "x/a" && from != "x/b")
            .denied(81, |from, to| from == "x/a" || (to == "x/a" && from != "x/b")),
        Spec::new(
            "should support denying of egress traffic on the client side (even if the server explicitly allows this traffic)",
            &["x/a", "y/a", "y/b"],
        )
        .policy("x", "allow-to-ns-y-pod-a", TO_Y_A)
        .policy(
            "y",
            "allow-from-xa-on-ya-match-selector",
            "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [
              {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}, podSelector: {matchLabels: {pod: a}}}]}]}",
        )
        .policy(
            "y",
            "allow-from-xa-on-yb-match-selector",
            "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress], ingress: [{from: [
              {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}, podSelector: {matchLabels: {pod: a}}}]}]}",
        )
        .denied(80, |from, to| (from, to) != ("x/a", "y/a") && (from == "x/a" || to.starts_with("y/"))),
    ]
}

fn by_block() -> Vec<Spec> {
    vec![
        Spec::new("should allow egress access to server in CIDR block", &["x/a", "y/a", "y/b"])
            .policy(
                "x",
                "allow-client-a-via-cidr-egress-rule",
                "{podSelector: {matchLabels: {pod: a}},
              policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '{y/b}'}}]}]}",
            )
            .denied(80, |from, to| from == "x/a" && to != "y/b"),
        Spec::new(
            "should enforce except clause while egress access to server in CIDR block",
            &["x/a", "x/b", "x/c"],
        )
        .policy("x", "allow-client-a-via-cidr-egress-rule", EXCEPT_X_B)
        .denied(80, |from, to| (from, to) == ("x/a", "x/b")),
        Spec::new(
            "should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
            &["x/a", "x/b", "x/c"],
        )
        .policy("x", "allow-client-a-via-cidr-egress-rule", EXCEPT_X_B)
        .denied(80, |from, to| (from, to) == ("x/a", "x/b"))
        .policy(
            "x",
            "allow-client-a-via-cidr-egress-rule",
            "{podSelector: {matchLabels: {pod: a}},
          policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '{x/b}'}}]}]}",
        )
        .denied(80, |from, to| from == "x/a" && to != "x/b"),
    ]
}

const EXCEPT_X_B: &str = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress],
    egress: [{to: [{ipBlock: {cidr: '{x/b wide}', except: ['{x/b}']}}]}]}";
