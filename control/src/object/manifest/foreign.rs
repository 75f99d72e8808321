//! Kinds that have nothing to do with a switch, as folders of manifests are full of.

use serde_json::Value;

use super::{Kind, not_done};

/// Groups that policies are of: a kind of theirs that is not known is more likely misspelt than foreign.
const OF_POLICIES: [&str; 4] =
    ["networking.k8s.io", "policy.networking.k8s.io", "projectcalico.org", "crd.projectcalico.org"];
/// Our own groups, the one we write and the one of before.
const OWN: [&str; 2] = ["vswitch.internal", "vswitch"];
/// Kinds of these groups that are no policies.
const NO_POLICIES: [&str; 2] = ["Ingress", "IngressClass"];

/// The value of a document without the objects of foreign kinds, each of which is told: null where nothing is left.
pub(super) fn left_out(mut value: Value, mut tell: impl FnMut(String)) -> Value {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut).filter(|_| is_list) {
        items.retain(|item| name(item).map(&mut tell).is_none());
        return value;
    }
    match name(&value).map(tell) {
        Some(()) => Value::Null,
        None => value,
    }
}

/// `Deployment web`; None of an object that is not foreign.
fn name(object: &Value) -> Option<String> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let is_known = |known: &Kind| {
        known.is_applied_by_people() && (known.name() == kind || kind.parse::<Kind>().as_ref() == Ok(known))
    };
    let may_be_policy = OF_POLICIES.contains(&group) && !NO_POLICIES.contains(&kind);
    let may_be_known = may_be_policy || OWN.contains(&group);
    if may_be_known || Kind::ALL.iter().any(is_known) || not_done(kind).is_some() {
        return None;
    }
    Some(format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default()).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_foreign_is_told_and_left_out_and_what_may_be_misspelt_is_not() {
        let object = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
        for (version, kind, is_foreign) in [
            ("apps/v1", "Deployment", true),
            ("v1", "Endpoints", true),
            ("networking.k8s.io/v1", "Ingress", true),
            ("networking.k8s.io/v1", "NetworkPolcy", false),
            ("projectcalico.org/v3", "HostEndpoint", false),
            ("v1", "Pod", false),
            ("v1", "pod", false),
            ("vswitch/v1", "Block", false),
            ("vswitch.internal/v1", "Block", false),
        ] {
            let (mut told, whole) = (Vec::new(), object(version, kind));
            let left = left_out(whole.clone(), |what| told.push(what));
            assert_eq!(left, if is_foreign { Value::Null } else { whole }, "{version} {kind}");
            assert_eq!(told, if is_foreign { vec![format!("{kind} x")] } else { vec![] });
        }
        let list = json!({"kind": "List", "items": [object("apps/v1", "Deployment"), object("v1", "Pod")]});
        assert_eq!(left_out(list, |_| ())["items"], json!([object("v1", "Pod")]));
        assert_eq!(left_out(json!("no object"), |_| ()), json!("no object"));
    }
}
