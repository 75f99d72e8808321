//! The datapath: packets in, packets out. No I/O, no threads, no `unsafe`.

pub mod buffer;
pub mod compile;
pub mod fib;
pub mod flow;
pub mod packet;
pub mod policy;
pub mod tables;

pub use buffer::{Buffer, VecBuffer};
pub use compile::{CompileError, CompileInputs, Hop, PortFacts, PortMap, Underlay, compile};
pub use packet::{BATCH, Offload, Packet, PartialChecksum, PortIndex, Segment, SegmentKind};
pub use tables::Tables;
