//! Work that a packet's sender left, done in software for ports that cannot pass it on.

use vswitch_datapath::{Buffer, Packet, checksum};

use super::Frame;

/// Finishes the packet's partial checksum. False when something is left that cannot be done here: a segment size, or a
/// checksum that lies outside the packet.
pub(super) fn settle(packet: &mut Packet<Frame>) -> bool {
    if packet.offload.segment.is_some() {
        return false;
    }
    let Some(partial) = packet.offload.checksum.take() else { return true };
    let finished = checksum::finish_partial(packet.buffer.bytes_mut(), partial);
    if !finished {
        packet.offload.checksum = Some(partial);
    }
    finished
}
