//! How much of a measurement's time the machine took away.

use std::time::Instant;

/// Beyond this part of the time lost, in percent, a measurement is void.
pub const TAKEN_MAX: f64 = 12.0;

/// Watches one measurement, from its start to [`Watch::taken_percent`] or [`Watch::void`].
#[derive(Debug)]
pub struct Watch {
    start: Instant,
    steal: Steal,
    threads: Vec<Thread>,
}

/// A thread that needs its core all the time.
#[derive(Debug)]
struct Thread {
    /// `/proc/PID/task/TID/schedstat`.
    path: String,
    waited_ns: u64,
}

/// Ticks of `/proc/stat` in a second: USER_HZ, the same on all machines (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Ticks the hypervisor took so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Steal {
    /// From all cores together.
    all: u64,
    /// From each core.
    cores: Vec<u64>,
}

impl Watch {
    /// Starts watching the machine, and the calling thread.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), steal: Steal::now(), threads: Vec::new() }.thread("thread-self")
    }

    /// Watches one more thread: `self/task/TID` or `PID/task/TID`.
    #[must_use]
    pub fn thread(mut self, thread: &str) -> Self {
        let path = format!("/proc/{thread}/schedstat");
        self.threads.push(Thread { waited_ns: waited(&path), path });
        self
    }

    /// The larger of what the hypervisor took from a core and what the most patient thread waited.
    #[must_use]
    pub fn taken(&self) -> Taken {
        Taken::of(self.core_steal_percent(), self.waited_percent())
    }

    /// How much that is, in percent of the time.
    #[must_use]
    pub fn taken_percent(&self) -> f64 {
        self.taken().percent
    }

    /// How long the most patient thread was ready and did not run, in percent of the time.
    fn waited_percent(&self) -> f64 {
        let waited = self.threads.iter().map(|thread| waited(&thread.path).saturating_sub(thread.waited_ns));
        waited.max().unwrap_or(0) as f64 / 1e9 / self.elapsed() * 100.0
    }

    /// What the hypervisor took from all cores together, in percent of the time of all of them.
    #[must_use]
    pub fn steal_percent(&self) -> f64 {
        let steal = Steal::now();
        steal.all_since(&self.steal) / steal.cores.len().max(1) as f64 / self.elapsed() * 100.0
    }

    /// What the hypervisor took at least from the core it took most from, in percent of that core's time.
    #[must_use]
    pub fn core_steal_percent(&self) -> f64 {
        Steal::now().least_of_a_core_since(&self.steal) / self.elapsed() * 100.0
    }

    fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// Why what was measured since the start is void; None: it is not.
    #[must_use]
    pub fn void(&self) -> Option<String> {
        self.taken().too_much("a core that was measured on")
    }
}

/// What was taken of a core's time, and by whom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// In percent of the time.
    pub percent: f64,
    /// The hypervisor, or other programs.
    pub by: &'static str,
}

impl Taken {
    /// The larger of two parts: what the hypervisor stole, and how long a thread waited for who else ran on its core.
    fn of(stolen: f64, waited: f64) -> Self {
        if stolen >= waited {
            Self { percent: stolen, by: "the hypervisor" }
        } else {
            Self { percent: waited, by: "other programs" }
        }
    }

    /// Says who took more than [`TAKEN_MAX`] `of` what; None: nobody did.
    #[must_use]
    pub fn too_much(self, of: &str) -> Option<String> {
        let Self { percent, by } = self;
        (percent > TAKEN_MAX).then(|| format!("{by} took {percent:.0} % of {of} (more than {TAKEN_MAX} %)"))
    }
}

impl Steal {
    fn now() -> Self {
        Self::of(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The eighth figure of the lines `cpu`, `cpu0`, ... of `/proc/stat`.
    fn of(text: &str) -> Self {
        let mut lines = text.lines().take_while(|line| line.starts_with("cpu")).map(|line| {
            let figure = line.split_whitespace().nth(8);
            figure.and_then(|figure| figure.parse().ok()).unwrap_or(0)
        });
        Self { all: lines.next().unwrap_or(0), cores: lines.collect() }
    }

    /// Seconds of all cores together.
    fn all_since(&self, before: &Self) -> f64 {
        self.all.saturating_sub(before.all) as f64 / TICKS_PER_SECOND
    }

    /// Seconds of the core that lost most: at least these. The first tick may have been all but full before, so one alone
    /// says nothing of a short time.
    fn least_of_a_core_since(&self, before: &Self) -> f64 {
        let taken = self.cores.iter().zip(&before.cores).map(|(now, before)| now.saturating_sub(*before));
        taken.max().unwrap_or(0).saturating_sub(1) as f64 / TICKS_PER_SECOND
    }
}

/// Nanoseconds a thread was ready and did not run: the second figure of its schedstat.
fn waited(path: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn steal_is_of_all_cores_or_of_the_one_that_lost_most_and_one_tick_is_no_proof() {
        let stat = |all, first, second| {
            Steal::of(&format!(
                "cpu  9 9 9 9 9 9 9 {all} 0 0\ncpu0 1 1 1 1 1 1 1 {first} 0 0\ncpu1 1 1 1 1 1 1 1 {second} 0 0\nintr 1 2 3\n"
            ))
        };
        let before = stat(12, 5, 7);
        assert_eq!(before, Steal { all: 12, cores: vec![5, 7] });
        let after = stat(18, 6, 12);
        assert!((after.all_since(&before) - 0.06).abs() < 1e-9);
        assert!((after.least_of_a_core_since(&before) - 0.04).abs() < 1e-9);
        assert!(stat(13, 5, 8).least_of_a_core_since(&before) < 1e-9);
        assert_eq!(Steal::of(""), Steal::default());
    }

    #[test]
    fn threads_that_share_a_core_wait_for_each_other() {
        let watch = || {
            assert!(core_affinity::set_for_current(core_affinity::get_core_ids().unwrap()[0]));
            let watch = Watch::start();
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(300) {
                std::hint::spin_loop();
            }
            watch.void()
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(watch)).collect();
        let voids: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(voids.iter().all(Option::is_some), "{voids:?}");
    }

    #[test]
    fn who_took_the_core_is_said() {
        for (stolen, waited, expected) in [
            (TAKEN_MAX, TAKEN_MAX, None),
            (20.0, 3.0, Some("the hypervisor took 20 % of a minute")),
            (13.0, 58.0, Some("other programs took 58 % of a minute")),
        ] {
            let said = Taken::of(stolen, waited).too_much("a minute");
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().starts_with(expected.unwrap_or_default()));
        }
    }
}
