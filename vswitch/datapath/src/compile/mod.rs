//! From the desired state to tables, all at once or as the state changes, run by the engine's compiler thread.

mod adjacency;
#[cfg(test)]
mod follow_tests;
mod headers;
#[cfg(test)]
mod tests;
mod tunnels;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use vswitch_model::{DesiredState, Generation, Mac, PortName, Touched};

use crate::PortIndex;
use crate::fib::FibTooLarge;
use crate::policy::{PolicyCompiler, PolicyTooLarge};
use crate::tables::{Group, LocalEntry, PortEntry, Revision, Role, Tables};
pub use tunnels::Tunnels;
use ways::Ways;

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
    /// Whether it takes packets that are still to be cut into segments.
    pub takes_large: bool,
}

/// The ports that are open, uplinks and the host port among them. A port of the desired state that is not here is gone:
/// routes to it drop with [`vswitch_model::DropReason::PortGone`].
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
    /// The uplink's MTU in bytes, or less where the kernel's route says so.
    pub mtu: u16,
    /// Its share of the flows where there are several, in proportion to that of the others; 0 counts as 1.
    pub weight: u16,
    /// Whether it is the remote node itself, and no router.
    pub on_link: bool,
}

/// The most next hops that the flows to one remote address are spread over.
pub const HOPS_MAX: usize = Group::MEMBERS_MAX;

/// What the kernel's routes and neighbours say of the underlay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Underlay {
    /// By remote address: the ways there, of which every flow takes one. Missing or empty while none is resolved. No
    /// more than [`HOPS_MAX`] are used.
    pub hops: BTreeMap<IpAddr, Vec<Hop>>,
    /// By remote address: the largest outer packet that passes, in bytes, as routers say of the tunnels there.
    pub paths: BTreeMap<IpAddr, u16>,
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
/// [`vswitch_model::DropReason::NotConfigured`], in any other [`vswitch_model::DropReason::NoRoute`].
pub fn compile(inputs: &CompileInputs<'_>) -> Result<Tables, CompileError> {
    Compiler::new().compile(inputs, None)
}

/// Makes tables one after the other. What a change does not touch the next tables share with those before, and say the
/// same of every packet as those that [`compile()`] makes.
#[derive(Debug)]
pub struct Compiler {
    policy: PolicyCompiler,
    ways: Option<Ways>,
}

impl Compiler {
    /// One that has made no tables.
    #[must_use]
    pub fn new() -> Self {
        Self { policy: PolicyCompiler::new(), ways: None }
    }

    /// The tables of `inputs`. `before` is the desired state whose tables this compiler made last, and all that was
    /// touched since; None: anything may have been. After an error all is made anew.
    pub fn compile(
        &mut self,
        inputs: &CompileInputs<'_>,
        before: Option<(&DesiredState, &Touched)>,
    ) -> Result<Tables, CompileError> {
        let (desired, touched) = (inputs.desired, before.map(|(_, touched)| touched));
        let ports = compile_ports(inputs)?;
        let ways = match (self.ways.take(), touched) {
            (Some(ways), Some(touched)) => ways.follow(inputs, touched)?,
            _ => Ways::new(inputs)?,
        };
        let policy = self.policy.tables(before, desired)?;
        let tables = Tables {
            generation: inputs.generation,
            revision: inputs.revision,
            fib_v4: ways.fib_v4.clone(),
            fib_v6: ways.fib_v6.clone(),
            leaves: ways.leaves(),
            adjacencies: Arc::clone(&ways.adjacencies),
            groups: Arc::clone(&ways.groups),
            policy,
            ports,
            local: desired.local.as_ref().map(LocalEntry::new),
            tunnel_peers: ways.tunnel_peers.clone(),
            own: own_addresses(inputs).collect(),
            coalesces: inputs.ports.values().any(|facts| facts.takes_large),
        };
        self.ways = Some(ways);
        Ok(tables)
    }
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new()
    }
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
        entry.takes_large = facts.takes_large;
    }
    Ok(entries)
}

/// The node's own addresses: those control told, and those the kernel has.
fn own_addresses<'a>(inputs: &CompileInputs<'a>) -> impl Iterator<Item = IpAddr> + use<'a> {
    let told = inputs.desired.local.iter().flat_map(|local| {
        let underlay = [local.underlay_v4.map(IpAddr::V4), local.underlay_v6.map(IpAddr::V6)];
        local.host_addresses.iter().copied().chain(underlay.into_iter().flatten())
    });
    told.chain(inputs.underlay.local_addresses.iter().copied())
}
