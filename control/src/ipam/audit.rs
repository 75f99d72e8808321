//! Looking at what is assigned: how much of each pool is in use, and what nobody needs any more.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::content::Content;
use super::view::View;
use super::{Handle, Ipam, Result};
use crate::object::{Block, Endpoint, Key};

/// How much of a pool is in use. "Here" is in the blocks of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool's name.
    pub name: String,
    /// Its range.
    pub cidr: IpNet,
    /// How many addresses it has.
    pub addresses: u64,
    /// Blocks that belong to nodes.
    pub blocks: u64,
    /// How many blocks of its size it has room for.
    pub blocks_max: u64,
    /// Addresses in use.
    pub used: u64,
    /// Addresses in use here.
    pub used_here: u64,
    /// Addresses here that were given back too recently to be assigned again.
    pub cooling_here: u64,
}

impl fmt::Display for PoolUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, cidr, addresses, blocks, blocks_max, used, used_here, cooling_here } = self;
        write!(
            f,
            "pool {name} ({cidr}): {used} of {addresses} addresses in use, {blocks} of {blocks_max} blocks taken; this \
             node's blocks have {used_here} in use and {cooling_here} cooling down"
        )
    }
}

/// An address that is assigned to an attachment that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// The address.
    pub address: IpAddr,
    /// Who holds it.
    pub handle: Handle,
    /// The same for people.
    pub workload: String,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, handle, workload } = self;
        write!(f, "{address} is held by {handle} ({workload}), which is not attached")
    }
}

impl Ipam {
    /// The use of all pools, by name.
    pub async fn pool_use(&self) -> Result<Vec<PoolUse>> {
        let view = View::read(&*self.store).await?;
        let now = (self.clock)();
        Ok(view.pools().iter().map(|pool| view.use_of(pool, &self.node, now, self.cool_down_ms)).collect())
    }

    /// What attachments of all nodes hold of a pool, for people: `10.244.0.5 (media/relay)`. A node's own addresses do
    /// not count.
    pub async fn attached_in(&self, pool: &str) -> Result<Vec<String>> {
        let view = View::read(&*self.store).await?;
        let Some(pool) = view.pools().iter().find(|known| known.metadata.name == pool) else {
            return Ok(Vec::new());
        };
        let blocks = view.blocks.iter().filter(|block| pool.spec.cidr.contains(&block.cidr()));
        let assigned = blocks.flat_map(|block| block.content.assigned());
        let attached = assigned.filter(|(_, assignment)| assignment.handle.as_attachment().is_some());
        Ok(attached.map(|(address, assignment)| format!("{address} ({})", assignment.workload)).collect())
    }

    /// Addresses in this node's blocks whose attachment has no endpoint among `endpoints`, though it has had `grace`
    /// to get one: an address is assigned before its pod is attached.
    pub async fn leaks(&self, endpoints: impl Fn(&Key) -> bool, grace: Duration) -> Result<Vec<Leak>> {
        let view = View::read(&*self.store).await?;
        let latest = (self.clock)().saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let assigned = view.blocks_of(&self.node).flat_map(|block| block.content.assigned());
        let due = assigned.filter(|(_, assignment)| assignment.since_ms <= latest);
        Ok(leaks(due.map(|(address, a)| (address, &a.handle, a.workload.as_str())), endpoints))
    }
}

/// What is in use in a block, for people: address, holder, and whose that is. The error says why it cannot be read.
pub fn held_in(block: &Block) -> std::result::Result<Vec<String>, String> {
    let content = Content::of(block)?;
    let line = |(address, assignment): (IpAddr, &super::Assignment)| {
        let workload =
            if assignment.workload.is_empty() { "" } else { &format!(" ({})", assignment.workload) };
        format!("{address} by {}{workload}", assignment.handle)
    };
    Ok(content.assigned().map(line).collect())
}

/// Of what is assigned, given as (address, holder, holder for people), that which belongs to no endpoint. A node's own
/// addresses never do and are no leak.
pub fn leaks<'a>(
    assigned: impl Iterator<Item = (IpAddr, &'a Handle, &'a str)>,
    endpoints: impl Fn(&Key) -> bool,
) -> Vec<Leak> {
    let leaked = |handle: &Handle| {
        handle
            .as_attachment()
            .is_some_and(|(container, ifname)| !endpoints(&Endpoint::key_of(container, ifname)))
    };
    assigned
        .filter(|(_, handle, _)| leaked(handle))
        .map(|(address, handle, workload)| Leak {
            address,
            handle: handle.clone(),
            workload: workload.to_owned(),
        })
        .collect()
}
