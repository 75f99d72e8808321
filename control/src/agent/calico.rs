//! What the agent knows of Calico's objects beside what is written in them.

use vswitch_model::api::agent as pb;

use super::describe::{fact, full_name};
use crate::calc::{Explainer, Inputs, selected_pods};
use crate::object::calico::{PolicySpec, Tier};
use crate::object::{Object, PolicyType};

/// Nothing for kinds that are not Calico's.
pub(super) fn facts(inputs: &Inputs, object: &Object) -> Vec<pb::Fact> {
    match object {
        Object::CalicoNetworkPolicy(policy) => of_policy(inputs, object, &policy.spec),
        Object::GlobalNetworkPolicy(policy) => of_policy(inputs, object, &policy.spec),
        Object::StagedNetworkPolicy(policy) => of_policy(inputs, object, &policy.spec),
        Object::StagedGlobalNetworkPolicy(policy) => of_policy(inputs, object, &policy.spec),
        Object::StagedKubernetesNetworkPolicy(_) => vec![selected(inputs, object)],
        Object::Tier(tier) => vec![fact("policies", Explainer::new(inputs).policies_in(&tier.metadata.name))],
        _ => Vec::new(),
    }
}

fn selected(inputs: &Inputs, object: &Object) -> pb::Fact {
    let pods = selected_pods(inputs, object).into_iter();
    fact("selected pods", pods.map(|(namespace, name)| full_name(&namespace, &name)))
}

fn of_policy(inputs: &Inputs, object: &Object, policy: &PolicySpec) -> Vec<pb::Fact> {
    let directions = PolicyType::ALL.into_iter().filter(|direction| policy.applies_to(*direction));
    let directions = directions.map(|direction| direction.text().to_owned());
    let mut facts = vec![fact("applies to", directions), selected(inputs, object)];
    let tier = policy.tier();
    if Tier::built_in(tier).is_none() && !inputs.tiers.contains_key(tier) {
        facts.push(fact("problems", [format!("the tier {tier} does not exist")]));
    }
    facts
}
