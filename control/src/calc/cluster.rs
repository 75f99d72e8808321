//! The cluster as its objects tell it, with what they leave open or contradict settled: who has which address.
//!
//! - A pod's addresses are those of its endpoints; when it has none, those of its status (another engine's pod).
//! - An address has one owner. Nodes come before endpoints, endpoints before pods without one, then the first by name;
//!   whoever else claims it goes without, and that is a problem told.
//! - A pod on the host's network has no address of its own: it is the node.
//! - An endpoint whose pod has no Pod object (yet) is a pod of unknown labels; what that means is for policy to say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use vswitch_model::Mac;

use super::Inputs;
use super::referred::Referred;
use crate::object::{Endpoint, Flannel, Labels, Node, Protocol, Vxlan};

/// Name, protocol and number of a port.
pub(super) type NamedPort = (String, Protocol, u16);

/// Everything with addresses.
#[derive(Debug, Default)]
pub(super) struct Cluster<'a> {
    pub(super) pods: Vec<PodView<'a>>,
    pub(super) nodes: BTreeMap<&'a str, NodeView<'a>>,
    pub(super) owners: BTreeMap<IpAddr, Owner<'a>>,
    pub(super) referred: Arc<Referred>,
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// A node, by name.
    Node(&'a str),
    /// A pod, by its place in the list.
    Pod(usize),
}

/// A pod, or a container that is none (namespace and name empty).
#[derive(Debug)]
pub(super) struct PodView<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// None: not known.
    pub(super) labels: Option<Labels>,
    /// Name of its service account. None: not known.
    pub(super) account: Option<&'a str>,
    /// Sorted; one number for a name and protocol.
    pub(super) ports: Vec<NamedPort>,
    /// Its addresses and the node each is on, as far as known.
    pub(super) addresses: BTreeMap<IpAddr, Option<&'a str>>,
    /// Its endpoints, and which of their addresses are theirs.
    pub(super) endpoints: Vec<(&'a Endpoint, Vec<IpAddr>)>,
}

