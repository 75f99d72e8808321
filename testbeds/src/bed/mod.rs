//! Builds a [`Topology`] out of network namespaces, runs it, and takes it away.

pub mod api;
pub mod cni;
pub mod guest;
pub mod kernel;
pub mod node;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_model::Mac;

use self::cni::{Answer, Container};
use self::kernel::{KernelNode, Peer};
use self::node::VswitchNode;
use crate::command::{run, wait_for};
use crate::netns::Netns;
use crate::process::Daemon;
use crate::run::Run;
use crate::topology::{self, Datapath, Node, Topology, UPLINK};
use crate::{Error, Result};

/// Where agents keep what they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// One etcd, on the underlay.
    Etcd,
    /// A file of each agent's own: for a single node.
    Embedded,
}

/// What can be set of a bed, besides its topology.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where agents keep what they share.
    pub store: Store,
    /// What workers do when no packet waits: `busy` or `adaptive`.
    pub poll: String,
    /// What the daemons log.
    pub log: String,
    /// Frames of each engine; None: its default.
    pub frames: Option<u32>,
    /// Flows of each engine; None: its default.
    pub flows: Option<u32>,
    /// Workers of each engine, a core each.
    pub workers: usize,
    /// Queues of each node's uplinks.
    pub queues: u32,
    /// Whether each node has a second uplink, plugged into another bridge: the addresses of the others lead that way, too, where
    /// the first has no carrier.
    pub two_uplinks: bool,
    /// Seconds before an address is used again; None: the agents' default.
    pub cool_down_s: Option<u32>,
    /// `mtu` in the configuration of the CNI plugin; None: what the agent says.
    pub cni_mtu: Option<u16>,
    /// Whether kernel nodes send the outer UDP headers of VXLAN with a checksum, of both families, or with zero in its place.
    pub kernel_checksums: bool,
    /// Whether pods are attached when the bed comes up.
    pub attach: bool,
}

fn bridges(two: bool) -> &'static [&'static str] {
    if two { &["br0", "br1"] } else { &["br0"] }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            store: Store::Etcd,
            poll: "adaptive".to_owned(),
            log: "info".to_owned(),
            frames: None,
            flows: None,
            workers: 1,
            queues: 1,
            two_uplinks: false,
            cool_down_s: None,
            cni_mtu: None,
            kernel_checksums: true,
            attach: true,
        }
    }
}

/// A network that stands. Dropping it takes it away, unless [`Bed::keep`] was called.
#[derive(Debug)]
pub struct Bed {
    /// What was built.
    pub topology: Topology,
    /// The namespace of the underlay: a bridge that all uplinks are plugged into.
    pub underlay: Netns,
    run: Run,
    settings: Settings,
    binaries: PathBuf,
    vswitch: BTreeMap<String, VswitchNode>,
    kernel: BTreeMap<String, KernelNode>,
    containers: BTreeMap<String, Container>,
    attached: u32,
    etcd: Option<Daemon>,
    keep: bool,
}

impl Bed {
    /// Builds a topology under a run id: underlay, etcd, nodes, objects, pods.
    pub fn up(id: &str, topology: Topology, settings: Settings) -> Result<Self> {
        let mut run = Run::begin(id)?;
        let underlay = run.netns("underlay")?;
        let mut bed = Self {
            topology,
            underlay,
            run,
            settings,
            binaries: binaries()?,
            vswitch: BTreeMap::new(),
            kernel: BTreeMap::new(),
            containers: BTreeMap::new(),
            attached: 0,
            etcd: None,
            keep: false,
        };
        bed.build()?;
        Ok(bed)
    }

