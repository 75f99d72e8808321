//! What the agent knows of Calico's objects beside what is written in them.

use vswitch_model::api::agent as pb;

use super::describe::{fact, full_name};
use crate::calc::Inputs;
use crate::object::calico::{PolicySpec, Tier};
use crate::object::{Object, PolicyType};

/// Nothing for kinds that are not Calico's.
pub(super) fn facts(inputs: &Inputs, object: &Object) -> Vec<pb::Fact> {
    match object {
        Object::CalicoNetworkPolicy(policy) => of_policy(inputs, &policy.spec),
        Object::GlobalNetworkPolicy(policy) => of_policy(inputs, &policy.spec),
        Object::StagedNetworkPolicy(policy) => of_policy(inputs, &policy.spec),
        Object::StagedGlobalNetworkPolicy(policy) => of_policy(inputs, &policy.spec),
        Object::Tier(tier) => vec![fact("policies", policies_in(inputs, &tier.metadata.name))],
        _ => Vec::new(),
    }
}

fn of_policy(inputs: &Inputs, policy: &PolicySpec) -> Vec<pb::Fact> {
    let directions = PolicyType::ALL.into_iter().filter(|direction| policy.applies_to(*direction));
    let mut facts = vec![fact("applies to", directions.map(|direction| direction.text().to_owned()))];
    let tier = policy.tier();
    if Tier::built_in(tier).is_none() && !inputs.tiers.contains_key(tier) {
        facts.push(fact("problems", [format!("the tier {tier} does not exist")]));
    }
    facts
}

/// Those in force, by name.
fn policies_in(inputs: &Inputs, tier: &str) -> Vec<String> {
    let is_in = |spec: &PolicySpec| spec.tier() == tier;
    let own = inputs.calico_policies.iter().filter(|(_, policy)| is_in(&policy.spec));
    let own = own.map(|((namespace, name), _)| full_name(namespace, name));
    let global = inputs.global_policies.iter().filter(|(_, policy)| is_in(&policy.spec));
    own.chain(global.map(|(name, _)| name.clone())).collect()
}
