//! Programs that run in the background, and their end.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::command::{line, wait_for, wait_until};
use crate::error::AtPath;
use crate::{Error, Result};

/// A process, told apart from a later one with the same id by when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc(5), field 22 of stat).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, field 2, is in brackets and may hold anything; what follows the last bracket is regular.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        Some(Self { pid, started: fields.nth(18)?.parse().ok()? })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.runs() {
            // It may end between the question and the signal: then there is nothing left to do.
            let _gone = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Ends it: asks, and after `patience` insists.
    pub fn end(&self, patience: Duration) {
        self.signal(Signal::SIGTERM);
        if wait_until("a process to end", patience, || !self.runs()).is_err() {
            self.signal(Signal::SIGKILL);
            let _unkillable = wait_until("a killed process to go", patience, || !self.runs());
        }
    }
}

/// A program that runs in the background. Dropping the value ends the program, unless [`Daemon::leave`] was called.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    line: String,
    log: PathBuf,
    left: bool,
}

impl Daemon {
    /// Starts `command`; what it writes, both ways, is appended to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).at(log)?;
        let errors = file.try_clone().at(log)?;
        // A process group of its own: a Ctrl-C at the terminal is for us to handle, in order.
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Start { program: line(command), source })?;
        Ok(Self { child, line: line(command), log: log.to_owned(), left: false })
    }

    /// Which process it is.
    #[must_use]
    pub fn id(&self) -> Option<ProcessId> {
        ProcessId::of(self.pid())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("the kernel's process ids fit 22 bits")
    }

    /// An error when it has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::Command {
                line: self.line.clone(),
                status: status.to_string(),
                output: self.log_end(),
            }),
            Err(source) => Err(Error::Start { program: self.line.clone(), source }),
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let waited =
            wait_for(&format!("the end of `{}`", self.line), limit, || match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err(Error::other("it still runs")),
                Err(source) => Err(Error::Start { program: self.line.clone(), source }),
            });
        if waited.is_err() {
            self.kill();
        }
        waited
    }

    /// Asks it to end (SIGTERM) and waits; insists after `limit`, which is an error.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.wait(limit)
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        // Fails only when it has already ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    /// Sends it a signal. Nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if let Ok(None) = self.child.try_wait() {
            // Not yet waited for, so the id is still its own.
            let _ended = kill(Pid::from_raw(self.pid()), signal);
        }
    }

    /// Lets it run on when this value goes.
    pub fn leave(&mut self) {
        self.left = true;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.left
            && matches!(self.child.try_wait(), Ok(None))
            && self.stop(Duration::from_secs(3)).is_err()
        {
            self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_daemon_runs_until_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = "trap 'echo end; exit 7' TERM; echo begin; while :; do sleep 0.01; done";
        let mut daemon = Daemon::start(Command::new("sh").args(["-c", script]), &log).unwrap();
        wait_until("its first line", LIMIT, || daemon.log_end() == "begin").unwrap();
        daemon.check().unwrap();
        assert!(daemon.id().unwrap().runs());
        assert_eq!(daemon.stop(LIMIT).unwrap().code(), Some(7));
        assert_eq!(daemon.log_end(), "begin\nend");
        assert!(daemon.check().is_err());
    }

    #[test]
    fn another_process_with_the_same_id_is_not_it() {
        let us = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(us.runs());
        assert!(!ProcessId { started: us.started + 1, ..us }.runs());
    }

    #[test]
    fn a_dropped_daemon_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(Command::new("sleep").arg("60"), &folder.path().join("log")).unwrap();
        let id = daemon.id().unwrap();
        drop(daemon);
        assert!(!id.runs());
    }
}
