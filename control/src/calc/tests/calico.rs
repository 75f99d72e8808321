//! Calico's policies end to end: what is compiled and what is explained both come to what Calico says.

use vswitch_datapath::policy::{PolicyDirection, oracle};

use super::super::{Explanation, Question, explain};
use super::*;

/// Four pods on one node, two namespaces, a service account.
pub(super) fn base() -> String {
    let namespace = |name: &str, labels: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}\n"
        )
    };
    let sip = "containers: [{name: c, ports: [{name: sip, containerPort: 5060, protocol: UDP}]}]";
    [
        node("n0", "IPv4Address=192.0.2.1/24"),
        namespace("media", "team: voice"),
        namespace("guest", ""),
        "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: media, labels: {kind: bot}}}\n".into(),
        pod("media/relay", "app: relay", &format!("spec: {{serviceAccountName: robot, {sip}}}")),
        pod("media/web", "app: web", "spec: {containers: []}"),
        pod("guest/caller", "app: caller", "spec: {containers: []}"),
        pod("guest/web", "app: web", "spec: {containers: []}"),
        endpoint("v1", "n0", "media/relay", "10.0.0.1, 'fd00::1'"),
        endpoint("v2", "n0", "media/web", "10.0.0.2, 'fd00::2'"),
        endpoint("v3", "n0", "guest/caller", "10.0.0.3, 'fd00::3'"),
        endpoint("v4", "n0", "guest/web", "10.0.0.4, 'fd00::4'"),
    ]
    .concat()
}

/// An object of Calico's; the path has the namespace where the kind has one.
fn calico(kind: &str, path: &str, rest: &str) -> String {
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    let namespace = if namespace.is_empty() { String::new() } else { format!("namespace: {namespace}, ") };
    format!(
        "---\n{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{{namespace}name: {name}}}, spec: {{{rest}}}}}\n"
    )
}

fn global(name: &str, spec: &str) -> String {
    calico("GlobalNetworkPolicy", name, spec)
}

/// `guest/caller media/relay udp/5060`, `198.51.100.7 media/relay icmp/8`, the last with the type in place of the port.
fn question(text: &str) -> Question {
    let words: Vec<_> = text.split(' ').collect();
    let [from, to, traffic] = words[..] else { panic!("{text}") };
    let (protocol, port) = traffic.split_once('/').unwrap();
    let (protocol, shift) = match protocol {
        "tcp" => (6, 0),
        "udp" => (17, 0),
        "icmp" => (1, 8),
        number => (number.parse().unwrap(), 0),
    };
    let port = port.parse::<u16>().unwrap() << shift;
    Question { from: from.parse().unwrap(), to: to.parse().unwrap(), protocol, port, is_ipv4: None }
}

/// Each flow is allowed or not, by both ways.
fn check(objects: &str, flows: &[(&str, bool)]) -> Vec<Explanation> {
    let inputs = inputs(&(base() + objects));
    let calculated = calculated(&inputs, "n0");
    let state = &calculated.state;
    let compiled = |direction, own: IpAddr, other: IpAddr, q: &Question| {
        let is_local = state.ports.values().any(|port| port.addresses.contains(&own));
        let [own, other] = [own, other].map(|address| identity(state, &address.to_string()).0);
        !is_local || oracle::verdict(state, direction, own, other, q.protocol, q.port).allow
    };
    let judge = |(text, allowed): &(&str, bool)| {
        let question = question(text);
        let said = explain(&inputs, &question).unwrap();
        assert_eq!(said.allowed, *allowed, "{text}: explained\n{said}\n{objects}");
        let (from, to) = (said.from_address, said.to_address);
        let sent = compiled(PolicyDirection::Egress, from, to, &question);
        let received = compiled(PolicyDirection::Ingress, to, from, &question);
        assert_eq!(sent && received, *allowed, "{text}: compiled\n{objects}");
        said
    };
    flows.iter().map(judge).collect()
}

/// A policy for media/relay that allows what comes by TCP to port 80.
fn allow_80() -> String {
    calico(
        "NetworkPolicy",
        "media/allow",
        "selector: app == 'relay', ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]",
    )
}

const TO_80: &str = "guest/caller media/relay tcp/80";
const TO_81: &str = "guest/caller media/relay tcp/81";

