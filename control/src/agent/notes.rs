//! What people are told beside the outcome: an object that does nothing as it is, a name that is another object's.

use std::collections::BTreeSet;

use tonic::Status;

use super::{Core, failure};
use crate::object::calico::{PolicySpec, StagedAction};
use crate::object::{self, Key, Kind, NetworkPolicy, Object, PolicyType};

/// How many ranges are named of those that are masked.
const MASKED_NAMED: usize = 5;

/// Policies of a namespace.
const OF_NAMESPACES: [Kind; 4] = [
    Kind::NetworkPolicy,
    Kind::CalicoNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
];

impl Core {
    /// What whoever applies `object`, together with `applied`, should know of it: that it is right and does nothing, or is
    /// taken otherwise than it is written.
    pub(super) async fn note(&self, object: &Object, applied: &BTreeSet<Key>) -> Result<String, Status> {
        let mut notes: Vec<String> = self.note_of_nothing(object, applied).await?.into_iter().collect();
        notes.extend(rules_not_asked(object));
        let masked = object::masked(object);
        let more = masked.len().saturating_sub(MASKED_NAMED);
        notes.extend(masked.into_iter().take(MASKED_NAMED));
        if more > 0 {
            notes.push(format!("and {more} ranges more without the bits beyond their length"));
        }
        Ok(notes.join("; "))
    }

    async fn note_of_nothing(
        &self,
        object: &Object,
        applied: &BTreeSet<Key>,
    ) -> Result<Option<String>, Status> {
        let Key { kind, namespace, .. } = object.key();
        if !OF_NAMESPACES.contains(&kind) {
            return self.note_of_removal(object, applied).await;
        }
        let is_namespace = |key: &Key| key.kind == Kind::Namespace && key.name == namespace;
        let is_pod = |key: &Key| key.kind == Kind::Pod && key.namespace == namespace;
        let mut is_there = applied.iter().any(|key| is_namespace(key) || is_pod(key));
        if !is_there {
            let key = Key::cluster(Kind::Namespace, &namespace);
            is_there = self.store.get(&key).await.map_err(|e| failure(&e))?.is_some();
        }
        let inputs = self.reflector.current().inputs;
        let attached = || inputs.endpoints.values().any(|endpoint| endpoint.spec.namespace == namespace);
        if !is_there && !inputs.pods.keys().any(|(of, _)| *of == namespace) && !attached() {
            return Ok(Some(format!("namespace {namespace} is not there: it selects no pod")));
        }
        self.note_of_removal(object, applied).await
    }

    /// That a staged removal removes nothing.
    async fn note_of_removal(
        &self,
        object: &Object,
        applied: &BTreeSet<Key>,
    ) -> Result<Option<String>, Status> {
        let Some(key) = removed(object) else { return Ok(None) };
        let is_there =
            applied.contains(&key) || self.store.get(&key).await.map_err(|e| failure(&e))?.is_some();
        Ok((!is_there).then(|| format!("{key} is not there: its removal changes nothing")))
    }

    /// That an object is not there, and what of the same name is.
    pub(super) async fn absent(&self, key: &Key) -> Status {
        if super::tiers::built_in(key).is_some() {
            return Status::failed_precondition(format!("{key} is built in: it is there without an object"));
        }
        let other = match key.kind {
            Kind::NetworkPolicy => Some(Kind::CalicoNetworkPolicy),
            Kind::CalicoNetworkPolicy => Some(Kind::NetworkPolicy),
            _ => None,
        };
        let other = other.map(|kind| Key::new(kind, &key.namespace, &key.name));
        if let Some(other) = other
            && let Ok(Some(_)) = self.store.get(&other).await
        {
            let kind = other.kind.plural();
            return Status::not_found(format!("{key} does not exist; {other} does: its kind is {kind}"));
        }
        Status::not_found(format!("{key} does not exist"))
    }
}

/// That a policy has rules for a direction that its types leave out: those decide, in Kubernetes (`policyTypes` of
/// NetworkPolicySpec) as in Calico (felix/calc/policy_sorter.go).
fn rules_not_asked(object: &Object) -> Option<String> {
    let calicos = |spec: &PolicySpec| {
        let speaks = PolicyType::ALL.map(|direction| spec.applies_to(direction));
        ("types", speaks, [spec.ingress.len(), spec.egress.len()])
    };
    let kubernetes = |policy: &NetworkPolicy| {
        let speaks = PolicyType::ALL.map(|direction| policy.isolates(direction));
        ("policyTypes", speaks, [policy.spec.ingress.len(), policy.spec.egress.len()])
    };
    let (field, speaks, rules) = match object {
        Object::NetworkPolicy(policy) => kubernetes(policy),
        Object::StagedKubernetesNetworkPolicy(policy) => kubernetes(&policy.enforced()),
        Object::CalicoNetworkPolicy(policy) => calicos(&policy.spec),
        Object::GlobalNetworkPolicy(policy) => calicos(&policy.spec),
        Object::StagedNetworkPolicy(policy) => calicos(&policy.spec),
        Object::StagedGlobalNetworkPolicy(policy) => calicos(&policy.spec),
        _ => return None,
    };
    let mut directions = PolicyType::ALL.into_iter().zip(speaks.into_iter().zip(rules));
    let (direction, _) = directions.find(|(_, (speaks, rules))| !speaks && *rules > 0)?;
    let rules = direction.text();
    Some(format!("its {rules} rules are never asked: spec.{field} does not have {direction:?}"))
}

/// The policy that a staged removal speaks of.
fn removed(object: &Object) -> Option<Key> {
    let (action, kind) = match object {
        Object::StagedNetworkPolicy(policy) => (policy.spec.staged_action, Kind::CalicoNetworkPolicy),
        Object::StagedGlobalNetworkPolicy(policy) => (policy.spec.staged_action, Kind::GlobalNetworkPolicy),
        Object::StagedKubernetesNetworkPolicy(policy) => (policy.spec.staged_action, Kind::NetworkPolicy),
        _ => return None,
    };
    let Key { namespace, name, .. } = object.key();
    (action == Some(StagedAction::Delete)).then(|| Key::new(kind, namespace, name))
}
