//! Which tunnel carries what is to go by one that has no way to its end.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::net::IpAddr;

use vswitch_model::{DesiredState, Encapsulation, Tunnel, TunnelId};

/// The tunnels of a state, by the nodes they lead to.
#[derive(Debug)]
pub struct Tunnels<'a> {
    desired: &'a DesiredState,
    of_nodes: BTreeMap<&'a str, Vec<&'a Tunnel>>,
}

impl<'a> Tunnels<'a> {
    /// Those of `desired`.
    #[must_use]
    pub fn of(desired: &'a DesiredState) -> Self {
        let mut of_nodes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for tunnel in desired.tunnels.values() {
            of_nodes.entry(tunnel.node.as_str()).or_default().push(tunnel);
        }
        Self { desired, of_nodes }
    }

    /// The tunnel by which goes what is to go by `id`: that one; or, while it has no way to its end, another to the same node
    /// that has, over the other family of the underlay say: nodes take in what comes by any. It has one when this node can
    /// [send](Self::hindrance) by it, and the next hop to its end `is_resolved`. One of the same encapsulation comes first, then
    /// the lowest number. None: there is no such tunnel.
    pub fn carrier(&self, id: TunnelId, is_resolved: impl Fn(IpAddr) -> bool) -> Option<&'a Tunnel> {
        let wanted = self.desired.tunnels.get(&id)?;
        let has_way = |tunnel: &Tunnel| self.hindrance(tunnel).is_none() && is_resolved(tunnel.remote);
        if has_way(wanted) {
            return Some(wanted);
        }
        let of_node = self.of_nodes.get(wanted.node.as_str()).into_iter().flatten();
        let others = of_node.filter(|tunnel| has_way(tunnel));
        let is_other =
            |tunnel: &Tunnel| discriminant(&tunnel.encapsulation) != discriminant(&wanted.encapsulation);
        Some(others.min_by_key(|tunnel| (is_other(tunnel), tunnel.id)).unwrap_or(&wanted))
    }

    /// What keeps this node from sending by a tunnel, wherever its end is. None: nothing does.
    #[must_use]
    pub fn hindrance(&self, tunnel: &Tunnel) -> Option<&'static str> {
        let Some(local) = &self.desired.local else { return Some("nothing is known of this node yet") };
        let has_address = match tunnel.remote {
            IpAddr::V4(_) => local.underlay_v4.is_some(),
            IpAddr::V6(_) => local.underlay_v6.is_some(),
        };
        let has_end = match tunnel.encapsulation {
            Encapsulation::Vxlan { vni, port, .. } => local.network(vni, port).is_some(),
            Encapsulation::IpIp => true,
        };
        match (has_address, has_end) {
            (false, _) => Some("this node has no address of its family on the underlay"),
            (true, false) => Some("this node has no end of its VXLAN network"),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Hop, headers};
    use crate::testing::World;
    use crate::testing::world::{UPLINK, uplink_mac};

    #[test]
    fn who_may_send_by_a_tunnel_has_its_headers() {
        let hop = Hop {
            port: UPLINK,
            dst_mac: uplink_mac(2),
            src_mac: uplink_mac(1),
            mtu: 1500,
            weight: 1,
            on_link: true,
        };
        let mut seen = [0; 2];
        for lacks in 0..8 {
            let mut desired = World::node(1).desired;
            let local = desired.local.as_mut().unwrap();
            local.underlay_v4 = local.underlay_v4.filter(|_| lacks & 1 == 0);
            local.underlay_v6 = local.underlay_v6.filter(|_| lacks & 2 == 0);
            local.networks.retain(|_| lacks & 4 == 0);
            let others = desired.tunnels.values().map(|tunnel| (tunnel.clone(), Encapsulation::IpIp));
            let others = others.map(|(tunnel, encapsulation)| Tunnel { encapsulation, ..tunnel });
            for tunnel in desired.tunnels.values().cloned().chain(others) {
                let has = Tunnels::of(&desired).hindrance(&tunnel).is_none();
                let local = desired.local.as_ref().unwrap();
                for inner_v6 in [false, true] {
                    let template = headers::template(local, &tunnel, &hop, inner_v6);
                    assert_eq!(template.is_some(), has, "{local:?} {tunnel:?}");
                }
                seen[usize::from(has)] += 1;
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
        let unknown = DesiredState { local: None, ..World::node(1).desired };
        assert!(unknown.tunnels.values().all(|tunnel| Tunnels::of(&unknown).hindrance(tunnel).is_some()));
    }
}
