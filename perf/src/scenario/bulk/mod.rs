//! Bulk TCP: streams of iperf3 from pod to pod, on a node and across two.

mod nodes;
#[cfg(test)]
mod tests;

use std::time::Duration;

use nodes::{Pair, Place};
use vswitch_model::PortKind;
use vswitch_testbeds::command::wait_for;
use vswitch_testbeds::process::Daemon;
use vswitch_testbeds::traffic::iperf::{self, Streams};

use super::{About, Scenario};
use crate::machine::{TAKEN_MAX, Watch, hiccups};
use crate::session::Session;
use crate::traffic::rounds::{Better, Rounds};
use crate::traffic::{Contender, Cores};
use crate::{Error, Result};

const NAME: &str = "bulk";
/// iperf3's port, within what the policy allows.
const PORT: u16 = 5201;
/// How long iperf3 may take to listen.
const LISTENS: Duration = Duration::from_secs(5);
/// How long each core is looked at for others that use it, before the streams begin.
const LOOK: Duration = Duration::from_millis(30);
/// Ours, and whom streams on a node are compared with: kernels without policy.
const ON_A_NODE: &[Contender] = &[Contender::Ours, Contender::Kernel];
/// The same across nodes.
const ACROSS: &[Contender] = &[Contender::Ours, Contender::Kernel, Contender::KernelCut];

/// The scenario.
#[derive(Debug)]
pub struct Bulk;

/// Where the two pods are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Node,
    Vxlan,
    TunNode,
    TunVxlan,
}

impl Way {
    const fn key(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Vxlan => "vxlan",
            Self::TunNode => "tun-node",
            Self::TunVxlan => "tun-vxlan",
        }
    }

    const fn contenders(self) -> &'static [Contender] {
        match self {
            Self::Node | Self::TunNode => ON_A_NODE,
            Self::Vxlan | Self::TunVxlan => ACROSS,
        }
    }

    /// What our pods' ports are. The kernel's are always veths.
    const fn port(self) -> PortKind {
        match self {
            Self::Node | Self::Vxlan => PortKind::Veth,
            Self::TunNode | Self::TunVxlan => PortKind::Tun,
        }
    }
}

impl Scenario for Bulk {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "TCP streams of iperf3 from pod to pod: on a node, and across two nodes in VXLAN (two engines, a worker and a core each)",
            cases: "node/streams-N, vxlan/streams-N: pods with veths; tun-node/streams-N, tun-vxlan/streams-N: with tuns",
            sets: "--quick: streams-1, a second each; the others also streams-4, 2 s by default and 10 s with --full",
            metrics: &[
                ("goodput", "Gbit/s: what the far iperf3 received"),
                ("retransmits", "segments"),
                ("ratio/PEER/goodput", "1: above 1 we are better"),
            ],
            peers: "kernel, as it comes: forwarding on a node, its VXLAN across nodes, with the offloads it ships with (segments of up to 64 KB, as those of our tuns; on AF_XDP ours are of one MTU); kernel-cut, across nodes: the same with frames of one MTU on the wire, as ours are and as a network card without offloads for tunnels would have it",
            root: true,
            cores: 2,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let (seconds, streams): (u32, &[u32]) = match (session.config.quick, session.config.full) {
            (true, _) => (1, &[1]),
            (_, false) => (2, &[1, 4]),
            (_, true) => (10, &[1, 4]),
        };
        let each = |way| streams.iter().map(move |streams| (way, *streams));
        let cases: Vec<(Way, u32)> =
            [Way::Node, Way::Vxlan, Way::TunNode, Way::TunVxlan].into_iter().flat_map(each).collect();
        crate::peer::find("iperf3", "iperf3", "iperf3")?;
        let cores = Cores::two()?;
        let each: usize = cases.iter().map(|(way, _)| way.contenders().len()).sum();
        let steps = each * session.config.rounds as usize;
        session.begin(NAME, steps as u64);
        let mut figures = Rounds::new(NAME);
        let outcome = rounds(session, cores, seconds, &cases, &mut figures);
        figures.record(session);
        outcome
    }
}

fn rounds(
    session: &mut Session,
    cores: Cores,
    seconds: u32,
    cases: &[(Way, u32)],
    figures: &mut Rounds,
) -> Result<()> {
    for _ in 0..session.config.rounds {
        for (way, streams) in cases {
            let case = format!("{}/streams-{streams}", way.key());
            let wanted = session.wants(&case);
            for contender in way.contenders().iter().filter(|_| wanted) {
                session.step(&format!("{}: {case}", contender.key()))?;
                let outcome = measure(*contender, cores, *way, seconds, *streams).map(|(came, void)| {
                    for (metric, unit, better, value) in [
                        ("goodput", "Gbit/s", Better::Higher, came.mbit / 1e3),
                        ("retransmits", "segments", Better::Neither, came.retransmits as f64),
                    ] {
                        figures.add((&case, metric, unit, better), *contender, value, void.as_ref());
                    }
                });
                figures.without(session, *contender, outcome)?;
                session.advance();
            }
        }
        figures.next();
    }
    Ok(())
}

fn measure(
    contender: Contender,
    cores: Cores,
    way: Way,
    seconds: u32,
    streams: u32,
) -> Result<(Streams, Option<String>)> {
    let pair = match way {
        Way::Node | Way::TunNode => Pair::on_a_node(contender, cores, way.port())?,
        Way::Vxlan | Way::TunVxlan => Pair::across_nodes(contender, cores, way.port())?,
    };
    let logs = tempfile::tempdir().map_err(|error| Error::setup("make a folder for logs", error))?;
    let _server = serve(&pair.server, logs.path())?;
    let iperf3 = pair.client.namespace.command("iperf3");
    // All of it shares the two cores, as it would on such a node: only what others take makes it void.
    let others = [cores.sender, cores.forwarder].map(|core| hiccups(core, LOOK).lost_percent);
    let others = others.into_iter().fold(0.0, f64::max);
    let watch = Watch::start();
    let came = iperf::streams(iperf3, pair.server.address, seconds, streams)
        .map_err(|error| Error::setup(format!("iperf3 through {}", contender.key()), error))?;
    Ok((came, void(watch.core_steal_percent(), others)))
}

/// Why streams are void: what the hypervisor took of a core while they ran, or others had of one just before, in percent.
fn void(stolen: f64, others: f64) -> Option<String> {
    let (taken, who) = if stolen >= others {
        (stolen, "the hypervisor took")
    } else {
        (others, "other programs or the hypervisor had, just before,")
    };
    (taken > TAKEN_MAX).then(|| format!("{who} {taken:.0} % of a core (more than {TAKEN_MAX} %)"))
}

/// iperf3 listening in a pod, until dropped.
fn serve(place: &Place, logs: &std::path::Path) -> Result<Daemon> {
    let failed = |error: vswitch_testbeds::Error| Error::setup("start iperf3", error);
    let port = PORT.to_string();
    let mut command = place.namespace.command("iperf3");
    let mut daemon =
        Daemon::start(command.args(["-s", "-p", &port]), &logs.join("iperf3.log")).map_err(failed)?;
    wait_for("iperf3 to listen", LISTENS, || {
        daemon.check()?;
        let sockets = place.namespace.run("ss -Hltn").unwrap_or_default();
        let listens = sockets.contains(&format!(":{PORT} "));
        if listens { Ok(()) } else { Err(vswitch_testbeds::Error::other("no socket yet")) }
    })
    .map_err(failed)?;
    Ok(daemon)
}
