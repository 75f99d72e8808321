//! Which names policies in force speak of, so that what DNS says of them is learned and nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vswitch_model::DomainPattern;

use super::select::Candidate;
use super::{Placed, rules_of};
use crate::calc::NameWanted;
use crate::calc::identity::PodKey;
use crate::calc::referred::Referred;

/// The names, which policies speak of them, and for which of these pods.
pub(in crate::calc) fn names_wanted<'a>(
    policies: impl Iterator<Item = &'a Placed>,
    pods: &[(&PodKey, &[IpAddr])],
    referred: &Referred,
) -> BTreeMap<DomainPattern, NameWanted> {
    let mut all: BTreeMap<DomainPattern, NameWanted> = BTreeMap::new();
    for placed in policies {
        let patterns = || rules_of(placed).flat_map(|rule| &rule.peer.domains);
        if patterns().next().is_none() {
            continue;
        }
        let selects = |pod: &PodKey| {
            Candidate::identity(pod, referred).is_some_and(|pod| placed.selects(&pod) == Some(true))
        };
        let selected = pods.iter().filter(|(pod, _)| selects(pod));
        let addresses: Vec<IpAddr> = selected.flat_map(|(_, addresses)| *addresses).copied().collect();
        for pattern in patterns() {
            let wanted = all.entry(pattern.clone()).or_default();
            wanted.policies.insert(placed.view.source.to_string());
            wanted.pods.extend(&addresses);
        }
    }
    all
}
