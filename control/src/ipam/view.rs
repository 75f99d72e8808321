//! What the store holds of pools and blocks, read at once and understood.

use std::net::IpAddr;

use ipnet::IpNet;
use tracing::warn;

use super::content::{Assignment, Content, size};
use super::{Handle, PoolUse, Result};
use crate::object::{AllowedUse, Block, IpPool, Kind, Object};
use crate::store::{Revision, Store};

/// A block, and the revision that a change of it is based on.
#[derive(Debug, Clone)]
pub(super) struct OwnedBlock {
    pub(super) object: Block,
    pub(super) content: Content,
    pub(super) revision: Revision,
}

impl OwnedBlock {
    pub(super) fn cidr(&self) -> IpNet {
        self.object.spec.cidr
    }

    pub(super) fn node(&self) -> Option<&str> {
        self.object.spec.node.as_deref()
    }

    /// Whether this node's handles can hold something in it: handles of other nodes may have the same names.
    pub(super) fn is_open_to(&self, node: &str) -> bool {
        self.node().is_none_or(|owner| owner == node)
    }
}

/// Pools and blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pools: Vec<IpPool>,
    /// Blocks that can be understood, by name.
    pub(super) blocks: Vec<OwnedBlock>,
    /// Ranges of blocks that cannot: nothing is assigned in them, and nothing else is put there.
    broken: Vec<IpNet>,
}

impl View {
    pub(super) async fn read(store: &dyn Store) -> Result<Self> {
        let mut view = Self::default();
        for entry in store.list(Some(Kind::IpPool)).await?.entries {
            match entry.object() {
                Ok(Object::IpPool(pool)) => view.pools.push(pool),
                Ok(_) => {}
                Err(error) => warn!(key = %entry.key, %error, "left out of address management"),
            }
        }
        for entry in store.list(Some(Kind::Block)).await?.entries {
            let understood = match entry.object() {
                Ok(Object::Block(block)) => Content::of(&block).map(|content| (block, content)),
                Ok(_) => continue,
                Err(error) => Err(error.to_string()),
            };
            match understood {
                Ok((object, content)) => {
                    view.blocks.push(OwnedBlock { object, content, revision: entry.revision });
                }
                Err(error) => {
                    warn!(key = %entry.key, error, "left out of address management");
                    view.broken.extend(range_of(&entry.key.name));
                }
            }
        }
        Ok(view)
    }

    /// Pools that new addresses may come from for this use.
    pub(super) fn pools_for(&self, purpose: AllowedUse) -> impl Iterator<Item = &IpPool> {
        self.pools.iter().filter(move |pool| pool.serves(purpose))
    }

    /// All pools, for people: name, range, and that it is disabled.
    pub(super) fn pool_names(&self) -> Vec<String> {
        let describe = |pool: &IpPool| {
            let disabled = if pool.spec.disabled { ", disabled" } else { "" };
            format!("{} ({}{disabled})", pool.metadata.name, pool.spec.cidr)
        };
        self.pools.iter().map(describe).collect()
    }

    /// Blocks of a node.
    pub(super) fn blocks_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a OwnedBlock> {
        self.blocks.iter().filter(move |block| block.node() == Some(node))
    }

    /// Ranges where no new block can go.
    pub(super) fn taken(&self) -> Vec<IpNet> {
        self.blocks.iter().map(OwnedBlock::cidr).chain(self.broken.iter().copied()).collect()
    }

    /// What a handle of this node holds, IPv4 first.
    pub(super) fn held_by(&self, node: &str, handle: &Handle) -> Vec<IpAddr> {
        let blocks = self.blocks.iter().filter(|block| block.is_open_to(node));
        let mut held: Vec<IpAddr> = blocks.flat_map(|block| block.content.held_by(handle)).collect();
        held.sort_unstable();
        held
    }

    /// What is assigned in blocks of this node.
    pub(super) fn assigned_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Assignment> {
        self.blocks_of(node).flat_map(|block| block.content.assigned()).map(|(_, assignment)| assignment)
    }

    /// How much of a pool is in use.
    pub(super) fn use_of(&self, pool: &IpPool, node: &str, now_ms: u64, cool_down_ms: u64) -> PoolUse {
        let mut total = PoolUse {
            name: pool.metadata.name.clone(),
            cidr: pool.spec.cidr,
            addresses: u64::try_from(size(pool.spec.cidr)).unwrap_or(u64::MAX),
            blocks: 0,
            blocks_max: 1_u64
                .checked_shl((pool.block_size() - pool.spec.cidr.prefix_len()).into())
                .unwrap_or(u64::MAX),
            used: 0,
            used_here: 0,
            cooling_here: 0,
        };
        for block in self.blocks.iter().filter(|block| pool.spec.cidr.contains(&block.cidr())) {
            total.blocks += 1;
            total.used += block.content.used();
            if block.node() == Some(node) {
                total.used_here += block.content.used();
                total.cooling_here += block.content.cooling(now_ms, cool_down_ms);
            }
        }
        total
    }

    /// All pools.
    pub(super) fn pools(&self) -> &[IpPool] {
        &self.pools
    }
}

/// The range a block's name tells.
fn range_of(name: &str) -> Option<IpNet> {
    let (address, len) = name.rsplit_once('-')?;
    format!("{address}/{len}").parse().ok()
}