#[test]
fn a_tier_is_asked_before_the_next_and_may_leave_it_to_that() {
    let tier = |name: &str, rest: &str| calico("Tier", name, rest);
    let first = tier("first", "order: 10") + &tier("second", "order: 20");
    let of =
        |tier: &str, rules: &str| global(&format!("{tier}.p"), &format!("tier: {tier}, ingress: [{rules}]"));
    let denies = "{action: Deny}";
    let passes = "{action: Pass, protocol: TCP}";
    let flows = |to_80, to_81| [(TO_80, to_80), (TO_81, to_81)];
    check(&allow_80(), &flows(true, false));
    check(&(first.clone() + &of("first", denies) + &allow_80()), &flows(false, false));
    check(&(first.clone() + &of("first", passes) + &allow_80()), &flows(true, false));
    check(
        &(first.clone() + &of("first", passes) + &of("second", denies) + &allow_80()),
        &flows(false, false),
    );
    check(
        &(first.clone() + &of("first", "{action: Allow}") + &of("second", denies) + &allow_80()),
        &flows(true, true),
    );
    // No rule decides: the tier's default does.
    let none = of("first", "");
    check(&(first.clone() + &none + &allow_80()), &flows(false, false));
    check(&(tier("first", "order: 10, defaultAction: Pass") + &none + &allow_80()), &flows(true, false));
    // A tier that selects nobody is not asked; one without an order comes last, of equals the first by name.
    check(&(first + &global("none", "tier: first, selector: '!all()'") + &allow_80()), &flows(true, false));
    let last = tier("last", "") + &of("last", denies);
    check(&(last.clone() + &allow_80()), &flows(true, false));
    let a = tier("a", "order: 5") + &of("a", "{action: Allow}") + &tier("b", "order: 5") + &of("b", denies);
    check(&(last + &a), &flows(true, true));
}

#[test]
fn in_a_tier_order_decides_then_the_name_and_kubernetes_policies_are_at_1000() {
    let p = |name: &str, order: &str, action: &str| {
        global(name, &format!("{order}selector: app == 'relay', ingress: [{{action: {action}}}]"))
    };
    let allowed = |objects: String, allowed| drop(check(&objects, &[(TO_80, allowed)]));
    allowed(p("a", "order: 2, ", "Deny") + &p("b", "order: 1, ", "Allow"), true);
    allowed(p("a", "order: 2, ", "Deny") + &p("b", "order: 2, ", "Allow"), false);
    allowed(p("a", "", "Deny") + &p("b", "order: 1000000, ", "Allow"), true);
    allowed(p("a", "order: -1.5, ", "Deny") + &p("b", "order: -1, ", "Allow"), false);
    let kubernetes = policy("media/m", "podSelector: {}, ingress: [{}]");
    allowed(kubernetes.clone() + &p("z", "order: 999, ", "Deny"), false);
    allowed(kubernetes.clone() + &p("a", "order: 1001, ", "Deny"), true);
    allowed(kubernetes.clone() + &p("a", "order: 1000, ", "Deny"), false);
    allowed(kubernetes + &p("z", "order: 1000, ", "Deny"), true);
}

#[test]
fn tiers_and_policies_of_the_whole_cluster_are_in_one_order() {
    let admin = "---\n{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, \
                 spec: {tier: Admin, priority: 5, subject: {namespaces: {}}, \
                 ingress: [{action: Deny, from: [{namespaces: {}}]}]}}\n";
    let allow = |tier: &str| global("g", &format!("tier: {tier}, ingress: [{{action: Allow}}]"));
    let tier = |order: &str| calico("Tier", "mine", order);
    check(&(admin.to_owned() + &tier("order: 999") + &allow("mine")), &[(TO_80, true)]);
    check(&(admin.to_owned() + &tier("order: 1001") + &allow("mine")), &[(TO_80, false)]);
    check(&(admin.replace("Admin", "Baseline") + &tier("order: 9999999") + &allow("mine")), &[(TO_80, true)]);
    check(&(admin.replace("Admin", "Baseline") + &tier("") + &allow("mine")), &[(TO_80, false)]);
}

#[test]
fn a_tier_that_is_not_there_closes_the_pods_of_its_policies_and_is_told() {
    let objects = global("g", "tier: gone, selector: app == 'relay', ingress: [{action: Allow}]");
    check(
        &objects,
        &[(TO_80, false), ("guest/caller media/web tcp/80", true), ("media/relay media/web tcp/80", true)],
    );
    let problems = calculated(&inputs(&(base() + &objects)), "n0").problems;
    assert!(
        problems.len() == 1 && problems[0].contains("GlobalNetworkPolicy g is in tier gone"),
        "{problems:?}"
    );
}

