//! Addresses for pods and nodes: pools, blocks of them that belong to nodes, and who holds what.
//!
//! A pool (IPPool) is a range that people declare. A node takes blocks of it as it needs them, and only assigns from
//! blocks of its own, so that one route leads to all its pods; a block that has gone idle goes back to the pool. Blocks
//! are objects in the store, and every change of one is compare-and-swap: two writers never give one address away
//! twice, whoever dies in between.
//!
//! | file | what |
//! |---|---|
//! | `content` | the inside of one block; pure |
//! | `space` | where in a pool the next block can go; pure |
//! | `view` | what the store holds of pools and blocks, read at once |
//! | here | [`Ipam`]: assign, release, give back, as changes in the store |
//! | `audit` | use of pools; addresses that nobody needs any more |

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tokio::sync::Mutex;
use tracing::warn;

use crate::object::{AllowedUse, Block, BlockSpec, IpPool, Object, ObjectMeta};
use crate::store::{SharedStore, StoreError};

mod audit;
mod content;
mod error;
#[cfg(test)]
mod faulty;
mod handle;
mod space;
#[cfg(test)]
mod tests;
mod view;

pub use audit::{Leak, PoolUse, held_in, leaks};
use content::{Assignment, Content};
pub use error::IpamError;
#[cfg(test)]
pub(crate) use faulty::Faulty;
pub use handle::Handle;
use view::{OwnedBlock, View};

/// How often a change that others keep getting in the way of is tried before that is an error.
const ATTEMPTS: u32 = 40;
/// How long an address rests after it was given back, unless configured otherwise: packets and neighbours that still
/// mean its last holder have gone by then.
pub const COOL_DOWN: Duration = Duration::from_secs(30);

/// What comes of an operation on addresses.
pub type Result<T> = std::result::Result<T, IpamError>;

/// The time in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The clock on the wall.
#[must_use]
pub fn wall_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who will hold the addresses.
    pub handle: Handle,
    /// For people: `namespace/pod`; empty for a node.
    pub workload: String,
    /// The CNI network they are for; empty for none.
    pub network: String,
    /// What for: pools may be kept for some uses.
    pub purpose: AllowedUse,
    /// These very addresses. Empty: any, one of each family that has a pool.
    pub addresses: Vec<IpAddr>,
}

/// One node's hand on the addresses of the cluster.
pub struct Ipam {
    store: SharedStore,
    node: String,
    clock: Clock,
    cool_down_ms: u64,
    /// Changes of one node's blocks are made one after another: contention is for blocks of pools, among nodes.
    changing: Mutex<()>,
}

/// One address: any of a family, or a certain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Any { ipv4: bool },
    This(IpAddr),
}

/// Why a change was not made.
enum Obstacle {
    /// Somebody else changed what it was based on: look again.
    Raced,
    /// It cannot be.
    Final(IpamError),
}

impl From<StoreError> for Obstacle {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { .. } | StoreError::Exists(_) | StoreError::NotFound(_) => Self::Raced,
            other => Self::Final(other.into()),
        }
    }
}

impl Ipam {
    /// Addresses for `node`, kept in `store`.
    #[must_use]
    pub fn new(store: SharedStore, node: impl Into<String>, cool_down: Duration, clock: Clock) -> Self {
        let cool_down_ms = u64::try_from(cool_down.as_millis()).unwrap_or(u64::MAX);
        Self { store, node: node.into(), clock, cool_down_ms, changing: Mutex::new(()) }
    }

    /// Assigns what is asked for and returns all that the handle holds then, IPv4 first. What it holds already is not
    /// assigned again: a repeated request gets the same answer. On an error nothing has been added, unless the store
    /// went away meanwhile: release the handle then.
    pub async fn assign(&self, request: &Request) -> Result<Vec<IpAddr>> {
        let _changing = self.changing.lock().await;
        let view = View::read(&*self.store).await?;
        let held = view.held_by(&self.node, &request.handle);
        let wants = self.wants(&view, request, &held)?;
        for want in wants {
            if let Err(error) = self.take(request, want).await {
                let kept = |address: &IpAddr| held.contains(address);
                if let Err(undo) =
                    self.release_where(|handle, address| *handle == request.handle && !kept(&address)).await
                {
                    warn!(handle = %request.handle, %undo, "addresses of a failed request stay assigned until it is released");
                }
                return Err(error);
            }
        }
        Ok(View::read(&*self.store).await?.held_by(&self.node, &request.handle))
    }

    /// Gives back all that the handle holds; returns it. Nothing held is no error.
    pub async fn release(&self, handle: &Handle) -> Result<Vec<IpAddr>> {
        let _changing = self.changing.lock().await;
        self.release_where(|holder, _| holder == handle).await
    }

