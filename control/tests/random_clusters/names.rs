//! What DNS has told, as far as policies here ask.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::subsequence;
use vswitch_control::calc::LearnedNames;
use vswitch_model::DomainName;

/// What policies say of names.
pub(crate) const PATTERNS: [&[&str]; 4] = [
    &["sip.example.org"],
    &["*.cdn.example.org"],
    &["Sip.Example.org.", "a.cdn.example.org"],
    &["cdn.example.org", "*.example.org"],
];
const NAMES: [&str; 4] = ["sip.example.org", "cdn.example.org", "a.cdn.example.org", "a.b.cdn.example.org"];
/// Nobody's, in CIDRs of policies and in none, a pod's and a node's.
const ADDRESSES: [&str; 6] =
    ["198.51.100.7", "203.0.113.9", "10.0.0.3", "192.0.2.2", "2001:db8::1", "fd00::2"];

/// Any of these addresses for any of these names.
pub(crate) fn learned() -> impl Strategy<Value = Arc<LearnedNames>> {
    let addresses = || subsequence(ADDRESSES.to_vec(), 0..=3);
    prop::collection::vec(addresses(), NAMES.len()).prop_map(|all| {
        let name = |name: &str| DomainName::parse(name).unwrap();
        let addresses = |texts: Vec<&str>| texts.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
        let told = NAMES.iter().zip(all).filter(|(_, addresses)| !addresses.is_empty());
        Arc::new(LearnedNames(told.map(|(text, texts)| (name(text), addresses(texts))).collect()))
    })
}
