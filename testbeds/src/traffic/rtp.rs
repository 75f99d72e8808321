//! RTP counted where it is sent and where it arrives, by nftables in the pods' own namespaces, and its jitter.
//!
//! The counter of arrivals is the last thing a media packet meets: it is dropped there, since SIPp plays from a
//! recording and listens at no media port.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use serde_json::Value;

use super::sipp::{MEDIA_PORT_FIRST, MEDIA_PORT_LAST};
use crate::command::{failure, output, run};
use crate::netns::Netns;
use crate::{Error, Result};

const TABLE: &str = "vswitch_testbed";

/// What the counters of one pod say, in packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// RTP that left the pod's stack.
    pub sent: u64,
    /// RTP that arrived at it.
    pub received: u64,
    /// Anything at all that arrived from one of the unwelcome.
    pub unwelcome: u64,
}

/// Begins to count in a pod. `unwelcome` are addresses from which nothing should arrive.
pub fn watch(pod: &Netns, unwelcome: &[IpAddr]) -> Result<()> {
    let media = format!(
        "udp sport {MEDIA_PORT_FIRST}-{MEDIA_PORT_LAST} udp dport {MEDIA_PORT_FIRST}-{MEDIA_PORT_LAST}"
    );
    let mut rules = String::new();
    for address in unwelcome {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        rules.push_str(&format!("{family} saddr {address} counter name unwelcome\n"));
    }
    let text = format!(
        "table inet {TABLE} {{\n\
         counter sent {{}}\ncounter received {{}}\ncounter unwelcome {{}}\n\
         chain out {{ type filter hook output priority 0;\n{media} counter name sent\n}}\n\
         chain in {{ type filter hook input priority 0;\n{rules}{media} counter name received drop\n}}\n}}\n"
    );
    let mut command = pod.command("nft");
    command.args(["-f", "-"]);
    let output = output(&mut command, &text)?;
    if output.status.success() { Ok(()) } else { Err(failure(&command, &output)) }
}

/// Reads a pod's counters.
pub fn count(pod: &Netns) -> Result<Count> {
    let text = run(pod.command("nft").args(["-j", "list", "counters", "table", "inet", TABLE]))?;
    let listing: Value =
        serde_json::from_str(&text).map_err(|error| Error::other(format!("nft -j: {error}")))?;
    let packets = |name: &str| {
        let items = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
        let counter = items.iter().map(|item| &item["counter"]).find(|counter| counter["name"] == name);
        counter
            .and_then(|counter| counter["packets"].as_u64())
            .ok_or_else(|| Error::other(format!("no counter {name} in {}", pod.name())))
    };
    Ok(Count { sent: packets("sent")?, received: packets("received")?, unwelcome: packets("unwelcome")? })
}

/// One direction of one call.
type Stream = (IpAddr, IpAddr, u16, u16);

/// Interarrival jitter as RFC 3550, section 6.4.1 defines it, of every stream to `receiver` in a capture.
#[derive(Debug, Clone, Default)]
pub struct Jitter {
    streams: HashMap<Stream, State>,
}

#[derive(Debug, Clone)]
struct State {
    transit_s: f64,
    jitter_s: f64,
    jitter_s_max: f64,
    packets: u64,
}

/// Jitter over all streams, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct JitterSummary {
    /// Streams seen.
    pub streams: usize,
    /// The mean over the streams' last values.
    pub mean_ms: f64,
    /// The largest value any stream had at any time.
    pub max_ms: f64,
}

/// G.711's clock, in ticks a second (RFC 3551).
const CLOCK_HZ: f64 = 8000.0;

impl Jitter {
    /// Reads a capture of Ethernet frames.
    pub fn of_capture(path: &Path, receiver: IpAddr) -> Result<Self> {
        let mut jitter = Self::default();
        super::capture::each_frame(path, |time, frame| jitter.frame(time.as_secs_f64(), frame, receiver))?;
        Ok(jitter)
    }

