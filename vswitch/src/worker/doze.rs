//! How a worker goes to sleep without missing what another hands it. Nothing but atomics: `tests/doze.rs` runs this file with
//! loom's, through every order of what two threads do.
//!
//! ```text
//! who sleeps                       who hands over
//!   announce: asleep = true          push to the ring
//!   fence                            fence
//!   look at the rings once more      asleep? then wake
//!   nothing there: sleep
//! ```
//!
//! Of the two fences one comes first: either the sleeper sees what was pushed, or the other sees that it sleeps.

use super::atomics::{AtomicBool, Ordering, fence};

/// Whether a worker sleeps, or is about to.
#[derive(Debug)]
pub(super) struct Doze(AtomicBool);

impl Doze {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Says that the worker is about to sleep. It has to look at its rings once more, and then either sleep or be
    /// [`Doze::awake`].
    pub(super) fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the worker looks at its rings again.
    pub(super) fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Asked after a push: whether the worker has to be woken. Of several that ask at once, one is told so.
    pub(super) fn is_to_be_woken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}
