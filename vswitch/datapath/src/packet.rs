//! A packet as it enters and leaves the walk.

/// Dense number of a port, given by the engine; the same in every worker. A port keeps its number while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIndex(pub u16);

/// Most packets handled together.
pub const BATCH: usize = 64;

/// A checksum that whoever sends the packet on has still to finish, as in a virtio header: the 16-bit sum over the
/// bytes from `start` to the packet's end goes to `start + offset`, where the pseudo-header's sum already is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First summed byte, counted from the packet's first byte.
    pub start: u16,
    /// Where the checksum is, counted from `start`.
    pub offset: u16,
}

/// How a packet larger than its way allows is to be cut, as in a virtio header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// What is cut.
    pub kind: SegmentKind,
    /// Payload bytes of one piece.
    pub size: u16,
    /// Packets it is counted as: of those it was coalesced of, which were counted one by one as they left the walk, how many
    /// there are. 1 when it came as it is.
    pub packets: u8,
}

impl Segment {
    /// Of a packet that came as it is.
    #[must_use]
    pub const fn new(kind: SegmentKind, size: u16) -> Self {
        Self { kind, size, packets: 1 }
    }
}

/// What kind of packet is cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP, either family.
    Udp,
}

/// What the packet's sender left for a later port to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// A checksum to be finished.
    pub checksum: Option<PartialChecksum>,
    /// The size of the pieces it is to be cut into.
    pub segment: Option<Segment>,
}

/// A buffer, and what its port knows of it. Ports that carry no Ethernet header (tun) put one before the packet, and
/// take it off again, so that the walk sees one form.
#[derive(Debug)]
pub struct Packet<B> {
    /// The bytes, an Ethernet frame.
    pub buffer: B,
    /// On entry the port it came by; on exit the port it leaves by.
    pub port: PortIndex,
    /// What is left to be done to it.
    pub offload: Offload,
}
