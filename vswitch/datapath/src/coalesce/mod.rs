//! Coalescing: consecutive segments of a TCP stream that leave by one port which takes large packets become one, by the
//! rules of Linux's GRO (net/ipv4/tcp_offload.c, `tcp_gro_receive`; net/ipv4/af_inet.c, `inet_gro_receive`;
//! net/ipv6/ip6_offload.c): cutting the result gives the packets back.
//!
//! Only TCP over IPv4 without options, or IPv6 without extension headers. UDP is left alone: not every datagram of one flow
//! belongs to one message. It is done per batch, after the walk, so that policy and flows have seen each segment.

mod segment;
#[cfg(test)]
mod tests;

use vswitch_model::limits::LARGE_PACKET_MAX;

use crate::{BATCH, Buffer, Output, Packet};
use segment::{Seen, look};

/// Streams that are followed at once in a batch, as in Linux (`MAX_GRO_SKBS`).
const STREAMS: usize = 8;
/// Longest frame that is made.
const LENGTH_MAX: usize = LARGE_PACKET_MAX as usize;

/// A packet that others may be appended to.
#[derive(Debug, Clone, Copy)]
struct Stream {
    /// Where in the output it is.
    at: usize,
    /// What it says, of the first of its segments.
    first: Seen,
    /// The sequence number that comes next.
    next: u32,
    /// Segments in it.
    count: usize,
    /// Flags of all of them.
    flags: u8,
}

/// Coalesces what was put into `out.tx` from `from` on and leaves by ports that `takes_large` says; how many packets became part
/// of others. Large buffers are taken of `out.large`; those of packets that are part of others now go to `out.dropped`.
pub fn run<B: Buffer>(out: &mut Output<B>, from: usize, takes_large: impl Fn(&Packet<B>) -> bool) -> usize {
    let Output { tx, large, dropped, .. } = out;
    let mut streams: [Option<Stream>; STREAMS] = [None; STREAMS];
    let (mut kept, mut oldest) = (from, 0);
    for at in from..tx.len() {
        let Some(packet) = tx.get_mut(at).filter(|packet| takes_large(packet)) else {
            tx.swap(kept, at);
            kept += 1;
            continue;
        };
        let seen = look(packet);
        let found =
            seen.and_then(|seen| streams.iter().position(|s| s.is_some_and(|s| s.first.is_same_flow(&seen))));
        if let (Some(slot), Some(seen)) = (found, seen) {
            let stream = streams[slot].take();
            if let Some(stream) = stream.filter(|stream| stream.continues(&seen))
                && let Some(grown) = append(tx, at, stream, &seen, large, dropped)
            {
                streams[slot] = Some(grown).filter(|_| !grown.ends(&seen));
                if streams[slot].is_none() {
                    close(tx, &grown);
                }
                continue;
            }
            if let Some(stream) = stream {
                close(tx, &stream);
            }
        }
        tx.swap(kept, at);
        if let Some(seen) = seen.filter(Seen::may_begin) {
            let slot = found.or_else(|| streams.iter().position(Option::is_none)).unwrap_or_else(|| {
                oldest = (oldest + 1) % STREAMS;
                oldest
            });
            let begun = Stream { at: kept, first: seen, next: seen.next(), count: 1, flags: seen.flags };
            if let Some(before) = streams[slot].replace(begun) {
                close(tx, &before);
            }
        }
        kept += 1;
    }
    for stream in streams.iter().flatten() {
        close(tx, stream);
    }
    let merged = tx.len() - kept;
    dropped.extend(tx.drain(kept..).map(|packet| packet.buffer));
    merged
}

impl Stream {
    /// Whether a segment is the next one and differs in nothing that may not.
    fn continues(&self, seen: &Seen) -> bool {
        seen.sequence == self.next
            && seen.payload > 0
            && seen.payload <= self.first.payload
            && self.count < BATCH
            && self.first.is_like(seen, self.count)
    }

    /// Whether nothing may follow the segment that was appended last.
    fn ends(&self, last: &Seen) -> bool {
        last.payload < self.first.payload || last.ends()
    }
}

/// Appends the packet at `at` to its stream. None, and nothing changed, when there is no room or a checksum is wrong.
fn append<B: Buffer>(
    tx: &mut [Packet<B>],
    at: usize,
    stream: Stream,
    seen: &Seen,
    large: &mut Vec<B>,
    dropped: &mut Vec<B>,
) -> Option<Stream> {
    let (before, rest) = tx.split_at_mut_checked(at)?;
    let (head, packet) = (before.get_mut(stream.at)?, rest.first()?);
    let length = head.buffer.bytes().len();
    let payload = packet.buffer.bytes().get(seen.headers..)?;
    let fits = length + payload.len() <= LENGTH_MAX;
    if !fits || !seen.is_sound(packet) || (stream.count == 1 && !stream.first.is_sound(head)) {
        return None;
    }
    if stream.count == 1 {
        let mut room = large.pop()?;
        if !room.set_len(LENGTH_MAX) || !room.set_len(length) {
            large.push(room);
            return None;
        }
        room.bytes_mut().copy_from_slice(head.buffer.bytes());
        room.follow(&head.buffer);
        dropped.push(std::mem::replace(&mut head.buffer, room));
    }
    if !head.buffer.set_len(length + payload.len()) {
        return None;
    }
    head.buffer.bytes_mut().get_mut(length..)?.copy_from_slice(payload);
    let (count, flags) = (stream.count + 1, stream.flags | seen.flags);
    Some(Stream { next: seen.next(), count, flags, ..stream })
}

/// Writes what changed in the headers of a packet that others were appended to.
fn close<B: Buffer>(tx: &mut [Packet<B>], stream: &Stream) {
    if stream.count > 1
        && let Some(packet) = tx.get_mut(stream.at)
    {
        stream.first.finish(packet, stream.flags, stream.count);
    }
}