    fn build(&mut self) -> Result<()> {
        self.build_underlay()?;
        for node in self.topology.nodes.clone() {
            let netns = self.run.netns(&node.name)?;
            self.plug(&node, &netns)?;
            match node.datapath {
                Datapath::Kernel => {
                    let kernel = KernelNode::prepare(
                        &node,
                        netns,
                        self.topology.pod_mtu,
                        self.settings.kernel_checksums,
                    )?;
                    self.kernel.insert(node.name, kernel);
                }
                Datapath::Vswitch => {
                    let vswitch =
                        VswitchNode::prepare(&self.run, &node, netns, &self.binaries, &self.settings)?;
                    self.vswitch.insert(node.name, vswitch);
                }
            }
        }
        if !self.vswitch.is_empty() && self.settings.store == Store::Etcd {
            self.start_etcd()?;
        }
        self.start_nodes()?;
        if self.settings.attach {
            for key in self.topology.pods.iter().map(topology::Pod::key).collect::<Vec<_>>() {
                self.attach(&key)?;
            }
            self.connect_kernel_nodes()?;
        }
        Ok(())
    }

    fn build_underlay(&self) -> Result<()> {
        let underlay = &self.underlay;
        for (number, bridge) in (1..).zip(bridges(self.settings.two_uplinks)) {
            // An address of its own: else it is the lowest of its ports', another when a node is plugged in later, and etcd
            // is away until neighbours ask anew.
            let address = Mac([2, 0, 0, 0, 0xbb, number]);
            underlay.ip(&format!(
                "link add {bridge} address {address} type bridge forward_delay 0 mcast_snooping 0"
            ))?;
            underlay.ip(&format!("link set {bridge} up"))?;
        }
        underlay.ip(&format!("addr add {}/{} dev br0", topology::ETCD, topology::UNDERLAY_V4_LENGTH))?;
        Ok(())
    }

    /// Plugs a node into the underlay: a cable without offloads, as frames on a wire are whole.
    fn plug(&self, node: &Node, netns: &Netns) -> Result<()> {
        // A node of some age: its link-local address is no longer being checked for duplicates, and may be used to ask
        // for neighbours.
        for of in ["all", "default"] {
            netns.sysctl(&format!("net.ipv6.conf.{of}.accept_dad"), "0")?;
        }
        let uplink = UPLINK;
        self.cable(netns, uplink, &node.name, "br0")?;
        netns.ip(&format!(
            "addr add {}/{} dev {uplink}",
            node.underlay_v4(),
            topology::UNDERLAY_V4_LENGTH
        ))?;
        netns.ip(&format!(
            "addr add {}/{} dev {uplink} nodad",
            node.underlay_v6(),
            topology::UNDERLAY_V6_LENGTH
        ))?;
        netns.ip(&format!("link set {uplink} up"))?;
        netns.ip(&format!("route add default via {}", topology::ETCD))?;
        if self.settings.two_uplinks { self.plug_again(node, netns) } else { Ok(()) }
    }

    fn cable(&self, netns: &Netns, near: &str, far: &str, bridge: &str) -> Result<()> {
        let (underlay, mtu) = (&self.underlay, topology::UNDERLAY_MTU);
        let queues = format!("numrxqueues {0} numtxqueues {0}", self.settings.queues);
        netns.ip(&format!(
            "link add {near} mtu {mtu} {queues} type veth peer name {far} mtu {mtu} {queues} netns {}",
            underlay.name()
        ))?;
        underlay.ip(&format!("link set {far} master {bridge} up"))?;
        underlay.run(&format!("ethtool -K {far} tx off gro on"))?;
        netns.run(&format!("ethtool -K {near} tx off gro on"))?;
        Ok(())
    }

    /// Plugs a node into the second bridge as well, with addresses there that are next hops to the node's own: by these the others
    /// reach it where the first uplink has no carrier.
    fn plug_again(&self, node: &Node, netns: &Netns) -> Result<()> {
        let uplink = topology::UPLINK_2;
        self.cable(netns, uplink, &format!("{}-2", node.name), "br1")?;
        for of in ["all", UPLINK] {
            netns.sysctl(&format!("net.ipv4.conf.{of}.ignore_routes_with_linkdown"), "1")?;
            netns.sysctl(&format!("net.ipv6.conf.{of}.ignore_routes_with_linkdown"), "1")?;
            netns.sysctl(&format!("net.ipv4.conf.{of}.rp_filter"), "0")?;
        }
        let (v4, v6) = node.second_addresses();
        netns.ip(&format!("addr add {v4}/{} dev {uplink}", topology::UNDERLAY_V4_LENGTH))?;
        netns.ip(&format!("addr add {v6}/{} dev {uplink} nodad", topology::UNDERLAY_V6_LENGTH))?;
        netns.ip(&format!("link set {uplink} up"))?;
        for other in self.topology.nodes.iter().filter(|other| other.number != node.number) {
            let ((v4, v6), (via_v4, via_v6)) =
                ((other.underlay_v4(), other.underlay_v6()), other.second_addresses());
            netns.ip(&format!("route add {v4} dev {UPLINK} src {}", node.underlay_v4()))?;
            netns.ip(&format!("route add {v4} via {via_v4} metric 500 src {}", node.underlay_v4()))?;
            netns.ip(&format!("route add {v6} dev {UPLINK} metric 100"))?;
            netns.ip(&format!("route add {v6} via {via_v6} metric 500"))?;
        }
        Ok(())
    }

