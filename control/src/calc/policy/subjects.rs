//! What applies to whom, put together policy by policy.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_model::{IdentityId, PolicyId, Subject, Tier, TierDefault};

use crate::calc::referred::TierView;
use crate::object::PolicyType;

/// What applies to whom, on its way.
#[derive(Default)]
pub(super) struct Subjects {
    tiers: BTreeMap<(IdentityId, PolicyType), Vec<Tier>>,
    /// Those who are denied everything, because it is not known what is allowed them.
    pub(super) closed: BTreeSet<(IdentityId, PolicyType)>,
}

impl Subjects {
    /// Policies come in order, so the tier is the last one or a new one.
    pub(super) fn add(
        &mut self,
        identity: IdentityId,
        direction: PolicyType,
        tier: &TierView,
        policy: PolicyId,
    ) {
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

    pub(super) fn into_model(mut self) -> BTreeMap<IdentityId, Subject> {
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
