//! The engine: `vswitchd`.

pub mod io;
