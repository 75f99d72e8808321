//! The virtio header that comes before each packet of the device: what is left to be done to it.

use vswitch_datapath::{Buffer, Offload, Packet, PartialChecksum, Segment, SegmentKind};

use super::{ETHERNET, ETHERTYPE_V4, ETHERTYPE_V6};
use crate::io::Frame;

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h), in the machine's byte order.
pub(super) const VIRTIO: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
pub(super) const NO_SEGMENTS: u8 = 0;
const SEGMENTS_TCP_V4: u8 = 1;
const SEGMENTS_TCP_V6: u8 = 4;
/// Datagrams, `VIRTIO_NET_HDR_GSO_UDP_L4`.
const SEGMENTS_UDP: u8 = 5;

/// What the kernel left to be done, counted from the Ethernet header on. None: something we did not agree to.
pub(super) fn offload_of(header: &[u8; VIRTIO], length: usize) -> Option<Offload> {
    let [flags, kind, _, _, size_low, size_high, start_low, start_high, offset_low, offset_high] = *header;
    let size = u16::from_ne_bytes([size_low, size_high]);
    let segment = match kind {
        NO_SEGMENTS => None,
        SEGMENTS_TCP_V4 => Some(Segment::new(SegmentKind::TcpV4, size)),
        SEGMENTS_TCP_V6 => Some(Segment::new(SegmentKind::TcpV6, size)),
        SEGMENTS_UDP => Some(Segment::new(SegmentKind::Udp, size)),
        _ => return None,
    };
    if flags & NEEDS_CHECKSUM == 0 {
        return segment.is_none().then(Offload::default);
    }
    let start = u16::from_ne_bytes([start_low, start_high]);
    let offset = u16::from_ne_bytes([offset_low, offset_high]);
    let inside = usize::from(start) + usize::from(offset) + 2 <= length;
    let checksum = PartialChecksum { start: start.checked_add(ETHERNET as u16)?, offset };
    inside.then_some(Offload { checksum: Some(checksum), segment })
}

/// The packet's virtio header. None: not IP, or something the device does not do.
pub(super) fn header_of(packet: &Packet<Frame>) -> Option<[u8; VIRTIO]> {
    let ethernet = packet.buffer.bytes().get(..ETHERNET)?;
    let ip = ethernet[12..] == ETHERTYPE_V4 || ethernet[12..] == ETHERTYPE_V6;
    if !ip {
        return None;
    }
    let mut header = [0; VIRTIO];
    if let Some(Segment { kind, size, .. }) = packet.offload.segment {
        let transport = usize::from(packet.offload.checksum?.start);
        let length = match kind {
            SegmentKind::Udp => 8,
            _ => usize::from(*packet.buffer.bytes().get(transport + 12)? >> 4) * 4,
        };
        let headers = transport.checked_sub(ETHERNET)? + length;
        header[1] = kind_of(kind);
        header[2..4].copy_from_slice(&(headers as u16).to_ne_bytes());
        header[4..6].copy_from_slice(&size.to_ne_bytes());
    }
    if let Some(partial) = packet.offload.checksum {
        header[0] = NEEDS_CHECKSUM;
        let start = partial.start.checked_sub(ETHERNET as u16)?;
        header[6..8].copy_from_slice(&start.to_ne_bytes());
        header[8..].copy_from_slice(&partial.offset.to_ne_bytes());
    }
    Some(header)
}

fn kind_of(kind: SegmentKind) -> u8 {
    match kind {
        SegmentKind::TcpV4 => SEGMENTS_TCP_V4,
        SegmentKind::TcpV6 => SEGMENTS_TCP_V6,
        SegmentKind::Udp => SEGMENTS_UDP,
    }
}
