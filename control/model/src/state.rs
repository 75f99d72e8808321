//! Desired state: everything control wants of an engine, its changes, and the rules that keep it whole.
//!
//! A [`DesiredState`] is whole when all that its parts refer to is in it ([`DesiredState::check`]). A [`Delta`] is an
//! ordered list of [`Change`]s from one generation to the next; what is referred to comes before what refers to it
//! (identities, sets, policies, subjects, tunnels, ports, prefixes, routes) and removal goes the other way. Applying a
//! delta to a whole state must give a whole state, otherwise it is refused and the state before stays in force.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::{Policy, PolicyId, Subject};
use crate::port::{Port, PortName};
use crate::route::{Dscp, NextHop, PodTunnels, Tunnel, TunnelId, VxlanNetwork};
use crate::touched::Touched;
use crate::{Identity, IdentityId, IdentitySet, SetId, Vni};

/// The version of a desired state. 0 is the empty state of an engine nobody has spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What this node is to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The node's name.
    pub node: String,
    /// Its underlay address for IPv4 outer headers; tunnel packets must be addressed to it.
    pub underlay_v4: Option<Ipv4Addr>,
    /// The same for IPv6 outer headers.
    pub underlay_v6: Option<Ipv6Addr>,
    /// The VXLAN networks this node has an end of, at most [`crate::limits::VXLAN_NETWORKS_MAX`]. IP-in-IP it accepts always.
    pub networks: Vec<VxlanNetwork>,
    /// What becomes of the DSCP through its tunnels.
    pub dscp: Dscp,
    /// Which tunnel packets its pods may send of their own.
    #[serde(default)]
    pub pod_tunnels: PodTunnels,
    /// Addresses of the host port: the node's own, from the pods' pool. At most one of each family.
    pub host_addresses: Vec<IpAddr>,
    /// What the node's kernel sends to the host port: the pools.
    pub host_routes: Vec<IpNet>,
    /// MTU of the host port, in bytes.
    pub host_mtu: u16,
}

impl Local {
    /// Its end of a VXLAN network.
    #[must_use]
    pub fn network(&self, vni: Vni, port: u16) -> Option<&VxlanNetwork> {
        self.networks.iter().find(|network| (network.vni, network.port) == (vni, port))
    }
}

/// Everything control wants of one engine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DesiredState {
    /// What this node is to the others; None until the agent has spoken.
    pub local: Option<Local>,
    /// Identities by number. [`IdentityId::UNKNOWN`] needs no entry.
    pub identities: BTreeMap<IdentityId, Identity>,
    /// Sets of identities by number.
    pub sets: BTreeMap<SetId, IdentitySet>,
    /// Policies by number.
    pub policies: BTreeMap<PolicyId, Policy>,
    /// What applies to whom.
    pub subjects: BTreeMap<IdentityId, Subject>,
    /// Tunnels by number.
    pub tunnels: BTreeMap<TunnelId, Tunnel>,
    /// Pods' ports by name.
    pub ports: BTreeMap<PortName, Port>,
    /// Longest match gives an address its identity. Independent of routes; an address without a match is unknown.
    pub prefixes: BTreeMap<IpNet, IdentityId>,
    /// Longest match gives an address its next hop.
    pub routes: BTreeMap<IpNet, NextHop>,
}

/// One step of a delta: set a thing, or remove it by its key. Setting replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Set what this node is to the others.
    SetLocal(Local),
    /// Set an identity.
    SetIdentity(Identity),
    /// Set a set.
    SetSet(IdentitySet),
    /// Set a policy.
    SetPolicy(Policy),
    /// Set a subject.
    SetSubject(Subject),
    /// Set a tunnel.
    SetTunnel(Tunnel),
    /// Set a port.
    SetPort(Port),
    /// Set the identity of a prefix.
    SetPrefix(IpNet, IdentityId),
    /// Set the next hop of a prefix.
    SetRoute(IpNet, NextHop),
    /// Remove a route.
    RemoveRoute(IpNet),
    /// Remove a prefix.
    RemovePrefix(IpNet),
    /// Remove a port.
    RemovePort(PortName),
    /// Remove a tunnel.
    RemoveTunnel(TunnelId),
    /// Remove a subject.
    RemoveSubject(IdentityId),
    /// Remove a policy.
    RemovePolicy(PolicyId),
    /// Remove a set.
    RemoveSet(SetId),
    /// Remove an identity.
    RemoveIdentity(IdentityId),
}

/// What leads from one generation to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The generation it starts from; the engine refuses it when it has another.
    pub base: Generation,
    /// The steps, in order.
    pub changes: Vec<Change>,
}

impl DesiredState {
    /// The changes that lead from `self` to `to`, in an order in which nothing ever refers to what is not there.
    #[must_use]
    pub fn changes_to(&self, to: &Self) -> Vec<Change> {
        Touched::between(self, to).changes(to)
    }

    /// Does one change. What it leads to is judged by [`Self::check`], once, after the last change of a delta.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::SetLocal(local) => self.local = Some(local),
            Change::SetIdentity(identity) => drop(self.identities.insert(identity.id, identity)),
            Change::SetSet(set) => drop(self.sets.insert(set.id, set)),
            Change::SetPolicy(policy) => drop(self.policies.insert(policy.id, policy)),
            Change::SetSubject(subject) => drop(self.subjects.insert(subject.identity, subject)),
            Change::SetTunnel(tunnel) => drop(self.tunnels.insert(tunnel.id, tunnel)),
            Change::SetPort(port) => drop(self.ports.insert(port.name.clone(), port)),
            Change::SetPrefix(prefix, identity) => drop(self.prefixes.insert(prefix, identity)),
            Change::SetRoute(prefix, next_hop) => drop(self.routes.insert(prefix, next_hop)),
            Change::RemoveRoute(prefix) => drop(self.routes.remove(&prefix)),
            Change::RemovePrefix(prefix) => drop(self.prefixes.remove(&prefix)),
            Change::RemovePort(name) => drop(self.ports.remove(&name)),
            Change::RemoveTunnel(id) => drop(self.tunnels.remove(&id)),
            Change::RemoveSubject(id) => drop(self.subjects.remove(&id)),
            Change::RemovePolicy(id) => drop(self.policies.remove(&id)),
            Change::RemoveSet(id) => drop(self.sets.remove(&id)),
            Change::RemoveIdentity(id) => drop(self.identities.remove(&id)),
        }
    }
}
