//! The engine API and the agent API, and what turns their messages into the vocabulary and back.
//!
//! Shapes, units and errors are told in `proto/engine.proto` and `proto/agent.proto`. [`connect`] reaches either over
//! its unix socket, which is a [`Socket`] at the other end.

mod convert;
mod listen;
mod socket;

pub use convert::apply_request;
pub use listen::{CannotListen, Socket};
pub use socket::{AGENT_SOCKET, ENGINE_SOCKET, Unreachable, connect};

/// Messages and service of `proto/engine.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications)]
pub mod engine {
    tonic::include_proto!("vswitch.engine.v1");
}

/// Messages and service of `proto/agent.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications)]
pub mod agent {
    tonic::include_proto!("vswitch.agent.v1");
}

/// Largest message either API takes or gives, in bytes: a whole desired state at its limits.
pub const MESSAGE_SIZE_MAX: usize = 1 << 30;