#[test]
fn sources_are_pods_network_sets_and_what_is_left() {
    let sets = "---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: all, labels: {from: far}}, spec: {nets: [198.51.100.0/24]}}\n\
                ---\n{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {namespace: media, name: own, labels: {from: far}}, spec: {nets: [203.0.113.0/25]}}\n\
                ---\n{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {namespace: guest, name: own, labels: {from: far}}, spec: {nets: [203.0.113.128/25]}}\n";
    // Calls, in order: global set, media's set, guest's set, nobody, guest/caller, guest/web, media/web.
    let from = [
        "198.51.100.7",
        "203.0.113.7",
        "203.0.113.200",
        "192.0.2.200",
        "guest/caller",
        "guest/web",
        "media/web",
    ];
    let allows = |kind: &str, source: &str, expected: [u8; 7]| {
        let path = if kind == "NetworkPolicy" { "media/p" } else { "p" };
        let spec = format!("selector: app == 'relay', ingress: [{{action: Allow, source: {{{source}}}}}]");
        let flows: Vec<_> = from.iter().map(|from| format!("{from} media/relay tcp/80")).collect();
        let flows: Vec<_> = flows.iter().zip(expected).map(|(flow, e)| (flow.as_str(), e == 1)).collect();
        check(&(sets.to_owned() + &calico(kind, path, &spec)), &flows);
    };
    for (source, in_namespace, in_cluster) in [
        ("", [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]),
        ("selector: from == 'far'", [0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]),
        ("selector: app == 'web'", [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1, 1]),
        ("selector: all()", [0, 1, 0, 0, 0, 0, 1], [1, 1, 1, 0, 1, 1, 1]),
        ("namespaceSelector: all()", [0, 1, 1, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1, 1]),
        ("namespaceSelector: global()", [1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]),
        ("namespaceSelector: team == 'voice'", [0, 1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0, 1]),
        (
            "namespaceSelector: projectcalico.org/name == 'guest'",
            [0, 0, 1, 0, 1, 1, 0],
            [0, 0, 1, 0, 1, 1, 0],
        ),
        (
            "namespaceSelector: '!has(team)', selector: app == 'web'",
            [0, 0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 1, 0],
        ),
        ("notSelector: app == 'web'", [0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0]),
        ("notSelector: from == 'far'", [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]),
        ("selector: '!has(from)'", [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 1]),
        ("nets: [203.0.113.0/24]", [0, 1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0]),
        ("notNets: [203.0.113.0/24, 10.0.0.0/8]", [1, 0, 0, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0]),
        ("nets: [203.0.113.0/24], notNets: [203.0.113.128/25]", [0, 1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]),
        ("selector: from == 'far', notNets: [203.0.113.0/26]", [0, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0]),
        ("selector: projectcalico.org/namespace == 'guest'", [0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 1, 0]),
    ] {
        allows("NetworkPolicy", source, in_namespace);
        allows("GlobalNetworkPolicy", source, in_cluster);
    }
}

#[test]
fn service_accounts_are_matched_by_name_and_by_labels() {
    let flows = |from_relay, from_web| {
        [("media/relay guest/web tcp/80", from_relay), ("media/web guest/web tcp/80", from_web)]
    };
    let source = |source: &str| {
        global("g", &format!("selector: app == 'web', ingress: [{{action: Allow, source: {{{source}}}}}]"))
    };
    check(&source("serviceAccounts: {names: [robot]}"), &flows(true, false));
    check(&source("serviceAccounts: {names: [default, other]}"), &flows(false, true));
    check(&source("serviceAccounts: {selector: kind == 'bot'}"), &flows(true, false));
    check(&source("serviceAccounts: {names: [default], selector: kind == 'bot'}"), &flows(false, false));
    check(&source("selector: projectcalico.org/serviceaccount == 'robot'"), &flows(true, false));
    let subject = |selector: &str| global("g", &format!("serviceAccountSelector: {selector}, egress: []"));
    let subject = |selector: &str| subject(selector).replace("egress: []", "types: [Egress]");
    check(&subject("kind == 'bot'"), &flows(false, true));
    check(&subject("'!has(kind)'"), &flows(true, false));
    check(&subject("all()"), &flows(false, false));
}

