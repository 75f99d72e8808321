//! The datapath: packets in, packets out. No I/O, no threads, no `unsafe`.

pub mod buffer;
pub mod packet;

pub use buffer::{Buffer, VecBuffer};
pub use packet::{BATCH, Offload, Packet, PartialChecksum, PortIndex, Segment, SegmentKind};
