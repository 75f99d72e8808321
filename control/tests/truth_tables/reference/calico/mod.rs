//! Calico's NetworkPolicy and GlobalNetworkPolicy, projectcalico.org/v3.

mod entity;
mod selector;

use serde::Deserialize;
use serde_json::Value;

use super::{Direction, Flow, Labels, Placed, Pod, Policy, Said, TierEnd, TierPlace, World, text};
use crate::scene::{ICMP, ICMPV6, SCTP, TCP, UDP};
use entity::Entity;
use selector::selects;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    tier: Option<String>,
    order: Option<f64>,
    #[serde(default)]
    selector: String,
    #[serde(default)]
    namespace_selector: String,
    #[serde(default)]
    service_account_selector: String,
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    ingress: Vec<Rule>,
    #[serde(default)]
    egress: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    action: String,
    ip_version: Option<u8>,
    protocol: Option<Value>,
    not_protocol: Option<Value>,
    icmp: Option<Icmp>,
    #[serde(rename = "notICMP")]
    not_icmp: Option<Icmp>,
    #[serde(default)]
    source: Entity,
    #[serde(default)]
    destination: Entity,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Icmp {
    #[serde(rename = "type")]
    kind: Option<u8>,
    code: Option<u8>,
}

struct CalicoPolicy {
    /// None: of the whole cluster.
    namespace: Option<String>,
    spec: Spec,
}

/// Reads a policy. `tiers` are all Tier objects.
pub(super) fn read(object: &Value, tiers: &[Value]) -> Placed {
    let metadata = &object["metadata"];
    let namespace = (object["kind"] == "NetworkPolicy").then(|| text(&metadata["namespace"]));
    let spec: Spec = serde_json::from_value(object["spec"].clone()).unwrap();
    let name = spec.tier.as_deref().unwrap_or("default");
    let tier = TierPlace::built_in(name).unwrap_or_else(|| {
        let tier = tiers.iter().find(|tier| tier["metadata"]["name"] == name).unwrap();
        let end = if tier["spec"]["defaultAction"] == "Pass" { TierEnd::Pass } else { TierEnd::Deny };
        TierPlace::new(tier["spec"]["order"].as_f64().unwrap_or(f64::INFINITY), name, end)
    });
    let order = spec.order.unwrap_or(f64::INFINITY);
    Placed { tier, order, name: text(&metadata["name"]), policy: Box::new(CalicoPolicy { namespace, spec }) }
}

/// A profile: rules for what all tiers passed.
struct Profile {
    namespace: String,
    /// None: of all pods of the namespace.
    account: Option<String>,
    rules: ProfileSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileSpec {
    #[serde(default)]
    ingress: Vec<Rule>,
    #[serde(default)]
    egress: Vec<Rule>,
}

/// Reads a profile: of a namespace (`kns.NAMESPACE`), or of a service account (`ksa.NAMESPACE.NAME`), which is asked
/// after its namespace's. A namespace's that nobody wrote allows everything, so that no further one is asked.
pub(super) fn read_profile(object: &Value, objects: &[Value]) -> Option<Placed> {
    let name = text(&object["metadata"]["name"]);
    let mut parts = name.split('.').skip(1).map(str::to_owned);
    let (namespace, account) = (parts.next().unwrap(), parts.next());
    let of_namespace = format!("kns.{namespace}");
    let is_asked =
        |other: &Value| other["kind"] == "Profile" && other["metadata"]["name"] == of_namespace.as_str();
    let order = if account.is_some() { 1.0 } else { 0.0 };
    let rules = serde_json::from_value(object["spec"].clone()).unwrap();
    let policy = Box::new(Profile { namespace, account, rules });
    let placed = Placed { tier: TierPlace::profiles(), order, name, policy };
    objects.iter().any(is_asked).then_some(placed)
}

impl Policy for Profile {
    fn applies(&self, _: &World, pod: &Pod, _: Direction) -> bool {
        pod.namespace == self.namespace
            && self.account.as_ref().is_none_or(|account| pod.service_account == *account)
    }

    fn says(&self, world: &World, flow: &Flow<'_>, direction: Direction) -> Option<Said> {
        let rules = match direction {
            Direction::Ingress => &self.rules.ingress,
            Direction::Egress => &self.rules.egress,
        };
        first_said(rules, world, None, flow)
    }

    fn logs(&self, world: &World, flow: &Flow<'_>, direction: Direction) -> bool {
        let rules = match direction {
            Direction::Ingress => &self.rules.ingress,
            Direction::Egress => &self.rules.egress,
        };
        logs_first(rules, world, None, flow)
    }
}

impl Policy for CalicoPolicy {
    fn applies(&self, world: &World, pod: &Pod, direction: Direction) -> bool {
        let Spec { types, ingress, egress, .. } = &self.spec;
        let speaks = match direction {
            // Without types a policy is of the directions it has rules for; of ingress when it has none at all.
            Direction::Ingress if types.is_empty() => !ingress.is_empty() || egress.is_empty(),
            Direction::Egress if types.is_empty() => !egress.is_empty(),
            Direction::Ingress => types.iter().any(|kind| kind == "Ingress"),
            Direction::Egress => types.iter().any(|kind| kind == "Egress"),
        };
        speaks && self.selects(world, pod)
    }

