//! Two real `vswitchd`s, each in a network namespace, with pods, tunnels and the node's own kernel between them.
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::{apply_request, connect, engine as pb};
use vswitch_model::{
    Attachment, DesiredState, Dscp, Encapsulation, Generation, Identity, IdentityId, IdentityKind, Local,
    Mac, NextHop, PodTunnels, Port, PortName, Tunnel, TunnelId, Vni, VxlanNetwork,
};

const PATIENCE: Duration = Duration::from_secs(20);
const POD: IdentityId = IdentityId(16);
const NODE: IdentityId = IdentityId(17);

fn run(words: &str) -> Output {
    let mut words = words.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

fn ip(words: &str) {
    let output = run(&format!("ip {words}"));
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One node: its namespace, two pods, and its engine.
struct Node {
    number: u8,
    prefix: String,
    directory: PathBuf,
    engine: Option<Child>,
}

/// Two nodes and what is between them.
struct Net {
    nodes: [Node; 2],
    /// The namespace of a router.
    router: Option<String>,
    _directory: tempfile::TempDir,
}

impl Net {
    /// None, loudly, without the privilege. Where CI is set the privilege is promised.
    fn make(kind: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI promises root");
            eprintln!("SKIPPED: needs root for network namespaces and AF_XDP");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let prefix = format!("vswd{kind}{}", std::process::id() % 100_000);
        let node = |number| Node {
            number,
            prefix: prefix.clone(),
            directory: directory.path().join(format!("node{number}")),
            engine: None,
        };
        let net = Self { nodes: [node(1), node(2)], router: None, _directory: directory };
        net.nodes.iter().for_each(Node::make);
        Some(net)
    }

    /// Both nodes on one link.
    fn linked() -> Option<Self> {
        let net = Self::make("l")?;
        let [one, two] = &net.nodes;
        ip(&format!("-n {} link add up0 type veth peer name up0 netns {}", one.netns(), two.netns()));
        for node in &net.nodes {
            ip(&format!("-n {} addr add 192.0.2.{}/24 dev up0", node.netns(), node.number));
            ip(&format!("-n {} link set up0 up", node.netns()));
        }
        Some(net)
    }

    /// A router between the nodes, whose link to the second takes `mtu` bytes; the nodes do not know.
    fn routed(mtu: u16) -> Option<Self> {
        let mut net = Self::make("r")?;
        let router = format!("{}-r", net.nodes[0].prefix);
        ip(&format!("netns add {router}"));
        net.router = Some(router.clone());
        ip(&format!("netns exec {router} sysctl -qw net.ipv4.ip_forward=1"));
        for node in &net.nodes {
            let (netns, number) = (node.netns(), node.number);
            ip(&format!("-n {netns} link add up0 type veth peer name r{number} netns {router}"));
            ip(&format!("-n {netns} addr add 192.0.2.{number}/24 dev up0"));
            ip(&format!("-n {netns} link set up0 up"));
            ip(&format!("-n {router} addr add 192.0.2.254/32 dev r{number}"));
            // A veth refuses what is longer than its own end takes: the way in is wide, the way out is not.
            let mtu = if number == 2 { mtu } else { 1500 };
            ip(&format!("-n {router} link set r{number} mtu {mtu} up"));
            ip(&format!("-n {router} route add 192.0.2.{number}/32 dev r{number}"));
            ip(&format!("-n {netns} route add 192.0.2.{}/32 via 192.0.2.254", 3 - number));
        }
        Some(net)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut engine) = node.engine.take() {
                engine.kill().ok();
                engine.wait().ok();
            }
            if std::thread::panicking() {
                let log = fs::read_to_string(node.directory.join("log")).unwrap_or_default();
                eprintln!("---- log of node {} ----\n{log}", node.number);
            }
            for netns in [node.netns(), node.pod_netns(1), node.pod_netns(2)] {
                run(&format!("ip netns del {netns}"));
            }
        }
        if let Some(router) = &self.router {
            run(&format!("ip netns del {router}"));
        }
    }
}

impl Node {
    fn netns(&self) -> String {
        format!("{}-{}", self.prefix, self.number)
    }

    fn pod_netns(&self, pod: u8) -> String {
        format!("{}-{}p{pod}", self.prefix, self.number)
    }

    fn pod_address(&self, pod: u8) -> String {
        format!("10.{}.0.{}", self.number, 10 + pod)
    }

    fn pod_mac(&self, pod: u8) -> Mac {
        Mac([0x02, 0, 0, 0, self.number, pod])
    }

    fn make(&self) {
        fs::create_dir(&self.directory).unwrap();
        ip(&format!("netns add {}", self.netns()));
        ip(&format!("-n {} link set lo up", self.netns()));
        for pod in [1, 2] {
            ip(&format!("netns add {}", self.pod_netns(pod)));
            self.plug(pod);
        }
    }

