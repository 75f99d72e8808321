//! Time of a core, and what is taken of it by what is done here.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::session::Interrupt;
use crate::{Error, Result};

/// How long something may be repeated at most.
const PATIENCE: Duration = Duration::from_millis(400);

/// What the calling thread takes of a core for `work`, and what that gives.
///
/// # Errors
///
/// [`Error::Setup`] when the kernel has no such clock.
pub(super) fn time_of<T>(work: impl FnOnce() -> T) -> Result<(T, Duration)> {
    let now = || {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        time.map(Duration::from).map_err(|error| Error::setup("read the thread's clock", error))
    };
    let start = now()?;
    let given = work();
    Ok((given, now()?.saturating_sub(start)))
}

/// Milliseconds.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What `body` gives each time, `rounds` times; fewer, but at least once, when they take long.
///
/// # Errors
///
/// Those of `body`; [`Error::Interrupted`].
pub(super) fn repeat<T>(
    rounds: u32,
    interrupt: &Interrupt,
    mut body: impl FnMut() -> Result<T>,
) -> Result<Vec<T>> {
    let (start, mut all) = (Instant::now(), Vec::new());
    while all.is_empty() || all.len() < rounds as usize && start.elapsed() < PATIENCE {
        if interrupt.is_set() {
            return Err(Error::Interrupted);
        }
        all.push(body()?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_a_core_is_not_what_passes_meanwhile() {
        let nothing = Interrupt::default();
        let ((), slept) = time_of(|| std::thread::sleep(PATIENCE)).unwrap();
        assert!(slept < PATIENCE, "{slept:?}");
        let sleep = || {
            std::thread::sleep(PATIENCE);
            Ok(())
        };
        assert_eq!(repeat(3, &nothing, sleep).unwrap().len(), 1, "it takes long");
        assert_eq!(repeat(3, &nothing, || Ok(())).unwrap().len(), 3);
        nothing.set();
        assert!(matches!(repeat(3, &nothing, || Ok(())), Err(Error::Interrupted)));
    }
}
