//! The slow reference: reads objects as people write them, and says of one flow at a time what their documentation
//! says. It shares no code with the calculation: its own structs, its own selectors, no sets, no identities, no
//! classes. Every list is gone through for every flow.
//!
//! Policies of all kinds stand in tiers. In a direction, at a pod:
//! 1. Tiers are asked in order; one without a policy that selects the pod and speaks of the direction is skipped.
//! 2. In a tier the policies are asked in order, in a policy its rules. The first rule that matches decides; Pass goes
//!    on with the next tier.
//! 3. When none matched, the tier denies or passes, as it says.
//! 4. What passed all tiers is the profiles' to decide, and allowed where there are none.

mod calico;
mod cluster_policy;
mod labels;
mod network_policy;
mod staged;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

pub(crate) use labels::{LabelSelector, Labels, labels_of};
pub(crate) use staged::with_staged;

use crate::scene::{End, Probe, Who, protocol_number};

/// Which way, seen from the pod that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// What a rule or a policy says of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Allow,
    Deny,
    Pass,
}

/// A flow as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow<'a> {
    pub(crate) from: &'a End,
    pub(crate) to: &'a End,
    pub(crate) protocol: u8,
    /// Destination port; of ICMP `type << 8 | code`.
    pub(crate) port: u16,
    pub(crate) source_port: u16,
}

impl<'a> Flow<'a> {
    /// What a probe asks about.
    pub(crate) fn of(probe: &Probe, ends: &'a [End]) -> Self {
        let Probe { from, to, protocol, port, source_port, .. } = *probe;
        Self { from: &ends[from], to: &ends[to], protocol, port, source_port }
    }

    /// The end that is not the pod whose policy is asked.
    pub(crate) fn peer(&self, direction: Direction) -> &'a End {
        match direction {
            Direction::Ingress => self.from,
            Direction::Egress => self.to,
        }
    }
}

/// What policies may ask of a pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    /// Name, protocol as Kubernetes spells it, number.
    pub(crate) ports: Vec<(String, String, u16)>,
    pub(crate) service_account: String,
}

/// A NetworkSet, or a GlobalNetworkSet: addresses with labels.
#[derive(Debug)]
pub(crate) struct NetworkSet {
    /// None: in no namespace.
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Labels,
    pub(crate) nets: Vec<String>,
}

/// An EndpointSlice: addresses of a service, and the ports it is at there.
#[derive(Debug)]
pub(crate) struct Slice {
    /// Namespace and name of the service.
    pub(crate) service: (String, String),
    pub(crate) addresses: Vec<IpAddr>,
    /// Protocol and number.
    pub(crate) ports: Vec<(u8, u16)>,
}

/// The cluster without its policies.
#[derive(Debug, Default)]
pub(crate) struct World {
    pods: BTreeMap<(String, String), Pod>,
    namespaces: BTreeMap<String, Labels>,
    /// Labels of nodes by address.
    nodes: Vec<(IpAddr, Labels)>,
    /// Labels of service accounts, by namespace and name.
    accounts: BTreeMap<(String, String), Labels>,
    pub(crate) network_sets: Vec<NetworkSet>,
    pub(crate) slices: Vec<Slice>,
}

impl World {
    /// The pod at an end, if there is one.
    pub(crate) fn pod(&self, end: &End) -> Option<&Pod> {
        match &end.who {
            Who::Pod { namespace, name } => self.pods.get(&(namespace.clone(), name.clone())),
            Who::Node | Who::World => None,
        }
    }

    pub(crate) fn namespace_labels(&self, namespace: &str) -> &Labels {
        &self.namespaces[namespace]
    }

    /// The labels of the node whose address this is.
    pub(crate) fn node_labels(&self, address: IpAddr) -> Option<&Labels> {
        self.nodes.iter().find(|(own, _)| *own == address).map(|(_, labels)| labels)
    }

