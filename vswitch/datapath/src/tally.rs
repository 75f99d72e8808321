//! What rules did, each counted by the worker that it did it on.
//!
//! Rules are numbered densely, so the counts are an array. It grows by segments that somebody else allocates before the
//! tables with the new rules are published; the worker alone counts, and anybody reads, as in [`crate::counters`].
//!
//! No packet of a known flow counts here: its record has its packets and bytes, which are added when the flow ends. Who
//! wants the numbers of now adds those of the flows that live ([`RuleTallies::is_of`] says which).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use vswitch_model::RuleId;

use crate::counters::Counter;
use crate::flow::Flow;
use crate::tables::Revision;

/// Rules of the first segment; each further one has twice as many as the one before.
const FIRST: u64 = 1024;
/// Segments: rules up to number 2,096,127, twice as many as there may be at once.
const SEGMENTS: usize = 11;

/// What one rule did. A flow that two ends judge counts for a rule of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleCounts {
    /// Flows it allowed when they were opened.
    pub flows: u64,
    /// Packets of flows it allowed, both ways. Of one that another rule allowed first only those that came after.
    pub packets: u64,
    /// Their bytes, of IP packets.
    pub bytes: u64,
    /// Packets it denied: each asks anew.
    pub denied_packets: u64,
    /// Their bytes, of IP packets.
    pub denied_bytes: u64,
    /// Packets of no known flow that it marked, for a rule that logs; and flows judged anew, as policy changed.
    pub marked: u64,
    /// Packets of no known flow that it would have allowed, were what is staged in force; and flows judged anew.
    pub staged_allowed: u64,
    /// And those that it would have denied.
    pub staged_denied: u64,
}

impl RuleCounts {
    /// Whether there is anything to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What both counted together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            flows: self.flows.wrapping_add(other.flows),
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
            denied_packets: self.denied_packets.wrapping_add(other.denied_packets),
            denied_bytes: self.denied_bytes.wrapping_add(other.denied_bytes),
            marked: self.marked.wrapping_add(other.marked),
            staged_allowed: self.staged_allowed.wrapping_add(other.staged_allowed),
            staged_denied: self.staged_denied.wrapping_add(other.staged_denied),
        }
    }

    /// And the packets and bytes of a flow that lives.
    #[must_use]
    pub fn plus_flow(self, flow: &Flow) -> Self {
        let (packets, bytes) = flow.total();
        self.plus(Self { packets, bytes, ..Self::default() })
    }
}

#[derive(Debug, Default)]
struct Tally {
    /// The first tables in which the number means this rule.
    since: AtomicU64,
    /// What `since` was when the worker began to count what is here.
    begun: AtomicU64,
    flows: Counter,
    packets: Counter,
    bytes: Counter,
    denied_packets: Counter,
    denied_bytes: Counter,
    marked: Counter,
    staged_allowed: Counter,
    staged_denied: Counter,
}

impl Tally {
    fn counters(&self) -> [&Counter; 8] {
        let Self { flows, packets, bytes, denied_packets, denied_bytes, marked, .. } = self;
        let staged = [&self.staged_allowed, &self.staged_denied];
        [flows, packets, bytes, denied_packets, denied_bytes, marked, staged[0], staged[1]]
    }
}

/// What the rules did, by number.
#[derive(Debug, Default)]
pub struct RuleTallies {
    segments: [OnceLock<Box<[Tally]>>; SEGMENTS],
}

/// The segment of a rule, and its place there.
fn place(rule: RuleId) -> (usize, usize) {
    let rule = u64::from(rule.0);
    let segment = (rule / FIRST + 1).ilog2();
    (segment as usize, (rule - FIRST * ((1 << segment) - 1)) as usize)
}

impl RuleTallies {
    /// No room yet: nothing is counted before [`Self::reserve`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for rules up to `last`. Beyond number 2,096,127 nothing is counted.
    pub fn reserve(&self, last: RuleId) {
        let (segment, _) = place(last);
        for (segment, tallies) in self.segments.iter().enumerate().take(segment + 1) {
            tallies.get_or_init(|| (0..FIRST << segment).map(|_| Tally::default()).collect());
        }
    }

    /// From the tables `revision` on the number means another rule, which has done nothing yet. Called before they are
    /// published; what earlier tables decided is not counted any more.
    pub fn begin(&self, rule: RuleId, revision: Revision) {
        if let Some(tally) = self.tally(rule) {
            tally.since.store(revision.0, Ordering::Release);
        }
    }

    /// What a rule did, but for flows that live.
    #[must_use]
    pub fn counts(&self, rule: RuleId) -> RuleCounts {
        let Some(tally) = self.tally(rule) else { return RuleCounts::default() };
        if tally.begun.load(Ordering::Acquire) != tally.since.load(Ordering::Acquire) {
            return RuleCounts::default();
        }
        let counts = tally.counters().map(Counter::get);
        let [flows, packets, bytes, denied_packets, denied_bytes, marked, staged_allowed, staged_denied] =
            counts;
        RuleCounts {
            flows,
            packets,
            bytes,
            denied_packets,
            denied_bytes,
            marked,
            staged_allowed,
            staged_denied,
        }
    }

