//! The scenarios: what can be measured, a file each.

pub mod bulk;
pub mod calls;
pub mod churn;
pub mod engine;
pub mod game;
pub mod instructions;
pub mod latency;
pub mod lockstep;
pub mod pods;
pub mod policy;
pub mod strain;
pub mod tables;
pub mod throughput;

use crate::session::Session;
use crate::{Error, Result};

/// What a scenario is, for `vswitch-perf list`.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it measures, in one sentence.
    pub measures: &'static str,
    /// The form of its case names.
    pub cases: &'static str,
    /// Which of them are measured with `--quick`, by default and with `--full`. Empty: all of them, alike.
    pub sets: &'static str,
    /// Its metrics as results name them, each with its unit and what it is.
    pub metrics: &'static [(&'static str, &'static str)],
    /// What it is measured beside.
    pub peers: &'static str,
    /// Whether it makes network namespaces, and so needs root.
    pub root: bool,
    /// Cores it needs.
    pub cores: usize,
}

/// Something to be measured.
pub trait Scenario: Sync {
    /// What it is.
    fn about(&self) -> About;

    /// Measures, and records in the session. Ends early, with everything taken down, when the session is interrupted.
    ///
    /// # Errors
    ///
    /// Whatever kept it from measuring; results recorded before stay.
    fn run(&self, session: &mut Session) -> Result<()>;
}

/// All of them, in the order they run in.
pub static ALL: &[&dyn Scenario] = &[
    &engine::Engine,
    &instructions::Instructions,
    &lockstep::Lockstep,
    &throughput::Throughput,
    &latency::Latency,
    &calls::VoIp,
    &bulk::Bulk,
    &game::Game,
    &pods::Pods,
    &churn::Churn,
    &policy::Policy,
    &strain::Strain,
    &tables::Tables,
];

/// The scenario of this name.
///
/// # Errors
///
/// [`Error::Unknown`], which names those there are.
pub fn find(name: &str) -> Result<&'static dyn Scenario> {
    let found = ALL.iter().find(|scenario| scenario.about().name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|scenario| scenario.about().name).collect();
        Error::Unknown(format!("no scenario {name:?}; there are: all, {}", names.join(", ")))
    })
}
