//! Names of ports that have many numbers, at one end or at both.

use super::*;
use crate::calc::Calculator;
use vswitch_model::TierDefault;

/// A rule that means names of ports at both ends, after one that is plain.
const SIP: &str = "selector: app == 'phone', types: [Ingress, Egress], egress: [{action: Allow}], ingress: [\
     {action: Allow, protocol: TCP}, \
     {action: Allow, protocol: UDP, source: {ports: [sip]}, destination: {ports: [sip]}}]";
const PROBLEM: &str = "ingress rule 2: it comes to 4225 rules by the numbers that names of its ports have, and may come to 4096";

/// Phones of n0, each with another number for sip; of the first the number is that of the relay.
fn phones(count: u16) -> String {
    (0..count).map(phone).collect()
}

fn phone(index: u16) -> String {
    let ports = format!("ports: [{{name: sip, containerPort: {}, protocol: UDP}}]", 5060 + index);
    let name = format!("guest/phone-{index}");
    pod(&name, "app: phone", &format!("spec: {{containers: [{{name: c, {ports}}}]}}"))
        + &endpoint(&format!("p{index}"), "n0", &name, &format!("10.0.1.{index}"))
}

/// The tiers of ingress and of egress: names, how many policies.
fn tiers(state: &DesiredState, address: &str) -> [Vec<(String, usize)>; 2] {
    let subject = &state.subjects[&identity(state, address).0];
    [&subject.ingress, &subject.egress].map(|tiers| {
        assert!(tiers.iter().all(|tier| tier.default == TierDefault::Deny));
        tiers.iter().map(|tier| (tier.name.clone(), tier.policies.len())).collect()
    })
}

#[test]
fn a_rule_that_comes_to_too_many_closes_the_pods_of_its_policy_and_is_told() {
    let objects = base() + &phones(64) + &global("sip", SIP) + &allow_80();
    let mut inputs = inputs(&objects);
    let mut calculator = Calculator::new("n0", CalcConfig::default());
    let mut numbering = Numbering::default();
    let mut go = |inputs: &Inputs| {
        calculator.calculate(inputs);
        calculator.state().check().unwrap();
        let fresh = calculate(inputs, "n0", &CalcConfig::default(), &mut numbering);
        assert_eq!(calculator.problems(), fresh.problems);
        let rules = |state: &DesiredState| -> Vec<usize> {
            state.policies.values().map(|policy| policy.rules.len()).collect()
        };
        assert_eq!(
            rules(calculator.state()).iter().sum::<usize>(),
            rules(&fresh.state).iter().sum::<usize>()
        );
        assert_eq!(tiers(calculator.state(), "10.0.1.0"), tiers(&fresh.state, "10.0.1.0"));
        assert_eq!(calculator.state().sets.len(), fresh.state.sets.len());
        fresh
    };
    let open = || vec![("default".to_owned(), 1)];
    let closed = || vec![("closed".to_owned(), 0)];

    let at_the_limit = go(&inputs);
    assert_eq!(at_the_limit.problems, [] as [&str; 0]);
    let most = at_the_limit.state.policies.values().map(|policy| policy.rules.len()).max();
    assert_eq!(most, Some(1 + 4096));
    assert_eq!(tiers(&at_the_limit.state, "10.0.1.0"), [open(), open()]);

    for document in manifest::parse("test", "default", &phone(64)).unwrap() {
        inputs.set(document.object);
    }
    let beyond = go(&inputs);
    assert!(beyond.problems.len() == 1 && beyond.problems[0].contains(PROBLEM), "{:?}", beyond.problems);
    let says = "GlobalNetworkPolicy sip, ingress rule 2: ";
    assert!(beyond.problems[0].starts_with(says), "{:?}", beyond.problems);
    for phone in ["10.0.1.0", "10.0.1.64"] {
        assert_eq!(tiers(&beyond.state, phone), [closed(), open()], "its egress is as ever");
    }
    assert_eq!(tiers(&beyond.state, "10.0.0.1"), [open(), Vec::new()], "another policy's pod");
    assert!(beyond.state.policies.values().all(|policy| policy.rules.len() <= 1));

    inputs.remove(&Key::new(Kind::Endpoint, "", "p64.eth0"));
    inputs.remove(&Key::new(Kind::Pod, "guest", "phone-64"));
    let back = go(&inputs);
    assert_eq!(back.problems, [] as [&str; 0]);
    assert_eq!(tiers(&back.state, "10.0.1.0"), [open(), open()]);
}