    fn start_nodes(&mut self) -> Result<()> {
        if self.vswitch.is_empty() {
            return Ok(());
        }
        for node in self.vswitch.values_mut() {
            node.start_engine()?;
            node.start_agent()?;
        }
        self.note()?;
        for node in self.vswitch.values_mut() {
            node.wait_engine()?;
            node.wait_agent()?;
        }
        let manifest = self.topology.manifest();
        let file = self.run.write("cluster.yaml", &manifest)?;
        self.apply_file(&file)?;
        for kernel in self.topology.nodes.iter().filter(|node| node.datapath == Datapath::Kernel) {
            self.apply(&kernel_node_manifest(kernel))?;
        }
        for node in self.vswitch.values_mut() {
            node.wait_ready()?;
        }
        Ok(())
    }

    /// Starts etcd and waits until it listens.
    pub fn start_etcd(&mut self) -> Result<()> {
        let client = format!("http://{}:2379", topology::ETCD);
        let mut command = self.underlay.command("etcd");
        command.arg("--data-dir").arg(self.run.file("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--log-level", "error"]);
        let mut etcd = Daemon::start(&mut command, &self.run.file("etcd.log"))?;
        self.run.note(etcd.id())?;
        let address = SocketAddr::new(IpAddr::V4(topology::ETCD), 2379);
        wait_for("etcd to listen", Duration::from_secs(15), || {
            etcd.check()?;
            let connected = self.underlay.enter(|| TcpStream::connect(address))?;
            connected.map(drop).map_err(|error| Error::other(error.to_string()))
        })?;
        self.etcd = Some(etcd);
        Ok(())
    }

