//! Tiers, when people apply and delete: no policy without its tier, as Calico has it.

use std::collections::BTreeSet;

use tonic::Status;

use super::{Core, failure};
use crate::object::calico::Tier;
use crate::object::{Key, Kind, Object};

/// Kinds whose objects name a tier.
const WITH_TIER: [Kind; 4] = [
    Kind::CalicoNetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
];

impl Core {
    /// An error when one of `objects` is a policy whose tier is neither among them nor in the store.
    pub(super) async fn refuse_missing_tiers(&self, objects: &[Object]) -> Result<(), Status> {
        if objects.iter().all(|object| object.tier().is_none()) {
            return Ok(());
        }
        let stored = self.store.list(Some(Kind::Tier)).await.map_err(|e| failure(&e))?;
        let stored = stored.entries.into_iter().map(|entry| entry.key.name);
        let applied = objects.iter().filter(|object| object.kind() == Kind::Tier);
        let there: BTreeSet<String> = stored.chain(applied.map(|tier| tier.meta().name.clone())).collect();
        let mut named = objects.iter().filter_map(|object| Some((object, object.tier()?)));
        match named.find(|(_, tier)| Tier::built_in(tier).is_none() && !there.contains(*tier)) {
            None => Ok(()),
            Some((policy, tier)) => Err(Status::invalid_argument(format!(
                "{}: spec.tier: the tier {tier} does not exist; apply it before, or in the same file",
                policy.key()
            ))),
        }
    }

    /// The policies of a tier that are not among `keys`.
    pub(super) async fn policies_in(&self, tier: &str, keys: &[Key]) -> Result<Vec<String>, Status> {
        if Tier::built_in(tier).is_some() {
            return Ok(Vec::new());
        }
        let mut policies = Vec::new();
        for kind in WITH_TIER {
            let listing = self.store.list(Some(kind)).await.map_err(|e| failure(&e))?;
            let others = listing.entries.into_iter().filter(|entry| !keys.contains(&entry.key));
            let of_tier =
                others.filter(|entry| entry.object().is_ok_and(|object| object.tier() == Some(tier)));
            policies.extend(of_tier.map(|entry| entry.key.to_string()));
        }
        Ok(policies)
    }
}
