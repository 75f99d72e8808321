use vswitch_model::{PortMatch, RuleId};

use super::*;

fn base() -> String {
    [
        node("n0", "IPv4Address=192.0.2.1/24 IPv4VXLANTunnelAddr=10.0.0.1"),
        node("n1", "IPv4Address=192.0.2.2/24"),
        pod("x/a", "app: web", "spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}"),
        pod("x/b", "app: web", "spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}"),
        pod("y/c", "app: db", "spec: {nodeName: n1, containers: []}, status: {podIP: 10.0.1.7}"),
        endpoint("v0", "n0", "x/a", "10.0.0.5"),
        endpoint("v1", "n0", "x/b", "10.0.0.6"),
    ]
    .concat()
}

#[test]
fn identities_say_who_has_an_address() {
    let cluster =
        base() + &policy("x/p", "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.4/31}}]}]");
    let cluster = cluster
        + &pod("y/host", "", "spec: {hostNetwork: true, nodeName: n1}, status: {podIP: 192.0.2.2}")
        + &pod("y/done", "", "status: {phase: Succeeded, podIP: 10.0.1.8}")
        + &endpoint("v2", "n0", "", "10.0.0.9");
    let state = state(&inputs(&cluster), "n0");
    let kind = |address| identity(&state, address).1;
    assert_eq!(["192.0.2.1", "10.0.0.1"].map(kind), [IdentityKind::LocalNode; 2]);
    assert_eq!(kind("192.0.2.2"), IdentityKind::Node, "a pod on the host's network is the node");
    assert_eq!(["10.0.0.5", "10.0.1.7", "10.0.0.9"].map(kind), [IdentityKind::Pod; 3]);
    assert_eq!(["10.0.1.8", "10.0.0.4", "2001:db8::1"].map(kind), [IdentityKind::World; 3]);
    let description = |address| state.identities[&identity(&state, address).0].description.clone();
    assert_eq!(description("10.0.0.5"), "pod x {app=web} in 10.0.0.4/31");
    assert_eq!(description("10.0.0.6"), "pod x {app=web}");
    assert_eq!(description("10.0.0.9"), "container that is no pod");
}

#[test]
fn only_policies_of_local_pods_are_in_force() {
    let cluster = base()
        + &policy("x/p", "podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]")
        + &policy("x/q", "podSelector: {matchLabels: {app: other}}")
        + &policy("y/r", "podSelector: {}, egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}]");
    let cluster = inputs(&cluster);
    let local = state(&cluster, "n0");
    assert_eq!(local.policies.values().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["NetworkPolicy x/p"]);
    assert!(!local.prefixes.contains_key(&"203.0.113.0/24".parse().unwrap()));
    let subject = &local.subjects[&identity(&local, "10.0.0.5").0];
    assert_eq!((subject.ingress.len(), subject.egress.len()), (1, 0));
    assert!(state(&cluster, "n1").policies.is_empty(), "y/c was not attached here");
}

#[test]
fn a_named_port_is_a_rule_for_each_number_it_has() {
    let cluster = base()
        + &policy(
            "x/p",
            "podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}, {port: 22}]}]",
        )
        + &policy("x/q", "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]")
        + &policy("x/r", "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: nobodys}]}]");
    let state = state(&inputs(&cluster), "n0");
    let [a, b] = ["10.0.0.5", "10.0.0.6"].map(|address| identity(&state, address).0);
    let tcp = |port| vec![PortMatch { protocol: 6, first: port, last: port }];
    let members = |set: Option<vswitch_model::SetId>| set.map(|set| state.sets[&set].members.clone());
    let rules = |number: usize| -> Vec<_> {
        let policy = state.policies.values().nth(number).unwrap();
        policy
            .rules
            .iter()
            .map(|r| (r.position.as_str(), r.ports.clone(), members(r.peers), members(r.subjects)))
            .collect()
    };
    let both = Some(vec![a.min(b), a.max(b)]);
    assert_eq!(
        rules(0),
        [
            ("ingress rule 1, from 1", tcp(22), both.clone(), None),
            ("ingress rule 1, from 1, port http = 80/TCP", tcp(80), both.clone(), Some(vec![a])),
            ("ingress rule 1, from 1, port http = 8080/TCP", tcp(8080), both, Some(vec![b])),
        ]
    );
    assert_eq!(
        rules(1),
        [
            ("egress rule 1, port http = 80/TCP", tcp(80), Some(vec![a]), None),
            ("egress rule 1, port http = 8080/TCP", tcp(8080), Some(vec![b]), None),
        ]
    );
    assert_eq!(rules(2), [], "a name that nobody has opens nothing, rather than everything");
}

