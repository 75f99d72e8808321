//! What can go wrong while a network is built, used and taken down.

use std::path::PathBuf;
use std::time::Duration;

/// An error of the testbed. Its text is for people: it says which command or condition failed, and how.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command ended with a failure.
    #[error("`{line}` failed ({status}): {output}")]
    Command {
        /// The command as one would type it.
        line: String,
        /// Its exit status.
        status: String,
        /// What it wrote, standard error first; the end of it when it is long.
        output: String,
    },
    /// A command could not be started.
    #[error("cannot start `{program}`: {source}; is its package installed?")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A condition did not come true in time.
    #[error("waited {waited:?} for {what}; last seen: {last}")]
    Timeout {
        /// The condition.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen last.
        last: String,
    },
    /// A program of ours is not where it should be.
    #[error("{path} is missing: build it with `cargo build --workspace --bins`, or name its folder in VSWITCH_BIN_DIR",
            path = .0.display())]
    Binary(PathBuf),
    /// Something else, said in full.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An error that is said in full.
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Gives an I/O error the file it is about.
pub(crate) trait AtPath<T> {
    /// The same result, with the path in the error.
    fn at(self, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::File { path: path.into(), source })
    }
}
