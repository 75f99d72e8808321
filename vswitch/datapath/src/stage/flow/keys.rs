//! What flows the packets of a batch belong to.

use std::net::IpAddr;

use crate::BATCH;
use crate::flow::{FlowIndex, FlowKey, FlowTable, Orientation};
use crate::parse::Parsed;

/// The keys of a batch's packets, one after another: dense, for the batched look-up.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Whose each is.
    packets: [u8; BATCH],
    count: usize,
    pub(super) keys: [FlowKey; BATCH],
    pub(super) hashes: [u64; BATCH],
    pub(super) orientations: [Orientation; BATCH],
    pub(super) found: [Option<FlowIndex>; BATCH],
}

impl Keys {
    pub(crate) fn new() -> Self {
        let (key, orientation) = FlowKey::v4(0, 0, 0, 0, 0);
        Self {
            packets: [0; BATCH],
            count: 0,
            keys: [key; BATCH],
            hashes: [0; BATCH],
            orientations: [orientation; BATCH],
            found: [None; BATCH],
        }
    }

    pub(super) const fn clear(&mut self) {
        self.count = 0;
    }

    /// How many there are: as many as a batch has packets at most.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count.min(BATCH)
    }

    /// The packet whose key is at `at`.
    #[inline]
    pub(super) fn packet(&self, at: usize) -> usize {
        usize::from(self.packets[at % BATCH]) % BATCH
    }

    #[inline]
    pub(super) fn push(&mut self, flows: &FlowTable, index: usize, key: (FlowKey, Orientation)) -> u64 {
        let at = self.count % BATCH;
        self.count += 1;
        self.packets[at] = index as u8;
        (self.keys[at], self.orientations[at]) = key;
        self.hashes[at] = flows.hash(&key.0);
        self.hashes[at]
    }
}

#[inline]
pub(super) fn key_of(parsed: &Parsed) -> Option<(FlowKey, Orientation)> {
    let (source, destination) = (parsed.source_port, parsed.destination_port);
    match (parsed.source, parsed.destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            Some(FlowKey::v4(a.to_bits(), source, b.to_bits(), destination, parsed.protocol))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            Some(FlowKey::v6(a.to_bits(), source, b.to_bits(), destination, parsed.protocol))
        }
        _ => None,
    }
}
