//! Network namespaces: found by path, entered by a thread of their own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::error::{During, Failure};

/// An open network namespace. It stays alive while this is open, whatever happens to its path.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace at `path` (`/run/netns/NAME`, `/proc/PID/ns/net`).
    ///
    /// None: there is none any more, that is, no such path, or a plain file that a namespace was once mounted on.
    pub fn open(path: &Path) -> Result<Option<Self>, Failure> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).during(|| format!("open network namespace {}", path.display())),
        };
        let netns = Self { file, path: path.to_owned() };
        match netns.run(|| ()) {
            Ok(()) => Ok(Some(netns)),
            Err(failure) if failure.is(Errno::EINVAL) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Whether this is the namespace the calling thread is in.
    pub fn is_current(&self) -> Result<bool, Failure> {
        let step = || "compare network namespaces";
        let own = std::fs::metadata("/proc/thread-self/ns/net").during(step)?;
        let other = self.file.metadata().during(step)?;
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// Runs `work` on a new thread inside the namespace, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .during(|| format!("enter network namespace {}", self.path.display()))?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Its descriptor, for handing an interface over.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
