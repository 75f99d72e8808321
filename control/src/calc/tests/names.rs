//! Policies that speak of domain names.

use std::collections::BTreeSet;
use std::sync::Arc;

use vswitch_model::DomainName;

use super::*;
use crate::calc::{Calculator, Explanation, LearnedNames, Question, explain};

const GUARD: &str = "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: media}}}
  egress:
  - {action: Accept, to: [{domainNames: [sip.example.org, '*.Cdn.example.org.']}], protocols: [{udp: {destinationPort: {number: 5060}}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}
";

fn cluster() -> Inputs {
    let pods = pod("media/relay", "app: relay", "spec: {}") + &pod("guest/phone", "app: phone", "spec: {}");
    let attached = endpoint("vsw1", "n1", "media/relay", "10.0.0.1, 'fd00::1'")
        + &endpoint("vsw2", "n1", "guest/phone", "10.0.0.2");
    inputs(&(node("n1", "IPv4Address=192.0.2.1/24") + &pods + &attached + GUARD))
}

fn tell(inputs: &mut Inputs, names: &[(&str, &[&str])]) {
    let addresses = |of: &[&str]| -> BTreeSet<IpAddr> { of.iter().map(|a| a.parse().unwrap()).collect() };
    let named = names.iter().map(|(name, of)| (DomainName::parse(name).unwrap(), addresses(of)));
    inputs.names = Arc::new(LearnedNames(named.collect()));
}

fn ask(inputs: &Inputs, from: &str, to: &str, port: u16) -> Explanation {
    let [Ok(from), Ok(to)] = [from, to].map(str::parse);
    explain(inputs, &Question { from, to, protocol: 17, port, source_port: None, is_ipv4: None }).unwrap()
}

/// Whether the compiled state lets the relay send to an address: by the sets that the rule of names refers to.
fn admits(state: &DesiredState, to: &str) -> bool {
    let (identity, _) = identity(state, to);
    let rules = state.policies.values().flat_map(|policy| &policy.rules);
    let mut named = rules.filter(|rule| rule.position.starts_with("egress rule 1"));
    named.any(|rule| rule.peers.is_some_and(|set| state.sets[&set].members.contains(&identity)))
}

#[test]
fn an_address_is_allowed_once_dns_gave_it_for_the_name() {
    let mut inputs = cluster();
    let to = ["203.0.113.7", "203.0.113.8", "2001:db8::7", "203.0.113.9"];
    let mut following = Calculator::new("n1", CalcConfig::default());
    let mut allowed = |inputs: &Inputs| {
        following.calculate(inputs);
        following.state().check().unwrap();
        assert_eq!((following.anew, following.names()), (1, calculated(inputs, "n1").names));
        let followed = to.map(|to| admits(following.state(), to));
        let state = state(inputs, "n1");
        assert_eq!(followed, to.map(|to| admits(&state, to)), "followed, and calculated from nothing");
        to.map(|to| {
            let said = ask(inputs, "media/relay", to, 5060).allowed;
            assert_eq!(admits(&state, to), said, "{to}: compiled, and explained");
            said
        })
    };
    assert_eq!(allowed(&inputs), [false; 4], "nothing is known of any name");
    tell(
        &mut inputs,
        &[
            ("sip.example.org", &["203.0.113.7", "2001:db8::7"]),
            ("a.b.cdn.example.org", &["203.0.113.8"]),
            ("cdn.example.org", &["203.0.113.9"]),
        ],
    );
    assert_eq!(allowed(&inputs), [true, true, true, false], "a wildcard does not mean what it is under");
    assert!(!ask(&inputs, "media/relay", to[0], 5061).allowed, "another port");
    assert!(ask(&inputs, "guest/phone", to[3], 5061).allowed, "of whom the policy does not speak");
    tell(&mut inputs, &[("sip.example.org", &["203.0.113.9"])]);
    assert_eq!(allowed(&inputs), [false, false, false, true]);
}

#[test]
fn another_address_of_a_name_is_one_more_prefix_and_nothing_else() {
    let mut inputs = cluster();
    let mut numbering = Numbering::default();
    let mut at = |inputs: &Inputs| calculate(inputs, "n1", &CalcConfig::default(), &mut numbering).state;
    tell(&mut inputs, &[("sip.example.org", &["203.0.113.7"])]);
    let one = at(&inputs);
    tell(&mut inputs, &[("sip.example.org", &["203.0.113.7", "203.0.113.8"])]);
    let mut two = at(&inputs);
    assert_eq!(
        two.prefixes.remove(&"203.0.113.8/32".parse().unwrap()),
        Some(identity(&one, "203.0.113.7").0)
    );
    assert_eq!(one, two);
}

#[test]
fn who_wants_a_name_is_told_with_the_pods_it_is_for() {
    let names = calculated(&cluster(), "n1").names;
    let told: Vec<_> =
        names.iter().map(|(pattern, wanted)| (pattern.as_str(), wanted.policies.clone())).collect();
    let guard = BTreeSet::from(["ClusterNetworkPolicy guard".to_owned()]);
    assert_eq!(told, [("*.cdn.example.org", guard.clone()), ("sip.example.org", guard)]);
    for wanted in names.values() {
        let pods: Vec<_> = wanted.pods.iter().map(ToString::to_string).collect();
        assert_eq!(pods, ["10.0.0.1", "fd00::1"], "of the pods here that it selects");
    }
    assert!(calculated(&cluster(), "n2").names.is_empty(), "no pod of that node is selected");
}

#[test]
fn explain_says_which_name_it_was_or_that_none_was_told() {
    let mut inputs = cluster();
    let denied = ask(&inputs, "media/relay", "203.0.113.7", 5060).egress;
    assert!(
        denied.hint.contains(
            "allows *.cdn.example.org, sip.example.org, and DNS told no pod of this node that 203.0.113.7"
        ),
        "{}",
        denied.hint
    );
    let elsewhere = ask(&inputs, "media/relay", "203.0.113.7", 5061).egress;
    assert!(!elsewhere.hint.contains("DNS"), "{}", elsewhere.hint);
    tell(&mut inputs, &[("x.cdn.example.org", &["203.0.113.7"])]);
    let allowed = ask(&inputs, "media/relay", "203.0.113.7", 5060).egress;
    assert_eq!(
        allowed.reason,
        "ClusterNetworkPolicy guard, egress rule 1, to 1 allows it: 203.0.113.7 is x.cdn.example.org, as DNS told a pod \
         of this node"
    );
    assert!(!allowed.hint.contains("DNS"), "{}", allowed.hint);
}
