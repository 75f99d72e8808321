//! What single turns take while something else goes on: how long a worker stands still.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use vswitch::worker::Worker;
use vswitch_datapath::Now;
use vswitch_model::DesiredState;

use super::{BURST, Bench};
use crate::workload::Frames;
use crate::{Error, Result};

/// What the clock goes on by from one turn to the next while flows expire, in nanoseconds: as long as turns are when a worker
/// has much to do, so that as many flows are due in each as one looks at.
const STEP_NS: f64 = 1e6;
/// Longer than any flow lives in silence.
const SILENCE_NS: f64 = 10.0 * 86_400e9;
/// Turns in which all flows must have expired.
const TURNS_MAX: usize = 10_000_000;

/// What each of some turns took of the core.
#[derive(Debug, Default)]
pub struct Turns {
    sorted_ns: Vec<u64>,
}

impl Turns {
    fn of(mut ns: Vec<u64>) -> Self {
        ns.sort_unstable();
        Self { sorted_ns: ns }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted_ns.len()
    }

    /// Microseconds that this part of the turns took at most: 1 for the longest.
    #[must_use]
    pub fn at_most_us(&self, part: f64) -> f64 {
        let last = self.sorted_ns.len().saturating_sub(1);
        let at = (last as f64 * part).ceil() as usize;
        self.sorted_ns.get(at.min(last)).map_or(0.0, |ns| *ns as f64 / 1e3)
    }
}

/// What the calling thread has had of a core. Not the time that passes: what else wanted the core is no stall of the worker's.
pub(super) fn core_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map(Duration::from).map_err(|error| Error::setup("read the thread's clock", error))
}

/// Turns once; adds what it took of the core.
fn timed(worker: &mut Worker, now_ns: f64, turns: &mut Vec<u64>) -> Result<()> {
    worker.set_clock(Now(now_ns as u64));
    let before = core_time()?;
    // Nobody tells it to stop while it is in our hand.
    let _ = worker.step();
    turns.push(core_time()?.saturating_sub(before).as_nanos() as u64);
    Ok(())
}

impl<F: Frames> Bench<F> {
    /// What turns take that walk packets of known flows while the engine is led to another state: until that is in force, and
    /// what was before it is freed.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`]; [`Error::Miscounted`] when a packet did not come through.
    pub fn turns_while_loading(&mut self, desired: DesiredState) -> Result<Turns> {
        let before = self.account.now();
        let (mut turns, mut failed, mut sent) = (Vec::new(), None, 0);
        let Self { held, near, frames, numbers, batch, now_ns, .. } = self;
        let mut left = 0;
        held.load_while(desired, |worker| {
            if left == 0 {
                let next: Vec<u64> = numbers.by_ref().take(BURST).collect();
                near.stage(next.len(), |at, frame| frames.write(next[at], frame));
                left = next.len();
            }
            let released = near.release(*batch);
            *now_ns += 10_000.0;
            failed = failed.take().or(timed(worker, *now_ns, &mut turns).err());
            let received = released - near.waiting();
            left -= received;
            sent += received as u64;
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.account.check(&self.name, &before, sent, 0)?;
        Ok(Turns::of(turns))
    }

    /// What turns take while all flows expire.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`]; [`Error::Miscounted`] when some do not expire.
    pub fn turns_while_expiring(&mut self) -> Result<Turns> {
        let counters = self.held.counters();
        let flows = counters.flows_created.get();
        let mut turns = Vec::new();
        self.now_ns += SILENCE_NS;
        while counters.flows_expired.get() < flows && turns.len() < TURNS_MAX {
            if self.interrupt.is_set() {
                return Err(Error::Interrupted);
            }
            let Some(worker) = &mut self.held.worker else { break };
            timed(worker, self.now_ns, &mut turns)?;
            self.now_ns += STEP_NS;
        }
        let expired = counters.flows_expired.get();
        if expired == flows {
            return Ok(Turns::of(turns));
        }
        Err(Error::Miscounted(format!("{}: {expired} of {flows} flows expired", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_turns() {
        let turns = Turns::of((1..=1000).rev().map(|us| us * 1000).collect());
        assert_eq!((turns.count(), turns.at_most_us(1.0), turns.at_most_us(0.5)), (1000, 1000.0, 501.0));
        assert_eq!(turns.at_most_us(0.0), 1.0);
        assert_eq!(Turns::default().at_most_us(1.0), 0.0);
    }
}
