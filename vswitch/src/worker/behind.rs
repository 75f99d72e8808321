//! When a worker is behind, and what it does about it.
//!
//! A packet of a known flow costs a look-up; one of no known flow, a newcomer, ten times that. So a flood of newcomers is
//! more than a worker has time for long before as many packets of known flows are, and what is lost in the ports' rings
//! then are packets of any flow. A worker that is behind because of newcomers judges fewer of them: so many of each port in
//! a turn, and the others end after the look-up
//! ([`DropReason::WorkerBehind`](vswitch_model::DropReason::WorkerBehind)).
//!
//! - Behind is who left something at a port at every visit for [`STANDING_NS`], and much: a burst, even one that fills a
//!   ring, is worked off in less, and peers that wait for answers before they send more never leave much; neither loses
//!   anything. No clock is looked at for it, nor for each packet: turns have their time.
//! - How many is found by trying: an eighth less at each turn while the worker is behind, one more for each
//!   [`MORE_NS`] while it is not. There is nothing to configure, whatever the core, tables and flows make a newcomer cost.
//! - One of each port and turn is judged however bad it is: ports that do not flood open flows as before, and nearly all of
//!   theirs get in.
//! - Where newcomers are few and the worker is behind for another reason, judging fewer would not help, and all are judged.

use vswitch_datapath::{BATCH, Now};

/// So long something has been left at a port when its worker is behind. A full ring of newcomers takes 3 ms.
const STANDING_NS: u64 = 5_000_000;
/// Packets that are much: a quarter of a ring.
const MUCH: usize = 512;
/// In this time one newcomer more is judged of each port in a turn.
const MORE_NS: u64 = 1_000_000;
/// Newcomers are few when they are less than one in so many packets.
const FEW: u64 = 8;
/// Judged of one port in a turn, at first: a whole batch.
const MOST: u16 = BATCH as u16;

/// Whether much has been left at one place for long: something at every visit, and much at one of them not long ago.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    /// When visits began to leave something.
    since: Option<Now>,
    /// When one left much, last.
    much: Option<Now>,
    stands: bool,
}

impl Backlog {
    /// Notes a visit that left so many packets; whether it stands now, if that has changed.
    #[inline]
    pub(super) fn visited(&mut self, left: usize, now: Now) -> Option<bool> {
        let before = self.stands;
        if left == 0 {
            *self = Self::default();
        } else {
            let since = *self.since.get_or_insert(now);
            if left >= MUCH {
                self.much = Some(now);
            }
            let passed = |then: Now| now.0.saturating_sub(then.0);
            self.stands =
                passed(since) >= STANDING_NS && self.much.is_some_and(|much| passed(much) < STANDING_NS);
        }
        (self.stands != before).then_some(self.stands)
    }

    pub(super) const fn stands(&self) -> bool {
        self.stands
    }
}

/// How many newcomers a worker judges.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Of each port in a turn. None: all.
    most: Option<u16>,
    /// When that became more, or less, last.
    changed: Now,
}

impl Judged {
    /// Of each port in a turn. None: all.
    #[inline]
    pub(super) const fn most(&self) -> Option<u16> {
        self.most
    }

    /// Takes in a turn that walked so many packets, `newcomers` of them of no known flow, after which work was left for long or not.
    #[cold]
    pub(super) fn turned(&mut self, now: Now, behind: bool, packets: u64, newcomers: u64) {
        if behind && newcomers * FEW >= packets.max(1) {
            let most = self.most.unwrap_or(MOST);
            self.most = Some((most - (most / 8).max(1)).max(1));
            self.changed = now;
        } else {
            self.passed(now);
        }
    }

