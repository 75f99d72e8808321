//! Tables that are full: who is refused is a newcomer, whom nobody hears, so it is said here.

use std::fmt;
use std::time::{Duration, Instant};

use vswitch_model::DropReason;

use crate::worker::Handle;

/// How long a table that refused newcomers is told of.
const TOLD: Duration = Duration::from_secs(60);
/// How often the log tells of one at most.
const LOGGED: Duration = Duration::from_secs(60);

/// Tables that can be full, by what their newcomers end with.
const TABLES: [DropReason; 2] = [DropReason::FlowTableFull, DropReason::FragmentTableFull];

/// A worker's table that refused newcomers a short while ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// The worker's number.
    pub worker: usize,
    /// What newcomers ended with.
    pub reason: DropReason,
    /// How many places it has.
    pub capacity: usize,
    /// Packets that were refused since it began, and when it was seen last.
    pub refused: u64,
    since: Instant,
    last: Instant,
    logged: Instant,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, capacity, refused, .. } = self;
        let seconds = self.last.duration_since(self.since).as_secs().max(1);
        match self.reason {
            DropReason::FragmentTableFull => write!(
                f,
                "worker {worker} follows {capacity} fragmented packets at once and no more: {refused} fragments were dropped \
                 within {seconds} s; `fragments` of vswitchd.toml sets how many"
            ),
            _ => write!(
                f,
                "the flow table of worker {worker} is full ({capacity} flows, three quarters of them by one port at most): \
                 {refused} packets of new flows were dropped within {seconds} s; `vsctl get flows` shows whose they are, and \
                 `flows` of vswitchd.toml sets how many there may be"
            ),
        }
    }
}

/// Looks now and then at what workers have counted.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By worker and table: what was counted when it was looked at last.
    counted: Vec<[u64; TABLES.len()]>,
    full: Vec<Full>,
}

impl Watch {
    /// Looks again, and logs which tables have become full.
    pub(super) fn look(&mut self, workers: &[Handle], now: Instant) {
        for (worker, handle) in workers.iter().enumerate() {
            let walk = &handle.config.walk;
            let counted = TABLES.map(|reason| handle.counters.drops(reason));
            self.count(worker, [walk.flows, walk.fragments], counted, now);
        }
        self.full.retain(|full| now.duration_since(full.last) < TOLD);
    }

    fn count(&mut self, worker: usize, capacity: [usize; 2], counted: [u64; 2], now: Instant) {
        if self.counted.len() <= worker {
            self.counted.resize(worker + 1, [0; TABLES.len()]);
        }
        let before = std::mem::replace(&mut self.counted[worker], counted);
        for (table, reason) in TABLES.into_iter().enumerate() {
            let grown = counted[table].saturating_sub(before[table]);
            if grown == 0 {
                continue;
            }
            let known = self.full.iter_mut().find(|full| full.worker == worker && full.reason == reason);
            if let Some(full) = known {
                (full.refused, full.last) = (full.refused + grown, now);
                if now.duration_since(full.logged) >= LOGGED {
                    full.logged = now;
                    tracing::warn!("{full}");
                }
            } else {
                let capacity = capacity[table];
                let full =
                    Full { worker, reason, capacity, refused: grown, since: now, last: now, logged: now };
                tracing::warn!("{full}");
                self.full.push(full);
            }
        }
    }

    /// Those that are to be told of.
    pub(super) fn full(&self) -> &[Full] {
        &self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_is_told_of_while_it_refuses_and_a_minute_more() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::default();
        let mut count = |counted, seconds| {
            watch.count(1, [1024, 16], counted, at(seconds));
            watch.look(&[], at(seconds));
            watch.full().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(count([0, 0], 0), [""; 0]);
        let said = count([600, 0], 5);
        assert!(said[0].starts_with("the flow table of worker 1 is full (1024 flows"), "{said:?}");
        assert!(said[0].contains("600 packets of new flows were dropped within 1 s"), "{said:?}");
        let said = count([700, 3], 15);
        assert!(said[0].contains("700 packets of new flows were dropped within 10 s"), "{said:?}");
        assert!(said[1].starts_with("worker 1 follows 16 fragmented packets at once"), "{said:?}");
        assert_eq!(count([700, 3], 74).len(), 2);
        assert_eq!(count([700, 3], 75), [""; 0]);
        assert!(count([701, 3], 80)[0].contains("1 packets"), "it begins anew");
    }
}
