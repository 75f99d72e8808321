//! What stands in for policies that cannot be read.

use serde_json::json;

use super::{Key, Kind, NetworkPolicy, Object, calico, manifest};

impl Object {
    /// What stands in for an object that cannot be read, if it is a policy in force: one that allows nothing to whom it
    /// may be for.
    #[must_use]
    pub fn closed(key: &Key) -> Option<Self> {
        match key.kind {
            Kind::NetworkPolicy => Some(NetworkPolicy::closed(&key.namespace, &key.name).into()),
            Kind::CalicoNetworkPolicy => {
                Some(calico::NetworkPolicy::closed(&key.namespace, &key.name).into())
            }
            Kind::GlobalNetworkPolicy => Some(calico::GlobalNetworkPolicy::closed(&key.name).into()),
            Kind::ClusterNetworkPolicy | Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => {
                of_cluster(key)
            }
            _ => None,
        }
    }
}

/// None for a name that the kind cannot have.
fn of_cluster(key: &Key) -> Option<Object> {
    let everybody = json!({"namespaces": {}});
    let everywhere = json!([everybody, {"networks": ["0.0.0.0/0", "::/0"]}]);
    let mut spec = json!({
        "subject": everybody,
        "ingress": [{"action": "Deny", "from": [everybody]}],
        "egress": [{"action": "Deny", "to": everywhere}],
    });
    if key.kind == Kind::ClusterNetworkPolicy {
        spec["tier"] = "Admin".into();
    }
    if key.kind != Kind::BaselineAdminNetworkPolicy {
        spec["priority"] = 0.into();
    }
    let (version, kind) = (key.kind.api_version(), key.kind.name());
    let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": key.name}, "spec": spec});
    manifest::from_value("closed", "", 0, object).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_in_force_has_one_in_its_own_place() {
        let policies = [
            Key::new(Kind::NetworkPolicy, "x", "p"),
            Key::new(Kind::CalicoNetworkPolicy, "x", "p"),
            Key::cluster(Kind::GlobalNetworkPolicy, "p"),
            Key::cluster(Kind::ClusterNetworkPolicy, "p"),
            Key::cluster(Kind::AdminNetworkPolicy, "p"),
            Key::cluster(Kind::BaselineAdminNetworkPolicy, "default"),
        ];
        for key in policies {
            assert_eq!(Object::closed(&key).map(|object| object.key()), Some(key));
        }
        for kind in [Kind::Pod, Kind::Tier, Kind::StagedNetworkPolicy] {
            assert_eq!(Object::closed(&Key::new(kind, "x", "p")), None);
        }
    }
}
