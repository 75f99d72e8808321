//! Network namespaces of our own, held by file descriptors.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use vswitch_testbeds::command;

use crate::{Error, Result};

/// A network namespace. It has no name: it lives while this, or anything inside, does. A clone is the same one.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// A new one: its loopback is up, and its devices have no IPv6 until it is asked for, so that they are silent.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] without CAP_SYS_ADMIN.
    pub fn new() -> Result<Self> {
        let made = on_thread(|| -> std::io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made?.map_err(|error| {
            Error::setup("make a network namespace", format!("{error}; root, or CAP_SYS_ADMIN, is needed"))
        })?;
        let namespace = Self { file: Arc::new(file) };
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A path that leads to it, for other processes too while this one runs.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Moves the calling thread into it, for good: for threads of one's own.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn join(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::setup("enter a network namespace", errno))
    }

    /// Runs `body` on a thread inside, and waits for it. Sockets and threads made there stay there.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when it cannot be entered; `body` has not run then.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| self.join().map(|()| body()))?
    }

    /// A command that will run inside, as the process that is started; killed when the thread that starts it ends.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Runs a command inside to its end, its arguments separated by blanks, and gives what it wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] with what it wrote, when it failed.
    pub fn run(&self, words: &str) -> Result<String> {
        let mut split = words.split_whitespace();
        let program = split.next().unwrap_or_default();
        command::run(self.command(program).args(split)).map_err(|error| Error::setup(words, error))
    }

    /// Runs lines of `ip` inside, one after another.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] at the first that fails, with its number.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.with_input(&["ip", "-batch", "-"], lines).map(drop)
    }

    /// Runs a command inside with `input`, and gives what it wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] with what it wrote, when it failed.
    pub fn with_input(&self, words: &[&str], input: &str) -> Result<String> {
        let line = || format!("{} (of {} lines)", words.join(" "), input.lines().count());
        let mut command = self.command(words[0]);
        let output = command::output(command.args(&words[1..]), &format!("{}\n", input.trim_end()))
            .map_err(|error| Error::setup(line(), error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::setup(line(), String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Sets a sysctl of this namespace: `net.ipv4.ip_forward`. A dot in a device's name is written as a slash.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let swapped = |letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        let path = format!("/proc/sys/{}", key.chars().map(swapped).collect::<String>());
        // The files of net show the namespace of the thread that opens them.
        let written = self.enter(|| std::fs::write(&path, value))?;
        written.map_err(|error| Error::setup(format!("write {value} to {path}"), error))
    }
}

fn on_thread<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, body);
        let thread = thread.map_err(|error| Error::setup("start a thread", error))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
