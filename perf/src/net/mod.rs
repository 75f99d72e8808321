//! What measurements stand on: namespaces without names, veths, generators, sinks, and the engine as it ships.
//!
//! ```text
//!   outside (a namespace)            switch (a namespace)             outside
//!   generator -- pod end  ==veth==  host end -- what is measured -- host end  ==veth==  pod end -- sink
//! ```
//!
//! Everything is held by file descriptors: it goes when the process goes, however it ends.

pub mod batches;
pub mod engine;
pub mod frames;
pub mod generator;
pub mod link;
pub mod namespace;
pub mod sink;
pub mod topology;

pub(crate) mod buckets;
mod xdp;

#[cfg(test)]
mod tests;

pub use batches::{BATCH, Batches};
pub use engine::{ByHand, Switch, SwitchCounts, SwitchOptions};
pub use frames::{Ends, Pattern};
pub use generator::{Generator, Pace, Sent};
pub use link::{LinkCounts, Veth};
pub use namespace::Namespace;
pub use sink::{Counted, Flow, Sink, SinkOptions};
pub use topology::{Pod, Remote, Topology};
