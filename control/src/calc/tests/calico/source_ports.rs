//! Rules that ask for source ports.

use super::*;

/// A rule of ingress at media/relay, in a policy of the whole cluster.
fn ingress(rule: &str) -> String {
    global("g", &format!("selector: app == 'relay', ingress: [{rule}]"))
}

/// A second pod whose sip is another number, and one whose labels are not known.
fn others() -> String {
    let sip = "containers: [{name: c, ports: [{name: sip, containerPort: 5070, protocol: UDP}]}]";
    pod("guest/phone", "app: phone", &format!("spec: {{{sip}}}"))
        + &endpoint("v5", "n0", "guest/phone", "10.0.0.5")
        + &endpoint("v6", "n0", "guest/unknown", "10.0.0.6")
}

#[test]
fn a_source_port_is_compared_like_one_of_the_destination() {
    let all = ["tcp/80<100", "tcp/80<101", "udp/80<100", "132/80<65535", "icmp/8", "47/0"];
    let allows = |rule: &str, expected: [u8; 6]| {
        let flows: Vec<_> = all.iter().map(|traffic| format!("guest/caller media/relay {traffic}")).collect();
        let flows: Vec<_> = flows.iter().zip(expected).map(|(flow, e)| (flow.as_str(), e == 1)).collect();
        check(&ingress(&format!("{{action: Allow, {rule}}}")), &flows);
    };
    allows("protocol: TCP, source: {ports: [100]}", [1, 0, 0, 0, 0, 0]);
    allows("protocol: TCP, source: {ports: ['101:200', 7]}", [0, 1, 0, 0, 0, 0]);
    allows("protocol: TCP, source: {notPorts: ['1:100']}", [0, 1, 0, 0, 0, 0]);
    allows("protocol: TCP, source: {ports: ['1:200'], notPorts: [100]}", [0, 1, 0, 0, 0, 0]);
    allows("protocol: UDP, source: {ports: [100]}, destination: {ports: [80]}", [0, 0, 1, 0, 0, 0]);
    allows("protocol: UDP, source: {ports: [100]}, destination: {ports: [81]}", [0; 6]);
    allows("protocol: SCTP, source: {ports: ['1024:65535']}", [0, 0, 0, 1, 0, 0]);
    allows("source: {ports: [sip]}", [0; 6]);
    allows("source: {notPorts: [sip]}", [1; 6]);
    allows("notProtocol: TCP, source: {notPorts: [sip]}", [0, 0, 1, 1, 1, 1]);
    allows("protocol: TCP, source: {selector: app == 'web', ports: [100]}", [0; 6]);
}

#[test]
fn a_name_is_a_port_of_the_pod_that_sends() {
    let objects = others() + &ingress("{action: Allow, protocol: UDP, source: {ports: [sip]}}");
    let flows = [
        ("guest/phone media/relay udp/9<5070", true),
        ("guest/phone media/relay udp/9<5060", false),
        ("guest/phone media/relay tcp/9<5070", false),
        ("guest/caller media/relay udp/9<5060", false),
        ("198.51.100.7 media/relay udp/9<5060", false),
        ("10.0.0.6 media/relay udp/9<5060", false),
    ];
    check(&objects, &flows);
    let objects = others() + &ingress("{action: Deny, source: {ports: [sip]}}, {action: Allow}");
    let flows = [
        ("guest/phone media/relay udp/9<5070", false),
        ("guest/phone media/relay udp/9<5060", true),
        ("10.0.0.6 media/relay udp/9<5060", false),
        ("10.0.0.6 media/relay 47/0", true),
    ];
    check(&objects, &flows);
    let egress = |rule: &str| others() + &global("g", &format!("types: [Egress], egress: [{rule}]"));
    let flows = [
        ("media/relay 198.51.100.7 udp/9<5060", true),
        ("guest/phone 198.51.100.7 udp/9<5070", true),
        ("guest/phone media/relay udp/9<5060", false),
        ("guest/caller media/relay udp/9<5060", false),
    ];
    check(&egress("{action: Allow, protocol: UDP, source: {ports: [sip]}}"), &flows);
    let flows = flows.map(|(flow, allowed)| (flow, !allowed));
    check(&egress("{action: Allow, protocol: UDP, source: {notPorts: [sip]}}"), &flows);
    let both = "{action: Allow, source: {ports: [sip]}, destination: {ports: [sip]}}";
    let flows = [
        ("guest/phone media/relay udp/5060<5070", true),
        ("media/relay guest/phone udp/5070<5060", true),
        ("guest/phone media/relay udp/5070<5060", false),
        ("media/relay guest/phone udp/5060<5060", false),
    ];
    check(&egress(both), &flows);
}

#[test]
fn a_staged_policy_and_a_profile_may_ask_for_them_too() {
    let staged =
        "selector: app == 'relay', ingress: [{action: Allow, protocol: TCP, source: {ports: [100]}}]";
    let said = check(
        &calico("StagedNetworkPolicy", "media/s", staged),
        &[("guest/caller media/relay tcp/80<100", true), ("guest/caller media/relay tcp/80<101", true)],
    );
    assert!(said[0].ingress.staged.starts_with("it would be allowed"), "{}", said[0]);
    assert!(said[1].ingress.staged.starts_with("it would be denied"), "{}", said[1]);
    let profile = "ingress: [{action: Allow, protocol: TCP, source: {notPorts: [100]}}]";
    check(
        &calico("Profile", "kns.media", profile),
        &[("guest/caller media/relay tcp/80<100", false), ("guest/caller media/relay tcp/80<101", true)],
    );
}

#[test]
fn who_asks_about_none_is_told_when_one_would_matter() {
    let allow = |ports: &str| {
        ingress(&format!(
            "{{action: Allow, protocol: UDP, source: {{ports: [{ports}]}}, destination: {{ports: [9]}}}}"
        ))
    };
    for (ports, taken, allowed) in [
        ("7", 49_152, false),
        ("'49152:50000', 50002", 50_001, false),
        ("'1024:65535'", 1, false),
        ("'1:65535'", 49_152, true),
    ] {
        let said = check(&allow(ports), &[("guest/caller media/relay udp/9", allowed)]);
        assert_eq!(said[0].source_port, taken, "{ports}");
        let note = format!(
            "GlobalNetworkPolicy g, ingress rule 1 depends on the source port, which was taken to be {taken}: \
             --source-port asks about another"
        );
        assert!(said[0].ingress.hint.ends_with(&note), "{}", said[0]);
    }
    let ping = [("guest/caller media/relay icmp/8", true)];
    let said = check(&ingress("{action: Allow, source: {notPorts: [sip]}}"), &ping);
    assert!(!said[0].ingress.hint.contains("--source-port"), "it has none: {}", said[0]);
    let plain = "guest/caller media/relay udp/10";
    let said = check(&allow("7"), &[(plain, false), ("guest/caller media/relay udp/9<8", false)]);
    assert!(!said[0].ingress.hint.contains("--source-port"), "not at this port: {}", said[0]);
    let hint = &said[1].ingress.hint;
    assert!(hint.contains("but not from source port 8") && !hint.contains("--source-port"), "{hint}");
}
