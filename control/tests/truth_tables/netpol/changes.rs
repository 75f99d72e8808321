//! Policies, labels of namespaces and labels of pods that change, and policies that add up.

use super::Spec;

pub(super) fn specs() -> Vec<Spec> {
    let mut specs = of_labels();
    specs.extend(of_policies());
    specs
}

fn of_labels() -> Vec<Spec> {
    vec![
        Spec::new("should allow ingress access from updated namespace", &["x/a", "y/a"])
            .policy(
                "x",
                "allow-client-a-via-ns-selector",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress],
                  ingress: [{from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]}]}",
            )
            .denied(80, |_, to| to == "x/a")
            .namespace_label("y", "ns2", "updated")
            .allowed(80),
        Spec::new("should allow ingress access from updated pod", &["x/a", "x/b"])
            .policy(
                "x",
                "allow-client-a-via-pod-selector",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress],
                  ingress: [{from: [{podSelector: {matchLabels: {pod: b, pod2: updated}}}]}]}",
            )
            .denied(80, |_, to| to == "x/a")
            .pod_label("x/b", "pod2", "updated")
            .allowed(80),
        Spec::new("should deny ingress access to updated pod", &["x/a", "y/a"])
            .policy(
                "x",
                "deny-ingress-via-label-selector",
                "{podSelector: {matchLabels: {target: isolated}}, policyTypes: [Ingress]}",
            )
            .allowed(80)
            .pod_label("x/a", "target", "isolated")
            .denied(80, |_, to| to == "x/a"),
    ]
}

fn of_policies() -> Vec<Spec> {
    vec![
        Spec::new("should enforce updated policy", &["x/a", "y/a"])
            .policy("x", "allow-all-mutate-to-deny-all", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}")
            .allowed(81)
            .policy("x", "allow-all-mutate-to-deny-all", "{podSelector: {}, policyTypes: [Ingress], ingress: []}")
            .denied(81, |_, to| to.starts_with("x/")),
        Spec::new("should stop enforcing policies after they are deleted", &["x/a", "y/a"])
            .policy("x", "deny-all", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
            .denied(80, |from, to| from.starts_with("x/") || to.starts_with("x/"))
            .no_policies()
            .allowed(80),
        Spec::new(
            "should enforce multiple ingress policies with ingress allow-all policy taking precedence",
            &["x/a", "y/a"],
        )
        .policy("x", "allow-ingress-port-80", "{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}")
        .denied(81, |_, to| to.starts_with("x/"))
        .policy("x", "allow-ingress", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}")
        .allowed(81),
        Spec::new(
            "should enforce multiple egress policies with egress allow-all policy taking precedence",
            &["x/a", "y/a"],
        )
        .policy("x", "allow-egress-port-80", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}")
        .denied(81, |from, _| from.starts_with("x/"))
        .policy("x", "allow-egress", "{podSelector: {}, policyTypes: [Egress], egress: [{}]}")
        .allowed(81),
        Spec::new(
            "should enforce policies to check ingress and egress policies can be controlled independently based on PodSelector",
            &["x/a", "x/b", "y/a"],
        )
        .allowed(80)
        .policy("x", "allow-egress-for-target", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{}]}")
        .allowed(80)
        .policy("x", "deny-ingress-via-label-selector", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}")
        .denied(80, |_, to| to == "x/a"),
    ]
}