    fn add(&mut self, object: &Value) {
        let name = text(&object["metadata"]["name"]);
        let labels = labels_of(&object["metadata"]["labels"]);
        match object["kind"].as_str() {
            Some("Namespace") => drop(self.namespaces.insert(name, with_name(labels, object))),
            Some("Node") => {
                for address in list(&object["status"]["addresses"]) {
                    self.nodes.push((text(&address["address"]).parse().unwrap(), labels.clone()));
                }
            }
            Some("Pod") => {
                let namespace = text(&object["metadata"]["namespace"]);
                let containers = list(&object["spec"]["containers"]);
                let ports = containers.iter().flat_map(|container| list(&container["ports"]));
                let port = |port: &Value| {
                    let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
                    Some((text(&port["name"]), text(&port["protocol"]), number))
                };
                let ports = ports.filter_map(port).collect();
                let service_account = match object["spec"]["serviceAccountName"].as_str() {
                    None | Some("") => "default".to_owned(),
                    Some(account) => account.to_owned(),
                };
                let pod = Pod { namespace: namespace.clone(), labels, ports, service_account };
                self.pods.insert((namespace, name), pod);
            }
            Some("ServiceAccount") => {
                self.accounts.insert((text(&object["metadata"]["namespace"]), name), labels);
            }
            Some("EndpointSlice") => {
                let service = text(&object["metadata"]["labels"]["kubernetes.io/service-name"]);
                let endpoints =
                    list(&object["endpoints"]).iter().flat_map(|endpoint| list(&endpoint["addresses"]));
                let port = |port: &Value| {
                    let number = u16::try_from(port["port"].as_u64().unwrap()).unwrap();
                    (protocol_number(&text(&port["protocol"])), number)
                };
                self.slices.push(Slice {
                    service: (text(&object["metadata"]["namespace"]), service),
                    addresses: endpoints.map(|address| text(address).parse().unwrap()).collect(),
                    ports: list(&object["ports"]).iter().map(port).collect(),
                });
            }
            Some(kind @ ("NetworkSet" | "GlobalNetworkSet")) => {
                let namespace = (kind == "NetworkSet").then(|| text(&object["metadata"]["namespace"]));
                let nets = list(&object["spec"]["nets"]).iter().map(text).collect();
                self.network_sets.push(NetworkSet { namespace, labels, nets });
            }
            _ => {}
        }
    }
}

/// Every namespace has a label with its name (Kubernetes puts it there).
fn with_name(mut labels: Labels, object: &Value) -> Labels {
    labels.insert("kubernetes.io/metadata.name".to_owned(), text(&object["metadata"]["name"]));
    labels
}

/// One policy object.
pub(crate) trait Policy {
    /// Whether it selects the pod and speaks of the direction.
    fn applies(&self, world: &World, pod: &Pod, direction: Direction) -> bool;
    /// What its first rule that matches says. The pod is one it applies to.
    fn says(&self, world: &World, flow: &Flow<'_>, direction: Direction) -> Option<Said>;
    /// Whether a rule before that marks the flow for the log.
    fn logs(&self, _: &World, _: &Flow<'_>, _: Direction) -> bool {
        false
    }
}

/// What one end says of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    /// Whether a rule marked it for the log before that was said.
    pub(crate) logged: bool,
}

impl Verdict {
    /// Of an end that nobody is asked about.
    const OPEN: Self = Self { allowed: true, logged: false };
}

/// What a tier does with a flow of a pod it selects when no rule matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TierEnd {
    Deny,
    Pass,
}

/// Where a tier stands among the others: by its order, then by its name; profiles come after all.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TierPlace {
    pub(crate) is_profiles: bool,
    /// Infinite: not said, last.
    pub(crate) order: f64,
    pub(crate) name: String,
    pub(crate) end: TierEnd,
}

impl TierPlace {
    fn new(order: f64, name: &str, end: TierEnd) -> Self {
        Self { is_profiles: false, order, name: name.to_owned(), end }
    }

    /// The tiers that are always there, with the orders Calico gives them. None: it needs an object.
    pub(crate) fn built_in(name: &str) -> Option<Self> {
        match name {
            // Of ClusterNetworkPolicy and its like, where they come before everything else.
            "kube-admin" => Some(Self::new(1_000.0, name, TierEnd::Pass)),
            // Kubernetes' NetworkPolicy is here too.
            "default" => Some(Self::new(1_000_000.0, name, TierEnd::Deny)),
            // Of ClusterNetworkPolicy and its like, where they come last.
            "kube-baseline" => Some(Self::new(10_000_000.0, name, TierEnd::Pass)),
            _ => None,
        }
    }

