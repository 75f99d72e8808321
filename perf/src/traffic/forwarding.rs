//! The threads that forward, and what others take from them.

use std::time::Instant;

use crate::machine::TAKEN_MAX;

/// Threads that forward on one core, watched from [`Forwarding::start`] on.
///
/// Several of them wait for each other, which nobody takes from them: what counts is how much longer one waited than all
/// the others ran. Of one thread that is all its waiting.
#[derive(Debug)]
pub(super) struct Forwarding<'bed> {
    start: Instant,
    threads: &'bed [String],
    before: Vec<Times>,
}

/// What a thread ran and waited for its core, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Times {
    ran: u64,
    waited: u64,
}

impl<'bed> Forwarding<'bed> {
    /// `threads`: by their folders in /proc, as [`crate::machine::Watch::thread`] names them.
    pub(super) fn start(threads: &'bed [String]) -> Self {
        Self { start: Instant::now(), threads, before: threads.iter().map(|thread| times(thread)).collect() }
    }

    /// What others took since the start, in percent of the time: at least so much.
    pub(super) fn taken_percent(&self) -> f64 {
        let since = |(thread, before): (&String, &Times)| {
            let now = times(thread);
            let (ran, waited) =
                (now.ran.saturating_sub(before.ran), now.waited.saturating_sub(before.waited));
            Times { ran, waited }
        };
        let since: Vec<Times> = self.threads.iter().zip(&self.before).map(since).collect();
        taken(&since) as f64 / self.start.elapsed().as_nanos().max(1) as f64 * 100.0
    }
}

/// Why what was measured is void when so much was taken; None: it is not.
pub(super) fn void(taken_percent: f64) -> Option<String> {
    (taken_percent > TAKEN_MAX).then(|| {
        format!(
            "others took {taken_percent:.0} % of the time of the core that forwards (more than {TAKEN_MAX} %)"
        )
    })
}

fn taken(threads: &[Times]) -> u64 {
    let all: u64 = threads.iter().map(|thread| thread.ran).sum();
    threads.iter().map(|thread| thread.waited.saturating_sub(all - thread.ran)).max().unwrap_or(0)
}

/// The first two figures of its schedstat; nothing when it is gone.
fn times(thread: &str) -> Times {
    let text = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    let mut figures = text.split_whitespace().map(|figure| figure.parse().unwrap_or(0));
    Times { ran: figures.next().unwrap_or(0), waited: figures.next().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_wait_for_each_other_lose_nothing_to_others() {
        let of = |figures: &[(u64, u64)]| {
            taken(
                &figures.iter().map(|(ran, waited)| Times { ran: *ran, waited: *waited }).collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[(60, 40)]), 40, "alone, all its waiting");
        assert_eq!(of(&[(50, 50), (50, 50)]), 0, "a core shared by two that forward");
        assert_eq!(of(&[(30, 70), (30, 70)]), 40, "and by a third that does not");
    }

    #[test]
    fn this_thread_has_run() {
        let end = Instant::now() + std::time::Duration::from_millis(20);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        assert!(times("thread-self").ran > 0);
        assert!(void(TAKEN_MAX + 1.0).is_some() && void(TAKEN_MAX).is_none());
    }
}
