//! N relayed calls through one contender.

use std::time::Duration;

use vswitch_model::DesiredState;

use crate::math::emodel::{self, Call, Codec};
use crate::session::Session;
use crate::traffic::{Bed, Contender, Cores, Relay, Schedule, Sender, Stream, StreamRecord, Trial, frame};
use crate::workload::{Node, Rules};
use crate::{Error, Result};

/// G.711's usual packet: 20 ms of voice.
pub(super) const PACKET: Duration = Duration::from_millis(20);
/// Packets of one call a second that cross the switch: 50 each way a leg, two legs.
pub(super) const THROUGH_SWITCH: f64 = 200.0;
/// Most calls: two streams each.
pub(super) const CALLS_MAX: u32 = 30_000;
/// UDP port of the first call.
const PORT_FIRST: u16 = 1024;
/// In what time calls begin before they are measured: their flows are made then.
const BEGINNING: Duration = Duration::from_millis(100);
/// Voice in a packet, and what a phone holds back against jitter, in milliseconds: what mouth to ear takes besides the
/// network.
const MOUTH_TO_EAR_MS: f64 = 20.0 + 40.0;

/// The middle one of three pods.
const RELAY: Relay = Relay { pod: 1, one: 0, other: 2 };

/// Three pods: the caller's, the relay, the callee's.
#[derive(Debug)]
pub(super) struct Calls {
    bed: Bed,
    sender: Sender,
    /// Calls whose flows are made.
    begun: u32,
}

/// How calls sounded.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Quality {
    /// Part of the packets that were lost.
    pub(super) loss: f64,
    /// Interarrival jitter: mean over the streams, and the worst, in microseconds.
    pub(super) jitter_us: (f64, f64),
    /// One-way delay, both legs and the relay: mean of those that arrived, 99th and 99.9th percentile of those sent (a lost
    /// one is later than all others), and the longest that arrived, in microseconds.
    pub(super) delay_us: [f64; 4],
    /// Mean opinion score: mean over the calls, and the worst of any direction of a call.
    pub(super) mos: (f64, f64),
}

impl Calls {
    /// Sets the pods up, and lets `contender` forward between them. Policy: the last of a hundred rules lets the pods
    /// speak with each other.
    pub(super) fn set_up(contender: Contender, cores: Cores) -> Result<Self> {
        Self::on(Bed::build(contender, &desired(), Some(RELAY), cores)?)
    }

    /// The most calls for which the sender could keep its schedule, were there nobody who forwards: it is asked for more
    /// than it can do. And why that is void.
    pub(super) fn of_the_ends(session: &Session, cores: Cores) -> Result<(f64, Option<String>)> {
        let mut calls = Self::on(Bed::bare(&desired(), cores)?)?;
        calls.begun = CALLS_MAX;
        let trial = calls.run(session, CALLS_MAX, 5 * PACKET)?;
        let seconds = trial.sent.took_ns as f64 / 1e9;
        let can = trial.sent.packets as f64 / seconds * PACKET.as_secs_f64() / 2.0;
        Ok((can, trial.sender_void))
    }

    fn on(bed: Bed) -> Result<Self> {
        let sources = [RELAY.one, RELAY.other].map(|from| bed.source(from, RELAY.pod, frame::G711));
        let sources = sources.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Self { bed, sender: Sender::new(sources), begun: 0 })
    }

    /// `calls` calls for about `time`. Their flows are made before.
    pub(super) fn run(&mut self, session: &Session, calls: u32, time: Duration) -> Result<Trial> {
        session.check()?;
        let streams = streams(calls);
        if calls > self.begun {
            let beginning = Schedule::even(2 * calls, BEGINNING);
            let packets = beginning.packets_in(BEGINNING);
            self.bed.run(&mut self.sender, (&beginning, &streams), packets, |_, _| Ok(()))?;
            self.begun = calls;
        }
        let schedule = Schedule::even(2 * calls, PACKET);
        let packets = schedule.packets_in(time);
        let (trial, ()) = self.bed.run(&mut self.sender, (&schedule, &streams), packets, |_, stop| {
            crate::traffic::wait(session, time, stop)
        })?;
        Ok(trial)
    }
}

fn desired() -> DesiredState {
    let mut node = Node::in_memory(3, 1);
    (node.uplink, node.rules) = (None, Rules(100));
    let mut desired = node.desired();
    widen(&mut desired);
    desired
}

/// Lets the rule that allows the traffic allow the ports of all calls.
fn widen(desired: &mut DesiredState) {
    let allowed = crate::workload::ALLOWED_PORTS;
    let rules = desired.policies.values_mut().flat_map(|policy| &mut policy.rules);
    for ports in rules.flat_map(|rule| &mut rule.ports) {
        if (ports.first, ports.last) == (*allowed.start(), *allowed.end()) {
            (ports.first, ports.last) = (PORT_FIRST, u16::MAX);
        }
    }
}

