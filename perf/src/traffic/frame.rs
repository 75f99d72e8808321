//! The packets of streams: RTP over UDP over IPv4, with a stamp that says which one it is and when it was due.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;

use crate::{Error, Result};

/// RTP's fixed header, in bytes (RFC 3550, section 5.1).
pub const RTP: usize = 12;
/// The stamp behind it, in bytes: the least payload of a stream.
pub const STAMP: usize = 16;
/// Bytes of G.711 in 20 ms, 8000 a second.
pub const G711: usize = 160;
/// Says that a packet is of a stream. The same in bpf/streams.bpf.c.
const MAGIC: u32 = 0x7653_7750;
/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
/// RTP's clock for G.711, in ticks of a packet of 20 ms.
const TICKS: u32 = 160;

/// Where the packets of a stream come from and go to. UDP source and destination port are the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Ethernet source and destination.
    pub macs: ([u8; 6], [u8; 6]),
    /// IPv4 source and destination.
    pub addresses: (Ipv4Addr, Ipv4Addr),
}

/// What is stamped into a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the stream: RTP's SSRC.
    pub stream: u32,
    /// UDP source and destination port.
    pub port: u16,
    /// Number of the packet in its stream.
    pub sequence: u32,
    /// When it should have left, by CLOCK_MONOTONIC.
    pub due_ns: u64,
}

/// A frame to be stamped and sent again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// A frame between `ends` with `payload` bytes behind RTP's header, at least [`STAMP`]. No UDP checksum, which
    /// IPv4 allows (RFC 768): media is sent so by many, and a relay has none to carry over.
    ///
    /// # Errors
    ///
    /// When the payload is too short for the stamp or too long for a packet.
    pub fn new(ends: Ends, payload: usize) -> Result<Self> {
        let failed = |cause: String| Error::setup(format!("a packet with {payload} bytes of payload"), cause);
        if payload < STAMP {
            return Err(failed(format!("the stamp takes {STAMP}")));
        }
        let mut rtp = vec![0; RTP + payload];
        rtp[0] = 2 << 6;
        rtp[RTP..RTP + 4].copy_from_slice(&MAGIC.to_ne_bytes());
        let (source, destination) = (ends.addresses.0.octets(), ends.addresses.1.octets());
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(ends.macs.0, ends.macs.1)
            .ipv4(source, destination, 64)
            .udp(0, 0)
            .write(&mut bytes, &rtp)
            .map_err(|error| failed(error.to_string()))?;
        bytes[HEADERS - 2..HEADERS].fill(0);
        Ok(Self(bytes))
    }

    /// A frame of G.711: 214 bytes.
    ///
    /// # Errors
    ///
    /// None in practice; as [`Frame::new`].
    pub fn g711(ends: Ends) -> Result<Self> {
        Self::new(ends, G711)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes it the packet of `stamp`.
    pub fn stamp(&mut self, stamp: &Stamp) {
        let port = stamp.port.to_be_bytes();
        self.0[34..36].copy_from_slice(&port);
        self.0[36..38].copy_from_slice(&port);
        let rtp = &mut self.0[HEADERS..];
        rtp[2..4].copy_from_slice(&(stamp.sequence as u16).to_be_bytes());
        rtp[4..8].copy_from_slice(&stamp.sequence.wrapping_mul(TICKS).to_be_bytes());
        rtp[8..12].copy_from_slice(&stamp.stream.to_be_bytes());
        rtp[RTP + 4..RTP + 8].copy_from_slice(&stamp.sequence.to_ne_bytes());
        rtp[RTP + 8..RTP + 16].copy_from_slice(&stamp.due_ns.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const ENDS: Ends = Ends {
        macs: ([2, 0, 0, 0, 0, 1], [0xee; 6]),
        addresses: (Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(10, 1, 0, 11)),
    };

    #[test]
    fn a_g711_packet_is_214_bytes_and_rtp() {
        let mut frame = Frame::g711(ENDS).unwrap();
        frame.stamp(&Stamp { stream: 7, port: 4000, sequence: 0x0001_0002, due_ns: 99 });
        assert_eq!(frame.bytes().len(), 214);
        let packet = SlicedPacket::from_ethernet(frame.bytes()).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&packet.net, &packet.transport)
        else {
            panic!("not UDP over IPv4");
        };
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        assert_eq!((udp.source_port(), udp.destination_port(), udp.checksum()), (4000, 4000, 0));
        let rtp = udp.payload();
        assert_eq!((rtp[0], rtp[1]), (0x80, 0), "version 2, PCMU");
        assert_eq!(rtp[2..4], [0, 2]);
        assert_eq!(rtp[4..8], (0x0001_0002_u32 * 160).to_be_bytes());
        assert_eq!(rtp[8..12], [0, 0, 0, 7]);
        assert_eq!(rtp.len(), RTP + G711);
    }

    #[test]
    fn the_stamp_needs_its_room() {
        let error = Frame::new(ENDS, STAMP - 1).unwrap_err().to_string();
        assert!(error.contains("takes 16"), "{error}");
        assert!(Frame::new(ENDS, STAMP).is_ok());
    }
}
