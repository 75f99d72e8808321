//! Which changes are followed, and which are calculated from nothing. That both come to the same is shown by random
//! sequences of changes (`tests/random_clusters`).

use super::*;
use crate::calc::Calculator;
use crate::object::{Key, Kind};

fn cluster() -> String {
    let label =
        |name: &str| format!("---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n");
    [
        node("n0", "IPv4Address=192.0.2.1/24"),
        node("n1", "IPv4Address=192.0.2.2/24"),
        label("x"),
        label("y"),
        pod("x/a", "app: web", "spec: {nodeName: n0}"),
        pod("y/b", "app: db", "spec: {nodeName: n1}, status: {podIP: 10.0.1.7}"),
        endpoint("v0", "n0", "x/a", "10.0.0.5"),
        policy("x/p", "podSelector: {}, ingress: [{from: [{podSelector: {}, namespaceSelector: {}}]}]"),
    ]
    .concat()
}

/// Follows a change, and says whether it was calculated from nothing.
fn is_anew(calculator: &mut Calculator, inputs: &mut Inputs, change: &str) -> bool {
    let before = calculator.anew;
    for document in manifest::parse("test", "default", change).unwrap() {
        inputs.set(document.object);
    }
    calculator.calculate(inputs);
    calculator.state().check().unwrap();
    calculator.anew > before
}

#[test]
fn what_concerns_little_is_followed() {
    let mut inputs = inputs(&cluster());
    let mut calculator = Calculator::new("n0", CalcConfig::default());
    assert!(is_anew(&mut calculator, &mut inputs, ""), "the first is from nothing");
    let block = "podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]";
    for change in [
        String::new(),
        pod("y/b", "app: cache", "spec: {nodeName: n1}, status: {podIP: 10.0.1.7}"),
        pod("x/a", "app: cache", "spec: {nodeName: n0}"),
        pod("x/a", "app: cache", "spec: {nodeName: n0, serviceAccountName: sip}"),
        pod("x/hidden", "app: cache", "spec: {nodeName: n0, hostNetwork: true}"),
        pod("y/c", "", "spec: {nodeName: n1}, status: {podIP: 10.0.1.8}"),
        endpoint("v1", "n0", "x/new", "10.0.0.6"),
        pod("x/new", "app: web", "spec: {nodeName: n0}"),
        policy("x/q", block),
        policy("x/p", "podSelector: {matchLabels: {app: none}}"),
        super::block("10.0.2.0/26", "n1"),
        node("n2", "IPv4Address=192.0.2.3/24"),
    ] {
        assert!(!is_anew(&mut calculator, &mut inputs, &change), "{change}");
    }
    let lists = |calculator: &Calculator| {
        let identities = calculator.state().identities.values();
        identities.filter(|identity| identity.description.contains(" in ")).count()
    };
    assert_eq!(lists(&calculator), 3, "the world, and both pods, in 10.0.1.0/24");
    // The pod that the policy is for has another label from now on, and the list is out of force.
    assert!(!is_anew(&mut calculator, &mut inputs, &pod("x/new", "", "spec: {nodeName: n0}")));
    assert_eq!(lists(&calculator), 0);
    inputs.remove(&Key::new(Kind::Pod, "y", "b"));
    assert!(!is_anew(&mut calculator, &mut inputs, ""));
}

#[test]
fn what_may_concern_everything_is_calculated_from_nothing() {
    let mut inputs = inputs(&cluster());
    let mut calculator = Calculator::new("n0", CalcConfig::default());
    calculator.calculate(&inputs);
    for change in [
        "{apiVersion: v1, kind: Namespace, metadata: {name: y, labels: {team: voice}}}".to_owned(),
        "{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: y, name: sip, labels: {a: b}}}"
            .to_owned(),
        "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 1}}"
            .to_owned(),
        pod("z/first", "", "spec: {nodeName: n1}, status: {podIP: 10.0.1.9}"),
    ] {
        assert!(is_anew(&mut calculator, &mut inputs, &change), "{change}");
    }
    let nodes = "---\n{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: g}, \
                 spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{nodes: {}}]}]}}";
    assert!(is_anew(&mut calculator, &mut inputs, nodes), "nodes have labels from now on");
}

#[test]
fn what_a_name_of_a_source_port_comes_to_is_followed() {
    let policy = |direction: &str, other: &str| {
        format!(
            "---\n{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: default.{direction}}}, \
             spec: {{{direction}: [{{action: Allow, source: {{{other}ports: [sip]}}}}, {{action: Deny, source: {{notPorts: [sip]}}}}]}}}}\n"
        )
    };
    let sip = |name: &str, node: &str, port: u16, rest: &str| {
        let ports = format!("ports: [{{name: sip, containerPort: {port}, protocol: UDP}}]");
        pod(name, "", &format!("spec: {{nodeName: {node}, containers: [{{name: c, {ports}}}]}}{rest}"))
    };
    let mut inputs =
        inputs(&(cluster() + &policy("ingress", "namespaceSelector: all(), ") + &policy("egress", "")));
    let mut calculator = Calculator::new("n0", CalcConfig::default());
    let mut numbering = Numbering::default();
    let remote = ", status: {podIP: 10.0.1.7}";
    for (change, numbers) in [
        (String::new(), 0),
        (sip("y/b", "n1", 5060, remote), 1),
        (sip("x/a", "n0", 5070, ""), 3),
        (sip("y/b", "n1", 5080, remote), 3),
        (pod("x/a", "", "spec: {nodeName: n0}"), 1),
        (pod("y/b", "", &format!("spec: {{nodeName: n1}}{remote}")), 0),
    ] {
        is_anew(&mut calculator, &mut inputs, &change);
        let fresh = calculate(&inputs, "n0", &CalcConfig::default(), &mut numbering).state;
        let rules = |state: &DesiredState| -> Vec<_> {
            let policies = state.policies.values();
            policies
                .flat_map(|policy| &policy.rules)
                .map(|rule| (rule.position.clone(), rule.source_ports.clone()))
                .collect()
        };
        assert_eq!(rules(calculator.state()), rules(&fresh), "{change}");
        let named = rules(&fresh).iter().filter(|(at, _)| at.contains("rule 1, source port sip = ")).count();
        assert_eq!(named, numbers, "{change}");
    }
}

#[test]
fn a_set_of_those_not_meant_is_there_while_somebody_is_in_it() {
    let but_late = "---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: default.g}, \
                    spec: {types: [Ingress], ingress: [{action: Allow, source: {notSelector: app == 'late'}}]}}";
    let mut inputs = inputs(&(cluster() + but_late));
    let mut calculator = Calculator::new("n0", CalcConfig::default());
    let mut numbering = Numbering::default();
    let mut follow = |inputs: &mut Inputs, labels: &str| {
        let change = pod("y/b", labels, "spec: {nodeName: n1}, status: {podIP: 10.0.1.7}");
        is_anew(&mut calculator, inputs, &change);
        let fresh = calculate(inputs, "n0", &CalcConfig::default(), &mut numbering).state;
        assert_eq!(*calculator.state(), fresh, "{labels}");
        let mut rules = fresh.policies.values().flat_map(|policy| &policy.rules);
        rules.any(|rule| rule.not_peers.is_some())
    };
    assert!(!follow(&mut inputs, "app: db"));
    assert!(follow(&mut inputs, "app: late"));
    assert!(follow(&mut inputs, "app: late, more: so"));
    assert!(!follow(&mut inputs, "app: db"));
    assert!(follow(&mut inputs, "app: late"));
}