    /// Takes in the time since that became more, or less, in which the worker was not behind: it may have slept.
    #[cold]
    pub(super) fn passed(&mut self, now: Now) {
        let more = now.0.saturating_sub(self.changed.0) / MORE_NS;
        if let Some(most) = self.most
            && more > 0
        {
            self.changed = now;
            self.most = Some(most.saturating_add(more.min(MOST.into()) as u16)).filter(|most| *most < MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Now {
        Now(ms * 1_000_000)
    }

    #[test]
    fn a_backlog_stands_when_every_visit_for_a_while_left_something() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.visited(1000, ms(100)), None);
        assert_eq!(backlog.visited(20, ms(102)), None);
        assert_eq!(backlog.visited(600, ms(104)), None);
        assert_eq!(backlog.visited(32, ms(105)), Some(true));
        assert_eq!(backlog.visited(600, ms(200)), None);
        assert!(backlog.stands());
        assert_eq!(backlog.visited(0, ms(202)), Some(false));
        assert!(!backlog.stands());
        assert_eq!(backlog.visited(600, ms(300)), None, "it begins anew");
        assert_eq!(backlog.visited(0, ms(304)), None);
        assert_eq!(backlog.visited(600, ms(306)), None, "and again");
    }

    #[test]
    fn little_that_is_there_all_the_time_is_no_backlog() {
        let mut backlog = Backlog::default();
        for at in 0..100 {
            assert_eq!(backlog.visited(300, ms(at)), None);
        }
        assert_eq!(backlog.visited(600, ms(100)), Some(true));
        assert_eq!(backlog.visited(300, ms(104)), None, "it is still being worked off");
        assert_eq!(backlog.visited(300, ms(105)), Some(false));
    }

    #[test]
    fn fewer_are_judged_turn_by_turn_and_more_with_time() {
        let mut judged = Judged::default();
        judged.turned(ms(1), false, 64, 64);
        assert_eq!(judged.most(), None);
        let mut before = MOST;
        for _ in 0..40 {
            judged.turned(ms(1), true, 64, 32);
            let most = judged.most().unwrap();
            assert!(most < before || most == 1);
            before = most;
        }
        assert_eq!(before, 1);
        judged.turned(ms(1), false, 64, 32);
        assert_eq!(judged.most(), Some(1), "no time has passed");
        judged.turned(ms(11), false, 64, 32);
        assert_eq!(judged.most(), Some(11));
        judged.turned(ms(1000), false, 0, 0);
        assert_eq!(judged.most(), None);
    }

    #[test]
    fn newcomers_are_not_judged_less_for_what_others_cost() {
        let mut judged = Judged::default();
        judged.turned(ms(1), true, 64, 7);
        assert_eq!(judged.most(), None);
        judged.turned(ms(1), true, 64, 8);
        assert_eq!(judged.most(), Some(MOST - MOST / 8));
        // Few have come since: they are not what it is behind for any more.
        judged.turned(ms(3), true, 64, 0);
        assert_eq!(judged.most(), Some(MOST - MOST / 8 + 2));
    }

    /// Packets that come by a port at rates, wait in its ring, and are taken from there in their turn.
    #[derive(Default)]
    struct Ring {
        known: f64,
        new: f64,
        lost: f64,
        came: f64,
    }

    impl Ring {
        const PLACES: f64 = 2048.0;

        /// So many of each come, at rates in packets a nanosecond.
        fn wait(&mut self, ns: f64, (known, new): (f64, f64)) {
            self.came += known * ns;
            (self.known, self.new) = (self.known + known * ns, self.new + new * ns);
            let kept = (Self::PLACES / (self.known + self.new)).min(1.0);
            self.lost += self.known * (1.0 - kept);
            (self.known, self.new) = (self.known * kept, self.new * kept);
        }

        /// What a visit brings of each.
        fn take(&mut self, budget: f64) -> (f64, f64) {
            let part = (budget / (self.known + self.new).max(1e-9)).min(1.0);
            let taken = (self.known * part, self.new * part);
            (self.known, self.new) = (self.known - taken.0, self.new - taken.1);
            taken
        }
    }

    /// The part of known packets that two ports lose which bring so many million packets a second, known and new, in a second
    /// of a worker to which a known one costs 80 ns, a new one 1500, and one that is refused 60.
    fn lost(rates: [(f64, f64); 2]) -> f64 {
        let (mut rings, mut backlogs) = ([Ring::default(), Ring::default()], [Backlog::default(); 2]);
        let (mut judged, mut now) = (Judged::default(), 0.0);
        while now < 1e9 {
            let at = Now(now as u64);
            let (mut cost, mut packets, mut newcomers) = (500.0, 0.0, 0.0);
            for (ring, backlog) in rings.iter_mut().zip(&mut backlogs) {
                let (known, new) = ring.take(32.0);
                backlog.visited((ring.known + ring.new) as usize, at);
                let admitted = judged.most().map_or(new, |most| new.min(most.into()));
                cost += known * 80.0 + admitted * 1500.0 + (new - admitted) * 60.0;
                (packets, newcomers) = (packets + known + new, newcomers + new);
            }
            let behind = backlogs.iter().any(Backlog::stands);
            judged.turned(at, behind, packets as u64, newcomers as u64);
            now += cost;
            for (ring, (known, new)) in rings.iter_mut().zip(rates) {
                ring.wait(cost, (known / 1e3, new / 1e3));
            }
        }
        rings.iter().map(|ring| ring.lost).sum::<f64>() / rings.iter().map(|ring| ring.came).sum::<f64>()
    }

    #[test]
    fn a_flood_takes_little_from_known_flows_wherever_it_comes_by() {
        for rates in [[(1.0, 0.0), (0.0, 1.0)], [(1.0, 1.0), (0.0, 0.0)], [(0.7, 0.2), (0.3, 1.5)]] {
            let lost = lost(rates);
            assert!(lost < 0.02, "{rates:?}: {lost}");
        }
        assert_eq!(lost([(1.0, 0.1), (1.0, 0.1)]), 0.0, "there is time for all");
    }
}
