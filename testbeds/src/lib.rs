//! Networks of namespaces on one machine, for the demo, the scenario tests and measurements.
//!
//! [`topology`] says what there is; [`bed`] builds it and takes it down; [`traffic`] sends calls, streams and pings
//! through it and counts; [`demo`] does all of it and reports.

pub mod bed;
pub mod command;
pub mod demo;
pub mod error;
pub mod netns;
pub mod process;
pub mod report;
pub mod run;
pub mod topology;
pub mod traffic;

pub use error::{Error, Result};
