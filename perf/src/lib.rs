//! Measures the switch, beside what else one could use, in the same run.
//!
//! [`scenario`] holds what is measured, a file each; [`session`] runs one and keeps its results; [`result`] is what is
//! written; [`machine`] says on what it was measured, and whether the machine let us.

pub mod cli;
pub mod compare;
pub mod error;
pub mod machine;
pub mod math;
pub mod net;
pub mod output;
pub mod peer;
pub mod report;
pub mod result;
pub mod scenario;
pub mod session;
pub mod table;
pub mod traffic;
pub mod workload;

pub use error::{Error, Result};
