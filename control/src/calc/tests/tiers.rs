//! Policies of several kinds at once: who is asked first, and what follows.

use vswitch_model::{Action, TierDefault};

use super::super::{Explanation, Question, explain};
use super::*;

fn base() -> String {
    [
        node("n0", "IPv4Address=192.0.2.1/24"),
        node("n1", "IPv4Address=192.0.2.2/24"),
        pod("x/a", "app: web", "spec: {serviceAccountName: sip, containers: []}"),
        pod("x/b", "app: db", "spec: {containers: []}"),
        pod("y/c", "app: db", "spec: {nodeName: n1, containers: []}, status: {podIP: 10.0.1.7}"),
        endpoint("v0", "n0", "x/a", "10.0.0.5"),
        endpoint("v1", "n0", "x/b", "10.0.0.6"),
    ]
    .concat()
}

fn of_cluster(name: &str, tier: &str, priority: u32, rest: &str) -> String {
    format!(
        "---\n{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, \
         spec: {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, {rest}}}}}\n"
    )
}

fn calico(kind: &str, metadata: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{{metadata}}}, spec: {{{spec}}}}}\n"
    )
}

fn ask(inputs: &Inputs, from: &str, to: &str, port: u16) -> Explanation {
    let [from, to] = [from, to].map(|end| end.parse().unwrap());
    explain(inputs, &Question { from, to, protocol: 6, port, source_port: None, is_ipv4: None }).unwrap()
}

/// The tiers of a pod's ingress: their names, the policies in them, and whether they deny what no rule matched.
fn ingress_tiers(state: &DesiredState, address: &str) -> Vec<(String, Vec<String>, bool)> {
    let subject = &state.subjects[&identity(state, address).0];
    let name = |id| state.policies[id].name.clone();
    let tiers = subject.ingress.iter();
    tiers
        .map(|tier| {
            let denies = tier.default == TierDefault::Deny;
            (tier.name.clone(), tier.policies.iter().map(name).collect(), denies)
        })
        .collect()
}

#[test]
fn tiers_are_asked_in_calicos_order_and_policies_in_theirs() {
    let nothing = "types: [Ingress]";
    let cluster = base()
        + &of_cluster("base", "Baseline", 0, "ingress: [{action: Deny, from: [{namespaces: {}}]}]")
        + &of_cluster("second", "Admin", 7, "ingress: [{action: Pass, from: [{namespaces: {}}]}]")
        + &of_cluster("first", "Admin", 3, "ingress: [{action: Pass, from: [{namespaces: {}}]}]")
        + &calico("Tier", "name: early", "order: 5, defaultAction: Pass")
        + &calico("Tier", "name: between", "order: 2000")
        + &calico("Tier", "name: last", "")
        + &calico("GlobalNetworkPolicy", "name: last.p", &format!("tier: last, {nothing}"))
        + &calico("GlobalNetworkPolicy", "name: early.p", &format!("tier: early, {nothing}"))
        + &calico("NetworkPolicy", "namespace: x, name: between.p", &format!("tier: between, {nothing}"))
        + &calico("GlobalNetworkPolicy", "name: default.after", &format!("order: 1000.5, {nothing}"))
        + &calico("GlobalNetworkPolicy", "name: default.before", &format!("order: 999, {nothing}"))
        + &calico("GlobalNetworkPolicy", "name: default.end", nothing)
        + &policy("x/np", "podSelector: {}");
    let state = state(&inputs(&cluster), "n0");
    let tiers = ingress_tiers(&state, "10.0.0.5");
    let names: Vec<_> = tiers.iter().map(|(name, _, denies)| (name.as_str(), *denies)).collect();
    assert_eq!(
        names,
        [
            ("early", false),
            ("kube-admin", false),
            ("between", true),
            ("default", true),
            ("kube-baseline", false),
            ("last", true)
        ]
    );
    assert_eq!(tiers[1].1, ["ClusterNetworkPolicy first", "ClusterNetworkPolicy second"]);
    let of_default: Vec<_> = tiers[3].1.iter().map(|name| name.split(' ').next_back().unwrap()).collect();
    assert_eq!(of_default, ["default.before", "x/np", "default.after", "default.end"]);
}