    fn frame(&mut self, time_s: f64, frame: &[u8], receiver: IpAddr) {
        // A capture keeps the first bytes of a packet only, so lengths in headers may be larger than what is here.
        let Ok(packet) = etherparse::LaxSlicedPacket::from_ethernet(frame) else { return };
        let addresses = match &packet.net {
            Some(etherparse::LaxNetSlice::Ipv4(ip)) => {
                (IpAddr::V4(ip.header().source_addr()), IpAddr::V4(ip.header().destination_addr()))
            }
            Some(etherparse::LaxNetSlice::Ipv6(ip)) => {
                (IpAddr::V6(ip.header().source_addr()), IpAddr::V6(ip.header().destination_addr()))
            }
            _ => return,
        };
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { return };
        let ports = (udp.source_port(), udp.destination_port());
        let media = MEDIA_PORT_FIRST..=MEDIA_PORT_LAST;
        let rtp = udp.payload();
        if addresses.1 != receiver || !media.contains(&ports.0) || !media.contains(&ports.1) || rtp.len() < 12
        {
            return;
        }
        // RFC 3550, section 5.1: version 2 in the top bits, the timestamp at byte 4.
        if rtp[0] >> 6 == 2 {
            let timestamp = u32::from_be_bytes([rtp[4], rtp[5], rtp[6], rtp[7]]);
            self.packet((addresses.0, addresses.1, ports.0, ports.1), time_s, timestamp);
        }
    }

    fn packet(&mut self, stream: Stream, time_s: f64, timestamp: u32) {
        let transit_s = time_s - f64::from(timestamp) / CLOCK_HZ;
        let fresh = State { transit_s, jitter_s: 0.0, jitter_s_max: 0.0, packets: 0 };
        let state = self.streams.entry(stream).or_insert(fresh);
        let difference_s = (transit_s - state.transit_s).abs();
        state.transit_s = transit_s;
        state.packets += 1;
        // A new recording on the same ports begins its timestamps anew: that is not the network's doing.
        if difference_s < 1.0 {
            state.jitter_s += (difference_s - state.jitter_s) / 16.0;
            state.jitter_s_max = state.jitter_s_max.max(state.jitter_s);
        }
    }

    /// Over all streams.
    #[must_use]
    pub fn summary(&self) -> JitterSummary {
        let streams = self.streams.len();
        if streams == 0 {
            return JitterSummary::default();
        }
        let sum: f64 = self.streams.values().map(|state| state.jitter_s).sum();
        let max = self.streams.values().map(|state| state.jitter_s_max).fold(0.0, f64::max);
        #[allow(clippy::cast_precision_loss, reason = "never as many streams as 52 bits count")]
        let mean_ms = sum * 1000.0 / streams as f64;
        JitterSummary { streams, mean_ms, max_ms: max * 1000.0 }
    }

    /// Packets seen, over all streams.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.streams.values().map(|state| state.packets).sum()
    }
}

/// The addresses of a packet.
#[must_use]
pub fn addresses(packet: &SlicedPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
        NetSlice::Ipv6(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
        NetSlice::Arp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(port: u16) -> Stream {
        (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]), port, port)
    }

    #[test]
    fn an_even_stream_has_no_jitter() {
        let mut jitter = Jitter::default();
        for n in 0..100_u32 {
            jitter.packet(stream(20_000), f64::from(n) * 0.02, n * 160);
        }
        assert!(jitter.summary().max_ms < 1e-6);
        assert_eq!(jitter.packets(), 100);
    }

    #[test]
    fn a_late_packet_counts_a_sixteenth() {
        let mut jitter = Jitter::default();
        for (n, late_s) in [0.0, 0.0, 0.016].into_iter().enumerate() {
            let n = u32::try_from(n).unwrap();
            jitter.packet(stream(20_000), f64::from(n) * 0.02 + late_s, n * 160);
        }
        assert!((jitter.summary().mean_ms - 1.0).abs() < 1e-6, "{:?}", jitter.summary());
    }

    #[test]
    fn a_new_recording_on_the_same_ports_is_no_jitter() {
        let mut jitter = Jitter::default();
        for n in 0..3_u32 {
            jitter.packet(stream(20_000), f64::from(n) * 0.02, n * 160);
            jitter.packet(stream(20_000), 100.0 + f64::from(n) * 0.02, n * 160);
        }
        assert!(jitter.summary().max_ms < 1e-6);
    }

    #[test]
    fn frames_are_told_apart_by_address_and_port() {
        let receiver = IpAddr::from([10, 0, 0, 2]);
        let mut rtp = [0_u8; 12];
        rtp[0] = 0x80;
        let frame = |port: u16| {
            let mut bytes = Vec::new();
            etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                .udp(port, port)
                .write(&mut bytes, &rtp)
                .unwrap();
            bytes
        };
        let mut jitter = Jitter::default();
        jitter.frame(0.0, &frame(20_000), receiver);
        jitter.frame(0.1, &frame(20_004), receiver);
        jitter.frame(0.2, &frame(5060), receiver);
        jitter.frame(0.3, &frame(20_000), IpAddr::from([10, 0, 0, 9]));
        assert_eq!((jitter.summary().streams, jitter.packets()), (2, 2));
    }
}
