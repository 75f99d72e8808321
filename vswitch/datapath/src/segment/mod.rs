//! Large packets: what a sender left to be cut into TCP segments or UDP datagrams, and the cutting (as Linux does in
//! net/ipv4/tcp_offload.c, `tcp_gso_segment`, and net/ipv4/udp_offload.c, `__udp_gso_segment`).
//!
//! A large packet crosses the walk once, and counts as one packet in its flow and at its port. A port that takes it gets
//! it whole; for any other it is cut as it leaves, before a tunnel's headers go on, and its pieces are counted there.

#[cfg(test)]
pub(crate) mod tests;

use crate::checksum::{self, Sum};
use crate::parse::{ETHERNET, Network, Parsed, Piece, protocol};
use crate::read::{be16, be32, byte, length16, put, put_slice};
use crate::{Buffer, Offload, Segment, SegmentKind};

/// TCP flags that only the last segment bears: FIN and PSH.
const LAST: u8 = 0x09;
/// TCP's CWR, which only the first segment bears (RFC 3168, section 6.1.2).
const FIRST: u8 = 0x80;

/// Most pieces of one packet, as Linux has it for datagrams (include/linux/udp.h, `UDP_MAX_SEGMENTS`). What the spare buffers of
/// a batch have to do for is reckoned with it.
pub const PIECES_MAX: usize = 128;

/// Whether what a sender left to be done fits what its packet is: finishing it must not touch what was read already.
#[must_use]
pub fn fits(frame: &[u8], parsed: &Parsed, offload: &Offload) -> bool {
    let Some(partial) = offload.checksum else { return offload.segment.is_none() };
    let depth = partial.start.checked_sub(parsed.transport);
    let own = matches!((parsed.protocol, partial.offset), (protocol::TCP, 16) | (protocol::UDP, 6));
    match offload.segment {
        None if own && depth == Some(0) => true,
        // One further inside, in a tunnel that the sender runs, behind a UDP header, the shortest that carries another. Never
        // in what is read to the end, and judged: a TCP header with its options, what an ICMP error quotes.
        None => match parsed.protocol {
            protocol::TCP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6 => false,
            _ => depth.is_some_and(|depth| depth >= 8),
        },
        Some(Segment { kind, size, .. }) => {
            let is_kind = match kind {
                SegmentKind::TcpV4 => (parsed.network, parsed.protocol) == (Network::V4, protocol::TCP),
                SegmentKind::TcpV6 => (parsed.network, parsed.protocol) == (Network::V6, protocol::TCP),
                SegmentKind::Udp => parsed.protocol == protocol::UDP,
            };
            let payload = usize::from(parsed.end).saturating_sub(headers(frame, parsed));
            let few = size > 0 && payload <= usize::from(size) * PIECES_MAX;
            is_kind && own && depth == Some(0) && few && parsed.piece == Piece::Whole
        }
    }
}

/// Bytes of a packet's headers, of Ethernet, IP and transport.
#[must_use]
pub fn headers(frame: &[u8], parsed: &Parsed) -> usize {
    let transport = usize::from(parsed.transport);
    match parsed.protocol {
        protocol::TCP => transport + usize::from(byte(frame, transport + 12).unwrap_or(0x50) >> 4) * 4,
        _ => transport + 8,
    }
}

/// Where a TCP or UDP checksum is.
fn checksum_field(parsed: &Parsed) -> usize {
    usize::from(parsed.transport) + if parsed.protocol == protocol::TCP { 16 } else { 6 }
}

/// Cuts the packet in `frame` into pieces of `segment`'s size, each in a buffer of `spare`, and hands them to `piece` in
/// order, finished but for what depends on the way. The packet's checksum field holds the sum of its pseudo-header. False, with
/// nothing taken, when there are too few spare buffers or they are too small.
#[must_use]
pub fn cut<B: Buffer>(
    frame: &[u8],
    parsed: &Parsed,
    segment: Segment,
    spare: &mut Vec<B>,
    mut piece: impl FnMut(B),
) -> bool {
    let size = usize::from(segment.size);
    let start = headers(frame, parsed);
    let Some((header, payload)) =
        frame.get(..usize::from(parsed.end)).and_then(|f| f.split_at_checked(start))
    else {
        return false;
    };
    let pieces = payload.len().div_ceil(size.max(1)).max(1);
    let room = |spare: &B| spare.tailroom() + spare.bytes().len() >= start + size;
    if size == 0 || spare.len() < pieces || !spare.iter().rev().take(pieces).all(room) {
        return false;
    }
    let first = First::of(header, parsed);
    for index in 0..pieces {
        let bytes = payload.get(index * size..payload.len().min((index + 1) * size)).unwrap_or_default();
        let Some(mut copy) = spare.pop() else { return false };
        if copy.set_len(start + bytes.len()) {
            put_slice(copy.bytes_mut(), 0, header);
            put_slice(copy.bytes_mut(), start, bytes);
            first.finish(copy.bytes_mut(), parsed, index, index * size, index + 1 == pieces);
        }
        piece(copy);
    }
    true
}

/// What differs from piece to piece, as the large packet has it.
struct First {
    sequence: u32,
    identification: u16,
    /// The sum of the pseudo-header less the length, as the sender has left it in the checksum's field: behind a routing header
    /// it is not of the destination that the IPv6 header says (RFC 8200, section 8.1).
    pseudo: Sum,
}

impl First {
    fn of(header: &[u8], parsed: &Parsed) -> Self {
        Self {
            sequence: be32(header, usize::from(parsed.transport) + 4).unwrap_or_default(),
            identification: be16(header, ETHERNET + 4).unwrap_or_default(),
            pseudo: Sum::ZERO
                .word(be16(header, checksum_field(parsed)).unwrap_or_default())
                .word(!parsed.end.saturating_sub(parsed.transport)),
        }
    }

    /// Writes the headers of piece `index`, whose payload begins `offset` bytes into the large packet's.
    fn finish(&self, frame: &mut [u8], parsed: &Parsed, index: usize, offset: usize, last: bool) {
        let transport = usize::from(parsed.transport);
        let length = frame.len();
        if parsed.network == Network::V4 {
            put(frame, ETHERNET + 2, length16(length - ETHERNET).to_be_bytes());
            put(frame, ETHERNET + 4, self.identification.wrapping_add(index as u16).to_be_bytes());
            put(frame, ETHERNET + 10, [0, 0]);
            let sum = frame.get(ETHERNET..transport).map_or(0, checksum::of);
            put(frame, ETHERNET + 10, sum.to_be_bytes());
        } else {
            put(frame, ETHERNET + 4, length16(length.saturating_sub(ETHERNET + 40)).to_be_bytes());
        }
        let upper = length16(length.saturating_sub(transport));
        if parsed.protocol == protocol::TCP {
            put(frame, transport + 4, self.sequence.wrapping_add(offset as u32).to_be_bytes());
            let kept = if last { 0xff } else { !LAST } & if index == 0 { 0xff } else { !FIRST };
            let flags = byte(frame, transport + 13).unwrap_or_default() & kept;
            put(frame, transport + 13, [flags]);
        } else {
            put(frame, transport + 4, upper.to_be_bytes());
        }
        let field = checksum_field(parsed);
        put(frame, field, [0, 0]);
        let sum = self.pseudo.word(upper);
        let sum = match sum.bytes(frame.get(transport..).unwrap_or_default()).finish() {
            0 if parsed.protocol == protocol::UDP => 0xffff,
            sum => sum,
        };
        put(frame, field, sum.to_be_bytes());
    }
}
