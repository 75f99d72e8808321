//! What Calico's objects say, as views.

use super::*;
use crate::object::{Object, manifest};

fn object(kind: &str, name: &str, spec: &str) -> Object {
    let text = format!(
        "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    );
    manifest::parse("test", "x", &text).unwrap_or_else(|e| panic!("{e}")).remove(0).object
}

fn of(kind: &str, spec: &str) -> PolicyView {
    match object(kind, "p", spec) {
        Object::CalicoNetworkPolicy(policy) => network_policy(&policy),
        Object::GlobalNetworkPolicy(policy) => global_network_policy(&policy),
        Object::StagedNetworkPolicy(policy) => staged_network_policy(&policy),
        Object::StagedGlobalNetworkPolicy(policy) => staged_global_network_policy(&policy),
        Object::StagedKubernetesNetworkPolicy(policy) => staged_kubernetes_network_policy(&policy),
        other => panic!("{other:?}"),
    }
}

/// The only ingress rule of a policy.
fn ingress(kind: &str, rule: &str) -> RuleView {
    of(kind, &format!("ingress: [{{action: Allow, {rule}}}]")).ingress.unwrap().remove(0)
}

fn expr(text: &str) -> Expr {
    text.parse().unwrap()
}

fn pods(namespaces: Namespaces, labels: &str) -> PodMatch {
    PodMatch { namespaces, labels: expr(labels), account: None, network_sets: true }
}

fn named(name: &str) -> Namespaces {
    Namespaces::Named(name.into())
}

#[test]
fn a_policy_selects_pods_where_it_is() {
    let view = of("NetworkPolicy", "selector: a == 'b', order: 5, tier: t, serviceAccountSelector: has(c)");
    assert_eq!(view.source.to_string(), "NetworkPolicy.projectcalico.org x/p");
    assert_eq!((view.tier, view.order), (TierName::Named("t".into()), Order(Some(5.0))));
    let account = Some(AccountMatch { names: vec![], labels: expr("has(c)") });
    let labels = expr("a == 'b'");
    let subject = PodMatch { namespaces: named("x"), labels, account, network_sets: false };
    assert_eq!(view.subject, subject);
    assert_eq!((view.ingress, view.egress), (Some(vec![]), None), "without rules it closes ingress");

    let view = of("GlobalNetworkPolicy", "egress: [{action: Pass}]");
    assert_eq!(view.source.to_string(), "GlobalNetworkPolicy p");
    assert_eq!((view.tier, view.order), (TierName::Named("default".into()), Order(None)));
    assert_eq!(view.subject, PodMatch::default());
    assert_eq!(view.ingress, None);
    let rule = &view.egress.unwrap()[0];
    assert_eq!((rule.action, rule.position.as_str()), (RuleAction::Pass, "egress rule 1"));
    assert_eq!((&rule.peer, &rule.own), (&EntityMatch::default(), &EntityMatch::default()));

    let view = of("GlobalNetworkPolicy", "namespaceSelector: all()");
    assert_eq!(view.subject.namespaces, Namespaces::Labelled(Expr::All));
}

#[test]
fn selectors_of_a_rule_mean_the_policys_namespace_unless_they_name_others() {
    let peer = |kind: &str, source: &str| {
        let peer = ingress(kind, &format!("source: {{{source}}}")).peer;
        (peer.pods, peer.not_pods)
    };
    let any = |labels| pods(Namespaces::Any, labels);
    let of_own = |labels| pods(named("x"), labels);
    let labelled = |namespaces, labels| pods(Namespaces::Labelled(expr(namespaces)), labels);
    for (source, in_namespace, in_cluster, not) in [
        ("", None, None, None),
        ("selector: all()", Some(of_own("all()")), Some(any("all()")), None),
        ("selector: has(a)", Some(of_own("has(a)")), Some(any("has(a)")), None),
        ("notSelector: has(a)", Some(of_own("all()")), None, Some(any("has(a)"))),
        (
            "selector: has(b), notSelector: has(a)",
            Some(of_own("has(b)")),
            Some(any("has(b)")),
            Some(any("has(a)")),
        ),
        (
            "namespaceSelector: all()",
            Some(labelled("all()", "all()")),
            Some(labelled("all()", "all()")),
            None,
        ),
        (
            "namespaceSelector: global(), selector: has(a)",
            Some(labelled("global()", "has(a)")),
            Some(labelled("global()", "has(a)")),
            None,
        ),
        ("serviceAccounts: {}", None, None, None),
    ] {
        assert_eq!(peer("NetworkPolicy", source), (in_namespace, not.clone()), "{source}");
        assert_eq!(peer("GlobalNetworkPolicy", source), (in_cluster, not), "{source}");
    }
    let (found, _) = peer("NetworkPolicy", "serviceAccounts: {names: [s], selector: has(a)}");
    let account = AccountMatch { names: vec!["s".into()], labels: expr("has(a)") };
    assert_eq!(found, Some(PodMatch { account: Some(account), ..of_own("all()") }));
}

#[test]
fn the_own_end_may_be_narrower_and_services_lend_their_ports_to_destinations() {
    let view = of(
        "NetworkPolicy",
        "ingress: [{action: Log, source: {services: {name: s}}, destination: {nets: [10.0.0.0/8]}}],
         egress: [{action: Deny, source: {selector: has(a)}, destination: {services: {name: s, namespace: y}}}]",
    );
    let (ingress, egress) = (&view.ingress.unwrap()[0], &view.egress.unwrap()[0]);
    let service = |namespace: &str, with_ports| ServiceMatch {
        namespace: namespace.into(),
        name: "s".into(),
        with_ports,
    };
    assert_eq!((ingress.action, egress.action), (RuleAction::Log, RuleAction::Deny));
    assert_eq!(ingress.peer.service, Some(service("x", false)));
    assert_eq!(ingress.own.nets, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(egress.peer.service, Some(service("y", true)));
    assert_eq!(egress.own.pods, Some(pods(named("x"), "has(a)")));
}

#[test]
fn traffic_is_protocols_ports_and_messages() {
    let traffic = |rule: &str| ingress("NetworkPolicy", rule).traffic;
    let range = |protocol, first, last| PortView { protocol, ports: Ports::Range(first, last) };
    let name = |protocol| PortView { protocol, ports: Ports::Named("sip".into()) };
    for (rule, any_of, none_of) in [
        ("protocol: 47", vec![PortView::all(47)], vec![]),
        ("notProtocol: UDP", vec![], vec![PortView::all(17)]),
        (
            "protocol: UDP, destination: {ports: [sip, '1:9'], notPorts: [5]}",
            vec![name(17), range(17, 1, 9)],
            vec![range(17, 5, 5)],
        ),
        (
            "destination: {ports: [sip], notPorts: [sip]}",
            vec![name(6), name(17), name(132)],
            vec![name(6), name(17), name(132)],
        ),
        ("protocol: ICMP, icmp: {type: 8}", vec![range(1, 0x800, 0x8ff)], vec![]),
        ("protocol: ICMPv6, icmp: {type: 1, code: 4}", vec![range(58, 0x104, 0x104)], vec![]),
        ("protocol: ICMP, notICMP: {type: 3, code: 1}", vec![PortView::all(1)], vec![range(1, 0x301, 0x301)]),
        ("protocol: ICMP, icmp: {}, notICMP: {}", vec![PortView::all(1)], vec![]),
    ] {
        assert_eq!(traffic(rule), Traffic { any_of, none_of, ..Traffic::default() }, "{rule}");
    }
    let from = "protocol: SCTP, source: {ports: [sip, '1:9'], notPorts: [5]}, destination: {ports: [7]}";
    let expected = Traffic {
        any_of: vec![range(132, 7, 7)],
        source_any_of: vec![name(132), range(132, 1, 9)],
        source_none_of: vec![range(132, 5, 5)],
        ..Traffic::default()
    };
    assert_eq!(traffic(from), expected);
    let from = traffic("source: {notPorts: [sip]}");
    let all = vec![name(6), name(17), name(132)];
    assert_eq!(from, Traffic { source_none_of: all, ..Traffic::default() });
    assert!(from.has_source_ports() && !traffic("destination: {notPorts: [sip]}").has_source_ports());
    assert_eq!(traffic("ipVersion: 6").ip_version, Some(IpVersion::V6));
    assert_eq!(traffic("ipVersion: 4"), Traffic { ip_version: Some(IpVersion::V4), ..Traffic::default() });
}

#[test]
fn staged_policies_stand_for_those_of_their_name() {
    for (kind, spec, standing) in [
        ("StagedNetworkPolicy", "", Standing::Staged(Kind::CalicoNetworkPolicy)),
        ("StagedNetworkPolicy", "stagedAction: Delete", Standing::StagedRemoval(Kind::CalicoNetworkPolicy)),
        ("StagedGlobalNetworkPolicy", "stagedAction: Set", Standing::Staged(Kind::GlobalNetworkPolicy)),
        ("StagedKubernetesNetworkPolicy", "egress: [{}]", Standing::Staged(Kind::NetworkPolicy)),
        (
            "StagedKubernetesNetworkPolicy",
            "stagedAction: Delete",
            Standing::StagedRemoval(Kind::NetworkPolicy),
        ),
    ] {
        let view = of(kind, spec);
        assert_eq!(view.standing, standing, "{kind} {spec}");
        assert_eq!(view.source.kind.name(), kind);
    }
    let view = of("StagedKubernetesNetworkPolicy", "egress: [{}]");
    assert_eq!((view.order, view.egress.unwrap().len()), (Order::KUBERNETES, 1));
}

#[test]
fn profiles_are_asked_last_and_an_accounts_after_its_namespaces() {
    let profile = |name: &str, spec: &str| object("Profile", name, spec);
    let mut inputs: Inputs =
        [profile("ksa.x.robot", "ingress: [{action: Deny}]"), profile("kns.y", "egress: [{action: Allow}]")]
            .into_iter()
            .collect();
    let views = profiles(&inputs);
    assert_eq!(views.len(), 1, "namespace x allows everything before its accounts are asked");
    assert_eq!((&views[0].tier, &views[0].subject.namespaces), (&TierName::Profiles, &named("y")));
    assert_eq!(views[0].ingress, Some(vec![]), "it speaks of both directions");

    inputs.set(profile("kns.x", ""));
    let mut views = profiles(&inputs);
    views.sort_by_key(|view| (view.order, view.source.name.clone()));
    let names: Vec<_> = views.iter().map(|view| view.source.name.as_str()).collect();
    assert_eq!(names, ["kns.x", "kns.y", "ksa.x.robot"]);
    let account = AccountMatch { names: vec!["robot".into()], labels: Expr::All };
    assert_eq!(views[2].subject.account, Some(account));
}