#[test]
fn a_namespaces_labels_change_sets_and_no_numbers() {
    let with = |labels: &str| {
        let namespace = format!(
            "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: y, labels: {{{labels}}}}}}}\n"
        );
        let from = "from: [{namespaceSelector: {matchLabels: {team: voice}}}]";
        inputs(&(base() + &namespace + &policy("x/p", &format!("podSelector: {{}}, ingress: [{{{from}}}]"))))
    };
    let mut numbering = Numbering::default();
    let mut next = |inputs: &Inputs| calculate(inputs, "n0", &CalcConfig::default(), &mut numbering).state;
    let (before, after) = (next(&with("team: video")), next(&with("team: voice")));
    let changes = before.changes_to(&after);
    let c = identity(&before, "10.0.1.7").0;
    let [vswitch_model::Change::SetSet(set)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(set.members, [c]);
    let by_name = "from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]";
    let cluster = inputs(&(base() + &policy("x/p", &format!("podSelector: {{}}, ingress: [{{{by_name}}}]"))));
    let undescribed = state(&cluster, "n0");
    assert_eq!(undescribed.sets.values().next().unwrap().members, [identity(&undescribed, "10.0.1.7").0]);
}

#[test]
fn every_rule_has_its_own_number() {
    let rule = "{from: [{podSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: http}, {port: 1}]}";
    let cluster =
        base() + &policy("x/p", &format!("podSelector: {{}}, ingress: [{rule}, {rule}], egress: [{{}}]"));
    let state = state(&inputs(&cluster), "n0");
    let mut numbers: Vec<_> =
        state.policies.values().flat_map(vswitch_model::Policy::places).map(|(id, _)| id).collect();
    numbers.sort();
    let expected: Vec<_> = (0..15).map(|n| RuleId(RuleId::FIRST_ASSIGNED + n)).collect();
    assert_eq!(
        numbers, expected,
        "two rules of two peers, each with a number and a name of two numbers; one; and two ends"
    );
}

#[test]
fn a_pod_of_unknown_labels_is_closed_where_a_policy_may_select_it() {
    use vswitch_model::Change;
    let from_no_web =
        "from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}]";
    let policies = policy("x/p", "podSelector: {matchLabels: {app: new}}, ingress: [{}]")
        + &policy(
            "x/q",
            &format!("podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{{from_no_web}}}]"),
        )
        + &policy("z/r", "podSelector: {}, ingress: [{}]");
    let unknown = base()
        + &policies
        + &endpoint("v2", "n0", "x/new", "10.0.0.7")
        + &endpoint("v3", "n0", "z/new", "10.0.0.8");
    let mut numbering = Numbering::default();
    let mut next = |text: &str| calculate(&inputs(text), "n0", &CalcConfig::default(), &mut numbering).state;
    let before = next(&unknown);
    let [a, new, elsewhere] =
        ["10.0.0.5", "10.0.0.7", "10.0.0.8"].map(|address| identity(&before, address).0);
    let subject = &before.subjects[&new];
    assert_eq!(
        (subject.ingress[0].policies.len(), subject.egress.len()),
        (0, 0),
        "denied what a policy may deny"
    );
    assert_eq!(
        before.subjects[&elsewhere].ingress[0].policies.len(),
        1,
        "what selects all selects it for sure"
    );
    assert!(!before.sets.values().any(|set| set.members.contains(&new)), "NotIn does not mean the unknown");
    assert!(before.subjects.contains_key(&a));

    let known = unknown + &pod("x/new", "app: new", "spec: {containers: []}");
    let after = next(&known);
    assert_eq!(after.subjects[&identity(&after, "10.0.0.7").0].ingress[0].policies.len(), 1);
    assert!(before.changes_to(&after).iter().any(|change| matches!(change, Change::SetPrefix(..))));
}
