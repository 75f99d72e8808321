//! What `get` shows of Calico's kinds.

use serde_json::Value;

use super::{Column, count, default_to, labels, list, policy_types, selector, text};
use crate::object::calico::Tier;

pub(super) const POLICY: &[Column] = &[
    Column { name: "tier", cell: tier },
    Column { name: "order", cell: order },
    Column { name: "pods", cell: pods },
    Column { name: "types", cell: types },
    Column { name: "ingress", cell: |o| count(&o["spec"]["ingress"]) },
    Column { name: "egress", cell: |o| count(&o["spec"]["egress"]) },
];

pub(super) const STAGED_POLICY: &[Column] = &[
    Column { name: "staged", cell: staged },
    Column { name: "tier", cell: tier },
    Column { name: "order", cell: order },
    Column { name: "pods", cell: pods },
    Column { name: "types", cell: types },
    Column { name: "ingress", cell: |o| count(&o["spec"]["ingress"]) },
    Column { name: "egress", cell: |o| count(&o["spec"]["egress"]) },
];

pub(super) const STAGED_KUBERNETES_POLICY: &[Column] = &[
    Column { name: "staged", cell: staged },
    Column { name: "pods", cell: |o| selector(&o["spec"]["podSelector"]) },
    Column { name: "types", cell: policy_types },
    Column { name: "ingress", cell: |o| count(&o["spec"]["ingress"]) },
    Column { name: "egress", cell: |o| count(&o["spec"]["egress"]) },
];

pub(super) const TIER: &[Column] = &[
    Column { name: "order", cell: order },
    Column { name: "default", cell: |o| default_to(text(&o["spec"]["defaultAction"]), "Deny") },
    Column { name: "built in", cell: is_built_in },
];

pub(super) const NETWORK_SET: &[Column] = &[
    Column { name: "nets", cell: |o| count(&o["spec"]["nets"]) },
    Column { name: "labels", cell: |o| labels(&o["metadata"]["labels"]) },
];

pub(super) const PROFILE: &[Column] = &[
    Column { name: "ingress", cell: |o| count(&o["spec"]["ingress"]) },
    Column { name: "egress", cell: |o| count(&o["spec"]["egress"]) },
    Column { name: "labels", cell: |o| labels(&o["spec"]["labelsToApply"]) },
];

/// Whether it is there without an object.
fn is_built_in(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if Tier::built_in(name).is_some() { "yes" } else { "no" }.to_owned()
}

fn tier(object: &Value) -> String {
    default_to(text(&object["spec"]["tier"]), "default")
}

fn staged(object: &Value) -> String {
    default_to(text(&object["spec"]["stagedAction"]), "Set")
}

/// Whole numbers without their `.0`; none is last.
fn order(object: &Value) -> String {
    object["spec"]["order"].as_f64().map_or_else(|| "last".to_owned(), |order| order.to_string())
}

/// All that a policy selects its pods by.
fn pods(object: &Value) -> String {
    let spec = &object["spec"];
    let terms = [
        ("", "selector"),
        ("namespace: ", "namespaceSelector"),
        ("service account: ", "serviceAccountSelector"),
    ];
    let given =
        terms.iter().map(|(what, field)| (what, text(&spec[field]))).filter(|(_, text)| !text.is_empty());
    default_to(given.map(|(what, text)| format!("{what}{text}")).collect::<Vec<_>>().join(", "), "all()")
}

/// The types given, or those that there are rules for; ingress where there are none.
fn types(object: &Value) -> String {
    let spec = &object["spec"];
    let has = |rules: &str| spec[rules].as_array().is_some_and(|rules| !rules.is_empty());
    let implied = match (has("ingress"), has("egress")) {
        (true, true) => "Ingress,Egress",
        (false, true) => "Egress",
        _ => "Ingress",
    };
    default_to(list(&spec["types"]), implied)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(columns: &[Column], spec: &Value) -> Vec<String> {
        let object = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
        columns.iter().map(|column| (column.cell)(&object)).collect()
    }

    #[test]
    fn policies_show_their_place_and_their_pods() {
        assert_eq!(row(POLICY, &json!({})), ["default", "last", "all()", "Ingress", "0", "0"]);
        let spec = json!({
            "tier": "platform", "order": 10.0, "selector": "app == 'a'", "namespaceSelector": "has(x)",
            "serviceAccountSelector": "all()", "egress": [{}],
        });
        let pods = "app == 'a', namespace: has(x), service account: all()";
        assert_eq!(row(POLICY, &spec), ["platform", "10", pods, "Egress", "0", "1"]);
        let spec = json!({"stagedAction": "Delete", "order": 1.5, "types": ["Ingress", "Egress"]});
        assert_eq!(row(STAGED_POLICY, &spec)[..3], ["Delete", "default", "1.5"]);
        assert_eq!(row(STAGED_POLICY, &spec)[4], "Ingress,Egress");
    }

    #[test]
    fn the_other_kinds_show_what_is_in_them() {
        assert_eq!(row(TIER, &json!({"order": 100.0, "defaultAction": "Pass"})), ["100", "Pass", "no"]);
        assert_eq!(row(TIER, &json!({})), ["last", "Deny", "no"]);
        assert_eq!((TIER[2].cell)(&json!({"metadata": {"name": "kube-admin"}})), "yes");
        assert_eq!(row(NETWORK_SET, &json!({"nets": ["10.0.0.0/8"]})), ["1", "a=b"]);
        assert_eq!(row(PROFILE, &json!({"ingress": [{}], "labelsToApply": {"x": "y"}})), ["1", "0", "x=y"]);
        assert_eq!(
            row(STAGED_KUBERNETES_POLICY, &json!({"egress": [{}]})),
            ["Set", "(all)", "Ingress,Egress", "0", "1"]
        );
    }
}