    /// Gives back those of the handle's addresses that `goes` picks; returns them.
    pub async fn release_some(&self, handle: &Handle, goes: impl Fn(IpAddr) -> bool) -> Result<Vec<IpAddr>> {
        let _changing = self.changing.lock().await;
        self.release_where(|holder, address| holder == handle && goes(address)).await
    }

    /// Gives back what this node's attachments to `network` hold, but for those that `stays` picks; returns the
    /// addresses.
    pub async fn release_except(
        &self,
        network: &str,
        stays: impl Fn(&Handle) -> bool,
    ) -> Result<Vec<IpAddr>> {
        let _changing = self.changing.lock().await;
        let view = View::read(&*self.store).await?;
        let of_network = view.assigned_on(&self.node).filter(|assignment| assignment.network == network);
        let garbage: BTreeSet<&Handle> = of_network
            .map(|assignment| &assignment.handle)
            .filter(|handle| handle.as_attachment().is_some() && !stays(handle))
            .collect();
        self.release_where(|handle, _| garbage.contains(handle)).await
    }

    /// What the handle holds, IPv4 first.
    pub async fn held_by(&self, handle: &Handle) -> Result<Vec<IpAddr>> {
        Ok(View::read(&*self.store).await?.held_by(&self.node, handle))
    }

