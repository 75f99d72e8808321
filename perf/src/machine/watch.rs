//! How much of a measurement's time the machine took away.

use std::time::Instant;

/// Beyond this part of the time lost, in percent, a measurement is void.
pub const TAKEN_MAX: f64 = 12.0;

/// Watches one measurement, from its start to [`Watch::taken_percent`] or [`Watch::void`].
#[derive(Debug)]
pub struct Watch {
    start: Instant,
    steal: u64,
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

impl Watch {
    /// Starts watching the machine, and the calling thread.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), steal: steal(), threads: Vec::new() }.thread("thread-self")
    }

    /// Watches one more thread: `self/task/TID` or `PID/task/TID`.
    #[must_use]
    pub fn thread(mut self, thread: &str) -> Self {
        let path = format!("/proc/{thread}/schedstat");
        self.threads.push(Thread { waited_ns: waited(&path), path });
        self
    }

    /// The larger of what the hypervisor took and what the most patient thread waited, in percent of the time.
    #[must_use]
    pub fn taken_percent(&self) -> f64 {
        let elapsed = self.start.elapsed().as_secs_f64().max(1e-9);
        let waited = self.threads.iter().map(|thread| waited(&thread.path).saturating_sub(thread.waited_ns));
        let waited = waited.max().unwrap_or(0) as f64 / 1e9;
        self.steal_percent().max(waited / elapsed * 100.0)
    }

    /// What the hypervisor took from all cores together, in percent of one core's time.
    #[must_use]
    pub fn steal_percent(&self) -> f64 {
        let elapsed = self.start.elapsed().as_secs_f64().max(1e-9);
        steal().saturating_sub(self.steal) as f64 / TICKS_PER_SECOND / elapsed * 100.0
    }

    /// Why what was measured since the start is void; None: it is not.
    #[must_use]
    pub fn void(&self) -> Option<String> {
        let taken = self.taken_percent();
        (taken > TAKEN_MAX)
            .then(|| format!("the machine took {taken:.0} % of the time away (more than {TAKEN_MAX} %)"))
    }
}

/// Ticks the hypervisor took from all cores so far: the eighth figure of the line `cpu` of `/proc/stat`.
fn steal() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(8))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
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
}