/// A node's addresses.
#[derive(Debug, Default)]
pub(super) struct NodeView<'a> {
    pub(super) name: &'a str,
    pub(super) underlay_v4: Option<Ipv4Net>,
    pub(super) underlay_v6: Option<Ipv6Net>,
    pub(super) tunnel_v4: Option<Ipv4Addr>,
    /// Another than that, for IP-in-IP.
    pub(super) ip_in_ip_v4: Option<Ipv4Addr>,
    pub(super) tunnel_v6: Option<Ipv6Addr>,
    pub(super) vtep_mac_v4: Mac,
    pub(super) vtep_mac_v6: Mac,
    /// The VXLAN network it says it has an end of.
    pub(super) vxlan: Option<Vxlan>,
    /// What it is to flannel's nodes.
    pub(super) flannel: Option<Flannel>,
    /// Whether it is one of these: it speaks flannel's VXLAN, and no other.
    pub(super) is_flannels: bool,
    pub(super) labels: Labels,
    /// All of them.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl<'a> Cluster<'a> {
    pub(super) fn of(inputs: &'a Inputs, problems: &mut BTreeSet<String>) -> Self {
        let mut cluster = Self::default();
        for (name, node) in &inputs.nodes {
            let mut view = NodeView::of(name, node);
            view.addresses.retain(|address| cluster.claim(*address, Owner::Node(name), problems));
            view.underlay_v4 = view.underlay_v4.filter(|net| view.addresses.contains(&net.addr().into()));
            view.underlay_v6 = view.underlay_v6.filter(|net| view.addresses.contains(&net.addr().into()));
            view.tunnel_v4 = view.tunnel_v4.filter(|address| view.addresses.contains(&(*address).into()));
            view.tunnel_v6 = view.tunnel_v6.filter(|address| view.addresses.contains(&(*address).into()));
            view.ip_in_ip_v4 = view.ip_in_ip_v4.filter(|address| view.addresses.contains(&(*address).into()));
            cluster.nodes.insert(name, view);
        }
        cluster.add_endpoints(inputs, problems);
        cluster.add_pods_without_endpoint(inputs, problems);
        let mut referred = Referred::of(inputs);
        cluster.pods.iter().for_each(|pod| referred.describe_namespace(pod.namespace));
        cluster.referred = Arc::new(referred);
        cluster
    }

    fn add_endpoints(&mut self, inputs: &'a Inputs, problems: &mut BTreeSet<String>) {
        let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for endpoint in inputs.endpoints.values() {
            let spec = &endpoint.spec;
            let place = match places.get(&(spec.namespace.as_str(), spec.pod.as_str())) {
                // Containers that are no pods have no name by which two of them could be one.
                Some(place) if !spec.pod.is_empty() => *place,
                _ => {
                    self.add_pod(&spec.namespace, &spec.pod, inputs);
                    self.pods.len() - 1
                }
            };
            places.insert((&spec.namespace, &spec.pod), place);
            let own: Vec<_> = spec
                .addresses
                .iter()
                .copied()
                .filter(|address| self.claim_for_pod(*address, place, Some(&spec.node), problems))
                .collect();
            self.pods[place].endpoints.push((endpoint, own));
        }
    }

    fn add_pods_without_endpoint(&mut self, inputs: &'a Inputs, problems: &mut BTreeSet<String>) {
        let attached: BTreeSet<_> = self.pods.iter().map(|pod| (pod.namespace, pod.name)).collect();
        for ((namespace, name), pod) in &inputs.pods {
            let addresses = pod.addresses();
            if addresses.is_empty() || attached.contains(&(namespace.as_str(), name.as_str())) {
                continue;
            }
            self.add_pod(namespace, name, inputs);
            for address in addresses {
                self.claim_for_pod(address, self.pods.len() - 1, pod.spec.node_name.as_deref(), problems);
            }
        }
    }

    fn add_pod(&mut self, namespace: &'a str, name: &'a str, inputs: &'a Inputs) {
        let object = inputs.pods.find(namespace, name);
        self.pods.push(PodView {
            namespace,
            name,
            labels: object.map(|pod| pod.metadata.labels.clone()),
            account: object.map(|pod| pod.service_account()),
            ports: object.map(|pod| pod.named_ports()).unwrap_or_default(),
            addresses: BTreeMap::new(),
            endpoints: Vec::new(),
        });
    }

    fn claim_for_pod(
        &mut self,
        address: IpAddr,
        place: usize,
        node: Option<&'a str>,
        problems: &mut BTreeSet<String>,
    ) -> bool {
        let claimed = self.claim(address, Owner::Pod(place), problems);
        if claimed {
            self.pods[place].addresses.insert(address, node);
        }
        claimed
    }

    fn claim(&mut self, address: IpAddr, owner: Owner<'a>, problems: &mut BTreeSet<String>) -> bool {
        match self.owners.get(&address).copied() {
            None => {
                self.owners.insert(address, owner);
                true
            }
            Some(first) => {
                let (first, owner) = (self.describe(first), self.describe(owner));
                problems.insert(format!("{owner} goes without address {address}: it is that of {first}"));
                false
            }
        }
    }

    fn describe(&self, owner: Owner<'_>) -> String {
        match owner {
            Owner::Node(name) => format!("node {name}"),
            Owner::Pod(place) => match &self.pods[place] {
                PodView { name: "", .. } => "a container that is no pod".to_owned(),
                PodView { namespace, name, .. } => format!("pod {namespace}/{name}"),
            },
        }
    }
}

impl PodView<'_> {
    /// Whether two of its addresses are in one sandbox, so that what goes between them never leaves it.
    pub(super) fn has_together(&self, one: IpAddr, other: IpAddr) -> bool {
        let has_both = |addresses: &[IpAddr]| addresses.contains(&one) && addresses.contains(&other);
        self.endpoints.is_empty() || self.endpoints.iter().any(|(_, addresses)| has_both(addresses))
    }
}