#[test]
fn each_policy_of_a_tier_that_denies_has_an_end_for_each_direction() {
    let cluster = base()
        + &calico("Tier", "name: soft", "order: 5, defaultAction: Pass")
        + &calico("GlobalNetworkPolicy", "name: soft.p", "tier: soft, types: [Ingress]")
        + &calico("StagedNetworkPolicy", "namespace: x, name: default.later", "types: [Egress]")
        + &policy("x/shut", "podSelector: {}, policyTypes: [Ingress, Egress]");
    let state = state(&inputs(&cluster), "n0");
    let mut ends: Vec<_> = state
        .policies
        .values()
        .map(|policy| (policy.name.as_str(), policy.end.as_ref().map(|end| end.position.as_str())))
        .collect();
    ends.sort_unstable();
    let [ingress, egress] = ["ingress", "egress"].map(|way| format!("{way}: no rule matched"));
    assert_eq!(
        ends,
        [
            ("GlobalNetworkPolicy soft.p", None),
            ("NetworkPolicy x/shut", Some(egress.as_str())),
            ("NetworkPolicy x/shut", Some(ingress.as_str())),
            ("StagedNetworkPolicy x/default.later", Some(egress.as_str())),
        ]
    );
}

#[test]
fn a_pass_leads_on_and_the_words_say_so() {
    let cluster = base()
        + &of_cluster(
            "guard",
            "Admin",
            1,
            "ingress: [{action: Pass, from: [{pods: {podSelector: {matchLabels: {app: db}}, namespaceSelector: {}}}]}, \
             {name: shut, action: Deny, from: [{namespaces: {}}]}]",
        )
        + &policy("x/np", "podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]");
    let cluster = inputs(&cluster);
    let said = ask(&cluster, "x/b", "x/a", 80);
    assert!(said.allowed, "{said}");
    assert_eq!(said.ingress.policies, ["ClusterNetworkPolicy guard (tier kube-admin)", "NetworkPolicy x/np"]);
    assert_eq!(
        said.ingress.reason,
        "passed to the next tier by ClusterNetworkPolicy guard, ingress rule 1, from 1; NetworkPolicy x/np, ingress rule \
         1, from 1 allows it"
    );
    let said = ask(&cluster, "y/c", "x/a", 80);
    assert!(!said.allowed && said.ingress.policy.is_empty(), "{said}");
    assert!(said.ingress.reason.ends_with("isolated by NetworkPolicy x/np; no rule matched"), "{said}");
    assert!(said.ingress.hint.contains("is open at TCP 80, but not for pod y/c"), "{said}");
    let said = ask(&cluster, "x/a", "x/b", 80);
    assert_eq!(said.ingress.position, "ingress rule 2 \"shut\", from 1");
    assert_eq!(
        said.ingress.hint,
        "without that rule it would be allowed, by NetworkPolicy x/np, ingress rule 1, from 1"
    );
    let said = ask(&cluster, "198.51.100.1", "x/a", 80);
    assert_eq!(
        said.ingress.hint.split(" is open").next(),
        Some("NetworkPolicy x/np, ingress rule 1, from 1")
    );
}

#[test]
fn what_no_rule_of_tiers_that_pass_decides_is_allowed() {
    let deny = "ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 22}}}]}]";
    let cluster = inputs(&(base() + &of_cluster("base", "Baseline", 0, deny)));
    assert!(!ask(&cluster, "x/b", "x/a", 22).allowed);
    let said = ask(&cluster, "x/b", "x/a", 80);
    assert!(said.allowed && said.ingress.isolated, "{said}");
    assert_eq!(said.ingress.reason, "no rule decided it, and these policies leave that to be allowed");
}

