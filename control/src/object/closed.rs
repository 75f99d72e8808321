//! What stands in for policies that cannot be read.

use super::{Key, Kind, NetworkPolicy, Object, calico};

impl Object {
    /// What stands in for an object that cannot be read, if it is a policy in force: one that allows nothing to whom it
    /// may be for. No field of the kinds of [`Kind::is_cluster_policy`] could say that (they take ingress from pods alone):
    /// the calculation is told of them otherwise.
    #[must_use]
    pub fn closed(key: &Key) -> Option<Self> {
        match key.kind {
            Kind::NetworkPolicy => Some(NetworkPolicy::closed(&key.namespace, &key.name).into()),
            Kind::CalicoNetworkPolicy => {
                Some(calico::NetworkPolicy::closed(&key.namespace, &key.name).into())
            }
            Kind::GlobalNetworkPolicy => Some(calico::GlobalNetworkPolicy::closed(&key.name).into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_in_force_has_one_in_its_own_place() {
        let policies = [
            Key::new(Kind::NetworkPolicy, "x", "p"),
            Key::new(Kind::CalicoNetworkPolicy, "x", "p"),
            Key::cluster(Kind::GlobalNetworkPolicy, "p"),
        ];
        for key in policies {
            assert_eq!(Object::closed(&key).map(|object| object.key()), Some(key));
        }
        for kind in [Kind::Pod, Kind::Tier, Kind::StagedNetworkPolicy, Kind::ClusterNetworkPolicy] {
            assert_eq!(Object::closed(&Key::new(kind, "x", "p")), None);
        }
    }
}
