//! Namespaces and service accounts that are there and cannot be read: no label of theirs is known, and what may follow
//! from one counts against the flow.

use vswitch_datapath::policy::{FlowPorts, PolicyDirection, oracle};

use super::*;
use crate::calc::{Explanation, Question, explain};
use crate::object::{Key, Kind};

const RELAY: &str = "10.0.0.1";
const PHONE: &str = "10.0.0.2";
/// In a NetworkSet of the phone's namespace.
const OFFICE: &str = "198.51.100.7";

/// media/relay and guest/phone, which runs as sip, under a policy of Calico's for the whole cluster.
fn cluster(policy: &str) -> Inputs {
    let base = [
        node("n0", "IPv4Address=192.0.2.1/24"),
        pod("media/relay", "app: relay", "spec: {nodeName: n0}"),
        pod("guest/phone", "app: phone", "spec: {nodeName: n0, serviceAccountName: sip}"),
        endpoint("v1", "n0", "media/relay", RELAY),
        endpoint("v2", "n0", "guest/phone", PHONE),
        "---\n{apiVersion: v1, kind: Namespace, metadata: {name: guest, labels: {team: good}}}\n".to_owned(),
        "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: guest, name: sip, labels: {kind: good}}}\n"
            .to_owned(),
        "---\n{apiVersion: projectcalico.org/v3, kind: NetworkSet, \
         metadata: {namespace: guest, name: s, labels: {site: office}}, spec: {nets: [198.51.100.0/24]}}\n"
            .to_owned(),
        format!(
            "---\n{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: g}}, spec: {{{policy}}}}}\n"
        ),
    ];
    inputs(&base.concat())
}

/// What the receiver says, which is what is compiled.
fn ask(inputs: &Inputs, from: &str, to: &str) -> Explanation {
    let [Ok(from_end), Ok(to_end)] = [from, to].map(str::parse);
    let question =
        Question { from: from_end, to: to_end, protocol: 6, port: 80, source_port: None, is_ipv4: None };
    let said = explain(inputs, &question).unwrap();
    let state = state(inputs, "n0");
    let [own, other] = [to, from].map(|address| identity(&state, address).0);
    let verdict = oracle::verdict(&state, PolicyDirection::Ingress, own, other, FlowPorts::to(6, 80));
    assert_eq!(verdict.allow, said.ingress.allowed, "{said}");
    said
}

fn unlabelled(inputs: &mut Inputs, key: Key) {
    inputs.remove(&key);
    inputs.unlabelled.insert(key);
}

fn namespace() -> Key {
    Key::cluster(Kind::Namespace, "guest")
}

fn account() -> Key {
    Key::new(Kind::ServiceAccount, "guest", "sip")
}

#[test]
fn who_may_be_denied_is_denied_and_who_may_be_allowed_is_not_allowed() {
    let source = |rules: &str| format!("selector: app == 'relay', types: [Ingress], ingress: [{rules}]");
    let denies = |source: &str| format!("{{action: Deny, source: {{{source}}}}}, {{action: Allow}}");
    let allows = |source: &str| format!("{{action: Allow, source: {{{source}}}}}");
    for (rules, key, from) in [
        (denies("namespaceSelector: team == 'bad'"), namespace(), PHONE),
        (denies("selector: pcns.team == 'bad'"), namespace(), PHONE),
        (denies("namespaceSelector: team == 'bad', selector: site == 'office'"), namespace(), OFFICE),
        (denies("serviceAccounts: {selector: kind == 'bad'}"), account(), PHONE),
        (denies("selector: pcsa.kind == 'bad'"), account(), PHONE),
        (allows("namespaceSelector: team == 'good'"), namespace(), PHONE),
        (allows("namespaceSelector: team != 'bad'"), namespace(), PHONE),
        (allows("namespaceSelector: all(), notSelector: pcns.team == 'bad'"), namespace(), PHONE),
        (allows("selector: site == 'office', namespaceSelector: team == 'good'"), namespace(), OFFICE),
        (allows("serviceAccounts: {selector: kind == 'good'}"), account(), PHONE),
    ] {
        let mut inputs = cluster(&source(&rules));
        assert!(ask(&inputs, from, RELAY).allowed, "{rules}");
        unlabelled(&mut inputs, key);
        let said = ask(&inputs, from, RELAY);
        assert!(!said.allowed, "{rules}: {said}");
    }
}

#[test]
fn a_pod_that_a_policy_may_select_is_closed() {
    let policy = "namespaceSelector: team == 'voice', types: [Ingress], ingress: [{action: Allow}]";
    let mut inputs = cluster(policy);
    assert!(ask(&inputs, RELAY, PHONE).allowed, "it is not selected");
    unlabelled(&mut inputs, namespace());
    let said = ask(&inputs, RELAY, PHONE);
    assert!(!said.allowed && said.egress.allowed, "{said}");
    let says = "the labels of the namespace or service account of pod guest/phone {app=phone} (10.0.0.2) are not known";
    assert!(said.ingress.reason.starts_with(says), "{said}");
    assert!(ask(&inputs, PHONE, RELAY).allowed, "the other's namespace is known");
}

#[test]
fn what_a_name_says_is_known() {
    let by_name = "namespaceSelector: \"kubernetes.io/metadata.name == 'guest'\"";
    let source = format!("ingress: [{{action: Allow, source: {{{by_name}}}}}]");
    let mut inputs = cluster(&format!("selector: app == 'relay', types: [Ingress], {source}"));
    unlabelled(&mut inputs, namespace());
    assert!(ask(&inputs, PHONE, RELAY).allowed);
    let mut inputs = cluster("namespaceSelector: projectcalico.org/name == 'media', types: [Ingress]");
    unlabelled(&mut inputs, namespace());
    assert!(ask(&inputs, RELAY, PHONE).allowed, "it is none of that name");
    assert!(!ask(&inputs, PHONE, RELAY).allowed);
}

#[test]
fn one_that_can_be_read_again_has_its_labels() {
    let policy = "namespaceSelector: team == 'voice', types: [Ingress]";
    let (mut inputs, good) = (cluster(policy), cluster(policy));
    unlabelled(&mut inputs, namespace());
    unlabelled(&mut inputs, account());
    assert!(!ask(&inputs, RELAY, PHONE).allowed);
    inputs.set(crate::object::Namespace::clone(&good.namespaces["guest"]).into());
    inputs.remove(&account());
    assert!(inputs.unlabelled.is_empty() && ask(&inputs, RELAY, PHONE).allowed);
}
