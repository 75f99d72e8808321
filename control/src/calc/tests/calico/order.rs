//! In which order policies are asked, and what follows when none decides.

use super::*;

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