/// Two streams a call: the caller's and the callee's.
fn streams(calls: u32) -> Vec<Stream> {
    let call = |call: u32| [0, 1].map(|source| Stream { source, port: PORT_FIRST + call as u16 });
    (0..calls).flat_map(call).collect()
}

/// How the calls of a trial sounded.
///
/// # Errors
///
/// [`Error::Miscounted`] when more arrived of a stream than was sent.
pub(super) fn quality(trial: &Trial, schedule_streams: u32) -> Result<Quality> {
    let schedule = Schedule::even(schedule_streams, PACKET);
    let (mut jitter, mut worst_jitter, mut mos, mut worst_mos) = (0.0, 0.0_f64, 0.0, f64::INFINITY);
    for (number, stream) in (0..).zip(&trial.received.streams) {
        let sent = schedule.of_stream(number, trial.sent.packets);
        let opinion = opinion(stream, sent)?;
        mos += opinion;
        worst_mos = worst_mos.min(opinion);
        jitter += stream.jitter_ns as f64 / 1e3;
        worst_jitter = worst_jitter.max(stream.jitter_ns_max as f64 / 1e3);
    }
    let count = trial.received.streams.len().max(1) as f64;
    let received = &trial.received;
    let packets = received.packets().max(1) as f64;
    let total: f64 = received.streams.iter().map(|s| s.delay_ns as f64 * s.received as f64).sum();
    Ok(Quality {
        loss: trial.lost() as f64 / trial.sent.packets.max(1) as f64,
        jitter_us: (jitter / count, worst_jitter),
        delay_us: [total / packets / 1e3, trial.delay_us(0.99), trial.delay_us(0.999), trial.longest_us()],
        mos: (mos / count, worst_mos),
    })
}

/// The mean opinion score of one direction of a call: G.711 with loss concealment, 20 ms packets, a jitter buffer of
/// 40 ms. Losses are taken as random: a stream's own come a period apart, however many others are lost with it.
fn opinion(stream: &StreamRecord, sent: u64) -> Result<f64> {
    let lost = sent.checked_sub(stream.received).ok_or_else(|| {
        let received = stream.received;
        Error::Miscounted(format!("{received} packets arrived of a stream of {sent}"))
    })?;
    let delay_ms = MOUTH_TO_EAR_MS + stream.delay_ns as f64 / 1e6;
    let loss = if sent == 0 { 0.0 } else { lost as f64 / sent as f64 };
    Ok(emodel::mos(Codec::G711_PLC, Call { delay_ms, loss, burst_ratio: 1.0 }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hdrhistogram::Histogram;

    use super::*;
    use crate::traffic::{Received, Sent};

    fn trial(streams: Vec<StreamRecord>, packets: u64) -> Trial {
        let received: u64 = streams.iter().map(|stream| stream.received).sum();
        let lateness = Histogram::new(3).unwrap();
        Trial {
            sent: Sent { packets, refused: vec![0; streams.len()], lateness, took_ns: 0 },
            received: Received {
                streams,
                delays_ns: BTreeMap::from([(20_000, received)]),
                ..Received::default()
            },
            lost: BTreeMap::from([("policy-ingress".to_owned(), packets - received)]),
            sender_void: None,
            forwarder_void: None,
            taken_percent: 0.0,
        }
    }

    #[test]
    fn a_call_without_loss_sounds_as_g711_does() {
        let stream = StreamRecord {
            received: 50,
            jitter_ns: 1000,
            jitter_ns_max: 3000,
            delay_ns: 20_000,
            ..StreamRecord::default()
        };
        let heard = quality(&trial(vec![stream; 2], 100), 2).unwrap();
        assert_eq!((heard.loss, heard.jitter_us), (0.0, (1.0, 3.0)));
        assert!((heard.delay_us[0] - 20.0).abs() < 1e-9);
        assert!(heard.mos.0 > 4.3 && (heard.mos.0 - heard.mos.1).abs() < 1e-9, "{heard:?}");
    }

    #[test]
    fn the_worst_call_stands_out() {
        let whole = StreamRecord { received: 50, ..StreamRecord::default() };
        let broken = StreamRecord { received: 40, ..StreamRecord::default() };
        let heard = quality(&trial(vec![whole, whole, whole, broken], 200), 4).unwrap();
        assert!((heard.loss - 0.05).abs() < 1e-9);
        assert!(heard.delay_us[1].is_infinite(), "a twentieth was lost: no 99th percentile");
        assert!(heard.mos.1 < heard.mos.0 - 0.5, "a fifth lost is heard: {heard:?}");
    }

    #[test]
    fn more_than_was_sent_is_a_mistake() {
        let stream = StreamRecord { received: 51, ..StreamRecord::default() };
        let mut wrong = trial(vec![StreamRecord { received: 50, ..stream }; 2], 100);
        wrong.received.streams[0] = stream;
        assert!(matches!(quality(&wrong, 2), Err(Error::Miscounted(_))));
    }
}
