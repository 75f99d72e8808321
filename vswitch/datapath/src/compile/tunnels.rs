//! Which tunnel carries what is to go by one that has no way to its end.

use std::collections::BTreeMap;
use std::mem::discriminant;

use vswitch_model::{DesiredState, Tunnel, TunnelId};

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
    /// that `has_way`, over the other family of the underlay say: nodes take in what comes by any. One of the same
    /// encapsulation comes first, then the lowest number. None: there is no such tunnel.
    pub fn carrier(&self, id: TunnelId, has_way: impl Fn(&Tunnel) -> bool) -> Option<&'a Tunnel> {
        let wanted = self.desired.tunnels.get(&id)?;
        if has_way(wanted) {
            return Some(wanted);
        }
        let of_node = self.of_nodes.get(wanted.node.as_str()).into_iter().flatten();
        let others = of_node.filter(|tunnel| has_way(tunnel));
        let is_other =
            |tunnel: &Tunnel| discriminant(&tunnel.encapsulation) != discriminant(&wanted.encapsulation);
        Some(others.min_by_key(|tunnel| (is_other(tunnel), tunnel.id)).unwrap_or(&wanted))
    }
}
