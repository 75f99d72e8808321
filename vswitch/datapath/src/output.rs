//! Where the walk leaves what it is done with.

use crate::packet::{BATCH, Packet};

/// Where packets go from the walk. Kept from batch to batch so that nothing is allocated.
#[derive(Debug)]
pub struct Output<B> {
    /// To be transmitted, each by the port it bears.
    pub tx: Vec<Packet<B>>,
    /// To be transmitted as well, each once its number was released ([`crate::DnsQueue::take_released`]) or after a while.
    /// Whoever transmits it counts it as [sent](crate::Counters::sent). Nothing unless somebody [wants](crate::DnsQueue::want) it.
    pub held: Vec<(u64, Packet<B>)>,
    /// Set when the walk told of an answer of DNS; reset by the worker.
    pub told: bool,
    /// Buffers of packets that ended; counted already.
    pub dropped: Vec<B>,
    /// Empty buffers with headroom, which the walk may take to cut packets into fragments or segments. The worker refills it between
    /// batches; while it is empty such packets end as [`vswitch_model::DropReason::FramesExhausted`].
    pub spare: Vec<B>,
    /// Empty buffers of up to 64 KB, which the walk may take to coalesce packets into; refilled in the same way. While it is
    /// empty packets stay as they are.
    pub large: Vec<B>,
}

impl<B> Output<B> {
    /// Room for what one batch and `spare` spare buffers become.
    #[must_use]
    pub fn new(spare: usize) -> Self {
        Self {
            tx: Vec::with_capacity(BATCH + spare),
            held: Vec::with_capacity(BATCH),
            told: false,
            dropped: Vec::with_capacity(BATCH + spare),
            spare: Vec::with_capacity(spare),
            large: Vec::with_capacity(BATCH),
        }
    }
}
