//! What can go wrong, in words a person can act on.

use std::path::PathBuf;

/// Why a scenario, or a command on its results, ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SIGINT or SIGTERM. What was made is taken away as everywhere, what was measured is written and marked.
    #[error("interrupted")]
    Interrupted,
    /// The scenario needs more than this machine or this user has.
    #[error("{0}")]
    Unmet(String),
    /// Something the scenario set up did not do what it should.
    #[error("{what}: {cause}")]
    Setup {
        /// What was tried.
        what: String,
        /// What came of it.
        cause: String,
    },
    /// What was counted does not add up: the measurement cannot be trusted.
    #[error("{0}")]
    Miscounted(String),
    /// The switch has become worse than what is kept of it allows.
    #[error("{0}")]
    Regressed(String),
    /// Scenarios that failed, each with a note that says why.
    #[error("failed: {0}; the notes say why")]
    Failed(String),
    /// A file that cannot be read, written, or is not what it should be.
    #[error("{}: {problem}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No scenario or case of this name.
    #[error("{0}")]
    Unknown(String),
}

impl Error {
    /// What was tried, and what came of it.
    pub fn setup(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Setup { what: what.into(), cause: cause.to_string() }
    }
}

/// The outcome of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
