//! The far ends of streams: XDP programs that count, and a relay.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, include_bytes_aligned};

use crate::net::buckets::{BUCKETS, longest_of};
use crate::{Error, Result};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/streams.bpf.o"));

/// Streams that one receiver can tell apart. This and what follows is the same in bpf/streams.bpf.c.
pub const STREAMS_MAX: u32 = 65_536;
const OTHER: u32 = 0;
const UNKNOWN: u32 = 1;
const RELAYED: u32 = 2;

/// What arrived of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamRecord {
    /// Packets.
    pub received: u64,
    /// The highest sequence number, plus one.
    pub next: u64,
    /// Packets that arrived after one that was sent later.
    pub late: u64,
    /// Interarrival jitter at the end (RFC 3550, section 6.4.1 and A.8), in nanoseconds.
    pub jitter_ns: u64,
    /// The largest it ever was.
    pub jitter_ns_max: u64,
    /// One-way delay, mean over the packets: from when a packet should have left, in nanoseconds.
    pub delay_ns: u64,
    /// The longest.
    pub delay_ns_max: u64,
}

impl StreamRecord {
    fn read(words: [u64; 8]) -> Self {
        let [received, next, late, jitter_16, _last, delay_sum, delay_ns_max, jitter_16_max] = words;
        Self {
            received,
            next,
            late,
            jitter_ns: jitter_16 / 16,
            jitter_ns_max: jitter_16_max / 16,
            delay_ns: delay_sum.checked_div(received).unwrap_or(0),
            delay_ns_max,
        }
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// By number of the stream.
    pub streams: Vec<StreamRecord>,
    /// Delays of all packets: from the longest delay of a class, 1.6 % wide at most, to how many there were.
    pub delays_ns: BTreeMap<u64, u64>,
    /// Frames that were of no stream.
    pub other: u64,
    /// Packets with a number that is no stream's, or at the relay from neither end. More than zero is a mistake.
    pub unknown: u64,
    /// Packets the relay has sent on.
    pub relayed: u64,
}

impl Received {
    /// Packets of all streams.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.streams.iter().map(|stream| stream.received).sum()
    }

    /// The longest delay of a packet, in nanoseconds.
    #[must_use]
    pub fn longest_ns(&self) -> u64 {
        self.streams.iter().map(|stream| stream.delay_ns_max).max().unwrap_or(0)
    }