#[test]
fn a_staged_policy_that_comes_to_too_many_is_told_and_closes_nobody() {
    let staged = calico("StagedGlobalNetworkPolicy", "sip", SIP);
    let calculated = calculated(&inputs(&(base() + &phones(65) + &staged)), "n0");
    let [problem] = &calculated.problems[..] else { panic!("{:?}", calculated.problems) };
    assert!(problem.contains(PROBLEM) && problem.contains("nothing is counted of its ingress"), "{problem}");
    assert_eq!(tiers(&calculated.state, "10.0.1.0")[0], []);
}

/// Excepted and meant at one end, names part the pods of that end: they do not multiply there.
#[test]
fn names_at_one_end_come_to_rules_for_the_pods_there_are() {
    let rule = "{action: Allow, protocol: UDP, source: {ports: [sip], notPorts: [rtp]}}";
    let both = |index: u16| {
        let port =
            |name: &str, number: u16| format!("{{name: {name}, containerPort: {number}, protocol: UDP}}");
        let ports = [port("sip", 5060 + index), port("rtp", 9000 + index)].join(", ");
        let name = format!("guest/phone-{index}");
        pod(&name, "app: phone", &format!("spec: {{containers: [{{name: c, ports: [{ports}]}}]}}"))
            + &endpoint(&format!("p{index}"), "n0", &name, &format!("10.0.1.{index}"))
    };
    let phones: String = (0..70).map(both).collect();
    let sip = global("sip", &format!("selector: app == 'phone', ingress: [{rule}]"));
    let state = state(&inputs(&(base() + &phones + &sip)), "n0");
    let rules: Vec<_> = state.policies.values().flat_map(|policy| &policy.rules).collect();
    // 70 phones, and media/relay, which gives no port the name rtp.
    assert_eq!(rules.len(), 71);
    let objects = phones + &sip;
    let flows = [
        ("guest/phone-1 guest/phone-0 udp/9<5061", true),
        ("guest/phone-1 guest/phone-0 udp/9<9001", false),
        ("guest/phone-1 guest/phone-0 udp/9<5060", false),
        ("media/relay guest/phone-0 udp/9<5060", true),
    ];
    check(&objects, &flows);
}

#[test]
fn excepted_source_ports_are_of_the_protocol_of_the_rule() {
    let matches = |rule: &str| {
        let state = state(&inputs(&(base() + &global("g", &format!("ingress: [{rule}]")))), "n0");
        let rules = state.policies.values().flat_map(|policy| policy.rules.clone());
        rules.map(|rule| (rule.ports.len(), rule.source_ports.len())).collect::<Vec<_>>()
    };
    assert_eq!(matches("{action: Allow, protocol: UDP, source: {notPorts: [5060]}}"), [(1, 2)]);
    assert_eq!(matches("{action: Deny, protocol: TCP, source: {notPorts: [5060, '1:9']}}"), [(1, 3)]);
    // The name is a number at the relay, and none elsewhere.
    assert_eq!(matches("{action: Allow, protocol: UDP, source: {notPorts: [sip]}}"), [(1, 2), (1, 0)]);
    let not_tcp = matches("{action: Allow, notProtocol: TCP, source: {ports: [sip]}}");
    assert_eq!(not_tcp, [(1, 1)], "what is no protocol of the source's ports is not listed");
}