#[test]
fn a_service_is_its_endpoints_and_as_a_destination_their_ports() {
    let slice = "---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: media, name: s-1, labels: {kubernetes.io/service-name: s}}, \
                 addressType: IPv4, endpoints: [{addresses: [10.0.0.2]}, {addresses: [198.51.100.9]}], ports: [{port: 8080}]}\n";
    let to = |rule: &str| {
        slice.to_owned()
            + &calico("NetworkPolicy", "media/p", &format!("selector: app == 'relay', egress: [{rule}]"))
    };
    let flows = [
        ("media/relay media/web tcp/8080", true),
        ("media/relay media/web tcp/80", false),
        ("media/relay media/web udp/8080", false),
        ("media/relay 198.51.100.9 tcp/8080", true),
        ("media/relay guest/web tcp/8080", false),
    ];
    check(&to("{action: Allow, destination: {services: {name: s}}}"), &flows);
    check(&to("{action: Allow, destination: {services: {name: gone}}}"), &[(flows[0].0, false)]);
    check(
        &to("{action: Allow, destination: {services: {name: s, namespace: guest}}}"),
        &[(flows[0].0, false)],
    );
    let from = slice.to_owned()
        + &calico(
            "NetworkPolicy",
            "media/p",
            "selector: app == 'relay', ingress: [{action: Allow, source: {services: {name: s}}}]",
        );
    check(
        &from,
        &[("media/web media/relay tcp/1", true), ("198.51.100.9 media/relay udp/2", true), (TO_80, false)],
    );
}

#[test]
fn traffic_is_told_apart_by_protocol_port_message_and_family() {
    let all = ["tcp/80", "tcp/5060", "udp/5060", "udp/80", "icmp/8", "icmp/3", "47/0"];
    let allows = |rule: &str, expected: [u8; 7]| {
        let spec = format!("selector: app == 'relay', ingress: [{{action: Allow, {rule}}}]");
        let flows: Vec<_> = all.iter().map(|traffic| format!("guest/caller media/relay {traffic}")).collect();
        let flows: Vec<_> = flows.iter().zip(expected).map(|(flow, e)| (flow.as_str(), e == 1)).collect();
        check(&global("g", &spec), &flows);
    };
    allows("protocol: TCP", [1, 1, 0, 0, 0, 0, 0]);
    allows("protocol: 47", [0, 0, 0, 0, 0, 0, 1]);
    allows("notProtocol: TCP", [0, 0, 1, 1, 1, 1, 1]);
    allows("protocol: TCP, destination: {ports: [80, '5000:6000']}", [1, 1, 0, 0, 0, 0, 0]);
    allows("protocol: TCP, destination: {ports: ['1:6000'], notPorts: [80]}", [0, 1, 0, 0, 0, 0, 0]);
    allows("protocol: UDP, destination: {notPorts: ['1:100']}", [0, 0, 1, 0, 0, 0, 0]);
    allows("protocol: UDP, destination: {ports: [sip]}", [0, 0, 1, 0, 0, 0, 0]);
    allows("protocol: TCP, destination: {ports: [sip]}", [0, 0, 0, 0, 0, 0, 0]);
    allows("destination: {ports: [sip]}", [0, 0, 1, 0, 0, 0, 0]);
    allows("protocol: UDP, destination: {notPorts: [sip]}", [0, 0, 0, 1, 0, 0, 0]);
    allows("protocol: ICMP", [0, 0, 0, 0, 1, 1, 0]);
    allows("protocol: ICMP, icmp: {type: 8}", [0, 0, 0, 0, 1, 0, 0]);
    allows("protocol: ICMP, icmp: {type: 8, code: 1}", [0; 7]);
    allows("protocol: ICMP, notICMP: {type: 8, code: 0}", [0, 0, 0, 0, 0, 1, 0]);
    allows("ipVersion: 4", [1; 7]);
    allows("ipVersion: 6", [0; 7]);
    let six = global("g", "selector: app == 'relay', ingress: [{action: Allow, ipVersion: 6}]");
    check(&six, &[("fd00::3 fd00::1 tcp/80", true), (TO_80, false)]);
}

