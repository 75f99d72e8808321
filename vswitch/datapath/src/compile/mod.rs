//! From the desired state to tables. A pure function of its inputs, run by the engine's compiler thread.

mod adjacency;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_model::{DesiredState, DropReason, Generation, IdentityId, Local, Mac, NextHop, PortName};

use crate::PortIndex;
use crate::fib::{self, Fib, FibTooLarge, Range};
use crate::policy::{PolicyTables, PolicyTooLarge};
use crate::tables::{Leaf, LocalEntry, PortEntry, Revision, Role, Tables};
use adjacency::{Adjacencies, Way};

/// What the engine knows of a port that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortFacts {
    /// Its number.
    pub index: PortIndex,
    /// What is at its other end.
    pub role: Role,
    /// The uplink's own Ethernet address. A pod's comes from the desired state; the host port has none.
    pub mac: Mac,
    /// MTU of an uplink or the host port, in bytes. A pod's comes from the desired state.
    pub mtu: u16,
    /// Whether it takes packets whose checksum is still to be finished.
    pub finishes_checksums: bool,
}

/// The ports that are open, uplinks and the host port among them. A port of the desired state that is not here is gone:
/// routes to it drop with [`DropReason::PortGone`].
pub type PortMap = BTreeMap<PortName, PortFacts>;

/// The way to a next hop on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The uplink.
    pub port: PortIndex,
    /// The next hop's Ethernet address.
    pub dst_mac: Mac,
    /// The uplink's own.
    pub src_mac: Mac,
    /// The uplink's MTU in bytes.
    pub mtu: u16,
}

/// What the kernel's routes and neighbours say of the underlay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Underlay {
    /// By remote address: the way there. Missing while it is not resolved.
    pub hops: BTreeMap<IpAddr, Hop>,
    /// This node's own addresses; packets to them go to the host port, whatever the desired routes say.
    pub local_addresses: BTreeSet<IpAddr>,
}

/// What tables are made from.
#[derive(Debug, Clone, Copy)]
pub struct CompileInputs<'a> {
    /// Version of the desired state.
    pub generation: Generation,
    /// Of these tables: never given twice while flows live, because flows judged by other tables are told by it. The
    /// engine counts compilations from 1.
    pub revision: Revision,
    /// What control wants. It has passed [`DesiredState::check`].
    pub desired: &'a DesiredState,
    /// The ports that are open.
    pub ports: &'a PortMap,
    /// The underlay.
    pub underlay: &'a Underlay,
}

