//! The networks that demo, scenario tests and measurements run on, described once.
//!
//! ```text
//!                  underlay namespace: bridge, etcd at 10.89.0.1
//!              10.89.0.11 |                        | 10.89.0.12        fd89::11, fd89::12
//!                 node1 (eth0)                 node2 (eth0)            one namespace each: vswitchd, vswitch-agent
//!                  /        \                   /        \
//!             caller        stranger         relay       far           one namespace each: a pod with eth0
//! ```

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Prefix length of the underlay's IPv4 network.
pub const UNDERLAY_V4_LENGTH: u8 = 24;
/// Prefix length of the underlay's IPv6 network.
pub const UNDERLAY_V6_LENGTH: u8 = 64;
/// Where etcd is.
pub const ETCD: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
/// MTU of the underlay, in bytes.
pub const UNDERLAY_MTU: u16 = 1500;
/// The uplink's name on every node.
pub const UPLINK: &str = "eth0";
/// The second uplink's, where there is one.
pub const UPLINK_2: &str = "eth1";
/// VXLAN network of all nodes, as Calico's.
pub const VNI: u32 = 4096;
/// UDP port of VXLAN.
pub const VXLAN_PORT: u16 = 4789;

/// What forwards a node's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// vswitchd, fed by vswitch-agent.
    Vswitch,
    /// The kernel, set up as Calico sets it up: veth pods with host routes, `vxlan.calico` and `vxlan-v6.calico`
    /// between nodes. The yardstick, and the peer in tests of interoperation.
    Kernel,
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name, and its namespace's.
    pub name: String,
    /// Its number, from 1: decides its addresses.
    pub number: u8,
    /// What forwards its packets.
    pub datapath: Datapath,
}

impl Node {
    /// Its address on the underlay.
    #[must_use]
    pub fn underlay_v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 89, 0, 10 + self.number)
    }

    /// Its addresses on the second underlay, where there is one.
    #[must_use]
    pub fn second_addresses(&self) -> (Ipv4Addr, Ipv6Addr) {
        let number = 10 + self.number;
        (Ipv4Addr::new(10, 90, 0, number), Ipv6Addr::new(0xfd90, 0, 0, 0, 0, 0, 0, number.into()))
    }

    /// Its IPv6 address on the underlay.
    #[must_use]
    pub fn underlay_v6(&self) -> Ipv6Addr {
        // Written as the IPv4 one: fd89::11 for 10.89.0.11.
        Ipv6Addr::new(0xfd89, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(self.number))
    }

    /// The block of the IPv4 pool that a kernel node uses. (A vswitch node takes its blocks from the IPAM.)
    #[must_use]
    pub fn block_v4(&self) -> Ipv4Net {
        Ipv4Net::new(Ipv4Addr::new(10, 44, 100 + self.number, 0), 26).expect("26 is a length")
    }

    /// The block of the IPv6 pool that a kernel node uses.
    #[must_use]
    pub fn block_v6(&self) -> Ipv6Net {
        let address = Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0x100 + u16::from(self.number), 0);
        Ipv6Net::new(address, 122).expect("122 is a length")
    }
}

/// A pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its namespace in Kubernetes' sense.
    pub namespace: String,
    /// Its name; unique in the whole topology, since the network namespace is called by it.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Whether it asks for a tun.
    pub tun: bool,
}

impl Pod {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A namespace in Kubernetes' sense.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels, besides the one every namespace has (`kubernetes.io/metadata.name`).
    pub labels: Vec<(String, String)>,
}

/// A whole network.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Pools of pod addresses, one of each family.
    pub pools: Vec<IpNet>,
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// The pods.
    pub pods: Vec<Pod>,
    /// MTU of the pods, in bytes: the underlay's, less VXLAN over IPv6.
    pub pod_mtu: u16,
}

