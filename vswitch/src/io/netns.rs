//! Doing something in another network namespace: on a thread of its own, since a namespace is a property of a thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

/// Tells network namespaces apart, whatever path leads to them: device and inode of the namespace's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity(u64, u64);

/// The identity of the namespace at `path`, or of the calling thread's own.
pub(super) fn identity(path: Option<&Path>) -> io::Result<Identity> {
    let metadata = std::fs::metadata(path.unwrap_or(Path::new("/proc/thread-self/ns/net")))?;
    Ok(Identity(metadata.dev(), metadata.ino()))
}

/// Runs `work` in the network namespace at `path`, or right here when there is none, and waits for it.
///
/// # Errors
///
/// When the namespace cannot be opened or entered (CAP_SYS_ADMIN); `work` has not run then.
pub fn within<T: Send>(path: Option<&Path>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(path) = path else { return Ok(work()) };
    let namespace = File::open(path)?;
    on_thread(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Runs `work` in a new network namespace, which lives on in the sockets that `work` makes.
///
/// # Errors
///
/// When there is no new namespace (CAP_SYS_ADMIN); `work` has not run then.
pub(super) fn in_new<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