    /// Returns this node's idle blocks to their pools; to be called now and then. Returns what went.
    pub async fn give_back_idle(&self) -> Result<Vec<IpNet>> {
        let _changing = self.changing.lock().await;
        let mut gone = Vec::new();
        for block in View::read(&*self.store).await?.blocks {
            let idle = block.content.is_idle((self.clock)(), self.cool_down_ms);
            if !idle || !block.is_open_to(&self.node) {
                continue;
            }
            let cidr = block.cidr();
            match self.store.delete(&Block::key_of(cidr), Some(block.revision)).await.map_err(Obstacle::from)
            {
                Ok(_) => gone.push(cidr),
                // It is in use again, or gone; the next round sees.
                Err(Obstacle::Raced) => {}
                Err(Obstacle::Final(error)) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// What is still to be taken, given what the handle holds already.
    fn wants(&self, view: &View, request: &Request, held: &[IpAddr]) -> Result<Vec<Want>> {
        if !request.addresses.is_empty() {
            if let Some(other) = held.iter().find(|address| !request.addresses.contains(address)) {
                return Err(IpamError::HoldsOther { handle: request.handle.clone(), held: *other });
            }
            let missing = request.addresses.iter().filter(|address| !held.contains(address));
            return Ok(missing.map(|address| Want::This(*address)).collect());
        }
        let has_pool = |ipv4| view.pools_for(request.purpose).any(|pool| pool.is_ipv4() == ipv4);
        let families: Vec<bool> = [true, false].into_iter().filter(|ipv4| has_pool(*ipv4)).collect();
        if families.is_empty() && held.is_empty() {
            return Err(IpamError::NoPool { purpose: request.purpose, pools: view.pool_names() });
        }
        let missing =
            families.into_iter().filter(|ipv4| !held.iter().any(|address| address.is_ipv4() == *ipv4));
        Ok(missing.map(|ipv4| Want::Any { ipv4 }).collect())
    }

    async fn take(&self, request: &Request, want: Want) -> Result<()> {
        for attempt in 0..ATTEMPTS {
            let view = View::read(&*self.store).await?;
            // An attempt whose answer was lost may have succeeded.
            let satisfied = |address: &IpAddr| match want {
                Want::Any { ipv4 } => address.is_ipv4() == ipv4,
                Want::This(wanted) => *address == wanted,
            };
            if view.held_by(&self.node, &request.handle).iter().any(satisfied) {
                return Ok(());
            }
            let done = match want {
                Want::Any { ipv4 } => self.take_any(&view, request, ipv4).await,
                Want::This(address) => self.take_this(&view, request, address).await,
            };
            match done {
                Ok(()) => return Ok(()),
                Err(Obstacle::Final(error)) => return Err(error),
                Err(Obstacle::Raced) => back_off(attempt).await,
            }
        }
        Err(IpamError::Contended { attempts: ATTEMPTS })
    }

    async fn take_any(
        &self,
        view: &View,
        request: &Request,
        ipv4: bool,
    ) -> std::result::Result<(), Obstacle> {
        let pools: Vec<&IpPool> =
            view.pools_for(request.purpose).filter(|pool| pool.is_ipv4() == ipv4).collect();
        for pool in &pools {
            for block in view.blocks_of(&self.node).filter(|block| pool.spec.cidr.contains(&block.cidr())) {
                let mut content = block.content.clone();
                if content.take(block.cidr(), self.assignment(request), self.cool_down_ms).is_some() {
                    return self.write(block, &content).await;
                }
            }
        }
        for pool in &pools {
            let taken = view.taken();
            if let Some(cidr) =
                space::free_range(pool.spec.cidr, pool.block_size(), &taken, spread(&self.node))
            {
                let mut content = Content::default();
                content.take(cidr, self.assignment(request), self.cool_down_ms);
                return self.create(cidr, &content).await;
            }
        }
        let now = (self.clock)();
        let pools = pools.iter().map(|pool| view.use_of(pool, &self.node, now, self.cool_down_ms)).collect();
        Err(Obstacle::Final(IpamError::Full { ipv4, pools }))
    }

    async fn take_this(
        &self,
        view: &View,
        request: &Request,
        address: IpAddr,
    ) -> std::result::Result<(), Obstacle> {
        let Some(pool) = view.pools_for(request.purpose).find(|pool| pool.spec.cidr.contains(&address))
        else {
            let error = IpamError::OutsidePools { address, pools: view.pool_names() };
            return Err(Obstacle::Final(error));
        };
        let Some(block) = view.blocks.iter().find(|block| block.cidr().contains(&address)) else {
            let host = IpNet::from(address);
            let cidr = IpNet::new(host.addr(), pool.block_size()).map_or(host, |cidr| cidr.trunc());
            if view.taken().iter().any(|taken| space::overlaps(*taken, cidr)) {
                return Err(Obstacle::Final(IpamError::Elsewhere { address, node: None }));
            }
            let mut content = Content::default();
            content.claim(address, self.assignment(request));
            return self.create(cidr, &content).await;
        };
        if block.node() != Some(&self.node) {
            let node = block.node().map(str::to_owned);
            return Err(Obstacle::Final(IpamError::Elsewhere { address, node }));
        }
        if let Some(holder) = block.content.holder(address) {
            let (handle, workload) = (holder.handle.clone(), holder.workload.clone());
            return Err(Obstacle::Final(IpamError::Taken { address, handle, workload }));
        }
        let mut content = block.content.clone();
        content.claim(address, self.assignment(request));
        self.write(block, &content).await
    }

    async fn release_where(&self, goes: impl Fn(&Handle, IpAddr) -> bool) -> Result<Vec<IpAddr>> {
        let mut released = Vec::new();
        for attempt in 0..ATTEMPTS {
            let mut raced = false;
            let view = View::read(&*self.store).await?;
            for block in view.blocks.iter().filter(|block| block.is_open_to(&self.node)) {
                let mut content = block.content.clone();
                let given_back = content.release((self.clock)(), &goes);
                if given_back.is_empty() {
                    continue;
                }
                match self.write(block, &content).await {
                    Ok(()) => released.extend(given_back),
                    Err(Obstacle::Raced) => raced = true,
                    Err(Obstacle::Final(error)) => return Err(error),
                }
            }
            if !raced {
                released.sort_unstable();
                return Ok(released);
            }
            back_off(attempt).await;
        }
        Err(IpamError::Contended { attempts: ATTEMPTS })
    }

    async fn write(&self, block: &OwnedBlock, content: &Content) -> std::result::Result<(), Obstacle> {
        let mut object = block.object.clone();
        content.store_in(&mut object);
        let object = Object::from(object);
        self.store.update(&object.key(), object.to_json(), block.revision).await?;
        Ok(())
    }

    async fn create(&self, cidr: IpNet, content: &Content) -> std::result::Result<(), Obstacle> {
        let spec = BlockSpec { cidr, node: Some(self.node.clone()), content: serde_json::Map::new() };
        let mut block = Block { metadata: ObjectMeta::named(Block::name_of(cidr)), spec };
        content.store_in(&mut block);
        let object = Object::from(block);
        self.store.create(&object.key(), object.to_json()).await?;
        Ok(())
    }

    fn assignment(&self, request: &Request) -> Assignment {
        Assignment {
            handle: request.handle.clone(),
            workload: request.workload.clone(),
            network: request.network.clone(),
            since_ms: (self.clock)(),
        }
    }
}

/// Where in a pool a node begins to look for a block: nodes that begin at different places seldom meet (FNV-1a).
fn spread(node: &str) -> u64 {
    node.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A random pause that grows with every attempt, up to 64 ms.
async fn back_off(attempt: u32) {
    let most_us = 1000_u64 << attempt.min(6);
    let random = RandomState::new().build_hasher().finish();
    tokio::time::sleep(Duration::from_micros(most_us / 4 + random % most_us)).await;
}
