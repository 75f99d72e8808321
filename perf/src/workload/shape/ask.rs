//! Packets that ask: each opens a flow, from a peer behind the uplink to a pod.

use std::collections::HashSet;
use std::net::IpAddr;

use vswitch_datapath::Tables;
use vswitch_datapath::policy::FlowPorts;
use vswitch_model::{Mac, PortName};

use super::{PODS, Ruled};
use crate::workload::traffic::{FIRST_SOURCE_PORT, Frames, TTL, address, builder, write};
use crate::workload::{Family, Pod, Size};
use crate::{Error, Result};

/// What one packet asks: may this peer reach this port of this pod, in UDP?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    /// The pod, by number.
    pub pod: u16,
    /// From where.
    pub peer: IpAddr,
    /// The destination port.
    pub port: u16,
}

/// Over how many rules the packets are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Over 64 of them, however many there are: what is read of the tables stays in the caches.
    Few,
    /// Over all of them, one after another in no order of meaning: the larger the tables, the less of what is read is in
    /// a cache.
    All,
}

/// Both.
pub const SPREADS: [Spread; 2] = [Spread::Few, Spread::All];

/// The protocol of all of them.
const UDP: u8 = 17;
/// Rules of [`Spread::Few`].
const FEW: usize = 64;
/// Source ports of each spread: no flow of one is a flow of the other.
const SOURCE_PORTS: u64 = 32_000;

impl Spread {
    /// Its name in case names.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Few => "of-64",
            Self::All => "of-all",
        }
    }

    /// The numbers of its packets, from the one after `sent` on.
    pub fn numbers(self, sent: u64) -> impl Iterator<Item = u64> + 'static {
        let base = (self as u64) << 32;
        (sent..).map(move |number| base | number)
    }
}

/// The packets of both spreads, by number.
#[derive(Debug, Clone)]
pub struct Asks {
    family: Family,
    /// By spread.
    asked: [Vec<Ask>; 2],
    ends: Vec<(IpAddr, PortName)>,
    from: Mac,
    uplink: (Mac, PortName),
}

impl Asks {
    /// The packets of `ruled` that these tables allow.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when they allow hardly any, or the node has no uplink.
    pub fn allowed(ruled: &Ruled, family: Family, tables: &Tables) -> Result<Self> {
        let pods: Vec<IpAddr> = ruled.node.pods.iter().map(|pod| address(family, (pod.v4, pod.v6))).collect();
        Self::of(ruled, family, |ask| {
            let [pod, peer] = [pods[usize::from(ask.pod)], ask.peer].map(|end| tables.lookup(end).identity);
            tables.policy.ingress(pod, peer, FlowPorts::to(UDP, ask.port)).allow
        })
    }

    /// Those that are `allowed`.
    pub(super) fn of(ruled: &Ruled, family: Family, allowed: impl Fn(&Ask) -> bool) -> Result<Self> {
        let failed = |problem: &str| Error::setup("make packets that ask policy", problem);
        let uplink = ruled.node.uplink.as_ref().ok_or_else(|| failed("no uplink"))?;
        let from = uplink.peers.first().ok_or_else(|| failed("no other node"))?.mac;
        let end = |pod: &Pod| (address(family, (pod.v4, pod.v6)), pod.port.clone());
        let ends = ruled.node.pods.iter().map(end).collect();
        // One that comes twice would be a flow that is known.
        let mut known = HashSet::with_capacity(ruled.asks.len());
        let all: Vec<Ask> =
            ruled.asks.iter().filter(|ask| allowed(ask) && known.insert(**ask)).copied().collect();
        if all.len() * 2 < ruled.asks.len() {
            return Err(failed(&format!("only {} of {} rules allow theirs", all.len(), ruled.asks.len())));
        }
        let few = all.iter().copied().take(FEW).collect();
        Ok(Self { family, asked: [few, all], ends, from, uplink: (uplink.mac, uplink.port.clone()) })
    }

    /// How many different ends and ports the packets of a spread have.
    #[must_use]
    pub fn different(&self, spread: Spread) -> usize {
        self.asked[spread as usize].len()
    }
}

impl Frames for Asks {
    fn write(&self, number: u64, into: &mut Vec<u8>) {
        into.clear();
        let (spread, number) = ((number >> 32) as usize & 1, number & 0xffff_ffff);
        let asked = &self.asked[spread];
        let ask = asked[(number % asked.len() as u64) as usize];
        let round = number / asked.len() as u64 % SOURCE_PORTS;
        let source_port = FIRST_SOURCE_PORT + (round + spread as u64 * SOURCE_PORTS) as u16;
        let pod = self.ends[usize::from(ask.pod) % PODS].0;
        let frame = builder(self.from, self.uplink.0, ask.peer, pod, TTL);
        let headers = if self.family == Family::V4 { 42 } else { 62 };
        let payload = vec![0x5a; Size::Frame(64).bytes(self.family, number) - headers];
        write(frame.udp(source_port, ask.port).write(into, &payload));
    }

    fn enters(&self) -> &PortName {
        &self.uplink.1
    }

    fn leaves(&self) -> impl Iterator<Item = &PortName> {
        self.ends.iter().map(|(_, port)| port)
    }
}
