//! Who holds an address.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names the holder of addresses: one interface of one sandbox, or a node itself. Everything is assigned to and
/// released by handles, so that a caller that was interrupted need not know how far it came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(String);

impl Handle {
    /// The interface `ifname` of the sandbox `container_id`. Neither can hold a '/' (CNI 1.1, "Parameters").
    #[must_use]
    pub fn attachment(container_id: &str, ifname: &str) -> Self {
        Self(format!("{container_id}/{ifname}"))
    }

    /// The address that node `node` has for itself in the pods' network.
    #[must_use]
    pub fn tunnel(node: &str) -> Self {
        Self(format!("node:{node}:tunnel"))
    }

    /// Sandbox and interface, when it is an attachment.
    #[must_use]
    pub fn as_attachment(&self) -> Option<(&str, &str)> {
        self.0.split_once('/')
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
