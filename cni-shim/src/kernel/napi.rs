//! Threaded NAPI: an interface's receive work on a kernel thread of its own, instead of inside whoever sends to it.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Switches threaded NAPI on for an interface of the namespace the calling thread is in.
///
/// sysfs shows the namespace it was mounted in, so this mounts another one over `/sys`, in a mount namespace that only
/// this thread has: the thread must be one that ends afterwards. (The netdev family could say the same from Linux 6.17
/// on, but only about NAPI instances that exist already.) `Unsupported`: the kernel has no threaded NAPI (before 5.12).
pub fn set_threaded(interface: &str) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Without this the mount below would spread to the mount namespace we came from.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
    let path = format!("/sys/class/net/{interface}/threaded");
    if !Path::new(&path).exists() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no threaded NAPI"));
    }
    fs::write(path, "1")
}
