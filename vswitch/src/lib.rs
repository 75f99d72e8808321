//! The engine: what `vswitchd` is made of.

pub mod api;
pub mod config;
pub mod engine;
pub mod io;
pub mod metrics;
pub mod netlink;
pub mod saved;
#[cfg(test)]
mod testing;
pub mod worker;
