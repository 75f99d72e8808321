//! What flows the packets of a batch belong to.

use std::net::IpAddr;

use crate::flow::{FlowIndex, FlowKey, FlowTable, Orientation};
use crate::parse::Parsed;
use crate::stage::Indices;
use crate::{BATCH, Buffer};

/// The keys of a batch's packets, by packet. Their hashes are [`Scratch::entropy`](crate::stage::Scratch::entropy).
#[derive(Debug)]
pub(crate) struct Keys {
    /// Whose there are; in the places of the others lies what an earlier batch left.
    pub(crate) made: Indices,
    pub(super) keys: [FlowKey; BATCH],
    pub(super) orientations: [Orientation; BATCH],
    pub(super) found: [Option<FlowIndex>; BATCH],
}

impl Keys {
    pub(crate) fn new() -> Self {
        let (key, orientation) = FlowKey::v4(0, 0, 0, 0, 0);
        Self {
            made: Indices::new(),
            keys: [key; BATCH],
            orientations: [orientation; BATCH],
            found: [None; BATCH],
        }
    }

    #[inline]
    pub(crate) const fn clear(&mut self) {
        self.made.clear();
    }

    /// Makes the key of a packet, which is to be noted in `made`, and gives its hash. None, and nothing done, when its
    /// addresses are not of one family.
    #[inline(always)]
    pub(crate) fn make<B: Buffer>(
        &mut self,
        flows: &FlowTable,
        index: usize,
        parsed: &Parsed,
    ) -> Option<u64> {
        let (key, orientation) = key_of(parsed)?;
        self.keys[index % BATCH] = key;
        self.orientations[index % BATCH] = orientation;
        let hash = flows.hash(&key);
        flows.foretell::<B>(hash);
        Some(hash)
    }

    /// The flow that a packet was found to belong to, and which end of its key sent it.
    #[inline]
    pub(crate) fn found(&self, index: usize) -> Option<(FlowIndex, Orientation)> {
        Some((self.found[index % BATCH]?, self.orientations[index % BATCH]))
    }

    /// Looks all of them up by their hashes. What comes of the places in between is of no meaning.
    #[inline(always)]
    pub(super) fn look_up(&mut self, flows: &FlowTable, hashes: &[u64; BATCH]) {
        let end = self.made.end();
        flows.lookup_batch(&self.keys[..end], &hashes[..end], &mut self.found[..end]);
    }
}

#[inline(always)]
pub(crate) fn key_of(parsed: &Parsed) -> Option<(FlowKey, Orientation)> {
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
