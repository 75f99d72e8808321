//! The vocabulary that the engine and the control plane share.
//!
//! Everything the agent wants of the engine is said with the types of this crate: ports, routes, tunnels, identities,
//! policies, and the [`DesiredState`] that holds them. The engine never sees a Kubernetes object, and control never
//! sees a table of the engine.
//!
//! With the feature `api` the crate also holds the engine API and the agent API (protobuf over a unix socket) and the
//! conversions between messages and these types. A message that converts is valid; one that does not yields an
//! [`Invalid`] which names the field.

#[cfg(feature = "api")]
pub mod api;
mod check;
pub mod domain;
pub mod drop_reason;
pub mod error;
pub mod identity;
pub mod limits;
pub mod link;
pub mod policy;
pub mod port;
pub mod route;
pub mod state;
pub mod touched;

pub use domain::{DomainName, DomainPattern};
pub use drop_reason::DropReason;
pub use error::Invalid;
pub use identity::{Identity, IdentityId, IdentityKind, IdentitySet, SetId};
pub use link::{Mac, Vni};
pub use policy::{
    Action, Policy, PolicyEnd, PolicyId, PortMatch, Rule, RuleId, Standing, Subject, Tier, TierDefault,
};
pub use port::{Attachment, Port, PortKind, PortName};
pub use route::{Dscp, Encapsulation, NextHop, PodTunnels, Tunnel, TunnelId, VxlanNetwork};
pub use state::{Change, Delta, DesiredState, Generation, Local};
pub use touched::{Touched, differing};
