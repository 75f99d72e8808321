//! What rules and policies match.

use super::*;

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
