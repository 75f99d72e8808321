//! The engine: what `vswitchd` is made of.

pub mod config;
pub mod io;
pub mod netlink;
pub mod saved;
#[cfg(test)]
mod testing;