    /// The delay that this part (0 to 1) of `sent` packets stayed within, in nanoseconds, at most 1.6 % more than it was. None:
    /// too few arrived. Those that were lost count as later than all others, or who drops the late ones would look fast.
    #[must_use]
    pub fn delay_ns(&self, part: f64, sent: u64) -> Option<u64> {
        let rank = ((sent as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.delays_ns.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        // The end of the last class may be beyond the longest there was.
        let longest = if self.streams.is_empty() { u64::MAX } else { self.longest_ns() };
        found.map(|(delay, _)| longest.min(*delay))
    }
}

/// The programs, loaded, and their counters. They are taken off their interfaces when it is dropped.
pub struct Receiver {
    object: Ebpf,
    streams: Array<MapData, [u64; 8]>,
    delays: Array<MapData, u64>,
    counts: Array<MapData, u64>,
    relay: Array<MapData, [u32; 2]>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Receiver {
    /// Loads the programs.
    ///
    /// # Errors
    ///
    /// What the kernel says: without root it loads none.
    pub fn load() -> Result<Self> {
        let mut object =
            Ebpf::load(OBJECT).map_err(|error| Error::setup("load the programs of streams", error))?;
        for name in ["streams_receive", "streams_relay", "streams_pass"] {
            let program = xdp(&mut object, name)?;
            program.load().map_err(|error| Error::setup(format!("load {name}"), error))?;
        }
        Ok(Self {
            streams: map(&mut object, "streams")?,
            delays: map(&mut object, "delays")?,
            counts: map(&mut object, "counts")?,
            relay: map(&mut object, "relay")?,
            object,
        })
    }

    /// Counts what arrives at an interface of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// When the interface is not there or runs another program.
    pub fn attach(&mut self, interface: &str) -> Result<()> {
        self.put("streams_receive", interface)
    }

    /// Makes an interface of the calling thread's network namespace a media relay: what comes from `one` goes on to
    /// `other`, and back. A receiver has one relay.
    ///
    /// # Errors
    ///
    /// As [`Receiver::attach`].
    pub fn attach_relay(&mut self, interface: &str, one: Ipv4Addr, other: Ipv4Addr) -> Result<()> {
        let ends = [one, other].map(|address| u32::from_ne_bytes(address.octets()));
        self.relay.set(0, ends, 0).map_err(|error| Error::setup("say what the relay is between", error))?;
        self.put("streams_relay", interface)
    }

    /// Lets an interface of the calling thread's network namespace take what the relay at its other end sends back, where
    /// it has no program of its own: a veth without one does not wake for that.
    ///
    /// # Errors
    ///
    /// As [`Receiver::attach`].
    pub fn attach_pass(&mut self, interface: &str) -> Result<()> {
        self.put("streams_pass", interface)
    }

    fn put(&mut self, program: &str, interface: &str) -> Result<()> {
        let failed =
            |error: &dyn std::fmt::Display| Error::setup(format!("put {program} on {interface}"), error);
        xdp(&mut self.object, program)?
            .attach(interface, XdpMode::Driver)
            .map(drop)
            .map_err(|error| failed(&error))
    }

    /// Packets that arrived so far, of the streams 0 to `streams - 1`.
    ///
    /// # Errors
    ///
    /// When the kernel does not let its maps be read.
    pub fn read(&self, streams: u32) -> Result<Received> {
        let failed = |error: MapError| Error::setup("read the counters of streams", error);
        let mut received = Received::default();
        for stream in 0..streams.min(STREAMS_MAX) {
            received.streams.push(StreamRecord::read(self.streams.get(&stream, 0).map_err(failed)?));
        }
        for bucket in 0..BUCKETS {
            let count = self.delays.get(&bucket, 0).map_err(failed)?;
            if count > 0 {
                received.delays_ns.insert(longest_of(bucket), count);
            }
        }
        for (number, into) in
            [(OTHER, &mut received.other), (UNKNOWN, &mut received.unknown), (RELAYED, &mut received.relayed)]
        {
            *into = self.counts.get(&number, 0).map_err(failed)?;
        }
        Ok(received)
    }

    /// Forgets everything counted so far of the streams 0 to `streams - 1`. Nothing may be under way.
    ///
    /// # Errors
    ///
    /// When the kernel does not let its maps be written.
    pub fn reset(&mut self, streams: u32) -> Result<()> {
        let failed = |error: MapError| Error::setup("reset the counters of streams", error);
        for stream in 0..streams.min(STREAMS_MAX) {
            self.streams.set(stream, [0; 8], 0).map_err(failed)?;
        }
        for bucket in 0..BUCKETS {
            self.delays.set(bucket, 0, 0).map_err(failed)?;
        }
        for number in [OTHER, UNKNOWN, RELAYED] {
            self.counts.set(number, 0, 0).map_err(failed)?;
        }
        Ok(())
    }
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let missing =
        || Error::setup("load the programs of streams", format!("the object has no program {name}"));
    object.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
}

fn map<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &str) -> Result<T> {
    let failed = |cause: String| Error::setup(format!("open the map {name} of streams"), cause);
    let map = object.take_map(name).ok_or_else(|| failed("the object has no such map".to_owned()))?;
    T::try_from(map).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_ranked_as_a_sorted_list_is() {
        let delays_ns = BTreeMap::from([(5, 90), (100, 9), (1000, 1)]);
        let received = Received { delays_ns, ..Received::default() };
        assert_eq!(
            [0.0, 0.5, 0.9, 0.91, 0.99, 0.999, 1.0].map(|part| received.delay_ns(part, 100)),
            [5, 5, 5, 100, 100, 1000, 1000].map(Some)
        );
        assert_eq!(Received::default().delay_ns(0.5, 100), None);
    }

    #[test]
    fn who_loses_packets_is_not_faster_for_it() {
        let received = Received { delays_ns: BTreeMap::from([(5, 90), (100, 10)]), ..Received::default() };
        let of_twice_as_many = [0.4, 0.45, 0.46, 0.5, 0.51, 0.99].map(|part| received.delay_ns(part, 200));
        assert_eq!(of_twice_as_many, [Some(5), Some(5), Some(100), Some(100), None, None]);
    }

    #[test]
    fn no_delay_is_shown_as_longer_than_the_longest() {
        let stream = StreamRecord { received: 1, delay_ns_max: 1000, ..StreamRecord::default() };
        let delays_ns = BTreeMap::from([(1007, 1)]);
        let received = Received { delays_ns, streams: vec![stream], ..Received::default() };
        assert_eq!(received.delay_ns(0.99, 1), Some(1000));
    }
}