#[test]
fn a_policy_whose_tier_is_not_there_closes_its_pods() {
    let cluster = base()
        + &calico(
            "NetworkPolicy",
            "namespace: x, name: gone.p",
            "tier: gone, selector: app == 'web', types: [Ingress], ingress: [{action: Allow}]",
        )
        + &calico("StagedGlobalNetworkPolicy", "name: gone.s", "tier: gone, types: [Egress]");
    let cluster = inputs(&cluster);
    let calculated = calculated(&cluster, "n0");
    assert_eq!(
        calculated.problems,
        [
            "NetworkPolicy.projectcalico.org x/gone.p is in tier gone, which is not there: until it is, all is denied its pods",
            "StagedGlobalNetworkPolicy gone.s is in tier gone, which is not there: it is left out",
        ]
    );
    assert_eq!(ingress_tiers(&calculated.state, "10.0.0.5"), [("closed".to_owned(), vec![], true)]);
    assert!(!calculated.state.subjects.contains_key(&identity(&calculated.state, "10.0.0.6").0));
    let said = ask(&cluster, "x/b", "x/a", 80);
    assert!(!said.allowed && said.egress.allowed, "{said}");
    assert!(said.ingress.reason.ends_with("is in tier gone, which is not there"), "{said}");
}

#[test]
fn an_end_of_unknown_labels_is_denied_where_it_may_be_meant() {
    let unknown = endpoint("v2", "n0", "z/new", "10.0.0.7");
    let web = "pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}";
    let rule = |action: &str, port: u16| {
        format!(
            "{{action: {action}, from: [{{{web}}}], protocols: [{{tcp: {{destinationPort: {{number: {port}}}}}}}]}}"
        )
    };
    let rules = [rule("Accept", 1), rule("Deny", 2), rule("Pass", 3), rule("Deny", 3)].join(", ");
    let cluster = base() + &unknown + &of_cluster("guard", "Admin", 1, &format!("ingress: [{rules}]"));
    let cluster = cluster + &policy("x/np", "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]");
    let cluster = inputs(&cluster);
    let verdicts = |from| [1, 2, 3].map(|port| ask(&cluster, from, "x/b", port).allowed);
    assert_eq!(verdicts("x/a"), [true, false, true], "it is meant, and passed on before the fourth rule");
    assert_eq!(verdicts("y/c"), [true; 3], "it is not: the next tier allows it");
    assert_eq!(verdicts("z/new"), [true, false, false], "it may be: allowed by the next tier alone");
    let said = ask(&cluster, "10.0.0.7", "x/b", 3);
    assert!(said.ingress.reason.contains("may mean it: not enough is known of"), "{said}");
    let state = state(&cluster, "n0");
    let guard = state.policies.values().find(|policy| policy.name.ends_with("guard")).unwrap();
    let denied: Vec<_> =
        guard.rules.iter().filter(|rule| rule.position.ends_with(", labels not known")).collect();
    assert_eq!((denied.len(), denied[0].action), (1, Action::Deny), "beside the Pass alone");
}

#[test]
fn what_is_staged_decides_nothing_and_is_told() {
    let cluster = base()
        + &policy("x/np", "podSelector: {}, ingress: [{from: [{podSelector: {}}]}]")
        + &calico("StagedKubernetesNetworkPolicy", "namespace: x, name: np", "stagedAction: Delete")
        + &calico(
            "StagedNetworkPolicy",
            "namespace: x, name: default.q",
            "selector: app == 'web', ingress: [{action: Log}, {action: Deny, source: {serviceAccounts: {names: [default]}}}]",
        );
    let cluster = inputs(&cluster);
    let state = state(&cluster, "n0");
    let standings: Vec<_> =
        state.policies.values().map(|policy| (policy.name.as_str(), policy.standing)).collect();
    use vswitch_model::policy::Standing;
    assert_eq!(
        standings,
        [
            ("NetworkPolicy x/np", Standing::StagedRemoval),
            ("StagedNetworkPolicy x/default.q", Standing::Staged)
        ]
    );
    let said = ask(&cluster, "x/b", "x/a", 80);
    assert!(said.allowed, "{said}");
    assert_eq!(said.ingress.staged, "it would be denied, by StagedNetworkPolicy x/default.q, ingress rule 2");
    assert_eq!(ask(&cluster, "x/a", "x/b", 80).ingress.staged, "it would be allowed");
}

