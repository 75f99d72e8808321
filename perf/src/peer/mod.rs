//! Other forwarders, run as programs in the namespace that the switch would be in.
//!
//! A peer that is not installed, or does not start, is an error that says which and why: whoever measures makes a note of
//! it and goes on. Nothing is installed for it, no service is started, and nothing is left: a peer is killed when its value
//! goes, and by the kernel when this process dies; its files are in a folder that goes with it.

pub mod bare;
pub mod dpdk;
pub mod kernel;

mod ovs;
mod testpmd;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub use bare::{Bare, BareThread};
pub use kernel::Filter;
pub use ovs::Ovs;
pub use testpmd::Testpmd;

use crate::{Error, Result};

/// How long a peer may take to start.
const PATIENCE: Duration = Duration::from_secs(15);
/// Lines of a peer's log that an error shows.
const LINES: usize = 3;

/// The path of a program of a peer.
///
/// # Errors
///
/// [`Error::Unmet`], which says how it is installed.
pub fn find(peer: &str, program: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What only root runs may be missing in a user's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file()).ok_or_else(|| {
        Error::Unmet(format!(
            "peer {peer} is missing: there is no {program} (Debian: apt-get install --no-install-recommends {package})"
        ))
    })
}

/// Files of a peer, on no disk where that can be had.
fn folder() -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("vswitch-perf-").tempdir_in("/dev/shm");
    made.or_else(|_| tempfile::tempdir()).map_err(|error| Error::setup("make a folder for a peer", error))
}

/// A program in the background. It is killed when the value goes, or when the thread that started it ends.
#[derive(Debug)]
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it writes goes to the file `log`.
    fn start(command: &mut Command, stdin: Stdio, log: &Path) -> Result<Self> {
        let failed = |error| Error::setup(format!("start {:?}", command.get_program()), error);
        let out = File::options().create(true).append(true).open(log).map_err(failed)?;
        let errors = out.try_clone().map_err(failed)?;
        let child = command.stdin(stdin).stdout(out).stderr(errors).spawn();
        let child = child.map_err(|error| Error::setup("start a peer", error))?;
        Ok(Self { child, log: log.to_owned() })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for `condition`, as long as the program runs; what it wrote last is in the error.
    fn wait(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let mut ended = None;
        let child = &mut self.child;
        let done = vswitch_testbeds::command::wait_until(what, PATIENCE, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || condition()
        });
        match (ended, done) {
            (None, Ok(())) => Ok(()),
            (Some(status), _) => {
                Err(Error::setup(what, format!("it ended ({status}): {}", self.last_words())))
            }
            (None, Err(error)) => Err(Error::setup(what, format!("{error}; it says: {}", self.last_words()))),
        }
    }

    /// The last lines of its log.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join(" | ")
    }

    /// Its thread whose name begins so, as [`crate::machine::Watch::thread`] wants it.
    fn thread(&self, name: &str) -> Option<String> {
        thread(&self.pid().to_string(), name)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill, and it is only to be taken note of.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The thread of `process` (a number, or `self`) whose name begins so: `PROCESS/task/TID`.
#[must_use]
pub fn thread(process: &str, name: &str) -> Option<String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    tasks.flatten().find_map(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
        comm.starts_with(name).then(|| format!("{process}/task/{}", task.file_name().to_string_lossy()))
    })
}
