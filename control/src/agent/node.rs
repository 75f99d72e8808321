//! This node's own object: how the other nodes reach it, told by Calico's annotations, and the addresses it has for
//! itself in the pods' network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use vswitch_model::{Mac, Vni};

use super::{Core, Underlay};
use crate::calc::{Inputs, Named};
use crate::ipam::{Handle, IpamError, Request};
use crate::object::{AllowedUse, Flannel, IpPool, Key, Kind, Node, Object, ObjectMeta, Vtep, Vxlan};
use crate::store::{self, StoreError};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Annotations this agent writes, and takes away again where they say nothing any more; [`Flannel::ANNOTATIONS`] besides.
pub(super) const OWN_ANNOTATIONS: [&str; 8] = [
    Node::IPV4_ADDRESS,
    Node::IPV6_ADDRESS,
    Node::IPV4_TUNNEL_ADDRESS,
    Node::IPV6_TUNNEL_ADDRESS,
    Node::IPV4_IPIP_ADDRESS,
    Node::VTEP_MAC_V4,
    Node::VTEP_MAC_V6,
    Node::VXLAN,
];

/// What of the store this depends on.
#[derive(PartialEq, Clone)]
struct Seen {
    pools: Named<IpPool>,
    node: Option<Arc<Node>>,
    /// The network of other nodes that run flannel, of the first by name.
    flannel: Option<Vni>,
}

impl Seen {
    fn of(inputs: &Inputs, node: &str) -> Self {
        let others = inputs.nodes.iter().filter(|(name, other)| name.as_str() != node && other.is_flannels());
        let networks = others.filter_map(|(_, other)| {
            let flannel = Flannel::of(other)?;
            Some(flannel.v4.or(flannel.v6)?.vni)
        });
        let flannel = networks.into_iter().next();
        Self { pools: inputs.pools.clone(), node: inputs.nodes.get(node).cloned(), flannel }
    }
}