#[test]
fn a_staged_policy_without_rules_is_named_where_it_would_deny() {
    let cluster = base()
        + &calico("Tier", "name: platform", "order: 10")
        + &calico("StagedGlobalNetworkPolicy", "name: platform.closed", "tier: platform, types: [Ingress]");
    let said = ask(&inputs(&cluster), "x/b", "x/a", 80);
    assert!(said.allowed, "{said}");
    let says = "it would be denied: no rule of StagedGlobalNetworkPolicy platform.closed (tier platform) would match";
    assert_eq!(said.ingress.staged, says);
    let in_force = cluster.replace("StagedGlobal", "Global");
    let said = ask(&inputs(&in_force), "x/b", "x/a", 80);
    let says = "no rule of GlobalNetworkPolicy platform.closed matched, and the default action of tier platform is Deny";
    assert_eq!((said.allowed, said.ingress.reason.as_str()), (false, says));
}

#[test]
fn a_long_list_makes_one_identity_and_another_cidr_no_other() {
    let nets = |count: usize| (0..count).map(|n| format!("203.0.{n}.0/24")).collect::<Vec<_>>().join(", ");
    let with = |count: usize| {
        let set = calico(
            "GlobalNetworkSet",
            "name: far, labels: {far: 'yes'}",
            &format!("nets: [{}]", nets(count)),
        );
        let rule = "egress: [{action: Allow, destination: {selector: has(far)}}]";
        inputs(&(base() + &set + &calico("GlobalNetworkPolicy", "name: default.p", rule)))
    };
    let mut numbering = Numbering::default();
    let mut next = |count| calculate(&with(count), "n0", &CalcConfig::default(), &mut numbering).state;
    let (before, after) = (next(200), next(201));
    let far = identity(&before, "203.0.7.1").0;
    assert_eq!(identity(&before, "203.0.199.9").0, far);
    assert_eq!(before.identities[&far].description, "world in GlobalNetworkSet far");
    let changes = before.changes_to(&after);
    let [vswitch_model::Change::SetPrefix(net, id)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((net.to_string().as_str(), *id), ("203.0.200.0/24", far));
}

#[test]
fn labels_of_nodes_part_them_only_when_asked_for() {
    let labelled = "---\n{apiVersion: v1, kind: Node, metadata: {name: n2, labels: {role: db}, annotations: \
                    {projectcalico.org/IPv4Address: 192.0.2.3/24}}}\n";
    let unasked = state(&inputs(&(base() + labelled)), "n0");
    assert_eq!(identity(&unasked, "192.0.2.2"), identity(&unasked, "192.0.2.3"));
    let rule = "egress: [{action: Accept, to: [{nodes: {matchLabels: {role: db}}}]}, {action: Deny, to: [{nodes: {}}]}]";
    let cluster = inputs(&(base() + labelled + &of_cluster("guard", "Admin", 1, rule)));
    let asked = state(&cluster, "n0");
    assert_ne!(identity(&asked, "192.0.2.2").0, identity(&asked, "192.0.2.3").0);
    assert_eq!(asked.identities[&identity(&asked, "192.0.2.3").0].description, "another node {role=db}");
    assert!(ask(&cluster, "x/a", "192.0.2.3", 1).allowed);
    assert!(!ask(&cluster, "x/a", "192.0.2.2", 1).allowed);
    assert!(!ask(&cluster, "x/a", "192.0.2.1", 1).allowed, "its own node is a node");
}
