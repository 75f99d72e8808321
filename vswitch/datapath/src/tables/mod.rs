//! What the walk reads: immutable tables, built by [`crate::compile()`], shared by all workers.

mod adjacency;
mod group;
mod judge;
mod local;
mod port;
mod template;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use vswitch_model::{DropReason, Generation, IdentityId, Mac, TunnelId};

pub use adjacency::{Adjacency, AdjacencyIndex, NodeIndex};
pub(crate) use group::{Buckets, Group, Member};
pub use judge::{Denied, Judgement, Question, StagedVerdict};
pub use local::{LocalEntry, Networks, Refused};
pub use port::{GATEWAY_V4, GATEWAY_V6, PortEntry, Role};
pub use template::{Headers, TunnelTemplate};

use crate::fib::Fib;
use crate::policy::{FlowPorts, PolicyTables};
use crate::{BATCH, PortIndex};

/// Which tables: no two that one engine publishes have the same, not even of the same generation (the underlay or a port
/// changed). A flow that was judged by others is judged again, where its policy is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// What one look-up of an address gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Leaf {
    /// The way there; by several next hops, the first of them, which stands for all.
    pub adjacency: AdjacencyIndex,
    /// Who that is.
    pub identity: IdentityId,
}

/// Who may send us tunnel packets from an underlay address, in whichever encapsulation: of nodes whose pool changes its
/// mode some know of it before the others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelPeer {
    /// A tunnel to it.
    pub tunnel: TunnelId,
    /// The node it is.
    pub node: NodeIndex,
}

/// Everything the walk reads. Look-ups are total: what is out of range is a drop.
#[derive(Debug, Clone)]
pub struct Tables {
    /// The desired state they were built from.
    pub generation: Generation,
    /// Which tables they are.
    pub revision: Revision,
    pub(crate) fib_v4: Fib<u32>,
    pub(crate) fib_v6: Fib<u128>,
    pub(crate) leaves: Arc<[Leaf]>,
    pub(crate) adjacencies: Arc<[Adjacency]>,
    /// By the adjacency in leaves; of ways by several next hops.
    pub(crate) groups: Arc<HashMap<AdjacencyIndex, Group, FixedState>>,
    /// Who may open flows to whom.
    pub policy: PolicyTables,
    pub(crate) ports: Vec<PortEntry>,
    pub(crate) local: Option<LocalEntry>,
    /// The keys come from the agent, not from packets, and the map is at most half full: a fixed hash serves.
    pub(crate) tunnel_peers: HashMap<IpAddr, TunnelPeer, FixedState>,
    /// The node's own addresses, all of them. A fixed hash serves here, too.
    pub(crate) own: HashSet<IpAddr, FixedState>,
    /// Whether there is a port that takes large packets.
    pub(crate) coalesces: bool,
}

impl Tables {
    /// Whether there is a port that takes large packets, so that it is worth coalescing what leaves.
    #[must_use]
    pub const fn coalesces(&self) -> bool {
        self.coalesces
    }