    /// Kills etcd; its data stay.
    pub fn kill_etcd(&mut self) {
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill();
        }
    }

    /// Notes all processes in the run's file. To be called after a daemon was started anew.
    pub fn note(&mut self) -> Result<()> {
        let processes: Vec<_> = self.vswitch.values().flat_map(VswitchNode::processes).collect();
        for process in processes {
            self.run.note(Some(process))?;
        }
        Ok(())
    }

    /// A file of the run.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.run.file(name)
    }

    /// The run's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.run.id()
    }

    /// A node of ours.
    pub fn node(&self, name: &str) -> Result<&VswitchNode> {
        self.vswitch.get(name).ok_or_else(|| Error::other(format!("no vswitch node {name}")))
    }

    /// A node of ours, to start and stop its processes.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut VswitchNode> {
        self.vswitch.get_mut(name).ok_or_else(|| Error::other(format!("no vswitch node {name}")))
    }

    /// The nodes of ours.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &VswitchNode)> {
        self.vswitch.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// A node's network namespace, whoever forwards there.
    pub fn netns(&self, node: &str) -> Result<&Netns> {
        let vswitch = self.vswitch.get(node).map(|node| &node.netns);
        let netns = vswitch.or_else(|| self.kernel.get(node).map(|node| &node.netns));
        netns.ok_or_else(|| Error::other(format!("no node {node}")))
    }

    /// An attached pod, by `namespace/name`.
    pub fn pod(&self, key: &str) -> Result<&Container> {
        self.containers.get(key).ok_or_else(|| Error::other(format!("{key} is not attached")))
    }

    /// A pod's address of the same family as an example of it (`0.0.0.0` or `::`).
    pub fn address(&self, key: &str, family: IpAddr) -> Result<IpAddr> {
        let addresses = self.pod(key)?.addresses()?;
        let found = addresses.into_iter().find(|address| topology::same_family(*address, family));
        found.ok_or_else(|| Error::other(format!("{key} has no address of the family of {family}")))
    }

    /// A namespace more, plugged into the underlay as this node, for a test to make of it what it likes.
    pub fn plug_in(&mut self, node: &Node) -> Result<Netns> {
        let netns = self.run.netns(&node.name)?;
        self.plug(node, &netns)?;
        Ok(netns)
    }

    /// Writes objects given as YAML, by `vsctl apply -f` against the first node's agent.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let path = self.run.write("applied.yaml", yaml)?;
        self.apply_file(&path)
    }

    /// The same for a file or folder.
    pub fn apply_file(&self, path: &Path) -> Result<()> {
        let path = path.to_string_lossy();
        let (_, first) =
            self.vswitch.first_key_value().ok_or_else(|| Error::other("no node has an agent"))?;
        first.vsctl(&["apply", "-f", &path])?;
        Ok(())
    }

    /// Adds a pod to the topology and applies it as an object; it is not attached yet.
    pub fn add_pod(&mut self, key: &str, node: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.topology = std::mem::take(&mut self.topology).pod(key, node, labels);
        let manifest = self.topology.pods.last().map(topology::Pod::manifest).unwrap_or_default();
        self.apply(&manifest)
    }

    /// The container of a pod of the topology, in a fresh namespace, not attached yet.
    pub fn container(&mut self, key: &str) -> Result<Container> {
        let pod = self.topology.pods.iter().find(|pod| pod.key() == key).cloned();
        let pod = pod.ok_or_else(|| Error::other(format!("no pod {key} in the topology")))?;
        self.attached += 1;
        // A pod's first namespace is called by it, later ones by a number as well.
        let taken = Netns::named(format!("vsw-{}-{}", self.run.id(), pod.name)).path().exists();
        let name = if taken { format!("{}-{}", pod.name, self.attached) } else { pod.name.clone() };
        let netns = self.run.netns(&name)?;
        Ok(Container::new(&pod, netns, self.attached))
    }

    /// Attaches a pod of the topology in a fresh namespace.
    pub fn attach(&mut self, key: &str) -> Result<()> {
        let mut container = self.container(key)?;
        self.attach_container(&mut container)?.map_err(|error| {
            Error::other(format!("attaching {key} failed with CNI error {}: {}", error.code, error.text))
        })?;
        self.containers.insert(key.to_owned(), container);
        Ok(())
    }

    /// Attaches a container that is not kept under its pod's name.
    pub fn attach_container(&mut self, container: &mut Container) -> Result<Answer<()>> {
        if let Some(kernel) = self.kernel.get_mut(&container.pod.node) {
            return kernel.attach(container).map(Ok);
        }
        self.node(&container.pod.node)?.network.add(container)
    }

    /// Detaches a pod and removes its namespace.
    pub fn detach(&mut self, key: &str) -> Result<()> {
        let container =
            self.containers.remove(key).ok_or_else(|| Error::other(format!("{key} is not attached")))?;
        if let Some(node) = self.vswitch.get(&container.pod.node) {
            node.network.delete(&container)?.map_err(|error| {
                Error::other(format!("detaching {key} failed with CNI error {}: {}", error.code, error.text))
            })?;
        }
        self.run.remove_netns(&container.netns)
    }

    /// Tells kernel nodes of all others; to be called again when a vswitch node got its first pod of a family.
    pub fn connect_kernel_nodes(&self) -> Result<()> {
        for kernel in self.kernel.values() {
            for peer in self.topology.nodes.iter() {
                if self.kernel.contains_key(&peer.name) {
                    if self.kernel[&peer.name].netns != kernel.netns {
                        kernel.add_peer(&Peer::kernel(peer))?;
                    }
                } else {
                    kernel.add_peer(&self.vswitch_peer(peer)?)?;
                }
            }
        }
        Ok(())
    }

    /// A vswitch node as a kernel node must know it: tunnel addresses from its Node object, blocks from its pods.
    fn vswitch_peer(&self, node: &Node) -> Result<Peer> {
        let objects = self.node(&node.name)?.agent()?.objects("Node")?;
        let object = objects.iter().find(|object| object["metadata"]["name"] == node.name.as_str());
        let annotation = |key: &str| -> Result<String> {
            let text = object
                .and_then(|o| o["metadata"]["annotations"][format!("projectcalico.org/{key}")].as_str());
            text.map(str::to_owned).ok_or_else(|| {
                Error::other(format!("the Node object of {} has no annotation {key}", node.name))
            })
        };
        let wrong = |_| Error::other(format!("the Node object of {} has a wrong tunnel address", node.name));
        let mut blocks = Vec::new();
        for container in self.containers.values().filter(|container| container.pod.node == node.name) {
            for address in container.addresses()? {
                blocks.push(match address {
                    IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new(v4, 26).expect("26 is a length").trunc()),
                    IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new(v6, 122).expect("122 is a length").trunc()),
                });
            }
        }
        blocks.sort_unstable();
        blocks.dedup();
        Ok(Peer {
            name: node.name.clone(),
            underlay_v4: node.underlay_v4(),
            underlay_v6: node.underlay_v6(),
            tunnel_v4: annotation("IPv4VXLANTunnelAddr")?.parse().map_err(wrong)?,
            tunnel_v6: annotation("IPv6VXLANTunnelAddr")?.parse().map_err(wrong)?,
            blocks,
        })
    }

    /// Leaves everything standing when this value goes.
    pub fn keep(&mut self) {
        self.keep = true;
        self.vswitch.values_mut().for_each(VswitchNode::leave);
        self.etcd.iter_mut().for_each(Daemon::leave);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if std::thread::panicking() {
            self.save_logs();
        }
        // The nodes first, while etcd and the underlay still stand.
        self.vswitch.clear();
        self.etcd = None;
        if let Err(error) = self.run.end() {
            eprintln!("testbed: taking down run {}: {error}", self.run.id());
        }
    }
}

