//! Which policies apply to which pods of a node, tier by tier.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_model::{DesiredState, IdentityId, Policy, PolicyId, Subject, Tier, TierDefault};

use super::in_order::Placed;
use super::rules::RuleMaker;
use super::scope::Members;
use super::select::Candidate;
use super::view::Source;
use crate::calc::Numbering;
use crate::calc::address_list::AddressLists;
use crate::calc::cluster::Cluster;
use crate::calc::identity::{Identities, PodKey, Who};
use crate::calc::referred::TierView;
use crate::object::PolicyType;

/// Names a policy of one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::calc) struct PolicyKey {
    pub(super) source: Source,
    pub(super) direction: PolicyType,
}

/// Puts sets, policies and subjects of `node` into `state`. The policies are those in force, in order; their lists of
/// CIDRs are among `lists`.
pub(in crate::calc) fn compile(
    cluster: &Cluster<'_>,
    node: &str,
    policies: &[Placed],
    (identities, lists): (&Identities, &AddressLists),
    numbering: &mut Numbering,
    state: &mut DesiredState,
) {
    let local = local(cluster, node, identities);
    let mut subjects = Subjects::default();
    let mut maker = RuleMaker::new(Members::new(cluster, identities, lists), numbering, state);
    for placed in policies {
        let (mut selected, mut unknown) = (Vec::new(), Vec::new());
        for (id, pod) in &local {
            match Candidate::identity(pod, cluster).map_or(Some(false), |pod| placed.selects(&pod)) {
                Some(true) => selected.push(*id),
                None => unknown.push(*id),
                Some(false) => {}
            }
        }
        for direction in PolicyType::ALL {
            let Some(views) = placed.view.rules(direction) else { continue };
            subjects.close(&unknown, direction, placed);
            let Some(tier) = placed.tier.as_ref() else {
                subjects.close(&selected, direction, placed);
                continue;
            };
            if selected.is_empty() {
                continue;
            }
            let key = PolicyKey { source: placed.view.source.clone(), direction };
            let mut rules = Vec::new();
            for view in views {
                maker.rules(&key, view, &selected, &mut rules);
            }
            let id = PolicyId(maker.numbering.policies.number(&key));
            let name = key.source.to_string();
            maker.state.policies.insert(id, Policy { id, name, standing: placed.standing, rules });
            selected.iter().for_each(|identity| subjects.add(*identity, direction, tier, id));
        }
    }
    state.subjects = subjects.into_model();
}

/// The identities of this node's pods.
fn local<'a>(
    cluster: &Cluster<'_>,
    node: &str,
    identities: &'a Identities,
) -> BTreeMap<IdentityId, &'a PodKey> {
    let endpoints = cluster.local_pods(node).flat_map(|pod| &pod.endpoints);
    let addresses =
        endpoints.filter(|(endpoint, _)| endpoint.spec.node == node).flat_map(|(_, addresses)| addresses);
    addresses
        .filter_map(|address| identities.of_address(*address))
        .filter_map(|id| match &identities.by_number.get(&id)?.who {
            Who::Pod(pod) => Some((id, pod)),
            _ => None,
        })
        .collect()
}

/// What applies to whom, on its way.
#[derive(Default)]
struct Subjects {
    tiers: BTreeMap<(IdentityId, PolicyType), Vec<Tier>>,
    /// Those who are denied everything, because it is not known what is allowed them.
    closed: BTreeSet<(IdentityId, PolicyType)>,
}

impl Subjects {
    /// Policies come in order, so the tier is the last one or a new one.
    fn add(&mut self, identity: IdentityId, direction: PolicyType, tier: &TierView, policy: PolicyId) {
        let tiers = self.tiers.entry((identity, direction)).or_default();
        match tiers.last_mut().filter(|last| last.name == tier.place.name) {
            Some(last) => last.policies.push(policy),
            None => tiers.push(Tier {
                name: tier.place.name.clone(),
                policies: vec![policy],
                default: tier.default(),
            }),
        }
    }

    fn close(&mut self, identities: &[IdentityId], direction: PolicyType, placed: &Placed) {
        if placed.is_enforced() {
            self.closed.extend(identities.iter().map(|identity| (*identity, direction)));
        }
    }

    fn into_model(mut self) -> BTreeMap<IdentityId, Subject> {
        for end in self.closed {
            let denied = Tier { name: "closed".into(), policies: Vec::new(), default: TierDefault::Deny };
            self.tiers.insert(end, vec![denied]);
        }
        let mut subjects: BTreeMap<IdentityId, Subject> = BTreeMap::new();
        for ((identity, direction), tiers) in self.tiers {
            let new = || Subject { identity, ingress: Vec::new(), egress: Vec::new() };
            let subject = subjects.entry(identity).or_insert_with(new);
            match direction {
                PolicyType::Ingress => subject.ingress = tiers,
                PolicyType::Egress => subject.egress = tiers,
            }
        }
        subjects
    }
}