/// Labels for people: `{app=web}`.
pub(super) fn describe_labels(labels: Option<&Labels>) -> String {
    let Some(labels) = labels else { return "{labels unknown}".to_owned() };
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

impl<'a> NodeView<'a> {
    fn of(name: &'a str, node: &Node) -> Self {
        // Objects are valid: an annotation that is there can be read.
        fn read<T: std::str::FromStr>(node: &Node, annotation: &str) -> Option<T> {
            node.annotation(annotation, "").ok().flatten()
        }
        let known: Vec<IpAddr> = node
            .status
            .addresses
            .iter()
            .filter(|address| matches!(address.kind.as_str(), "InternalIP" | "ExternalIP"))
            .filter_map(|address| address.address.parse().ok())
            .filter(|address: &IpAddr| {
                !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
            })
            .collect();
        let known_v4 =
            known.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(Ipv4Net::from(*a)) } else { None });
        let known_v6 =
            known.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(Ipv6Net::from(*a)) } else { None });
        let tunnel_v4: Option<Ipv4Addr> = read(node, Node::IPV4_TUNNEL_ADDRESS);
        let ip_in_ip_v4: Option<Ipv4Addr> = read(node, Node::IPV4_IPIP_ADDRESS);
        let flannel = Flannel::of(node);
        let flannel_v4 =
            flannel.as_ref().and_then(|flannel| flannel.v4).and_then(|vtep| match vtep.address {
                IpAddr::V4(address) => Some(Ipv4Net::from(address)),
                IpAddr::V6(_) => None,
            });
        let flannel_v6 =
            flannel.as_ref().and_then(|flannel| flannel.v6).and_then(|vtep| match vtep.address {
                IpAddr::V6(address) => Some(Ipv6Net::from(address)),
                IpAddr::V4(_) => None,
            });
        let mut view = Self {
            name,
            underlay_v4: read(node, Node::IPV4_ADDRESS).or(flannel_v4).or(known_v4),
            underlay_v6: read(node, Node::IPV6_ADDRESS).or(flannel_v6).or(known_v6),
            tunnel_v4: tunnel_v4.or(ip_in_ip_v4),
            ip_in_ip_v4: ip_in_ip_v4.filter(|address| tunnel_v4.is_some_and(|other| other != *address)),
            tunnel_v6: read(node, Node::IPV6_TUNNEL_ADDRESS),
            vtep_mac_v4: read(node, Node::VTEP_MAC_V4).unwrap_or_else(|| Mac::vtep_v4(name)),
            vtep_mac_v6: read(node, Node::VTEP_MAC_V6).unwrap_or_else(|| Mac::vtep_v6(name)),
            vxlan: read(node, Node::VXLAN),
            flannel,
            is_flannels: node.is_flannels(),
            labels: node.metadata.labels.clone(),
            addresses: known.into_iter().collect(),
        };
        view.addresses.extend(view.underlay_v4.map(|net| IpAddr::from(net.addr())));
        view.addresses.extend(view.underlay_v6.map(|net| IpAddr::from(net.addr())));
        view.addresses.extend(view.tunnel_v4.map(IpAddr::from));
        view.addresses.extend(view.ip_in_ip_v4.map(IpAddr::from));
        view.addresses.extend(view.tunnel_v6.map(IpAddr::from));
        view
    }

    /// Its own addresses in the pods' network, one of each family.
    pub(super) fn tunnel_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.tunnel_v4.map(IpAddr::from).into_iter().chain(self.tunnel_v6.map(IpAddr::from))
    }

    /// All of them: Calico's nodes may have one more for IP-in-IP.
    pub(super) fn all_tunnel_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.tunnel_addresses().chain(self.ip_in_ip_v4.map(IpAddr::from))
    }
}
