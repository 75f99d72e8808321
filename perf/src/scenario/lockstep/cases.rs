//! The cases, and what is set up for each of them.

use std::net::IpAddr;

use super::sockets::Sockets;
use super::track::{Between, Exit, Track};
use super::{DROP, OURS};
use crate::net::topology::{Layout, UPLINK, to_tun};
use crate::net::{Ends, Pattern, SwitchOptions, Topology};
use crate::peer::{Bare, Filter, kernel};
use crate::result::Config;
use crate::workload::{Case, Family, Kind, Node, Size, Traffic, Transport, Way};
use crate::{Error, Result};

/// Flows of all cases.
const FLOWS: u64 = 1000;
/// Routes to other nodes, in the cases that leave this one.
const ROUTES: usize = 1000;
/// Other nodes.
const PEERS: usize = 4;

/// Peers by their names, with what the kernel filters.
const FILTERS: [(&str, Filter, bool); 5] = [
    ("conntrack", Filter::Stateful, false),
    ("set-1k", Filter::Set(1000), false),
    ("linear-100", Filter::Linear(100), false),
    ("linear-1k", Filter::Linear(1000), false),
    ("answered-1k", Filter::Linear(1000), true),
];

/// A case with its peers.
pub(super) struct Rig {
    pub(super) case: Case,
    by: By,
}

/// Who sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Generator and sink. `filters`: beside the kernel's filters, too.
    Frames { filters: bool },
    /// Programs in pods with tuns, beside those in pods with veths.
    Sockets,
}

/// Bytes of a datagram in the smallest Ethernet frame.
const DATAGRAM: usize = 18;

/// Those of a run.
pub(super) fn all(config: &Config) -> Vec<Rig> {
    let case = |family, way, rules| Case {
        kind: Kind::KnownFlow,
        family,
        transport: Transport::Udp,
        way,
        flows: FLOWS,
        rules,
        routes: Case::BASE.routes,
        size: Size::Frame(64),
        batch: crate::net::BATCH,
    };
    let frames = |case, filters| Rig { case, by: By::Frames { filters } };
    let plain = |rules, filters| frames(case(Family::V4, Way::Local, rules), filters);
    let mut all = vec![
        plain(0, false),
        plain(1000, true),
        frames(case(Family::V6, Way::Local, 0), false),
        frames(case(Family::V4, Way::IntoVxlan, 0), false),
        Rig { case: Case { flows: 1, ..case(Family::V4, Way::Local, 1000) }, by: By::Sockets },
    ];
    if !config.quick {
        all.push(plain(10_000, false));
        all.push(frames(case(Family::V6, Way::Local, 1000), true));
        all.push(frames(case(Family::V4, Way::IntoVxlan, 1000), false));
    }
    all
}

impl Rig {
    /// The name of its case.
    pub(super) fn name(&self) -> String {
        match self.by {
            By::Frames { .. } => self.case.name(),
            By::Sockets => format!("sockets/{}", self.case.name()),
        }
    }

    fn node(&self) -> Node {
        let node = Node::in_memory(2, PEERS).with_rules(self.case.rules);
        match self.case.way {
            Way::Local => Node { uplink: None, ..node },
            _ => node.with_routes(self.case.family, ROUTES),
        }
    }

    /// Frames as the case says: at least as long as it takes to tell them apart.
    fn pattern(&self, node: &Node) -> Result<Pattern> {
        let stream = Traffic::new(self.case.way, self.case.family, 1).on(node)?;
        let ends = Ends::of(&stream.frame(0))?;
        let length = self.case.size.bytes(self.case.family, 0).max(match self.case.family {
            Family::V4 => 60,
            Family::V6 => 80,
        });
        Ok(Pattern::new(&[ends], self.case.flows as u32, length))
    }

    /// Ours and all peers, and the names of those that are missing with the reason.
    pub(super) fn tracks(&self) -> Result<(Vec<Track>, Vec<String>)> {
        let node = self.node();
        let filters = match self.by {
            By::Frames { filters } => filters,
            By::Sockets => return of_sockets(&node),
        };
        let pattern = self.pattern(&node)?;
        let setting = Setting { node: &node, pattern: &pattern, way: self.case.way };
        let mut tracks = vec![setting.ours()?, Track::alone(&pattern)?];
        debug_assert!(tracks[0].name == OURS && tracks[1].name == DROP);
        let mut missing = Vec::new();
        let mut add = |name: &str, track: Result<Track>| match track {
            Ok(track) => tracks.push(track),
            Err(error) => missing.push(format!("lockstep: peer {name} is missing: {error}")),
        };
        add("bare", setting.bare());
        add("kernel", setting.kernel("kernel", Filter::None, false));
        for (name, filter, answered) in FILTERS.into_iter().filter(|_| filters) {
            add(name, setting.kernel(name, filter, answered));
        }
        Ok((tracks, missing))
    }
}

