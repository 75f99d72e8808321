//! When packets should leave: open loop, so that a switch that is slow is not asked for less.

use std::time::Duration;

/// Streams that each send one packet in every period, each at its own moment of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    period_ns: u64,
    /// By stream: when in the period its packet leaves, ascending.
    phases_ns: Vec<u64>,
}

/// One packet of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Number of its stream, from 0.
    pub stream: u32,
    /// Its number in the stream, from 0.
    pub sequence: u32,
    /// When it should leave, in nanoseconds from the start.
    pub due_ns: u64,
}

impl Schedule {
    /// `streams` streams whose moments are spread evenly over the period: calls, which began whenever they did.
    ///
    /// # Panics
    ///
    /// When the period is zero or there is no stream.
    #[must_use]
    pub fn even(streams: u32, period: Duration) -> Self {
        let period_ns = period.as_nanos() as u64;
        let phase = |stream: u32| (u128::from(stream) * u128::from(period_ns) / u128::from(streams)) as u64;
        Self::of(period_ns, (0..streams).map(phase).collect())
    }

    /// The streams of each group leave all at once, the groups evenly spread over the period: the ticks of a game, in
    /// which all players speak, and then the servers.
    ///
    /// # Panics
    ///
    /// When the period is zero or there is no stream.
    #[must_use]
    pub fn bursts(groups: &[u32], period: Duration) -> Self {
        let period_ns = period.as_nanos() as u64;
        let start = |group: usize| period_ns * group as u64 / groups.len() as u64;
        let of_group = |(group, streams): (usize, &u32)| std::iter::repeat_n(start(group), *streams as usize);
        Self::of(period_ns, groups.iter().enumerate().flat_map(of_group).collect())
    }

    fn of(period_ns: u64, phases_ns: Vec<u64>) -> Self {
        assert!(period_ns > 0 && !phases_ns.is_empty(), "a schedule has a period and at least one stream");
        Self { period_ns, phases_ns }
    }

    /// Streams.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.phases_ns.len() as u32
    }

    /// Packets a second, all streams together.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.phases_ns.len() as f64 * 1e9 / self.period_ns as f64
    }

    /// The packet number `n` of all streams together, from 0, in the order in which they leave.
    #[must_use]
    pub fn packet(&self, n: u64) -> Planned {
        let streams = self.phases_ns.len() as u64;
        let (round, stream) = (n / streams, n % streams);
        let due_ns = round * self.period_ns + self.phases_ns[stream as usize];
        Planned { stream: stream as u32, sequence: round as u32, due_ns }
    }

    /// Packets of whole periods in `time`: at least one period.
    #[must_use]
    pub fn packets_in(&self, time: Duration) -> u64 {
        (time.as_nanos() as u64 / self.period_ns).max(1) * self.phases_ns.len() as u64
    }

    /// How many of the first `total` packets are of this stream.
    #[must_use]
    pub fn of_stream(&self, stream: u32, total: u64) -> u64 {
        let streams = self.phases_ns.len() as u64;
        total / streams + u64::from(u64::from(stream) < total % streams)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn calls_are_spread_evenly() {
        let schedule = Schedule::even(4, 20 * MS);
        let due: Vec<_> = (0..6).map(|n| schedule.packet(n).due_ns / 1_000_000).collect();
        assert_eq!(due, [0, 5, 10, 15, 20, 25]);
        assert_eq!(schedule.packet(5), Planned { stream: 1, sequence: 1, due_ns: 25_000_000 });
        assert!((schedule.rate() - 200.0).abs() < 1e-9, "a call is 50 packets/s a stream");
        assert_eq!(schedule.packets_in(Duration::from_secs(1)), 200);
    }

    #[test]
    fn ticks_are_all_at_once() {
        let schedule = Schedule::bursts(&[3, 2], 10 * MS);
        let due: Vec<_> = (0..7).map(|n| schedule.packet(n).due_ns / 1_000_000).collect();
        assert_eq!(due, [0, 0, 0, 5, 5, 10, 10]);
    }

    proptest! {
        #[test]
        fn every_stream_sends_once_a_period_in_order(streams in 1_u32..200, total in 0_u64..2000, groups in 1_u32..4) {
            for schedule in [Schedule::even(streams, 7 * MS), Schedule::bursts(&vec![streams; groups as usize], 7 * MS)] {
                let packets: Vec<_> = (0..total).map(|n| schedule.packet(n)).collect();
                prop_assert!(packets.is_sorted_by_key(|packet| packet.due_ns));
                for stream in 0..schedule.streams() {
                    let own: Vec<_> = packets.iter().filter(|packet| packet.stream == stream).collect();
                    prop_assert_eq!(own.len() as u64, schedule.of_stream(stream, total));
                    prop_assert!(own.iter().enumerate().all(|(at, packet)| packet.sequence == at as u32));
                    prop_assert!(own.windows(2).all(|pair| pair[1].due_ns - pair[0].due_ns == 7_000_000));
                }
            }
        }
    }
}
