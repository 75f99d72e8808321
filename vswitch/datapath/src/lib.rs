//! The datapath: packets in, packets out. No I/O, no threads, no `unsafe`.
//!
//! [`compile()`] turns a desired state into [`Tables`], a [`Compiler`] one after the other; [`Walk`] takes batches of packets through them. A stage is a module
//! of `stage`, a table a module of its own; what packets look like is in [`parse`].

pub mod anchor;
pub mod buffer;
pub mod checksum;
pub mod coalesce;
pub mod compile;
pub mod counters;
pub mod dns;
pub mod encap;
pub mod explain;
pub mod fib;
pub mod flow;
pub mod flow_log;
pub mod fragment;
pub mod icmp;
pub mod neighbour;
pub mod output;
pub mod packet;
pub mod parse;
pub mod policy;
pub mod probe;
mod read;
pub mod segment;
mod stage;
pub mod tables;
pub mod tally;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace;
pub mod walk;

pub use anchor::anchor;
pub use buffer::{Buffer, VecBuffer};
pub use compile::{
    CompileError, CompileInputs, Compiler, HOPS_MAX, Hop, PortFacts, PortMap, Underlay, compile,
};
pub use counters::{Counters, Stage};
pub use dns::{DnsAnswer, DnsQueue};
pub use explain::{Explanation, Query, explain};
pub use flow::Now;
pub use flow_log::{FlowLogQueue, FlowRecord, FlowVerdict};
pub use output::Output;
pub use packet::{BATCH, Offload, Packet, PartialChecksum, PortIndex, Segment, SegmentKind};
pub use probe::{Mark, NoProbe, Probe};
pub use tables::Tables;
pub use tally::{RuleCounts, RuleTallies};
pub use trace::{TraceFilter, TraceRecord, TraceSpec};
pub use walk::{Walk, WalkConfig};