    /// The tables of an engine nobody has spoken to: every packet is [`DropReason::NotConfigured`] or denied.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            generation: Generation(0),
            revision: Revision(0),
            fib_v4: Fib::default(),
            fib_v6: Fib::default(),
            leaves: Arc::new([Leaf::default()]),
            adjacencies: Arc::new([Adjacency::Drop(DropReason::NotConfigured)]),
            groups: Arc::default(),
            policy: PolicyTables::deny_all(),
            ports: Vec::new(),
            local: None,
            tunnel_peers: HashMap::default(),
            own: HashSet::default(),
            coalesces: false,
        }
    }

    /// Says that these tables come after `before`, whose flows are judged again only where a pod's policy is not as it
    /// was, or an end is somebody else.
    pub fn follow(&mut self, before: &Self) {
        self.policy.follow((&before.policy, before.revision), self.revision);
    }

    /// The leaf of an IPv4 address in host order.
    #[inline]
    #[must_use]
    pub fn lookup_v4(&self, address: u32) -> Leaf {
        self.leaf(self.fib_v4.lookup(address))
    }

    /// The leaf of an IPv6 address.
    #[inline]
    #[must_use]
    pub fn lookup_v6(&self, address: u128) -> Leaf {
        self.leaf(self.fib_v6.lookup(address))
    }

    /// The leaves of up to [`BATCH`] IPv4 addresses; of more the rest is left alone.
    #[inline]
    pub fn lookup_v4_batch(&self, addresses: &[u32], leaves: &mut [Leaf]) {
        let mut numbers = [0; BATCH];
        self.fib_v4.lookup_batch(addresses, &mut numbers);
        for ((leaf, number), _) in leaves.iter_mut().zip(numbers).zip(addresses) {
            *leaf = self.leaf(number);
        }
    }

    /// The leaves of up to [`BATCH`] IPv6 addresses; of more the rest is left alone.
    #[inline]
    pub fn lookup_v6_batch(&self, addresses: &[u128], leaves: &mut [Leaf]) {
        let mut numbers = [0; BATCH];
        self.fib_v6.lookup_batch(addresses, &mut numbers);
        for ((leaf, number), _) in leaves.iter_mut().zip(numbers).zip(addresses) {
            *leaf = self.leaf(number);
        }
    }

    /// The leaf of an address of either family.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Leaf {
        match address {
            IpAddr::V4(address) => self.lookup_v4(address.to_bits()),
            IpAddr::V6(address) => self.lookup_v6(address.to_bits()),
        }
    }

    /// The same of up to [`BATCH`] addresses, see [`Fib::lookup_batch`]; of more the rest is left alone.
    #[inline]
    pub fn lookup_batch(&self, addresses: impl Iterator<Item = IpAddr> + Clone, leaves: &mut [Leaf]) {
        let (mut v4, mut numbers, mut found) = ([0; BATCH], [0; BATCH], [Leaf::default(); BATCH]);
        let (mut count, mut others) = (0, 0);
        for (number, address) in (0..).zip(addresses.clone()).take(BATCH) {
            match address {
                IpAddr::V4(address) => {
                    (v4[count % BATCH], numbers[count % BATCH]) = (address.to_bits(), number);
                    count += 1;
                }
                IpAddr::V6(_) => others += 1,
            }
        }
        self.lookup_v4_batch(&v4[..count], &mut found);
        put(leaves, &numbers[..count], &found);
        if others > 0 {
            self.lookup_v6_among(addresses, leaves);
        }
    }

    fn lookup_v6_among(&self, addresses: impl Iterator<Item = IpAddr>, leaves: &mut [Leaf]) {
        let (mut v6, mut numbers, mut found) = ([0; BATCH], [0; BATCH], [Leaf::default(); BATCH]);
        let mut count = 0;
        for (number, address) in (0..).zip(addresses).take(BATCH) {
            if let IpAddr::V6(address) = address {
                (v6[count % BATCH], numbers[count % BATCH]) = (address.to_bits(), number);
                count += 1;
            }
        }
        self.lookup_v6_batch(&v6[..count], &mut found);
        put(leaves, &numbers[..count], &found);
    }

    /// What is done to packets that leave by `index`; nothing leaves by one that is out of range.
    #[inline]
    #[must_use]
    pub fn adjacency(&self, index: AdjacencyIndex) -> &Adjacency {
        self.adjacencies.get(index.0 as usize).unwrap_or(&Adjacency::Drop(DropReason::NoRoute))
    }

    /// The leaf as a flow of this hash has it: where several next hops lead there, with the adjacency of its own. It is
    /// asked when a flow is opened and when it is judged again, never of a known one's packets.
    #[inline]
    #[must_use]
    pub(crate) fn choose(&self, leaf: Leaf, hash: u64) -> Leaf {
        match self.groups.get(&leaf.adjacency) {
            Some(group) => Leaf { adjacency: group.choose(hash), ..leaf },
            None => leaf,
        }
    }

    /// The adjacencies that the adjacency of a leaf stands for.
    pub(crate) fn members(&self, index: AdjacencyIndex) -> impl Iterator<Item = &Adjacency> {
        let count = self.groups.get(&index).map_or(1, |group| u32::from(group.count));
        (index.0..index.0 + count).map(|member| self.adjacency(AdjacencyIndex(member)))
    }

    /// Whether the station of this Ethernet address is the node itself that the tunnel leads to. Whose packets come from a
    /// router nobody can say.
    #[must_use]
    pub(crate) fn is_tunnel_end(&self, index: AdjacencyIndex, mac: Mac) -> bool {
        self.members(index).any(|member| member.tunnel_end() == Some(mac))
    }

    /// What is known of a port: [`PortEntry::NONE`] when nothing is.
    #[inline]
    #[must_use]
    pub fn port(&self, index: PortIndex) -> &PortEntry {
        self.ports.get(usize::from(index.0)).unwrap_or(PortEntry::NONE)
    }

    /// The ports by number, those of role [`Role::None`] among them.
    pub fn ports(&self) -> impl Iterator<Item = (PortIndex, &PortEntry)> {
        (0..).map(PortIndex).zip(&self.ports)
    }

    /// The port of a name.
    #[must_use]
    pub fn port_named(&self, name: &str) -> Option<PortIndex> {
        self.ports()
            .find(|(_, port)| port.name.as_ref().is_some_and(|n| n.as_str() == name))
            .map(|(index, _)| index)
    }

    /// What this node is to the underlay; None until the agent has spoken.
    #[inline]
    #[must_use]
    pub fn local(&self) -> Option<&LocalEntry> {
        self.local.as_ref()
    }

    /// Whether a pod may not open such a flow, whatever policy says: with a tunnel packet of its own.
    #[inline]
    #[must_use]
    pub fn refuses_tunnel(&self, opened: FlowPorts) -> bool {
        self.local.as_ref().is_some_and(|local| local.refused.has(opened))
    }

    /// Who sends us tunnel packets from this underlay address.
    #[inline]
    #[must_use]
    pub fn tunnel_from(&self, outer_source: IpAddr) -> Option<TunnelPeer> {
        self.tunnel_peers.get(&outer_source).copied()
    }

    /// Whether it is one of this node's own addresses.
    #[inline]
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// Whether what has the leaf `source` lives on the node of `peer`: by whichever of its tunnels, or directly, we
    /// would answer, and whether or not the way there is resolved.
    #[inline]
    #[must_use]
    pub fn lives_behind(&self, source: Leaf, peer: TunnelPeer) -> bool {
        peer.node != NodeIndex::NONE && self.adjacency(source.adjacency).node() == peer.node
    }

    /// Bytes of memory the FIBs and the policy take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.fib_v4.memory_bytes()
            + self.fib_v6.memory_bytes()
            + size_of_val(&*self.leaves)
            + size_of_val(&*self.adjacencies)
            + self.groups.len() * (size_of::<Group>() + size_of::<Buckets>())
            + self.policy.memory_bytes()
    }

    #[inline]
    fn leaf(&self, number: u32) -> Leaf {
        self.leaves.get(number as usize).copied().unwrap_or_default()
    }
}

#[inline]
fn put(leaves: &mut [Leaf], numbers: &[u8], found: &[Leaf]) {
    for (number, found) in numbers.iter().zip(found) {
        if let Some(leaf) = leaves.get_mut(usize::from(*number)) {
            *leaf = *found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_tables_drop_and_deny_everything() {
        let tables = Tables::empty();
        for leaf in [tables.lookup_v4(0x0a00_0001), tables.lookup_v6(1)] {
            assert_eq!(tables.adjacency(leaf.adjacency).drop_reason(), Some(DropReason::NotConfigured));
            assert!(!tables.policy.ingress(leaf.identity, IdentityId(7), FlowPorts::to(6, 80)).allow);
            assert!(!tables.policy.egress(IdentityId(16), leaf.identity, FlowPorts::to(17, 80)).allow);
        }
        assert_eq!(tables.port(PortIndex(0)).role, Role::None);
        assert_eq!(tables.adjacency(AdjacencyIndex(9)).drop_reason(), Some(DropReason::NoRoute));
        assert!(tables.tunnel_from("10.0.0.1".parse().unwrap()).is_none() && tables.local().is_none());
    }
}