impl Topology {
    /// Two vswitch nodes, both pools, no namespaces and no pods yet.
    #[must_use]
    pub fn two_nodes() -> Self {
        let node = |number| Node { name: format!("node{number}"), number, datapath: Datapath::Vswitch };
        let v4 = Ipv4Net::new(Ipv4Addr::new(10, 44, 0, 0), 16).expect("16 is a length");
        let v6 = Ipv6Net::new(Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, 0), 64).expect("64 is a length");
        Self {
            nodes: vec![node(1), node(2)],
            pools: vec![v4.into(), v6.into()],
            namespaces: Vec::new(),
            pods: Vec::new(),
            pod_mtu: UNDERLAY_MTU - 70,
        }
    }

    /// One vswitch node.
    #[must_use]
    pub fn one_node() -> Self {
        let mut topology = Self::two_nodes();
        topology.nodes.truncate(1);
        topology
    }

    /// The demo's network: a caller and a relay of the namespace `media` on two nodes, a stranger of another
    /// namespace, and three pods without policy for bulk traffic.
    #[must_use]
    pub fn demo() -> Self {
        Self::two_nodes()
            .namespace("media", &[("purpose", "voice")])
            .namespace("guest", &[("purpose", "other")])
            .namespace("bulk", &[])
            .pod("media/caller", "node1", &[("role", "caller")])
            .pod("media/relay", "node2", &[("role", "relay")])
            .pod("guest/stranger", "node1", &[("role", "caller")])
            .pod("bulk/near", "node1", &[])
            .pod("bulk/beside", "node1", &[])
            .pod("bulk/far", "node2", &[])
    }

    /// The same with one more namespace.
    #[must_use]
    pub fn namespace(mut self, name: &str, labels: &[(&str, &str)]) -> Self {
        self.namespaces.push(Namespace { name: name.to_owned(), labels: owned(labels) });
        self
    }

    /// The same with one more pod, `key` being `namespace/name`.
    ///
    /// # Panics
    /// When the key has no slash.
    #[must_use]
    pub fn pod(mut self, key: &str, node: &str, labels: &[(&str, &str)]) -> Self {
        let (namespace, name) = key.split_once('/').expect("a pod is named namespace/name");
        self.pods.push(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            labels: owned(labels),
            tun: false,
        });
        self
    }

    /// The same with a tun as the port of the pod that came last.
    #[must_use]
    pub fn with_tun(mut self) -> Self {
        if let Some(pod) = self.pods.last_mut() {
            pod.tun = true;
        }
        self
    }

    /// The same with a node that its kernel forwards for.
    #[must_use]
    pub fn kernel_node(mut self, name: &str) -> Self {
        for node in self.nodes.iter_mut().filter(|node| node.name == name) {
            node.datapath = Datapath::Kernel;
        }
        self
    }

    /// The same with all nodes forwarded by the kernel.
    #[must_use]
    pub fn on_kernel(mut self) -> Self {
        for node in &mut self.nodes {
            node.datapath = Datapath::Kernel;
        }
        self
    }

    /// The objects that tell the control plane of this network, as Kubernetes-style YAML: pools, namespaces, pods.
    #[must_use]
    pub fn manifest(&self) -> String {
        let mut text = String::new();
        for pool in &self.pools {
            let (name, block_size) = match pool {
                IpNet::V4(_) => ("pods-v4", pool.prefix_len().max(26)),
                IpNet::V6(_) => ("pods-v6", pool.prefix_len().max(122)),
            };
            let _ = write!(
                text,
                "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: {name}\nspec:\n  cidr: {pool}\n  \
                 blockSize: {block_size}\n  vxlanMode: Always\n"
            );
        }
        for namespace in &self.namespaces {
            let _ =
                write!(text, "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {}\n", namespace.name);
            let own = ("kubernetes.io/metadata.name".to_owned(), namespace.name.clone());
            write_labels(&mut text, std::iter::once(&own).chain(&namespace.labels));
        }
        for pod in &self.pods {
            text.push_str(&pod.manifest());
        }
        text
    }
}

impl Pod {
    /// The pod as Kubernetes-style YAML.
    #[must_use]
    pub fn manifest(&self) -> String {
        let mut text = format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {}\n",
            self.name, self.namespace
        );
        write_labels(&mut text, self.labels.iter());
        if self.tun {
            text.push_str("  annotations:\n    vswitch/port: tun\n");
        }
        let _ = write!(text, "spec:\n  nodeName: {}\n", self.node);
        text
    }
}

fn write_labels<'a>(text: &mut String, labels: impl Iterator<Item = &'a (String, String)>) {
    let mut labels = labels.peekable();
    if labels.peek().is_some() {
        text.push_str("  labels:\n");
    }
    for (key, value) in labels {
        let _ = writeln!(text, "    {key}: {value}");
    }
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Whether an address is of the same family as another.
#[must_use]
pub fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pods_refer_to_is_there() {
        let demo = Topology::demo();
        for pod in &demo.pods {
            assert!(demo.nodes.iter().any(|node| node.name == pod.node), "{}", pod.key());
            assert!(demo.namespaces.iter().any(|namespace| namespace.name == pod.namespace), "{}", pod.key());
            assert_eq!(demo.pods.iter().filter(|other| other.name == pod.name).count(), 1, "{}", pod.key());
        }
    }

    #[test]
    fn blocks_of_kernel_nodes_are_in_the_pools() {
        let topology = Topology::two_nodes();
        for node in &topology.nodes {
            assert!(topology.pools.iter().any(|pool| pool.contains(&IpNet::V4(node.block_v4()))));
            assert!(topology.pools.iter().any(|pool| pool.contains(&IpNet::V6(node.block_v6()))));
        }
    }

    #[test]
    fn the_manifest_has_one_document_for_each_object() {
        let demo = Topology::demo();
        let text = demo.manifest();
        assert_eq!(
            text.matches("\nkind: ").count(),
            demo.pools.len() + demo.namespaces.len() + demo.pods.len()
        );
        assert!(text.contains(
            "  name: relay\n  namespace: media\n  labels:\n    role: relay\nspec:\n  nodeName: node2\n"
        ));
    }
}