/// Ours with tuns, ours with veths, and the kernel.
fn of_sockets(node: &Node) -> Result<(Vec<Track>, Vec<String>)> {
    let layout = Layout { separate: true, ..Layout::default() };
    let sockets = |topology: &Topology| Sockets::new(&topology.pods[0], &topology.pods[1], DATAGRAM);
    // Without IPv6: a kernel that has it says things of its own, which would be counted.
    let v4_only = || {
        let mut desired = node.desired();
        desired.ports.values_mut().for_each(|port| port.addresses.retain(IpAddr::is_ipv4));
        desired
    };
    let ours = |name, tun: bool| {
        let mut desired = v4_only();
        if tun {
            desired.ports.values_mut().for_each(to_tun);
        }
        let topology = Topology::build(&desired, layout)?;
        topology.place_tuns(&mut desired);
        let from = topology.pods[0].host.clone();
        let between = Between::engine(&topology, &desired, &from, SwitchOptions::default())?;
        topology.configure_tuns()?;
        Ok(Track::of_sockets(name, between, &topology, sockets(&topology)?))
    };
    let kernel = || {
        let desired = v4_only();
        let topology = Topology::build(&desired, layout)?;
        kernel::forward(&topology, &desired, Filter::None, &[])?;
        Ok(Track::of_sockets("kernel", Between::Kernel, &topology, sockets(&topology)?))
    };
    let (mut tracks, mut missing) = (vec![ours(OURS, true)?], Vec::new());
    for (name, track) in [("veth", ours("veth", false)), ("kernel", kernel())] {
        match track {
            Ok(track) => tracks.push(track),
            Err::<_, Error>(error) => missing.push(format!("lockstep: peer {name} is missing: {error}")),
        }
    }
    Ok((tracks, missing))
}

/// What all tracks of a case have in common.
struct Setting<'a> {
    node: &'a Node,
    pattern: &'a Pattern,
    way: Way,
}

impl Setting<'_> {
    fn topology(&self) -> Result<Topology> {
        Topology::build(&self.node.desired(), Layout { uplink: self.way != Way::Local, ..Layout::default() })
    }

    fn pod(&self, number: usize) -> String {
        self.node.pods[number].port.to_string()
    }

    fn track(
        &self,
        name: &'static str,
        between: Between,
        topology: &Topology,
        tunnel: bool,
    ) -> Result<Track> {
        let far = [self.pod(1)];
        let exit = match self.way {
            Way::Local => Exit::Pods(&far),
            _ => Exit::Wire { tunnel },
        };
        Track::new(name, between, topology, self.pattern, &self.pod(0), &exit)
    }

    fn ours(&self) -> Result<Track> {
        let topology = self.topology()?;
        let between =
            Between::engine(&topology, &self.node.desired(), &self.pod(0), SwitchOptions::default())?;
        self.track(OURS, between, &topology, true)
    }

    fn bare(&self) -> Result<Track> {
        let topology = self.topology()?;
        let to = if self.way == Way::Local { self.pod(1) } else { UPLINK.to_owned() };
        let bare = Bare::open(&topology.switch, &self.pod(0), &to)?;
        self.track("bare", Between::Bare(bare), &topology, false)
    }

    fn kernel(&self, name: &'static str, filter: Filter, answered: bool) -> Result<Track> {
        let topology = self.topology()?;
        let far = &self.node.pods[1];
        let allowed = [if self.pattern.v6() { IpAddr::V6(far.v6) } else { IpAddr::V4(far.v4) }];
        kernel::forward(&topology, &self.node.desired(), filter, &allowed)?;
        let mut track = self.track(name, Between::Kernel, &topology, true)?;
        if answered {
            track.answer(self.pattern, &topology, &self.pod(1))?;
        }
        match track.run(1).and_then(|_| track.check()) {
            Ok(()) => Ok(track),
            Err(error) => Err(Error::setup(format!("forward with {name}"), error)),
        }
    }
}