    /// After all tiers. What has a profile and is allowed by none is denied.
    pub(crate) fn profiles() -> Self {
        Self { is_profiles: true, ..Self::new(f64::INFINITY, "", TierEnd::Deny) }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let by_order = self.order.total_cmp(&other.order);
        self.is_profiles.cmp(&other.is_profiles).then(by_order).then_with(|| self.name.cmp(&other.name))
    }
}

/// A policy and where it stands.
pub(crate) struct Placed {
    pub(crate) tier: TierPlace,
    /// Infinite: not said, last.
    pub(crate) order: f64,
    pub(crate) name: String,
    pub(crate) policy: Box<dyn Policy>,
}

/// All objects, read.
pub(crate) struct Reference {
    world: World,
    /// In the order they are asked.
    policies: Vec<Placed>,
}

impl Reference {
    pub(crate) fn read(objects: &[Value]) -> Self {
        let mut world = World::default();
        objects.iter().for_each(|object| world.add(object));
        let tiers: Vec<Value> = objects.iter().filter(|object| object["kind"] == "Tier").cloned().collect();
        let mut policies: Vec<Placed> =
            objects.iter().filter_map(|object| placed(object, &tiers, objects)).collect();
        policies.sort_by(|a, b| {
            let by_order = a.order.total_cmp(&b.order);
            a.tier.compare(&b.tier).then(by_order).then_with(|| a.name.cmp(&b.name))
        });
        Self { world, policies }
    }

    /// What the sender's egress and the receiver's ingress say of the first packet of a flow.
    pub(crate) fn judge(&self, flow: &Flow<'_>) -> [Verdict; 2] {
        // The node reaches the pods that are on it: probes.
        let is_own_node = flow.from.who == Who::Node && flow.from.node == flow.to.node;
        let ingress = if is_own_node { Verdict::OPEN } else { self.ask(flow, flow.to, Direction::Ingress) };
        [self.ask(flow, flow.from, Direction::Egress), ingress]
    }

    fn ask(&self, flow: &Flow<'_>, own: &End, direction: Direction) -> Verdict {
        // What is no pod has no policy.
        let Some(pod) = self.world.pod(own) else { return Verdict::OPEN };
        let mut logged = false;
        for tier in self.policies.chunk_by(|a, b| a.tier.compare(&b.tier) == Ordering::Equal) {
            let applying: Vec<_> =
                tier.iter().filter(|placed| placed.policy.applies(&self.world, pod, direction)).collect();
            if applying.is_empty() {
                continue;
            }
            let said = applying.iter().find_map(|Placed { policy, .. }| {
                logged |= policy.logs(&self.world, flow, direction);
                policy.says(&self.world, flow, direction)
            });
            match (said, tier[0].tier.end) {
                (Some(Said::Allow), _) => return Verdict { allowed: true, logged },
                (Some(Said::Deny), _) | (None, TierEnd::Deny) => return Verdict { allowed: false, logged },
                (Some(Said::Pass), _) | (None, TierEnd::Pass) => {}
            }
        }
        Verdict { allowed: true, logged }
    }
}

/// The policy an object is, if it is one.
fn placed(object: &Value, tiers: &[Value], objects: &[Value]) -> Option<Placed> {
    let metadata = &object["metadata"];
    let (kind, version) = (object["kind"].as_str()?, object["apiVersion"].as_str()?);
    let spec = object["spec"].clone();
    match (kind, version) {
        ("NetworkPolicy", "networking.k8s.io/v1") => {
            let policy = network_policy::NetworkPolicy::read(text(&metadata["namespace"]), spec);
            let (tier, name) = (TierPlace::built_in("default").unwrap(), text(&metadata["name"]));
            Some(Placed { tier, order: 1000.0, name, policy: Box::new(policy) })
        }
        ("ClusterNetworkPolicy" | "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy", _) => {
            Some(cluster_policy::read(kind, text(&metadata["name"]), spec))
        }
        ("NetworkPolicy" | "GlobalNetworkPolicy", "projectcalico.org/v3") => {
            Some(calico::read(object, tiers))
        }
        ("Profile", _) => calico::read_profile(object, objects),
        // Staged kinds say what would be.
        _ => None,
    }
}

/// Whether a CIDR covers an address. A bare address is a CIDR of itself.
pub(crate) fn covers(cidr: &str, address: IpAddr) -> bool {
    let net = cidr.parse::<IpNet>().or_else(|_| cidr.parse::<IpAddr>().map(IpNet::from)).unwrap();
    net.contains(&address)
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
