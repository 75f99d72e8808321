//! Network namespaces: making them, running programs and code in them.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::command::run;
use crate::error::AtPath;
use crate::{Error, Result};

/// A named network namespace, as `ip netns` keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// The namespace of this name, whether it exists or not.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Makes it, with its loopback up.
    pub fn create(&self) -> Result<()> {
        run(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.ip("link set lo up")?;
        Ok(())
    }

    /// Removes it, and with it all devices inside; not an error when it is not there.
    pub fn remove(&self) -> Result<()> {
        if self.path().exists() {
            run(Command::new("ip").args(["netns", "del", &self.name]))?;
        }
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it: what a container runtime gives as `CNI_NETNS`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside. All else (mounts, processes) is the caller's; the command's process is the
    /// one that is started, there is none in between.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a command inside, its arguments separated by blanks, and gives what it wrote.
    pub fn run(&self, words: &str) -> Result<String> {
        let mut words = words.split_whitespace();
        let program = words.next().ok_or_else(|| Error::other("an empty command"))?;
        run(self.command(program).args(words))
    }

    /// Runs `ip` inside, its arguments separated by blanks.
    pub fn ip(&self, words: &str) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(words.split_whitespace()))
    }

    /// Sets a sysctl of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        run(self.command("sysctl").args(["-q", "-w", &format!("{key}={value}")]))?;
        Ok(())
    }

    /// Runs `body` on a thread inside the namespace. Sockets made there stay there.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).at(self.path())?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).map(|()| body()).map_err(|errno| {
                    Error::other(format!("cannot enter the network namespace {}: {errno}", self.name))
                })
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Processes that run inside, by their ids.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let pids = run(Command::new("ip").args(["netns", "pids", &self.name]))?;
        Ok(pids.lines().filter_map(|pid| pid.trim().parse().ok()).collect())
    }

    /// Names of all namespaces that `ip netns` knows.
    pub fn all() -> Result<Vec<String>> {
        let list = run(Command::new("ip").args(["netns", "list"]))?;
        Ok(list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }
}