/// Keeps the node's object as it should be, for as long as the agent runs: written when the agent starts, when pools
/// come or go, and when somebody else changed it.
pub(super) async fn keep_registered(core: Arc<Core>) {
    let mut snapshots = core.reflector.snapshots();
    let mut done: Option<Seen> = None;
    loop {
        let seen = {
            let snapshot = snapshots.borrow_and_update();
            (snapshot.synced && snapshot.stale.is_none())
                .then(|| Seen::of(&snapshot.inputs, &core.settings.node))
        };
        if let Some(seen) = seen.filter(|seen| done.as_ref() != Some(seen)) {
            match core.register(&seen).await {
                Ok(()) => done = Some(seen),
                Err(error) => {
                    if core.registration.borrow().as_ref() != Some(&error) {
                        warn!(%error, node = core.settings.node, "this node is not registered");
                    }
                    core.registration.send_replace(Some(error));
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            core.registration.send_replace(None);
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

impl Core {
    async fn register(&self, seen: &Seen) -> Result<(), String> {
        let pools = &seen.pools;
        let tunnel = self.tunnel_addresses(pools).await.map_err(|e| e.to_string())?;
        let mut annotations: BTreeMap<&str, String> = BTreeMap::new();
        let (v4, v6) = (self.settings.underlay.ipv4, self.settings.underlay.ipv6);
        if let Some(address) = v4 {
            annotations.insert(Node::IPV4_ADDRESS, address.to_string());
            annotations.insert(Node::VTEP_MAC_V4, Mac::vtep_v4(&self.settings.node).to_string());
        }
        if let Some(address) = v6 {
            annotations.insert(Node::IPV6_ADDRESS, address.to_string());
            annotations.insert(Node::VTEP_MAC_V6, Mac::vtep_v6(&self.settings.node).to_string());
        }
        let network = Vxlan { vni: self.settings.vni, port: self.settings.vxlan_port };
        annotations.insert(Node::VXLAN, network.to_string());
        for address in tunnel {
            let name = if address.is_ipv4() { Node::IPV4_TUNNEL_ADDRESS } else { Node::IPV6_TUNNEL_ADDRESS };
            annotations.insert(name, address.to_string());
            // Calico's nodes look for it under the name of the encapsulation that a pool asks for.
            let in_ip = pools.values().any(|pool| pool.is_ip_in_ip() && pool.is_ipv4());
            if address.is_ipv4() && in_ip {
                annotations.insert(Node::IPV4_IPIP_ADDRESS, address.to_string());
            }
        }
        if let Some(flannel) = seen.flannel.and_then(|vni| self.to_flannel(vni, seen.node.as_deref())) {
            annotations.extend(flannel.annotations());
        }
        self.annotate(&annotations).await.map_err(|e| e.to_string())
    }

    /// What this node is to those that run flannel. An Ethernet address that it has for them already stays: flannel may have
    /// run here before.
    fn to_flannel(&self, vni: Vni, node: Option<&Node>) -> Option<Flannel> {
        let before = node.and_then(Flannel::of);
        let known = |is_ipv4| before.as_ref().and_then(|flannel| flannel.over(is_ipv4)).map(|vtep| vtep.mac);
        let Underlay { ipv4, ipv6 } = self.settings.underlay;
        let name = &self.settings.node;
        let vtep = |address, is_ipv4, derived| Vtep { address, vni, mac: known(is_ipv4).unwrap_or(derived) };
        let v4 = ipv4.map(|net| vtep(net.addr().into(), true, Mac::vtep_v4(name)));
        let v6 = ipv6.map(|net| vtep(net.addr().into(), false, Mac::vtep_v6(name)));
        (v4.is_some() || v6.is_some()).then(|| Flannel::vxlan(v4, v6))
    }

    /// The node's own addresses in the pods' network: one of each family that has a pool for it.
    async fn tunnel_addresses(
        &self,
        pools: &BTreeMap<String, Arc<IpPool>>,
    ) -> Result<Vec<IpAddr>, IpamError> {
        let handle = Handle::tunnel(&self.settings.node);
        let held = self.ipam.held_by(&handle).await?;
        let has_pool = |address: &IpAddr| pools.values().any(|pool| pool.spec.cidr.contains(address));
        if !held.iter().all(has_pool) {
            // The other family's stays: the other nodes have it in their routes.
            self.ipam.release_some(&handle, |address| !has_pool(&address)).await?;
        }
        let request = Request {
            handle,
            purpose: AllowedUse::Tunnel,
            workload: String::new(),
            network: String::new(),
            addresses: Vec::new(),
        };
        match self.ipam.assign(&request).await {
            // A node without pools has nothing to reach and nothing to be reached by.
            Err(IpamError::NoPool { .. }) => Ok(Vec::new()),
            assigned => assigned,
        }
    }

    /// Makes the annotations of the node's object these, of those that are this agent's to write; makes the object
    /// when there is none.
    async fn annotate(&self, annotations: &BTreeMap<&str, String>) -> store::Result<()> {
        let key = Key::cluster(Kind::Node, &self.settings.node);
        loop {
            let found = self.store.get(&key).await?;
            let (mut node, revision) = match &found {
                None => (Node { metadata: ObjectMeta::named(&self.settings.node), ..Node::default() }, None),
                Some(entry) => match entry.object() {
                    Ok(Object::Node(node)) => (node, Some(entry.revision)),
                    Ok(_) | Err(_) => {
                        let problem = format!("{key} cannot be read; delete it or apply it anew");
                        return Err(StoreError::Failed(problem));
                    }
                },
            };
            let before = node.metadata.annotations.clone();
            for name in OWN_ANNOTATIONS.into_iter().chain(Flannel::ANNOTATIONS) {
                match annotations.get(name) {
                    Some(value) => drop(node.metadata.annotations.insert(name.to_owned(), value.clone())),
                    None => drop(node.metadata.annotations.remove(name)),
                }
            }
            let unchanged = revision.is_some() && node.metadata.annotations == before;
            let value = Object::from(node).to_json();
            let written = match revision {
                _ if unchanged => return Ok(()),
                None => self.store.create(&key, value).await,
                Some(revision) => self.store.update(&key, value, revision).await,
            };
            match written {
                Ok(_) => {
                    info!(node = self.settings.node, ?annotations, "registered this node");
                    return Ok(());
                }
                Err(StoreError::Exists(_) | StoreError::NotFound(_) | StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
