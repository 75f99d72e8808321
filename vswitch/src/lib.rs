//! The engine: what `vswitchd` is made of.

pub mod config;
pub mod io;
