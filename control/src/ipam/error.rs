//! Why there is no address.

use std::fmt;
use std::net::IpAddr;

use super::{Handle, PoolUse};
use crate::object::AllowedUse;
use crate::store::StoreError;

/// Why an operation on addresses did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// No pool serves this use.
    #[error("no IPPool serves {purpose:?}: {}; apply one, or enable one", Listed(.pools, "there is none"))]
    NoPool {
        /// What the address was for.
        purpose: AllowedUse,
        /// The pools there are.
        pools: Vec<String>,
    },
    /// All pools of the family are full.
    #[error("no free {} address: {}", family(*.ipv4), Listed(.pools, "there is no pool"))]
    Full {
        /// Which family.
        ipv4: bool,
        /// The pools that were tried.
        pools: Vec<PoolUse>,
    },
    /// An address was asked for that no pool has.
    #[error("{address} is in no enabled IPPool: {}", Listed(.pools, "there is none"))]
    OutsidePools {
        /// The address.
        address: IpAddr,
        /// The pools there are.
        pools: Vec<String>,
    },
    /// An address was asked for that somebody has.
    #[error("{address} is in use by {}", holder(.handle, .workload))]
    Taken {
        /// The address.
        address: IpAddr,
        /// Its holder.
        handle: Handle,
        /// The same for people.
        workload: String,
    },
    /// An address was asked for in a block that is not this node's.
    #[error("{address} is in a block of {}; this node cannot assign it", .node.as_deref().map_or("no node".to_owned(), |node| format!("node {node}")))]
    Elsewhere {
        /// The address.
        address: IpAddr,
        /// Whose block it is.
        node: Option<String>,
    },
    /// The handle holds an address that is not among those asked for.
    #[error("{handle} already holds {held}, which is not among the addresses asked for; release it first")]
    HoldsOther {
        /// The handle.
        handle: Handle,
        /// What it holds.
        held: IpAddr,
    },
    /// Others kept changing the same blocks.
    #[error("others changed the same blocks {attempts} times in a row; try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const fn family(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}

fn holder(handle: &Handle, workload: &str) -> String {
    if workload.is_empty() { handle.to_string() } else { format!("{workload} ({handle})") }
}

/// A list in a sentence, or what to say when it is empty.
struct Listed<'a, T>(&'a [T], &'static str);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(self.1);
        }
        for (index, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}