impl Bed {
    /// After a failed test: keeps the daemons' logs and says where.
    fn save_logs(&self) {
        let to = std::env::temp_dir().join(format!("vswitch-testbed-{}", self.run.id()));
        let copied = run(Command::new("cp").arg("-rT").arg(self.run.folder()).arg(&to));
        match copied {
            Ok(_) => eprintln!("testbed: logs of the failed run are in {}", to.display()),
            Err(error) => eprintln!("testbed: cannot keep the logs: {error}"),
        }
    }
}

/// A kernel node as an object, with what Calico writes on one.
fn kernel_node_manifest(node: &Node) -> String {
    let peer = Peer::kernel(node);
    let [v4, v6] = [&peer.blocks[0], &peer.blocks[1]];
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  annotations:\n    \
         projectcalico.org/IPv4Address: {a4}/{l4}\n    projectcalico.org/IPv6Address: {a6}/{l6}\n    \
         projectcalico.org/IPv4VXLANTunnelAddr: {t4}\n    projectcalico.org/IPv6VXLANTunnelAddr: \"{t6}\"\n\
         spec:\n  podCIDRs: [\"{v4}\", \"{v6}\"]\n",
        name = peer.name,
        a4 = peer.underlay_v4,
        l4 = topology::UNDERLAY_V4_LENGTH,
        a6 = peer.underlay_v6,
        l6 = topology::UNDERLAY_V6_LENGTH,
        t4 = peer.tunnel_v4,
        t6 = peer.tunnel_v6,
    )
}

/// Where our programs are: `VSWITCH_BIN_DIR`, or the folder of the running program (for a test, the one above).
pub fn binaries() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("VSWITCH_BIN_DIR") {
        return std::path::absolute(folder)
            .map_err(|error| Error::other(format!("VSWITCH_BIN_DIR: {error}")));
    }
    let program = std::env::current_exe().map_err(|error| Error::other(format!("who am I: {error}")))?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}
