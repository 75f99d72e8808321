//! The control plane of a node: the objects people apply, the stores that keep them, and the calculation that turns
//! them into the engine's desired state.

pub mod agent;
pub mod calc;
pub mod config;
pub mod ipam;
pub mod object;
pub mod store;
pub mod vsctl;
