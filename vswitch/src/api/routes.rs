//! The routes there are, and where packets that take them go now.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use vswitch_datapath::compile::Tunnels;
use vswitch_datapath::tables::Role;
use vswitch_model::api::engine as pb;
use vswitch_model::{DesiredState, Invalid, NextHop, PortName, Tunnel};

use super::{Streamed, explain};
use crate::engine::Snapshot;
use crate::netlink::Hop;

/// Routes listed when nobody says how many.
const LIMIT: u32 = 1000;
/// Routes on their way to the client.
const QUEUE: usize = 256;

/// Which routes are listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteQuery {
    limit: u32,
    address: Option<IpAddr>,
}

impl TryFrom<pb::ListRoutesRequest> for RouteQuery {
    type Error = Invalid;

    fn try_from(request: pb::ListRoutesRequest) -> Result<Self, Invalid> {
        let address = match request.address.as_str() {
            "" => None,
            text => Some(explain::address(text, "address")?),
        };
        Ok(Self { limit: if request.limit == 0 { LIMIT } else { request.limit }, address })
    }
}

pub(super) fn list(snapshot: Arc<Snapshot>, query: RouteQuery) -> Streamed<pb::RouteStatus> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let routes = Routes::of(&snapshot);
        if let Some(address) = query.address {
            if let Some(route) = routes.to(address) {
                // The client may have gone away.
                sender.blocking_send(Ok(route)).ok();
            }
            return;
        }
        for route in routes.all().take(query.limit as usize) {
            if sender.blocking_send(Ok(route)).is_err() {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// Whether anything can go to an address on the underlay: there is a next hop by an open uplink.
pub(super) fn is_resolved(snapshot: &Snapshot, remote: IpAddr) -> bool {
    hops(snapshot, remote).next().is_some()
}

/// The next hops to an address on the underlay that are used.
fn hops(snapshot: &Snapshot, remote: IpAddr) -> impl Iterator<Item = &Hop> + Clone {
    let hops = snapshot.facts.hops.get(&remote).into_iter().flatten().flatten();
    hops.filter(|hop| snapshot.ports.open.keys().any(|name| name.as_str() == hop.interface))
}

/// Why nothing goes to an address on the underlay; empty when it does.
fn hindrance(snapshot: &Snapshot, remote: IpAddr) -> String {
    if is_resolved(snapshot, remote) {
        return String::new();
    }
    match snapshot.facts.hops.get(&remote) {
        Some(Err(why)) => why.to_string(),
        Some(Ok(hops)) => {
            let names: Vec<_> = hops.iter().map(|hop| hop.interface.as_str()).collect();
            format!("its uplink {} is not open", names.join(", "))
        }
        None => "the kernel has not been asked for the way there yet".to_owned(),
    }
}

/// The routes of one moment.
pub(super) struct Routes<'a> {
    snapshot: &'a Snapshot,
    tunnels: Tunnels<'a>,
    /// Addresses of the node itself, which come before what the agent says.
    own: BTreeSet<IpNet>,
}

impl<'a> Routes<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let desired: &DesiredState = &snapshot.desired;
        let told = desired.local.iter().flat_map(|local| {
            let underlay = [local.underlay_v4.map(IpAddr::V4), local.underlay_v6.map(IpAddr::V6)];
            local.host_addresses.iter().copied().chain(underlay.into_iter().flatten())
        });
        let own = told.chain(snapshot.facts.local_addresses.iter().copied()).map(IpNet::from).collect();
        Self { snapshot, tunnels: Tunnels::of(desired), own }
    }

    /// The route that packets for `address` take. None: there is none.
    pub(super) fn to(&self, address: IpAddr) -> Option<pb::RouteStatus> {
        let whole = IpNet::from(address);
        if self.own.contains(&whole) {
            return Some(self.told(whole, &NextHop::Host, true));
        }
        (0..=whole.prefix_len()).rev().find_map(|length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            Some(self.told(prefix, self.snapshot.desired.routes.get(&prefix)?, false))
        })
    }

    /// All of them, in the order of their prefixes.
    fn all(&self) -> impl Iterator<Item = pb::RouteStatus> {
        let mut own = self.own.iter().peekable();
        let mut told = self.snapshot.desired.routes.iter().peekable();
        std::iter::from_fn(move || {
            let next = told.peek().map(|(prefix, _)| **prefix);
            if let Some(mine) = own.next_if(|mine| next.is_none_or(|next| **mine <= next)) {
                told.next_if(|(prefix, _)| *prefix == mine);
                return Some(self.told(*mine, &NextHop::Host, true));
            }
            told.next().map(|(prefix, next_hop)| self.told(*prefix, next_hop, false))
        })
    }

    fn told(&self, prefix: IpNet, next_hop: &NextHop, is_own: bool) -> pb::RouteStatus {
        let source = if is_own { "node" } else { "agent" };
        let (prefix, source) = (prefix.to_string(), source.to_owned());
        let route = pb::RouteStatus { prefix, source, ..pb::RouteStatus::default() };
        match next_hop {
            NextHop::Port(name) => self.to_pod(route, name),
            NextHop::Host => self.to_host(route),
            NextHop::Unreachable => pb::RouteStatus { kind: "unreachable".to_owned(), ..route },
            NextHop::Direct(remote) => {
                let tunnels = self.snapshot.desired.tunnels.values();
                let node =
                    { tunnels }.find(|tunnel| tunnel.remote == *remote).map(|tunnel| tunnel.node.clone());
                let to = node.unwrap_or_default();
                let hindrance = hindrance(self.snapshot, *remote);
                self.over(*remote, pb::RouteStatus { kind: "direct".to_owned(), to, hindrance, ..route })
            }
            NextHop::Tunnel(id) => {
                let kind = "tunnel".to_owned();
                let is_resolved = |remote| is_resolved(self.snapshot, remote);
                let Some(tunnel) = self.tunnels.carrier(*id, is_resolved) else {
                    return pb::RouteStatus { kind, hindrance: format!("there is no tunnel {id}"), ..route };
                };
                let wanted = self.snapshot.desired.tunnels.get(id).filter(|wanted| wanted.id != tunnel.id);
                let instead =
                    wanted.map(|wanted| format!("of {}: {}", wanted.remote, self.hindrance(wanted)));
                let (to, encapsulation) = (tunnel.node.clone(), tunnel.encapsulation.to_string());
                let instead = instead.unwrap_or_default();
                let hindrance = self.hindrance(tunnel);
                let route = pb::RouteStatus { kind, to, encapsulation, hindrance, instead, ..route };
                self.over(tunnel.remote, route)
            }
        }
    }

    /// A route that leads to an address on the underlay.
    fn over(&self, remote: IpAddr, route: pb::RouteStatus) -> pb::RouteStatus {
        let hops = hops(self.snapshot, remote);
        let each = |of: fn(&Hop) -> String| hops.clone().map(of).collect::<Vec<_>>().join(", ");
        pb::RouteStatus {
            remote: remote.to_string(),
            port: each(|hop| hop.interface.clone()),
            next_hop_mac: each(|hop| hop.destination.to_string()),
            ..route
        }
    }

    /// Why nothing goes by a tunnel; empty when it does.
    fn hindrance(&self, tunnel: &Tunnel) -> String {
        self.tunnels
            .hindrance(tunnel)
            .map_or_else(|| hindrance(self.snapshot, tunnel.remote), ToOwned::to_owned)
    }

    fn to_pod(&self, route: pb::RouteStatus, name: &PortName) -> pb::RouteStatus {
        let Snapshot { desired, ports, .. } = self.snapshot;
        let hindrance = match (ports.open.contains_key(name), ports.failed.get(name)) {
            (true, _) => String::new(),
            (false, Some(why)) => why.clone(),
            (false, None) => "its port is not open".to_owned(),
        };
        pb::RouteStatus {
            kind: "pod".to_owned(),
            to: desired.ports.get(name).map(|port| port.workload.clone()).unwrap_or_default(),
            port: name.to_string(),
            hindrance,
            ..route
        }
    }

    fn to_host(&self, route: pb::RouteStatus) -> pb::RouteStatus {
        let host = self.snapshot.ports.open.iter().find(|(_, open)| open.device.role() == Role::Host);
        let port = host.map(|(name, _)| name.to_string());
        let hindrance = if port.is_some() { "" } else { "the host port is not open" };
        pb::RouteStatus {
            kind: "host".to_owned(),
            port: port.unwrap_or_default(),
            hindrance: hindrance.to_owned(),
            ..route
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vswitch_datapath::tables::Revision;
    use vswitch_datapath::{CompileInputs, PortFacts, PortIndex, Query, Underlay, compile};
    use vswitch_model::{Encapsulation, Generation, Mac, TunnelId, Vni};

    use super::*;
    use crate::netlink::{Facts, Unresolved};
    use crate::testing::one_pod;

    /// A node whose second one is reached over both families, IPv6 first; nothing is resolved.
    fn snapshot() -> Snapshot {
        let mut state = one_pod();
        let local = state.local.as_mut().unwrap();
        local.underlay_v6 = "2001:db8::1".parse().ok();
        for (id, remote) in [(1, "192.0.2.2"), (2, "2001:db8::2")] {
            let (id, remote) = (TunnelId(id), remote.parse().unwrap());
            let tunnel = Tunnel { id, node: "two".into(), remote, encapsulation: Encapsulation::IpIp };
            state.tunnels.insert(id, tunnel);
        }
        let routes = [
            ("10.2.0.0/26", NextHop::Tunnel(TunnelId(1))),
            ("fd02::/122", NextHop::Tunnel(TunnelId(2))),
            ("10.3.0.0/26", NextHop::Direct("192.0.2.2".parse().unwrap())),
            ("10.2.0.7/32", NextHop::Unreachable),
            ("192.0.2.1/32", NextHop::Unreachable),
        ];
        state.routes.extend(routes.map(|(prefix, next_hop)| (prefix.parse().unwrap(), next_hop)));
        let mut snapshot = Snapshot::empty();
        snapshot.desired = Arc::new(state);
        let why = |remote: &str, why| (remote.parse().unwrap(), Err(why));
        let hops = BTreeMap::from([
            why("192.0.2.2", Unresolved::NoCarrier("eth0".into())),
            why("2001:db8::2", Unresolved::NoRoute),
        ]);
        snapshot.facts = Arc::new(Facts { hops, ..Facts::default() });
        snapshot
    }

    #[test]
    fn routes_come_in_order_and_the_nodes_own_addresses_first() {
        let snapshot = snapshot();
        let routes = Routes::of(&snapshot);
        let all: Vec<_> = routes.all().collect();
        let prefixes: Vec<IpNet> = all.iter().map(|route| route.prefix.parse().unwrap()).collect();
        let expected: BTreeSet<_> = snapshot.desired.routes.keys().chain(&routes.own).copied().collect();
        assert_eq!(prefixes, expected.into_iter().collect::<Vec<_>>());
        let own = routes.to("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(
            (own.kind.as_str(), own.source.as_str(), own.prefix.as_str()),
            ("host", "node", "192.0.2.1/32")
        );
        for (route, prefix) in all.iter().zip(&prefixes) {
            // Itself, or a longer one within.
            let told = routes.to(prefix.network()).unwrap().prefix.parse::<IpNet>().unwrap();
            assert!(prefix.contains(&told), "{route:?}");
        }
    }

    #[test]
    fn an_explanation_says_it_too() {
        let mut snapshot = snapshot();
        let desired = Arc::clone(&snapshot.desired);
        let facts = |name: &PortName| {
            let (index, mac) = (PortIndex(2), Mac::default());
            let facts = PortFacts {
                index,
                role: Role::Pod,
                mac,
                mtu: 1450,
                finishes_checksums: false,
                takes_large: false,
            };
            (name.clone(), facts)
        };
        let inputs = CompileInputs {
            generation: Generation(1),
            revision: Revision(1),
            desired: &desired,
            ports: &desired.ports.keys().map(facts).collect(),
            underlay: &Underlay::default(),
        };
        snapshot.tables = Arc::new(compile(&inputs).unwrap());
        let source = desired.ports.values().next().unwrap().addresses[0];
        let destination = "10.2.0.9".parse().unwrap();
        let query = Query { source, destination, protocol: 17, source_port: 1, destination_port: 2 };
        let told = explain::explain(&snapshot, &query);
        let last = told.steps.last().unwrap();
        assert_eq!(
            (last.stage.as_str(), last.detail.as_str()),
            ("drop", "next-hop-unresolved: its uplink eth0 has no carrier")
        );
    }

    #[test]
    fn a_route_says_why_nothing_goes_by_it() {
        let snapshot = snapshot();
        let routes = Routes::of(&snapshot);
        let of = |address: &str| routes.to(address.parse().unwrap()).unwrap();
        let route = of("10.2.0.9");
        assert_eq!(
            (route.kind.as_str(), route.to.as_str(), route.encapsulation.as_str()),
            ("tunnel", "two", "ipip")
        );
        assert_eq!(route.hindrance, "its uplink eth0 has no carrier");
        assert_eq!(of("fd02::1").hindrance, "the kernel has no route to it");
        assert_eq!(
            (of("10.2.0.7").kind, of("10.2.0.7").hindrance),
            ("unreachable".to_owned(), String::new())
        );
        let direct = of("10.3.0.1");
        assert_eq!(
            (direct.kind.as_str(), direct.to.as_str(), direct.remote.as_str()),
            ("direct", "two", "192.0.2.2")
        );
        let host = of("fd99::1");
        assert_eq!((host.prefix.as_str(), host.hindrance.as_str()), ("::/0", "the host port is not open"));
        assert_eq!(of("10.1.0.10").hindrance, "its port is not open");
    }

    #[test]
    fn a_tunnel_that_this_node_cannot_send_by_is_not_taken() {
        let mut snapshot = snapshot();
        let mut state = DesiredState::clone(&snapshot.desired);
        let encapsulation =
            Encapsulation::Vxlan { vni: Vni::FLANNEL, port: 8472, remote_mac: Mac([2, 0, 0, 0, 0, 2]) };
        state.tunnels.get_mut(&TunnelId(1)).unwrap().encapsulation = encapsulation;
        state.local.as_mut().unwrap().underlay_v6 = None;
        snapshot.desired = Arc::new(state);
        let routes = Routes::of(&snapshot);
        let of = |address: &str| routes.to(address.parse().unwrap()).unwrap();
        assert_eq!(of("10.2.0.9").hindrance, "this node has no end of its VXLAN network");
        assert_eq!(of("fd02::1").hindrance, "this node has no address of its family on the underlay");
        // As it is one needs nothing of this.
        assert_eq!(of("10.3.0.1").hindrance, "its uplink eth0 has no carrier");
    }
}
