//! Work that a packet's sender left, done in software for ports that cannot pass it on.

use vswitch_datapath::{Buffer, Packet};

use super::Frame;

/// Finishes the packet's partial checksum. False when something is left that cannot be done here: a segment size, or a
/// checksum that lies outside the packet.
pub(super) fn settle(packet: &mut Packet<Frame>) -> bool {
    if packet.offload.segment.is_some() {
        return false;
    }
    let Some(partial) = packet.offload.checksum else { return true };
    let start = usize::from(partial.start);
    let field = start + usize::from(partial.offset);
    let bytes = packet.buffer.bytes_mut();
    if field + 2 > bytes.len() {
        return false;
    }
    // As skb_checksum_help (net/core/dev.c): the field holds the pseudo-header's sum, and zero would mean none.
    let sum = bytes[start..].chunks(2).fold(0u32, |sum, pair| {
        sum + (u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = match !((folded & 0xffff) + (folded >> 16)) as u16 {
        0 => 0xffff,
        checksum => checksum,
    };
    bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    packet.offload.checksum = None;
    true
}