    fn says(&self, world: &World, flow: &Flow<'_>, direction: Direction) -> Option<Said> {
        let rules = match direction {
            Direction::Ingress => &self.spec.ingress,
            Direction::Egress => &self.spec.egress,
        };
        first_said(rules, world, self.namespace.as_deref(), flow)
    }

    fn logs(&self, world: &World, flow: &Flow<'_>, direction: Direction) -> bool {
        let rules = match direction {
            Direction::Ingress => &self.spec.ingress,
            Direction::Egress => &self.spec.egress,
        };
        logs_first(rules, world, self.namespace.as_deref(), flow)
    }
}

/// Whether the first rule that matches writes the flow down.
fn logs_first(rules: &[Rule], world: &World, namespace: Option<&str>, flow: &Flow<'_>) -> bool {
    rules.iter().find(|rule| rule.matches(world, namespace, flow)).is_some_and(|rule| rule.action == "Log")
}

/// What the first rule says that matches and does not only write it down.
fn first_said(rules: &[Rule], world: &World, namespace: Option<&str>, flow: &Flow<'_>) -> Option<Said> {
    rules.iter().filter(|rule| rule.matches(world, namespace, flow)).find_map(|rule| {
        match rule.action.as_str() {
            "Allow" => Some(Said::Allow),
            "Deny" => Some(Said::Deny),
            "Pass" => Some(Said::Pass),
            "Log" => None,
            other => panic!("no action: {other}"),
        }
    })
}

impl CalicoPolicy {
    fn selects(&self, world: &World, pod: &Pod) -> bool {
        let spec = &self.spec;
        let namespace = match &self.namespace {
            Some(own) => pod.namespace == *own,
            None => selects(&spec.namespace_selector, &world.calico_namespace_labels(&pod.namespace)),
        };
        namespace
            && selects(&spec.selector, &world.calico_pod_labels(pod))
            && selects(&spec.service_account_selector, &world.account_labels(pod))
    }
}

impl Rule {
    fn matches(&self, world: &World, namespace: Option<&str>, flow: &Flow<'_>) -> bool {
        let is_v4 = flow.to.address.is_ipv4();
        self.ip_version.is_none_or(|version| (version == 4) == is_v4)
            && self.protocol.as_ref().is_none_or(|protocol| number(protocol) == flow.protocol)
            && self.not_protocol.as_ref().is_none_or(|protocol| number(protocol) != flow.protocol)
            && self.icmp.as_ref().is_none_or(|icmp| icmp.is(flow))
            && !self.not_icmp.as_ref().is_some_and(|icmp| icmp.is(flow))
            && self.source.is(world, namespace, flow.from)
            && self.destination.is(world, namespace, flow.to)
            && self.source.has_source_port(world, flow)
            && self.destination.has_port(world, namespace, flow)
    }
}

impl Icmp {
    fn is(&self, flow: &Flow<'_>) -> bool {
        let [kind, code] = flow.port.to_be_bytes();
        matches!(flow.protocol, ICMP | ICMPV6)
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self.code.is_none_or(|wanted| wanted == code)
    }
}

fn number(protocol: &Value) -> u8 {
    match protocol.as_str() {
        None => u8::try_from(protocol.as_u64().unwrap()).unwrap(),
        Some("TCP") => TCP,
        Some("UDP") => UDP,
        Some("ICMP") => ICMP,
        Some("ICMPv6") => ICMPV6,
        Some("SCTP") => SCTP,
        Some("UDPLite") => 136,
        Some(other) => panic!("no protocol: {other}"),
    }
}

impl World {
    /// What a selector sees: the pod's labels, and what Calico gives it besides.
    fn calico_pod_labels(&self, pod: &Pod) -> Labels {
        let mut labels = pod.labels.clone();
        for (key, value) in [
            ("projectcalico.org/namespace", pod.namespace.as_str()),
            ("projectcalico.org/serviceaccount", pod.service_account.as_str()),
            ("projectcalico.org/orchestrator", "k8s"),
        ] {
            labels.insert(key.to_owned(), value.to_owned());
        }
        labels
    }

    /// What a namespace selector sees: the namespace's labels, and its name.
    fn calico_namespace_labels(&self, namespace: &str) -> Labels {
        let mut labels = self.namespace_labels(namespace).clone();
        labels.insert("projectcalico.org/name".to_owned(), namespace.to_owned());
        labels
    }

    /// What a service account selector sees: the account's labels, and its name.
    fn account_labels(&self, pod: &Pod) -> Labels {
        let account = (pod.namespace.clone(), pod.service_account.clone());
        let mut labels = self.accounts.get(&account).cloned().unwrap_or_default();
        labels.insert("projectcalico.org/name".to_owned(), pod.service_account.clone());
        labels
    }
}
