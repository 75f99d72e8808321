//! What scenario tests share: a bed of their own, and short ways to say what should be seen.
#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own and uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use vswitch_testbeds::bed::{Bed, Settings};
use vswitch_testbeds::command::wait_for;
use vswitch_testbeds::run::exclusive;
use vswitch_testbeds::topology::Topology;
use vswitch_testbeds::traffic::probe::{Echo, IMPATIENCE, PATIENCE, tcp_answers, udp_answers};
use vswitch_testbeds::{Error, Result};

pub const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
pub const V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
pub const FAMILIES: [IpAddr; 2] = [V4, V6];

/// How long a change may take to be in force.
pub const SOON: Duration = Duration::from_secs(10);

/// A bed, alone on this machine while it stands.
pub struct Scene {
    bed: Bed,
    _alone: File,
}

impl Deref for Scene {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.bed
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Bed {
        &mut self.bed
    }
}

/// Whether a test that needs root can run. Says so when not; where privilege is promised (CI), that is a failure.
pub fn privileged(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "{test} needs root, and CI promises it");
        eprintln!("SKIPPED {test}: it needs root, for network namespaces");
    }
    root
}

/// Builds a bed; None when the test is skipped.
pub fn scene(id: &str, topology: Topology, settings: Settings) -> Option<Scene> {
    if !privileged(id) {
        return None;
    }
    let alone = must(exclusive());
    Some(Scene { bed: must(Bed::up(id, topology, settings)), _alone: alone })
}

/// Two vswitch nodes with three pods without policy: `test/near` and `test/beside` on node1, `test/far` on node2.
pub fn three_pods() -> Topology {
    Topology::two_nodes()
        .namespace("test", &[])
        .pod("test/near", "node1", &[("app", "near")])
        .pod("test/beside", "node1", &[("app", "beside")])
        .pod("test/far", "node2", &[("app", "far")])
}

/// The value, or a panic with the error's text.
#[track_caller]
pub fn must<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

impl Scene {
    /// Where a pod's server listens.
    pub fn at(&self, pod: &str, family: IpAddr, port: u16) -> SocketAddr {
        SocketAddr::new(must(self.address(pod, family)), port)
    }

    /// Starts echo servers in a pod, for datagrams and connections, both families.
    pub fn serve(&self, pod: &str, ports: &[u16]) -> Vec<Echo> {
        let netns = &must(self.pod(pod)).netns;
        let both = FAMILIES.iter().flat_map(|family| {
            let address = must(self.address(pod, *family));
            [must(Echo::udp(netns, address, ports)), must(Echo::tcp(netns, address, ports))]
        });
        both.collect()
    }

    /// Whether datagrams get from one pod to a server and back.
    pub fn udp(&self, from: &str, to: SocketAddr) -> bool {
        must(udp_answers(&must(self.pod(from)).netns, to, PATIENCE))
    }

    /// Whether they do not, as far as a short wait can tell.
    pub fn udp_denied(&self, from: &str, to: SocketAddr) -> bool {
        !must(udp_answers(&must(self.pod(from)).netns, to, IMPATIENCE))
    }

    /// Whether a connection opens and answers.
    pub fn tcp(&self, from: &str, to: SocketAddr) -> bool {
        must(tcp_answers(&must(self.pod(from)).netns, to, PATIENCE))
    }

    /// Whether it does not, as far as a short wait can tell.
    pub fn tcp_denied(&self, from: &str, to: SocketAddr) -> bool {
        !must(tcp_answers(&must(self.pod(from)).netns, to, IMPATIENCE))
    }

    /// Waits until a probe answers as expected: what was just changed is on its way.
    pub fn becomes(&self, what: &str, mut probe: impl FnMut() -> bool) {
        must(wait_for(what, SOON, || if probe() { Ok(()) } else { Err(Error::other("not so yet")) }));
    }

    /// Waits until all engines run what their agents want, and the agents have seen what was applied.
    pub fn in_force(&mut self) {
        for node in ["node1", "node2"] {
            if let Ok(node) = self.node_mut(node) {
                must(node.wait_in_force());
            }
        }
    }

    /// Does something and waits until a drop counter has moved by at least `packets`.
    #[track_caller]
    pub fn drops(&self, node: &str, reason: &str, packets: u64, body: impl FnOnce()) {
        let engine = must(must(self.node(node)).engine());
        let before = must(engine.drops(reason));
        body();
        let what = format!("{packets} drops of {reason} on {node}");
        must(wait_for(&what, Duration::from_secs(3), || {
            let moved = engine.drops(reason)? - before;
            if moved >= packets {
                return Ok(());
            }
            let all: Vec<_> = engine
                .counters()?
                .drops
                .iter()
                .map(|drop| format!("{} {}", drop.reason, drop.packets))
                .collect();
            Err(Error::other(format!("{moved}; all drops since start: {}", all.join(", "))))
        }));
    }

    /// No engine has lost a frame; asked while they run, when nothing is on its way.
    pub fn no_frame_is_lost(&self) {
        for (name, node) in self.nodes() {
            let counters = must(node.engine().and_then(|engine| engine.counters()));
            let frames = counters.frames.expect("an engine counts its frames");
            assert_eq!(frames.unaccounted, 0, "{name}: {frames:?}");
        }
    }

    /// Stops the engines in order: every frame is accounted for.
    pub fn stops_whole(&mut self) {
        for name in ["node1", "node2"] {
            if let Ok(node) = self.node_mut(name) {
                let report = must(node.stop_engine());
                assert_eq!(report["frames_leaked"], 0, "{name}: {report}");
            }
        }
    }
}

/// How long until a probe answers.
pub fn time_until(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    must(wait_for(what, limit, || if probe() { Ok(()) } else { Err(Error::other("not yet")) }));
    start.elapsed()
}