    /// Whether what the tables `judged` decided by this number is the doing of the rule that has it now.
    #[must_use]
    pub fn is_of(&self, rule: RuleId, judged: Revision) -> bool {
        self.tally(rule).is_some_and(|tally| judged.0 >= tally.since.load(Ordering::Acquire))
    }

    fn tally(&self, rule: RuleId) -> Option<&Tally> {
        let (segment, place) = place(rule);
        self.segments.get(segment)?.get()?.get(place)
    }

    /// Where the worker counts what `rule` did by the tables `judged`. None: that was another rule, or none.
    #[inline]
    fn counting(&self, rule: RuleId, judged: Revision) -> Option<&Tally> {
        if rule == RuleId::NOT_ISOLATED {
            return None;
        }
        let tally = self.tally(rule)?;
        let since = tally.since.load(Ordering::Acquire);
        if judged.0 < since {
            return None;
        }
        if tally.begun.load(Ordering::Relaxed) != since {
            tally.counters().into_iter().for_each(Counter::clear);
            tally.begun.store(since, Ordering::Release);
        }
        Some(tally)
    }

    /// A flow was opened that these rules allow, by the tables `judged`.
    #[inline]
    pub(crate) fn opened(&self, rules: [RuleId; 2], judged: Revision) {
        for rule in rules {
            if let Some(tally) = self.counting(rule, judged) {
                tally.flows.add(1);
            }
        }
    }

    pub(crate) fn ended(&self, flow: &Flow) {
        let (packets, bytes) = flow.total();
        for rule in [flow.egress, flow.ingress] {
            if let Some(tally) = self.counting(rule, flow.revision) {
                tally.packets.add(packets);
                tally.bytes.add(bytes);
            }
        }
    }

    /// A flow that was allowed by the rules of `before` is allowed by those of `flow` from now on. What the record
    /// counts for the new rule when it ends is more than that rule allowed: the difference is taken off now, so the sum
    /// wraps around zero until then.
    pub(crate) fn rejudged(&self, before: (RuleId, RuleId, Revision), flow: &Flow) {
        let (packets, bytes) = flow.total();
        for (old, new) in [(before.0, flow.egress), (before.1, flow.ingress)] {
            if old == new && self.is_of(old, before.2) {
                continue;
            }
            if let Some(tally) = self.counting(old, before.2) {
                tally.packets.add(packets);
                tally.bytes.add(bytes);
            }
            if let Some(tally) = self.counting(new, flow.revision) {
                tally.packets.add(packets.wrapping_neg());
                tally.bytes.add(bytes.wrapping_neg());
            }
        }
    }

    pub(crate) fn denied(&self, rule: RuleId, judged: Revision, length: u16) {
        if let Some(tally) = self.counting(rule, judged) {
            tally.denied_packets.add(1);
            tally.denied_bytes.add(u64::from(length));
        }
    }

    pub(crate) fn marked(&self, rule: RuleId, judged: Revision) {
        if let Some(tally) = self.counting(rule, judged) {
            tally.marked.add(1);
        }
    }

    pub(crate) fn staged(&self, allow: bool, rule: RuleId, judged: Revision) {
        if let Some(tally) = self.counting(rule, judged) {
            if allow { &tally.staged_allowed } else { &tally.staged_denied }.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: RuleId = RuleId(20);

    #[test]
    fn every_number_has_a_place_of_its_own() {
        let mut last = (0, usize::MAX);
        for rule in 0..10_000 {
            let (segment, at) = place(RuleId(rule));
            let next = (last.0, last.1.wrapping_add(1));
            assert!((segment, at) == next || (segment, at) == (last.0 + 1, 0), "{rule}: {segment}, {at}");
            last = (segment, at);
        }
        assert_eq!(place(RuleId(2_096_127)), (SEGMENTS - 1, (FIRST << (SEGMENTS - 1)) as usize - 1));
    }

    #[test]
    fn there_is_room_for_what_was_reserved_only() {
        let tallies = RuleTallies::new();
        tallies.denied(RULE, Revision(1), 100);
        assert!(tallies.counts(RULE).is_empty() && !tallies.is_of(RULE, Revision(1)));
        tallies.reserve(RuleId(5000));
        for rule in [RULE, RuleId(5000), RuleId(u32::MAX)] {
            tallies.denied(rule, Revision(1), 100);
        }
        let denied = RuleCounts { denied_packets: 1, denied_bytes: 100, ..RuleCounts::default() };
        assert_eq!((tallies.counts(RULE), tallies.counts(RuleId(5000))), (denied, denied));
        assert!(tallies.counts(RuleId(u32::MAX)).is_empty());
    }

    #[test]
    fn a_number_that_means_another_rule_begins_anew() {
        let tallies = RuleTallies::new();
        tallies.reserve(RULE);
        tallies.marked(RULE, Revision(3));
        tallies.begin(RULE, Revision(4));
        assert!(tallies.counts(RULE).is_empty(), "though the worker has not noticed");
        tallies.marked(RULE, Revision(3));
        assert!(
            tallies.counts(RULE).is_empty() && !tallies.is_of(RULE, Revision(3)),
            "a worker that is late"
        );
        tallies.staged(false, RULE, Revision(4));
        tallies.staged(true, RULE, Revision(5));
        let staged = RuleCounts { staged_allowed: 1, staged_denied: 1, ..RuleCounts::default() };
        assert_eq!(tallies.counts(RULE), staged);
    }
}