#[test]
fn the_policys_own_end_can_be_narrowed() {
    let objects = calico(
        "NetworkPolicy",
        "media/p",
        "ingress: [{action: Allow, destination: {selector: app == 'web'}}, {action: Allow, destination: {nets: [10.0.0.1/32]}, protocol: UDP}]",
    );
    let flows =
        [("guest/caller media/web tcp/1", true), ("guest/caller media/relay udp/1", true), (TO_80, false)];
    check(&objects, &flows);
    let objects =
        global("g", "egress: [{action: Deny, source: {selector: app == 'caller'}}, {action: Allow}]");
    check(&objects, &[(TO_80, false), ("guest/web media/relay tcp/80", true)]);
}

#[test]
fn log_goes_on_with_the_next_rule() {
    let log = |rest: &str| global("g", &format!("ingress: [{{action: Log}}, {rest}]"));
    check(
        &log("{action: Allow, protocol: TCP}"),
        &[(TO_80, true), ("guest/caller media/relay udp/1", false)],
    );
    check(&log("{action: Deny}"), &[(TO_80, false)]);
}

#[test]
fn what_is_staged_changes_nothing_and_is_told() {
    let staged = |kind: &str, path: &str, spec: &str| {
        check(&(allow_80() + &calico(kind, path, spec)), &[(TO_80, true), (TO_81, false)])
    };
    let said = staged("StagedGlobalNetworkPolicy", "g", "order: 1, ingress: [{action: Deny}]");
    assert!(said[0].ingress.staged.contains("denied"), "{}", said[0]);
    let said = staged(
        "StagedNetworkPolicy",
        "media/allow",
        "selector: app == 'relay', ingress: [{action: Allow, protocol: TCP, destination: {ports: [81]}}]",
    );
    assert!(said[0].ingress.staged.contains("denied"), "in the other's place: {}", said[0]);
    assert!(said[1].ingress.staged.contains("allowed"), "{}", said[1]);
    let said = staged("StagedNetworkPolicy", "media/allow", "stagedAction: Delete");
    assert!(said[1].ingress.staged.contains("allowed"), "{}", said[1]);
    staged("StagedKubernetesNetworkPolicy", "media/k", "podSelector: {}");
    staged("StagedGlobalNetworkPolicy", "g", "tier: gone, ingress: [{action: Deny}]");
}

#[test]
fn profiles_come_after_all_tiers_and_lend_labels() {
    let profile = |name: &str, spec: &str| calico("Profile", name, spec);
    let tcp = profile("kns.media", "ingress: [{action: Allow, protocol: TCP}], egress: [{action: Allow}]");
    let flows = |tcp, udp| [(TO_80, tcp), ("guest/caller media/relay udp/1", udp)];
    check(&tcp, &flows(true, false));
    // A policy that selects the pod decides before it is asked, a tier that passes does not.
    check(&(tcp.clone() + &global("g", "ingress: [{action: Allow, protocol: UDP}]")), &flows(false, true));
    let passing = calico("Tier", "t", "order: 1, defaultAction: Pass") + &global("g", "tier: t");
    check(&(tcp.clone() + &passing), &flows(true, false));
    // That of the service account is asked after that of the namespace.
    let account = profile("ksa.media.robot", "ingress: [{action: Allow, protocol: UDP}]");
    check(&(tcp + &account), &flows(true, true));
    check(&account, &flows(true, true));
    let labels = profile(
        "kns.media",
        "ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {role: x, app: y}",
    );
    let role = |selector: &str| {
        labels.clone() + &global("g", &format!("selector: {selector}, ingress: [{{action: Deny}}]"))
    };
    check(&role("role == 'x'"), &flows(false, false));
    check(&role("app == 'y'"), &flows(true, true));
}

#[test]
fn labels_of_namespaces_and_accounts_are_among_a_pods() {
    let by = |selector: &str| global("g", &format!("selector: {selector}, ingress: [{{action: Deny}}]"));
    let flows = |media: bool, guest: bool| [(TO_80, !media), ("media/web guest/web tcp/80", !guest)];
    for (selector, media, guest) in [
        ("pcns.team == 'voice'", true, false),
        ("pcns.projectcalico.org/name == 'guest'", false, true),
        ("pcsa.kind == 'bot'", true, false),
        ("pcsa.projectcalico.org/name == 'default'", false, true),
        ("projectcalico.org/orchestrator == 'k8s'", true, true),
        ("has(pcns.none) || has(pcsa.none)", false, false),
    ] {
        check(&by(selector), &flows(media, guest));
    }
}
