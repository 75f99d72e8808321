//! What is told of new flows, and of those that are judged anew because policy changed: those that are denied, those a
//! rule marks, and those that what is staged would judge otherwise. At a bounded rate, and of one flow once in a while; the
//! records go through a bounded queue, and how many were not made is counted and told by the next one.

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use vswitch_model::{DropReason, IdentityId, RuleId};

use crate::counters::Counter;
use crate::icmp::Limiter;
use crate::tables::{Revision, StagedVerdict};
use crate::{Now, PortIndex};

/// Records that wait to be read, about 160 bytes each.
pub const WAITING: usize = 1024;
/// A flow that was told is told again after this.
pub const REPEAT_NS: u64 = 10_000_000_000;
/// Flows told that are remembered, each at the place its hash says.
const REMEMBERED: usize = 1024;

/// What policy said of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowVerdict {
    /// It may be.
    Allowed {
        /// What decided at the sender's end.
        egress: RuleId,
        /// What decided at the receiver's end.
        ingress: RuleId,
    },
    /// It may not.
    Denied {
        /// [`DropReason::PolicyEgress`], [`DropReason::PolicyIngress`] or [`DropReason::TunnelFromPod`].
        reason: DropReason,
        /// What decided.
        rule: RuleId,
    },
}

/// The first packet of a flow, or one that was judged anew since policy changed, and what policy said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowRecord {
    /// When its batch was handled.
    pub time: Now,
    /// The tables that were asked.
    pub revision: Revision,
    /// The port it came by.
    pub in_port: PortIndex,
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it was for.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source and destination port; of an ICMP query its identifier, and type and code.
    pub ports: (u16, u16),
    /// Of source and destination.
    pub identities: [IdentityId; 2],
    /// What policy said.
    pub verdict: FlowVerdict,
    /// The rules that marked it, at the sender's and at the receiver's end.
    pub marks: [Option<RuleId>; 2],
    /// What would have been said otherwise, were what is staged in force. None: nothing, or nothing is staged.
    pub staged: Option<StagedVerdict>,
    /// Records that were not made since the last one: too many, or of flows told a short while ago.
    pub suppressed: u64,
}

/// What a worker tells, as others see it.
#[derive(Debug)]
pub struct FlowLogQueue {
    records: ArrayQueue<FlowRecord>,
    /// Records that were not made: the rate limit was reached, nobody read those before, or the flow was told a short
    /// while ago.
    pub suppressed: Counter,
}

impl Default for FlowLogQueue {
    fn default() -> Self {
        Self { records: ArrayQueue::new(WAITING), suppressed: Counter::default() }
    }
}

impl FlowLogQueue {
    /// Takes the oldest record that waits.
    #[must_use]
    pub fn take(&self) -> Option<FlowRecord> {
        self.records.pop()
    }
}

/// A worker's end of it.
#[derive(Debug)]
pub(crate) struct FlowLog {
    limiter: Limiter,
    queue: Arc<FlowLogQueue>,
    /// What was told, and when, at the place the lower bits say.
    told: Box<[(u64, Now)]>,
    suppressed: u64,
}

impl FlowLog {
    pub(crate) fn new(per_second: u32, queue: Arc<FlowLogQueue>) -> Self {
        // No hash is at a place that is not its own.
        let told = (0..REMEMBERED as u64).map(|place| (!place, Now(0))).collect();
        Self { limiter: Limiter::new(per_second), queue, told, suppressed: 0 }
    }

    /// Tells of a flow with this hash, or counts that it does not. Whoever is allowed is not who was denied: `allowed`
    /// tells them apart.
    pub(crate) fn tell(&mut self, now: Now, hash: u64, allowed: bool, record: impl FnOnce() -> FlowRecord) {
        let id = hash ^ u64::from(allowed) << 63;
        let place = id as usize % REMEMBERED;
        let (known, when) = self.told[place];
        let repeated = known == id && now.since(when) < REPEAT_NS;
        if repeated || !self.limiter.allow(now) {
            return self.suppress();
        }
        let record = FlowRecord { suppressed: self.suppressed, ..record() };
        if self.queue.records.push(record).is_err() {
            return self.suppress();
        }
        self.suppressed = 0;
        self.told[place] = (id, now);
    }

    fn suppress(&mut self) {
        self.suppressed += 1;
        self.queue.suppressed.add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn record(time: Now) -> FlowRecord {
        FlowRecord {
            time,
            revision: Revision(1),
            in_port: PortIndex(2),
            source: Ipv4Addr::LOCALHOST.into(),
            destination: Ipv4Addr::LOCALHOST.into(),
            protocol: 17,
            ports: (1, 2),
            identities: [IdentityId(16); 2],
            verdict: FlowVerdict::Denied { reason: DropReason::PolicyEgress, rule: RuleId(1) },
            marks: [None; 2],
            staged: None,
            suppressed: 0,
        }
    }

    fn log(per_second: u32) -> (FlowLog, Arc<FlowLogQueue>) {
        let queue = Arc::new(FlowLogQueue::default());
        (FlowLog::new(per_second, Arc::clone(&queue)), queue)
    }

    #[test]
    fn a_flow_is_told_once_in_a_while() {
        let (mut log, queue) = log(1000);
        for now in [0, 1, REPEAT_NS - 1, REPEAT_NS, REPEAT_NS + 1].map(Now) {
            log.tell(now, 7, false, || record(now));
        }
        log.tell(Now(REPEAT_NS + 2), 7, true, || record(Now(REPEAT_NS + 2)));
        let told: Vec<_> = std::iter::from_fn(|| queue.take()).map(|r| (r.time.0, r.suppressed)).collect();
        assert_eq!(told, [(0, 0), (REPEAT_NS, 2), (REPEAT_NS + 2, 1)], "allowed is another matter");
        assert_eq!(queue.suppressed.get(), 3);
    }

    #[test]
    fn the_rate_is_bounded_and_what_is_not_told_is_counted() {
        let (mut log, queue) = log(10);
        for flow in 0..100 {
            log.tell(Now(1), flow, false, || record(Now(1)));
        }
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 10);
        log.tell(Now(1_000_000_000), 50, false, || record(Now(0)));
        assert_eq!(
            queue.take().map(|record| record.suppressed),
            Some(90),
            "it was not told, so it may be now"
        );
        let (mut log, queue) = self::log(0);
        log.tell(Now(1), 1, false, || record(Now(1)));
        assert!(queue.take().is_none());
    }

    #[test]
    fn nobody_reads() {
        let (mut log, queue) = log(u32::MAX);
        for flow in 0..2 * WAITING as u64 {
            log.tell(Now(flow << 30), flow, false, || record(Now(0)));
        }
        assert_eq!(queue.suppressed.get(), WAITING as u64);
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), WAITING);
    }
}
