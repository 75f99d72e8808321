//! Which way packets go and who is at an address: routes and identities, each by longest match, laid over each other.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use ipnet::{IpNet, Ipv6Net};
use vswitch_model::{DropReason, IdentityId, NextHop, Touched};

use super::adjacency::{Adjacencies, Way};
use super::{CompileInputs, PortMap, Underlay, own_addresses};
use crate::fib::{self, Fib, FibTooLarge, Range};
use crate::tables::{Adjacency, AdjacencyIndex, Group, Leaf, TunnelPeer};

/// Leaves that nobody may have, besides as many as there were at first.
const SPARE: usize = 4096;

/// The FIBs and what their leaves refer to, and what the next ones may be made of.
#[derive(Debug)]
pub(super) struct Ways {
    /// What it was made from besides the desired state.
    ports: PortMap,
    underlay: Underlay,
    pub(super) adjacencies: Arc<[Adjacency]>,
    pub(super) groups: Arc<HashMap<AdjacencyIndex, Group, FixedState>>,
    pub(super) tunnel_peers: HashMap<IpAddr, TunnelPeer, FixedState>,
    /// By adjacency; of IPv4 and of IPv6.
    routes: [Vec<Range>; 2],
    leaves: Leaves,
    pub(super) fib_v4: Fib<u32>,
    pub(super) fib_v6: Fib<u128>,
}

impl Ways {
    pub(super) fn new(inputs: &CompileInputs<'_>) -> Result<Self, FibTooLarge> {
        let configured = inputs.desired.local.is_some();
        let nothing = if configured { DropReason::NoRoute } else { DropReason::NotConfigured };
        let mut adjacencies = Adjacencies::new(inputs, nothing);
        let routes = [false, true].map(|v6| routes(inputs, v6, &mut adjacencies));
        let mut leaves = Leaves::new();
        let fib_v4 = fib(inputs, false, &routes[0], &mut leaves)?;
        let fib_v6 = fib(inputs, true, &routes[1], &mut leaves)?;
        leaves.at_first = leaves.list.len();
        leaves.share();
        let tunnel_peers = adjacencies.tunnel_peers();
        let (list, groups) = adjacencies.into_lists();
        Ok(Self {
            ports: inputs.ports.clone(),
            underlay: inputs.underlay.clone(),
            tunnel_peers,
            adjacencies: list.into(),
            groups: Arc::new(groups),
            routes,
            leaves,
            fib_v4,
            fib_v6,
        })
    }

    /// Those of `inputs`, of which only what is touched differs from what these were made from, but for ports and the
    /// underlay.
    pub(super) fn follow(
        mut self,
        inputs: &CompileInputs<'_>,
        touched: &Touched,
    ) -> Result<Self, FibTooLarge> {
        let same =
            touched.spares_routes() && self.ports == *inputs.ports && self.underlay == *inputs.underlay;
        if !same {
            return Self::new(inputs);
        }
        let is_touched = |v6| touched.prefixes.iter().any(|prefix| matches!(prefix, IpNet::V6(_)) == v6);
        if is_touched(false) {
            self.fib_v4 = fib(inputs, false, &self.routes[0], &mut self.leaves)?;
        }
        if is_touched(true) {
            self.fib_v6 = fib(inputs, true, &self.routes[1], &mut self.leaves)?;
        }
        if self.leaves.list.len() > 2 * self.leaves.at_first + SPARE {
            return Self::new(inputs);
        }
        self.leaves.share();
        Ok(self)
    }

    pub(super) fn leaves(&self) -> Arc<[Leaf]> {
        Arc::clone(&self.leaves.shared)
    }
}

/// The routes of one family, by adjacency.
fn routes<'a>(inputs: &CompileInputs<'a>, v6: bool, adjacencies: &mut Adjacencies<'a>) -> Vec<Range> {
    let of_family = |net: &IpNet| matches!(net, IpNet::V6(_)) == v6;
    let mut routes: BTreeMap<(u128, u8), u32> = BTreeMap::new();
    for (net, next_hop) in inputs.desired.routes.iter().filter(|(net, _)| of_family(net)) {
        routes.insert(aligned(net), adjacencies.of(Way::of(next_hop), v6).0);
    }
    for address in own_addresses(inputs).map(IpNet::from).filter(of_family) {
        routes.insert(aligned(&address), adjacencies.of(Way::of(&NextHop::Host), v6).0);
    }
    fib::ranges(routes.into_iter().map(|((start, length), value)| (start, length, value)).collect(), 0)
}

/// The FIB of one family.
fn fib<A: fib::Address>(
    inputs: &CompileInputs<'_>,
    v6: bool,
    routes: &[Range],
    leaves: &mut Leaves,
) -> Result<Fib<A>, FibTooLarge> {
    // IPv4 comes before IPv6.
    let first_v6 = IpNet::from(Ipv6Net::default());
    let prefixes = &inputs.desired.prefixes;
    let (identities, numbers) =
        identity_ranges(if v6 { prefixes.range(first_v6..) } else { prefixes.range(..first_v6) });
    let merged = fib::merge(routes, &identities, |adjacency, identity| {
        leaves.of(Leaf { adjacency: AdjacencyIndex(adjacency), identity: numbers[identity as usize] })
    });
    Fib::build(&merged)
}

/// Ranges hold 31 bits, identities 32: they are numbered in between.
fn identity_ranges<'a>(
    prefixes: impl Iterator<Item = (&'a IpNet, &'a IdentityId)>,
) -> (Vec<Range>, Vec<IdentityId>) {
    let mut numbers = vec![IdentityId::UNKNOWN];
    let mut known: HashMap<IdentityId, u32, FixedState> = HashMap::from_iter([(IdentityId::UNKNOWN, 0)]);
    let list = prefixes.map(|(net, identity)| {
        let (start, length) = aligned(net);
        let number = *known.entry(*identity).or_insert_with(|| {
            numbers.push(*identity);
            numbers.len() as u32 - 1
        });
        (start, length, number)
    });
    let list = list.collect();
    (fib::ranges(list, 0), numbers)
}

/// First address, aligned to the left, and length.
fn aligned(net: &IpNet) -> (u128, u8) {
    match net {
        IpNet::V4(net) => (u128::from(net.network().to_bits()) << 96, net.prefix_len()),
        IpNet::V6(net) => (net.network().to_bits(), net.prefix_len()),
    }
}

/// Leaves, equal ones once. Leaf 0 has adjacency 0 and the unknown identity.
#[derive(Debug)]
struct Leaves {
    list: Vec<Leaf>,
    known: HashMap<Leaf, u32, FixedState>,
    /// How many there were when all was made anew.
    at_first: usize,
    /// The list, as tables hold it.
    shared: Arc<[Leaf]>,
}

impl Leaves {
    fn new() -> Self {
        let nothing = Leaf::default();
        let known = HashMap::from_iter([(nothing, 0)]);
        Self { list: vec![nothing], known, at_first: 1, shared: Arc::new([nothing]) }
    }

    /// What is in the list never changes, so it is another only when it is longer.
    fn share(&mut self) {
        if self.shared.len() != self.list.len() {
            self.shared = self.list.as_slice().into();
        }
    }

    fn of(&mut self, leaf: Leaf) -> u32 {
        *self.known.entry(leaf).or_insert_with(|| {
            self.list.push(leaf);
            self.list.len() as u32 - 1
        })
    }
}
