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

/// Where the priority of the session's group is told and set (sched(7), "The autogroup feature"): with that, priorities of
/// threads count within a session only.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// The priority as it is raised; what of it is not this process's own is put back when the value goes.
#[derive(Debug)]
pub struct Raised {
    /// Whether it could be raised: without privilege everything stays as it was.
    pub raised: bool,
    /// What the session's group had before.
    group: Option<String>,
}

/// Gives it to the calling thread, and so to all threads and programs it starts from now on, and to the session's group.
#[must_use]
pub fn raise() -> Raised {
    let raised = setpriority_process(None, PRIORITY).is_ok();
    let group = group().filter(|_| raised && set_group(&PRIORITY.to_string()));
    Raised { raised, group }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(before) = &self.group {
            set_group(before);
        }
    }
}

/// `/autogroup-25 nice 0`: its last word. None: there are no such groups.
fn group() -> Option<String> {
    let text = std::fs::read_to_string(AUTOGROUP).ok()?;
    text.split_whitespace().next_back().map(str::to_owned)
}

fn set_group(priority: &str) -> bool {
    std::fs::write(AUTOGROUP, priority).is_ok()
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
            let (before, raised) = (group(), raise());
            let child = std::thread::spawn(of_self).join().unwrap();
            let of_group = group();
            assert!(
                of_group.is_none() || !raised.raised || of_group.as_deref() == Some("-20"),
                "{of_group:?}"
            );
            let was_raised = raised.raised;
            drop(raised);
            assert_eq!(group(), before);
            (was_raised, child)
        })
        .join()
        .unwrap();
        assert_eq!(child == PRIORITY, raised);
        assert!(raised || !nix::unistd::geteuid().is_root());
        assert!(raise_thread(0).is_err());
    }
}
