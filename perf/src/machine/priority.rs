//! The priority everything runs at that is measured or measures.
//!
//! These machines have no cores of their own for anybody: whatever else wakes up on a core takes it from a thread that
//! never sleeps for up to a tick (4 ms at HZ=250), and a few such ticks are all of a delay's upper percentiles and all
//! losses below saturation. At the highest priority of the ordinary scheduler that does not happen. It is the same for
//! ours, the peers and the kernel's threads that forward; what runs in interrupts keeps its place.

use rustix::process::{Pid, setpriority_process};

use crate::{Error, Result};

/// The highest of the ordinary scheduler (sched(7)).
pub const PRIORITY: i32 = -20;

/// Gives it to the calling thread, and so to all threads and programs it starts from now on. Whether it could: without
/// privilege everything stays as it was.
#[must_use]
pub fn raise() -> bool {
    setpriority_process(None, PRIORITY).is_ok()
}

/// Gives it to another thread, by its number.
///
/// # Errors
///
/// [`Error::Setup`] when there is none, or no privilege.
pub fn raise_thread(thread: i32) -> Result<()> {
    let what = || format!("raise the priority of thread {thread}");
    let pid = Pid::from_raw(thread).ok_or_else(|| Error::setup(what(), "it has no number"))?;
    setpriority_process(Some(pid), PRIORITY).map_err(|errno| Error::setup(what(), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_started_from_a_raised_one_are_raised() {
        let of_self = || rustix::process::getpriority_process(None).unwrap();
        // On a thread of its own: tests beside this one keep theirs.
        let (raised, child) = std::thread::spawn(move || {
            let raised = raise();
            (raised, std::thread::spawn(of_self).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(child == PRIORITY, raised);
        assert!(raised || !nix::unistd::geteuid().is_root());
        assert!(raise_thread(0).is_err());
    }
}
