//! What is staged, in force.

use serde_json::Value;

/// The objects as they would be, were all that is staged in force: each in the place of the one it stands for, which is
/// the one of its kind, namespace and name.
pub(crate) fn with_staged(objects: &[Value]) -> Vec<Value> {
    let mut then: Vec<Value> = objects.iter().filter(|object| in_force(object).is_none()).cloned().collect();
    for object in objects {
        let Some((version, kind)) = in_force(object) else { continue };
        let name = |object: &Value| {
            let metadata = &object["metadata"];
            (metadata["namespace"].clone(), metadata["name"].clone())
        };
        then.retain(|other| {
            (&other["apiVersion"], &other["kind"]) != (&Value::from(version), &Value::from(kind))
                || name(other) != name(object)
        });
        let mut staged = object.clone();
        let spec = staged["spec"].as_object_mut().unwrap();
        if spec.remove("stagedAction").is_some_and(|action| action == "Delete") {
            continue;
        }
        staged["apiVersion"] = version.into();
        staged["kind"] = kind.into();
        then.push(staged);
    }
    then
}

/// The apiVersion and kind that a staged kind stands for.
fn in_force(object: &Value) -> Option<(&'static str, &'static str)> {
    match object["kind"].as_str()? {
        "StagedKubernetesNetworkPolicy" => Some(("networking.k8s.io/v1", "NetworkPolicy")),
        "StagedNetworkPolicy" => Some(("projectcalico.org/v3", "NetworkPolicy")),
        "StagedGlobalNetworkPolicy" => Some(("projectcalico.org/v3", "GlobalNetworkPolicy")),
        _ => None,
    }
}
