//! What `get` shows of each kind beside the name.

use serde_json::Value;

mod calico;

/// One column: its name, and its cell for an object.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) cell: fn(&Value) -> String,
}

/// The columns of a kind, by its proper name (its text); none for one that has nothing to add.
pub(super) fn of(kind: &str) -> &'static [Column] {
    match kind {
        "Namespace" => &[Column { name: "labels", cell: |o| labels(&o["metadata"]["labels"]) }],
        "Node" => &[
            Column { name: "ipv4", cell: |o| annotation(o, "projectcalico.org/IPv4Address") },
            Column { name: "ipv6", cell: |o| annotation(o, "projectcalico.org/IPv6Address") },
            Column { name: "tunnel", cell: tunnel },
        ],
        "Pod" => &[
            Column { name: "node", cell: |o| text(&o["spec"]["nodeName"]) },
            Column { name: "addresses", cell: pod_addresses },
            Column { name: "labels", cell: |o| labels(&o["metadata"]["labels"]) },
        ],
        "NetworkPolicy" => &[
            Column { name: "pods", cell: |o| selector(&o["spec"]["podSelector"]) },
            Column { name: "types", cell: policy_types },
            Column { name: "ingress", cell: |o| count(&o["spec"]["ingress"]) },
            Column { name: "egress", cell: |o| count(&o["spec"]["egress"]) },
        ],
        "ClusterNetworkPolicy" => &[
            Column { name: "tier", cell: |o| text(&o["spec"]["tier"]) },
            Column { name: "priority", cell: |o| number(&o["spec"]["priority"]) },
            Column { name: "subject", cell: |o| subject(&o["spec"]["subject"]) },
            Column { name: "ingress", cell: |o| count(&o["spec"]["ingress"]) },
            Column { name: "egress", cell: |o| count(&o["spec"]["egress"]) },
        ],
        "AdminNetworkPolicy" => &[
            Column { name: "priority", cell: |o| number(&o["spec"]["priority"]) },
            Column { name: "subject", cell: |o| subject(&o["spec"]["subject"]) },
            Column { name: "ingress", cell: |o| count(&o["spec"]["ingress"]) },
            Column { name: "egress", cell: |o| count(&o["spec"]["egress"]) },
        ],
        "BaselineAdminNetworkPolicy" => &[
            Column { name: "subject", cell: |o| subject(&o["spec"]["subject"]) },
            Column { name: "ingress", cell: |o| count(&o["spec"]["ingress"]) },
            Column { name: "egress", cell: |o| count(&o["spec"]["egress"]) },
        ],
        "ServiceAccount" => &[Column { name: "labels", cell: |o| labels(&o["metadata"]["labels"]) }],
        "Service" => &[
            Column { name: "type", cell: |o| default_to(text(&o["spec"]["type"]), "ClusterIP") },
            Column { name: "addresses", cell: |o| list(&o["spec"]["clusterIPs"]) },
            Column { name: "ports", cell: |o| ports(&o["spec"]["ports"]) },
        ],
        "EndpointSlice" => &[
            Column {
                name: "service",
                cell: |o| text(&o["metadata"]["labels"]["kubernetes.io/service-name"]),
            },
            Column { name: "endpoints", cell: |o| count(&o["endpoints"]) },
            Column { name: "ports", cell: |o| ports(&o["ports"]) },
        ],
        "IPPool" => &[
            Column { name: "cidr", cell: |o| text(&o["spec"]["cidr"]) },
            Column { name: "blocksize", cell: block_size },
            Column { name: "vxlan", cell: |o| default_to(text(&o["spec"]["vxlanMode"]), "Never") },
            Column { name: "ipip", cell: |o| default_to(text(&o["spec"]["ipipMode"]), "Never") },
            Column { name: "disabled", cell: |o| yes_no(&o["spec"]["disabled"]) },
        ],
        "NetworkPolicy.projectcalico.org" | "GlobalNetworkPolicy" => calico::POLICY,
        "StagedNetworkPolicy" | "StagedGlobalNetworkPolicy" => calico::STAGED_POLICY,
        "StagedKubernetesNetworkPolicy" => calico::STAGED_KUBERNETES_POLICY,
        "Tier" => calico::TIER,
        "NetworkSet" | "GlobalNetworkSet" => calico::NETWORK_SET,
        "Profile" => calico::PROFILE,
        "Endpoint" => &[
            Column { name: "node", cell: |o| text(&o["spec"]["node"]) },
            Column { name: "pod", cell: endpoint_pod },
            Column { name: "port", cell: |o| text(&o["spec"]["port"]) },
            Column { name: "addresses", cell: |o| list(&o["spec"]["addresses"]) },
        ],
        "Block" => &[
            Column { name: "cidr", cell: |o| text(&o["spec"]["cidr"]) },
            Column { name: "node", cell: |o| text(&o["spec"]["node"]) },
            Column { name: "assigned", cell: |o| count(&o["spec"]["assigned"]) },
        ],
        _ => &[],
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn default_to(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

fn list(value: &Value) -> String {
    let items: Vec<_> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    items.join(",")
}

fn count(value: &Value) -> String {
    let length = value.as_array().map(Vec::len).or_else(|| value.as_object().map(serde_json::Map::len));
    length.unwrap_or(0).to_string()
}

fn number(value: &Value) -> String {
    value.as_i64().map(|number| number.to_string()).unwrap_or_default()
}

/// `80/TCP,53/UDP`.
fn ports(value: &Value) -> String {
    let port =
        |port: &Value| format!("{}/{}", number(&port["port"]), default_to(text(&port["protocol"]), "TCP"));
    value.as_array().into_iter().flatten().map(port).collect::<Vec<_>>().join(",")
}

/// The pods a policy of the cluster is for: a selector of namespaces, and one of pods where there is one.
fn subject(value: &Value) -> String {
    match value["pods"].is_object() {
        true => format!(
            "{} in {}",
            selector(&value["pods"]["podSelector"]),
            selector(&value["pods"]["namespaceSelector"])
        ),
        false => format!("(all) in {}", selector(&value["namespaces"])),
    }
}

fn yes_no(value: &Value) -> String {
    if value == true { "yes" } else { "no" }.to_owned()
}

fn labels(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn annotation(object: &Value, name: &str) -> String {
    text(&object["metadata"]["annotations"][name])
}

fn tunnel(object: &Value) -> String {
    let names = ["IPv4VXLANTunnelAddr", "IPv4IPIPTunnelAddr", "IPv6VXLANTunnelAddr"];
    let mut found: Vec<_> =
        names.iter().map(|name| annotation(object, &format!("projectcalico.org/{name}"))).collect();
    found.retain(|address| !address.is_empty());
    // A node of ours has one address for both encapsulations.
    found.dedup();
    found.join(",")
}

fn pod_addresses(object: &Value) -> String {
    let status = &object["status"];
    let all: Vec<_> = status["podIPs"].as_array().into_iter().flatten().map(|ip| text(&ip["ip"])).collect();
    if all.is_empty() { text(&status["podIP"]) } else { all.join(",") }
}

/// A selector as kubectl writes one; empty selects everything.
fn selector(value: &Value) -> String {
    let mut terms: Vec<_> = match labels(&value["matchLabels"]) {
        none if none.is_empty() => Vec::new(),
        pairs => vec![pairs],
    };
    for expression in value["matchExpressions"].as_array().into_iter().flatten() {
        let (key, values) = (text(&expression["key"]), list(&expression["values"]));
        terms.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key,
            "DoesNotExist" => format!("!{key}"),
            other => format!("{key} {other} ({values})"),
        });
    }
    if terms.is_empty() { "(all)".to_owned() } else { terms.join(",") }
}

/// The types given, or those that follow from the rules: Ingress always, Egress with egress rules.
fn policy_types(object: &Value) -> String {
    let spec = &object["spec"];
    let given = list(&spec["policyTypes"]);
    let has_egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    default_to(given, if has_egress { "Ingress,Egress" } else { "Ingress" })
}

fn block_size(object: &Value) -> String {
    let six = text(&object["spec"]["cidr"]).contains(':');
    object["spec"]["blockSize"].as_u64().unwrap_or(if six { 122 } else { 26 }).to_string()
}

fn endpoint_pod(object: &Value) -> String {
    let (namespace, pod) = (text(&object["spec"]["namespace"]), text(&object["spec"]["pod"]));
    if pod.is_empty() { String::new() } else { format!("{namespace}/{pod}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(kind: &str, object: &Value) -> Vec<String> {
        of(kind).iter().map(|column| (column.cell)(object)).collect()
    }

    #[test]
    fn every_kind_has_columns() {
        for kind in crate::object::Kind::ALL {
            assert!(!of(&kind.to_string()).is_empty(), "{kind}");
            // An object that lacks everything still has a cell for each.
            assert_eq!(row(&kind.to_string(), &json!({})).len(), of(&kind.to_string()).len());
        }
        assert!(of("Deployment").is_empty());
    }

    #[test]
    fn selectors_read_as_kubectl_writes_them() {
        let object = json!({"spec": {"podSelector": {
            "matchLabels": {"app": "relay"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ]}, "egress": [{}]}});
        assert_eq!(
            row("NetworkPolicy", &object),
            ["app=relay,tier in (a,b),!old", "Ingress,Egress", "0", "1"]
        );
        assert_eq!(row("NetworkPolicy", &json!({"spec": {"podSelector": {}}}))[0], "(all)");
    }

    #[test]
    fn policies_of_the_cluster_show_their_place_and_pods() {
        let pods = json!({"namespaceSelector": {"matchLabels": {"env": "prod"}}, "podSelector": {"matchLabels": {"app": "sip"}}});
        let spec = json!({"tier": "Admin", "priority": 0, "subject": {"pods": pods}, "egress": [{}, {}]});
        let shown = row("ClusterNetworkPolicy", &json!({"spec": spec}));
        assert_eq!(shown, ["Admin", "0", "app=sip in env=prod", "0", "2"]);
        let all = json!({"spec": {"subject": {"namespaces": {}}}});
        assert_eq!(row("BaselineAdminNetworkPolicy", &all)[0], "(all) in (all)");
        let slice = json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}], "endpoints": [{}]});
        assert_eq!(row("EndpointSlice", &slice), ["", "1", "80/TCP,53/UDP"]);
    }

    #[test]
    fn pods_endpoints_and_blocks_show_addresses() {
        let pod = json!({"spec": {"nodeName": "n1"}, "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
        assert_eq!(row("Pod", &pod), ["n1", "10.0.0.1,fd00::1", ""]);
        let endpoint = json!({"spec": {"node": "n1", "namespace": "media", "pod": "relay", "port": "vsw1", "addresses": ["10.0.0.1"]}});
        assert_eq!(row("Endpoint", &endpoint), ["n1", "media/relay", "vsw1", "10.0.0.1"]);
        let block = json!({"spec": {"cidr": "fd00::/122", "node": "n1", "assigned": {"fd00::1": {}}}});
        assert_eq!(row("Block", &block), ["fd00::/122", "n1", "1"]);
        assert_eq!(row("IPPool", &json!({"spec": {"cidr": "fd00::/64"}}))[1], "122");
    }
}