    /// Makes a pod's veth, as the CNI plugin does.
    fn plug(&self, pod: u8) {
        let (netns, mac) = (self.pod_netns(pod), self.pod_mac(pod));
        let ends = format!("link add pod{pod} type veth peer name eth0 netns {netns}");
        ip(&format!("-n {} {ends}", self.netns()));
        ip(&format!("-n {} link set pod{pod} address {} up", self.netns(), Mac::GATEWAY));
        ip(&format!("-n {netns} link set lo up"));
        ip(&format!("-n {netns} link set eth0 address {mac} mtu 1450 up"));
        ip(&format!("-n {netns} addr add {}/32 dev eth0", self.pod_address(pod)));
        ip(&format!("-n {netns} route add 169.254.1.1 dev eth0 scope link"));
        ip(&format!("-n {netns} route add default via 169.254.1.1 dev eth0"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts the engine and waits until it serves.
    fn start(&mut self) {
        let config = self.path("vswitchd.toml");
        let text = format!(
            "uplink = \"up0\"\nframes = 8192\nflows = 4096\napi_socket = {:?}\nstate_file = {:?}\nlog = \"debug\"\n",
            self.path("engine.sock"),
            self.path("engine.state"),
        );
        fs::write(&config, text).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let engine = Command::new("ip")
            .args(["netns", "exec", &self.netns(), env!("CARGO_BIN_EXE_vswitchd"), "run", "--config"])
            .arg(&config)
            .arg("--final-report")
            .arg(self.path("report.json"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.engine = Some(engine);
    }

    fn signal(&mut self, signal: Signal) {
        let mut engine = self.engine.take().unwrap();
        // `ip netns exec` becomes what it runs: the process is the engine itself.
        kill(Pid::from_raw(engine.id() as i32), signal).unwrap();
        engine.wait().unwrap();
    }

    async fn client(&self) -> EngineClient<tonic::transport::Channel> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match connect("vswitchd", &self.path("engine.sock")).await {
                Ok(channel) => return EngineClient::new(channel),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the engine of this node is to want, `other` being the other node.
    fn desired(&self, other: &Self) -> DesiredState {
        let name = |number: u8| format!("node-{number}");
        let mut state = DesiredState {
            local: Some(Local {
                node: name(self.number),
                underlay_v4: Some([192, 0, 2, self.number].into()),
                underlay_v6: None,
                networks: vec![VxlanNetwork::calico(&name(self.number))],
                dscp: Dscp::Inherit,
                pod_tunnels: PodTunnels::default(),
                host_addresses: vec![[10, self.number, 0, 1].into()],
                host_routes: vec!["10.0.0.0/8".parse().unwrap()],
                host_mtu: 1450,
            }),
            ..DesiredState::default()
        };
        for (id, kind) in [(POD, IdentityKind::Pod), (NODE, IdentityKind::LocalNode)] {
            state.identities.insert(id, Identity { id, kind, description: String::new() });
        }
        for pod in [1, 2] {
            let port = self.port(pod);
            let prefix = IpNet::from(port.addresses[0]);
            state.routes.insert(prefix, NextHop::Port(port.name.clone()));
            state.ports.insert(port.name.clone(), port);
        }
        let tunnel = Tunnel {
            id: TunnelId(1),
            node: name(other.number),
            remote: [192, 0, 2, other.number].into(),
            encapsulation: Encapsulation::Vxlan {
                vni: Vni::CALICO,
                port: 4789,
                remote_mac: Mac::vtep_v4(&name(other.number)),
            },
        };
        state.tunnels.insert(tunnel.id, tunnel);
        let block = |number: u8| format!("10.{number}.0.0/24").parse::<IpNet>().unwrap();
        state.routes.insert(block(other.number), NextHop::Tunnel(TunnelId(1)));
        state.routes.insert(block(self.number), NextHop::Unreachable);
        state.routes.insert("0.0.0.0/0".parse().unwrap(), NextHop::Host);
        state.prefixes.insert("10.0.0.0/8".parse().unwrap(), POD);
        state.prefixes.insert(format!("10.{}.0.1/32", self.number).parse().unwrap(), NODE);
        state
    }

    fn port(&self, pod: u8) -> Port {
        let name = PortName::new(format!("pod{pod}")).unwrap();
        Port {
            attachment: Attachment::Veth { interface: name.clone(), netns: None },
            name,
            mac: self.pod_mac(pod),
            addresses: vec![self.pod_address(pod).parse().unwrap()],
            mtu: 1450,
            workload: format!("test/pod{pod}"),
        }
    }
}

/// Pings until it is answered.
fn reaches(netns: &str, address: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !ping(netns, "-c 1 -W 0.05", address) {
        assert!(Instant::now() < deadline, "{netns} does not reach {address}");
    }
}

fn ping(netns: &str, options: &str, address: &str) -> bool {
    run(&format!("ip netns exec {netns} ping -n -q {options} {address}")).status.success()
}

fn report(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn two_nodes_forward_survive_and_account_for_every_frame() {
    let Some(mut net) = Net::linked() else { return };
    net.nodes.iter_mut().for_each(Node::start);
    let [one, two] = &net.nodes;
    for (node, other) in [(one, two), (two, one)] {
        let request = apply_request(Generation(1), None, &node.desired(other));
        let reply = node.client().await.apply(request).await.unwrap().into_inner();
        assert_eq!(reply, pb::ApplyReply { generation: 1, failed_ports: Vec::new() });
    }
    // The first packets may find a tunnel's next hop not resolved yet; from then on none is lost.
    let (pod, host) = (one.pod_netns(1), one.netns());
    reaches(&pod, &two.pod_address(1));
    let everywhere = [
        (&pod, one.pod_address(2)),
        (&pod, two.pod_address(2)),
        (&host, one.pod_address(1)),
        (&pod, "10.1.0.1".to_owned()),
        (&host, two.pod_address(1)),
    ];
    for (from, to) in &everywhere {
        assert!(ping(from, "-c 20 -i 0.01 -W 5", to), "{from} to {to}");
    }
    assert!(ping(&pod, "-c 2 -s 1422 -M do -W 5", &two.pod_address(1)), "as large as the pod's MTU");
    assert!(!ping(&pod, "-c 1 -W 1", "10.1.0.99"), "a free address of the block answers nothing");

    let mut client = one.client().await;
    let status = client.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.generation_in_force, status.ports.len(), status.tunnels.len()), (1, 4, 1));
    assert!(status.ports.iter().all(|port| port.failure.is_empty()), "{:?}", status.ports);
    assert_eq!(status.tunnels[0].uplink, "up0");
    let counters = client.get_counters(pb::GetCountersRequest {}).await.unwrap().into_inner();
    let dropped = |reason: &str| counters.drops.iter().any(|drop| drop.reason == reason);
    assert!(dropped("route-unreachable"), "{:?}", counters.drops);

    // Killed, the engine takes nothing of the node's own traffic with it; started again, it needs nobody.
    net.nodes[0].signal(Signal::SIGKILL);
    let [one, two] = &net.nodes;
    assert!(ping(&one.netns(), "-c 5 -i 0.01 -W 2", "192.0.2.2"));
    assert!(!ping(&one.pod_netns(1), "-c 1 -W 1", &two.pod_address(1)));
    let started = Instant::now();
    net.nodes[0].start();
    let [one, two] = &net.nodes;
    reaches(&one.pod_netns(1), &two.pod_address(1));
    eprintln!("pods talked {:?} after the start of the engine", started.elapsed());
    let status = one.client().await.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert!(status.restored && status.generation_in_force == 1);

    // A pod goes and comes back by the same name.
    let mut less = one.desired(two);
    less.ports.retain(|name, _| name.as_str() != "pod2");
    less.routes.retain(|_, hop| !matches!(hop, NextHop::Port(name) if name.as_str() == "pod2"));
    for (generation, state) in [(2, &less), (3, &one.desired(two))] {
        let request = apply_request(Generation(generation), None, state);
        assert!(one.client().await.apply(request).await.unwrap().into_inner().failed_ports.is_empty());
    }
    reaches(&one.pod_netns(1), &one.pod_address(2));

    // Its veth goes while the engine runs, which is told; a new one of the same name is taken up by itself.
    ip(&format!("-n {} link del pod2", one.netns()));
    let failure = async |what: &str, fits: fn(&str) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = one.client().await.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
            if fits(&status.ports.iter().find(|port| port.name == "pod2").unwrap().failure) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {:?}", status.ports);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    failure("the port is closed", |failure| !failure.is_empty()).await;
    one.plug(2);
    failure("the port is open again", str::is_empty).await;
    reaches(&one.pod_netns(1), &one.pod_address(2));

    for node in &mut net.nodes {
        node.signal(Signal::SIGTERM);
        let report = report(&node.path("report.json"));
        assert_eq!(report["frames_leaked"], 0, "{report}");
        assert!(report["ports"]["pod1"]["rx_packets"].as_u64().unwrap() > 0, "{report}");
        assert!(!node.path("engine.sock").exists());
    }
}

/// A path that is narrower than both its ends: the router's word reaches the engine, and the engine's the pod.
#[tokio::test]
async fn a_pod_is_told_of_a_narrow_place_between_the_nodes() {
    let Some(mut net) = Net::routed(1400) else { return };
    net.nodes.iter_mut().for_each(Node::start);
    let [one, two] = &net.nodes;
    for (node, other) in [(one, two), (two, one)] {
        let request = apply_request(Generation(1), None, &node.desired(other));
        node.client().await.apply(request).await.unwrap();
    }
    let (pod, remote) = (one.pod_netns(1), two.pod_address(1));
    reaches(&pod, &remote);
    // 1450 bytes fit both pods and both uplinks, and come to 1500 in the tunnel.
    let words = format!("ip netns exec {pod} ping -n -c 1 -W 0.2 -M do -s 1422 {remote}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = run(&words);
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // From the engine as an error, from then on from the pod's own kernel.
        if told.concat().to_lowercase().replace(' ', "").contains("mtu=1350") {
            break;
        }
        assert!(Instant::now() < deadline, "nobody told the pod: {told:?}");
    }
    assert!(ping(&pod, "-c 3 -W 1 -i 0.05 -M do -s 1322", &remote), "what fits passes");
}
