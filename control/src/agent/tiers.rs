//! Tiers, when people apply and delete: no policy without its tier, as Calico has it.

use std::collections::BTreeSet;

use tonic::Status;

use super::{Core, failure};
use crate::object::calico::Tier;
use crate::object::manifest::Sourced;
use crate::object::{Key, Kind, Object};

/// Kinds whose objects name a tier.
const WITH_TIER: [Kind; 4] = [
    Kind::CalicoNetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
];

/// The tier of this key, if it is one that is there without an object.
pub(super) fn built_in(key: &Key) -> Option<Object> {
    let tier = Tier::all_built_in().into_iter().find(|tier| tier.metadata.name == key.name);
    tier.filter(|_| key.kind == Kind::Tier).map(Object::Tier)
}

impl Core {
    /// An error when one of `objects` is a policy whose tier is neither among them nor in the store.
    pub(super) async fn refuse_missing_tiers(&self, objects: &[Sourced]) -> Result<(), Status> {
        if objects.iter().all(|sourced| sourced.object.tier().is_none()) {
            return Ok(());
        }
        let stored = self.store.list(Some(Kind::Tier)).await.map_err(|e| failure(&e))?;
        let there: BTreeSet<String> = stored.entries.into_iter().map(|entry| entry.key.name).collect();
        Tier::refuse_missing(objects, |tier| there.contains(tier))
            .map_err(|error| Status::invalid_argument(error.to_string()))
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
