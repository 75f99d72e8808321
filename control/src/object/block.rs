//! A range of addresses that belongs to a node, and who has which of them.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::ranges::check_cidr;
use super::{Key, Kind, ObjectMeta};

/// A block of a pool. Routing reads its range and its node; what is assigned is IPAM's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Its name, made by [`Block::name_of`].
    pub metadata: ObjectMeta,
    /// What it is.
    pub spec: BlockSpec,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockSpec {
    /// Its range.
    pub cidr: IpNet,
    /// The node whose pods' addresses come from it. None: no node's any more, only what is in use stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What IPAM keeps in it.
    #[serde(flatten)]
    pub content: serde_json::Map<String, serde_json::Value>,
}

impl Block {
    /// The name of the block of this range: `10.244.0.64-26`.
    #[must_use]
    pub fn name_of(cidr: IpNet) -> String {
        cidr.to_string().replace('/', "-")
    }

    /// The key of the block of this range.
    #[must_use]
    pub fn key_of(cidr: IpNet) -> Key {
        Key::cluster(Kind::Block, Self::name_of(cidr))
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        check_cidr(self.spec.cidr).map_err(|problem| Invalid::new("spec.cidr", problem))?;
        let expected = Self::name_of(self.spec.cidr);
        if self.metadata.name == expected {
            Ok(())
        } else {
            Err(Invalid::new("metadata.name", format!("must be {expected}")))
        }
    }
}