/// Why there are no tables. The ones before stay in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Policy is too large.
    #[error(transparent)]
    Policy(#[from] PolicyTooLarge),
    /// There are too many routes and prefixes.
    #[error(transparent)]
    Fib(#[from] FibTooLarge),
    /// Two open ports have one number, or a number is out of range.
    #[error("port {name} has number {index}, which {problem}", index = index.0)]
    PortNumber {
        /// The port.
        name: PortName,
        /// Its number.
        index: PortIndex,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Makes tables. In a state without [`DesiredState::local`] whatever no route covers is
/// [`DropReason::NotConfigured`], in any other [`DropReason::NoRoute`].
pub fn compile(inputs: &CompileInputs<'_>) -> Result<Tables, CompileError> {
    let desired = inputs.desired;
    let nothing = if desired.local.is_some() { DropReason::NoRoute } else { DropReason::NotConfigured };
    let ports = compile_ports(inputs)?;
    let mut adjacencies = Adjacencies::new(inputs, nothing);
    let mut leaves = Leaves::new();
    let fib_v4 = compile_fib(inputs, false, &mut adjacencies, &mut leaves)?;
    let fib_v6 = compile_fib(inputs, true, &mut adjacencies, &mut leaves)?;
    let tunnel_peers = adjacencies.tunnel_peers();
    Ok(Tables {
        generation: inputs.generation,
        revision: inputs.revision,
        fib_v4,
        fib_v6,
        leaves: leaves.list,
        adjacencies: adjacencies.into_list(),
        policy: PolicyTables::build(desired)?,
        ports,
        local: desired.local.as_ref().map(local_entry),
        tunnel_peers,
        own: own_addresses(inputs).collect(),
    })
}

fn compile_ports(inputs: &CompileInputs<'_>) -> Result<Vec<PortEntry>, CompileError> {
    let count = inputs.ports.values().map(|facts| usize::from(facts.index.0) + 1).max().unwrap_or(0);
    let mut entries = vec![PortEntry::NONE.clone(); count];
    for (name, facts) in inputs.ports {
        let refuse = |problem| CompileError::PortNumber { name: name.clone(), index: facts.index, problem };
        if usize::from(facts.index.0) >= vswitch_model::limits::PORTS_MAX {
            return Err(refuse("is not below 1024"));
        }
        let entry = &mut entries[usize::from(facts.index.0)];
        if entry.name.is_some() {
            return Err(refuse("another port has too"));
        }
        *entry = match (facts.role, inputs.desired.ports.get(name)) {
            (Role::Pod, Some(pod)) => PortEntry::new(Role::Pod, pod.mac, pod.mtu, &pod.addresses),
            // It is about to be removed.
            (Role::Pod, None) => PortEntry::NONE.clone(),
            (role, _) => PortEntry::new(role, facts.mac, facts.mtu, &[]),
        };
        entry.name = Some(name.clone());
        entry.finishes_checksums = facts.finishes_checksums;
    }
    Ok(entries)
}

fn local_entry(local: &Local) -> LocalEntry {
    let mut addresses = local.host_addresses.iter();
    LocalEntry {
        underlay_v4: local.underlay_v4,
        underlay_v6: local.underlay_v6,
        vtep_mac_v4: local.vtep_mac_v4,
        vtep_mac_v6: local.vtep_mac_v6,
        vni: local.vni,
        vxlan_port: local.vxlan_port,
        host_v4: addresses
            .clone()
            .find_map(|address| if let IpAddr::V4(a) = address { Some(*a) } else { None }),
        host_v6: addresses.find_map(|address| if let IpAddr::V6(a) = address { Some(*a) } else { None }),
    }
}

/// The FIB of one family: routes and identities, each by longest match, laid over each other.
fn compile_fib<'a, A: fib::Address>(
    inputs: &CompileInputs<'a>,
    v6: bool,
    adjacencies: &mut Adjacencies<'a>,
    leaves: &mut Leaves,
) -> Result<Fib<A>, FibTooLarge> {
    let desired = inputs.desired;
    let of_family = |net: &IpNet| matches!(net, IpNet::V6(_)) == v6;
    let mut routes: BTreeMap<(u128, u8), u32> = BTreeMap::new();
    for (net, next_hop) in desired.routes.iter().filter(|(net, _)| of_family(net)) {
        routes.insert(aligned(net), adjacencies.of(Way::of(next_hop), v6).0);
    }
    for address in own_addresses(inputs).map(IpNet::from).filter(of_family) {
        routes.insert(aligned(&address), adjacencies.of(Way::of(&NextHop::Host), v6).0);
    }
    let prefixes = desired.prefixes.iter().filter(|(net, _)| of_family(net));
    let routes =
        fib::ranges(routes.into_iter().map(|((start, length), value)| (start, length, value)).collect(), 0);
    let (identities, numbers) = identity_ranges(prefixes);
    let merged = fib::merge(&routes, &identities, |adjacency, identity| {
        leaves.of(Leaf {
            adjacency: crate::tables::AdjacencyIndex(adjacency),
            identity: numbers[identity as usize],
        })
    });
    Fib::build(&merged)
}

/// The node's own addresses: those control told, and those the kernel has.
fn own_addresses<'a>(inputs: &CompileInputs<'a>) -> impl Iterator<Item = IpAddr> + use<'a> {
    let told = inputs.desired.local.iter().flat_map(|local| {
        let underlay = [local.underlay_v4.map(IpAddr::V4), local.underlay_v6.map(IpAddr::V6)];
        local.host_addresses.iter().copied().chain(underlay.into_iter().flatten())
    });
    told.chain(inputs.underlay.local_addresses.iter().copied())
}

/// Ranges hold 31 bits, identities 32: they are numbered in between.
fn identity_ranges<'a>(
    prefixes: impl Iterator<Item = (&'a IpNet, &'a IdentityId)>,
) -> (Vec<Range>, Vec<IdentityId>) {
    let mut numbers = vec![IdentityId::UNKNOWN];
    let mut known = HashMap::from([(IdentityId::UNKNOWN, 0)]);
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
struct Leaves {
    list: Vec<Leaf>,
    known: HashMap<Leaf, u32>,
}

impl Leaves {
    fn new() -> Self {
        let nothing = Leaf::default();
        Self { list: vec![nothing], known: HashMap::from([(nothing, 0)]) }
    }

    fn of(&mut self, leaf: Leaf) -> u32 {
        *self.known.entry(leaf).or_insert_with(|| {
            self.list.push(leaf);
            self.list.len() as u32 - 1
        })
    }
}
