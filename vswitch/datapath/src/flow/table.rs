//! The table: records in a slab, found through the index, forgotten by a clock hand.
//!
//! When there is no room for a newcomer, a flow that was never answered gives way, or one that policy has revoked; those
//! that were answered stay. And flows that were opened by packets of one port take three quarters of the table at most, so
//! that there is room for everybody else whatever one pod does.

use std::sync::Arc;

use vswitch_model::limits::PORTS_MAX;

use super::index::Index;
use super::{Flow, FlowKey, Now, Windows};
use crate::PortIndex;
use crate::tally::RuleTallies;

/// Number of a record; it means that flow until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowIndex(pub u32);

/// No room for one more flow: the newcomer is refused ([`vswitch_model::DropReason::FlowTableFull`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the flow table is full")]
pub struct FlowTableFull;

/// Flows of one worker. All memory is taken by [`FlowTable::new`]: 148 to 164 bytes a flow, 128 of them the record,
/// 4 in the list of free ones, 16 to 32 in the index by how far the capacity is from the next power of two; and 4 KiB. With
/// [`FlowTable::following_windows`] 24 more a flow.
#[derive(Debug)]
pub struct FlowTable {
    index: Index,
    records: Vec<Option<Flow>>,
    /// By record; empty when windows are not followed.
    windows: Box<[Windows]>,
    /// Numbers of free records, the next to be used last.
    free: Vec<u32>,
    secret: [u64; 6],
    /// The next record the clock hand looks at.
    hand: usize,
    /// By port: how many flows its packets opened. Numbers that no port has share the last place.
    held: Box<[u32]>,
    evicted: u64,
    /// Where it is counted what flows that end had.
    tallies: Arc<RuleTallies>,
}

impl FlowTable {
    /// Largest capacity.
    pub const CAPACITY_MAX: usize = 1 << 26;
    /// Records looked at to make room for a newcomer when the table is full.
    const RECLAIM_BUDGET: usize = 64;

    /// A table for `capacity` flows, 1 to [`Self::CAPACITY_MAX`] (a value outside becomes the nearest inside). `seed`
    /// keys the hash and has to be unpredictable: who knows it can choose flows that collide.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(1, Self::CAPACITY_MAX);
        let mut state = seed;
        Self {
            index: Index::new(capacity),
            records: (0..capacity).map(|_| None).collect(),
            windows: Box::default(),
            free: (0..capacity as u32).rev().collect(),
            secret: std::array::from_fn(|_| split_mix(&mut state)),
            hand: 0,
            held: vec![0; PORTS_MAX + 1].into_boxed_slice(),
            evicted: 0,
            tallies: Arc::default(),
        }
    }

    /// The same, counting in `tallies` what its flows had when they end.
    #[must_use]
    pub fn counting_in(self, tallies: Arc<RuleTallies>) -> Self {
        Self { tallies, ..self }
    }

    /// The same, with room for the windows of its TCP connections.
    #[must_use]
    pub fn following_windows(self) -> Self {
        Self { windows: vec![Windows::default(); self.records.len()].into(), ..self }
    }

    /// Most flows that packets of one port may have opened.
    #[must_use]
    pub fn port_most(&self) -> usize {
        self.capacity() - self.capacity() / 4
    }

    fn held(&mut self, flow: &Flow) -> &mut u32 {
        let [PortIndex(port), _] = flow.in_ports;
        &mut self.held[usize::from(port).min(PORTS_MAX)]
    }

    fn has_room(&mut self, newcomer: &Flow) -> bool {
        !self.free.is_empty() && (*self.held(newcomer) as usize) < self.port_most()
    }

    /// The hash of a key, to be given to the other methods.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(&self.secret)
    }

    /// The flow of a key.
    #[inline]
    #[must_use]
    pub fn lookup(&self, key: &FlowKey, hash: u64) -> Option<FlowIndex> {
        self.index.find(hash, |record| self.is(record, key)).map(FlowIndex)
    }

    /// The flows of a batch of keys: as many as the shortest slice holds. All buckets are asked for before any record
    /// is, so that the waiting overlaps.
    #[inline(always)]
    pub fn lookup_batch(&self, keys: &[FlowKey], hashes: &[u64], flows: &mut [Option<FlowIndex>]) {
        for (flow, hash) in flows.iter_mut().zip(hashes) {
            *flow = self.index.candidate(*hash).map(FlowIndex);
        }
        for ((flow, hash), key) in flows.iter_mut().zip(hashes).zip(keys) {
            let hit = flow.is_some_and(|candidate| self.is(candidate.0, key));
            if !hit {
                *flow = self.lookup(key, *hash);
            }
        }
    }

    /// Whether any of these flows may have been silent for too long, so that each is to be asked. It reads of all records
    /// what their packets are about to write, so that this waiting overlaps, too.
    #[inline]
    #[must_use]
    pub fn any_silent(&self, flows: &[Option<FlowIndex>], now: Now) -> bool {
        let flows = flows.iter().filter_map(|flow| self.get((*flow)?));
        flows.fold(false, |any, flow| any | flow.is_silent(now))
    }

    #[inline]
    fn is(&self, record: u32, key: &FlowKey) -> bool {
        self.get(FlowIndex(record)).is_some_and(|flow| flow.key.is(key))
    }

    /// Adds a flow; one that has its key already is replaced. `hash` is that of its key. When there is no room a few
    /// records are looked at for expired ones, and if there are none one of those goes that was never answered, or is revoked.
    pub fn insert(&mut self, hash: u64, flow: Flow) -> Result<FlowIndex, FlowTableFull> {
        let there = self.lookup(&flow.key, hash);
        self.insert_at(there, hash, flow)
    }

    /// The same for who has just looked the key up, and what came of it.
    #[inline]
    pub(crate) fn insert_at(
        &mut self,
        there: Option<FlowIndex>,
        hash: u64,
        flow: Flow,
    ) -> Result<FlowIndex, FlowTableFull> {
        if let Some(there) = there {
            *self.held(&flow) += 1;
            if let Some(before) = self.record(there).and_then(|record| record.replace(flow)) {
                *self.held(&before) -= 1;
                self.tallies.ended(&before);
            }
            return Ok(there);
        }
        if !self.has_room(&flow) {
            self.make_room(&flow);
        }
        if !self.has_room(&flow) {
            return Err(FlowTableFull);
        }
        let number = *self.free.last().ok_or(FlowTableFull)?;
        let (records, secret) = (&self.records, &self.secret);
        let hash_of = |record: u32| {
            records.get(record as usize).and_then(Option::as_ref).map_or(0, |flow| flow.key.hash(secret))
        };
        if !self.index.insert(hash, number, hash_of) {
            return Err(FlowTableFull);
        }
        self.free.pop();
        *self.held(&flow) += 1;
        if let Some(record) = self.record(FlowIndex(number)) {
            *record = Some(flow);
        }
        Ok(FlowIndex(number))
    }

    /// Forgets a flow, and gives its last record.
    pub fn remove(&mut self, flow: FlowIndex) -> Option<Flow> {
        let removed = self.record(flow)?.take()?;
        self.index.remove(removed.key.hash(&self.secret), flow.0);
        *self.held(&removed) -= 1;
        self.tallies.ended(&removed);
        self.free.push(flow.0);
        Some(removed)
    }

    #[inline]
    fn record(&mut self, flow: FlowIndex) -> Option<&mut Option<Flow>> {
        self.records.get_mut(flow.0 as usize)
    }

    /// The record of a flow.
    #[inline]
    #[must_use]
    pub fn get(&self, flow: FlowIndex) -> Option<&Flow> {
        self.records.get(flow.0 as usize)?.as_ref()
    }

    /// The record of a flow, to be advanced.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, flow: FlowIndex) -> Option<&mut Flow> {
        self.records.get_mut(flow.0 as usize)?.as_mut()
    }

    /// The record of a flow, to be advanced, and the windows of its TCP connection, where they are followed.
    #[inline]
    #[must_use]
    pub fn get_with_windows(&mut self, flow: FlowIndex) -> Option<(&mut Flow, Option<&mut Windows>)> {
        let number = flow.0 as usize;
        Some((self.records.get_mut(number)?.as_mut()?, self.windows.get_mut(number)))
    }

    /// Looks at the next `budget` records and forgets those that expired; how many. Called between batches, it goes
    /// round the whole table again and again.
    pub fn expire(&mut self, now: Now, budget: usize) -> usize {
        let mut expired = 0;
        for _ in 0..budget.min(self.records.len()) {
            let number = self.next_of_hand();
            if self.records[number].as_ref().is_some_and(|flow| flow.is_expired(now)) {
                expired += usize::from(self.remove(FlowIndex(number as u32)).is_some());
            }
        }
        expired
    }

    /// Forgets what expired of the next records, or else the oldest of them that was never answered, or else the oldest that
    /// policy has revoked. Whose port has all that it may have makes room at its own expense.
    #[cold]
    fn make_room(&mut self, newcomer: &Flow) {
        let [port, _] = newcomer.in_ports;
        let own_only = *self.held(newcomer) as usize >= self.port_most();
        let mut oldest: Option<(bool, Now, FlowIndex)> = None;
        for _ in 0..Self::RECLAIM_BUDGET.min(self.records.len()) {
            let number = self.next_of_hand();
            let Some(flow) = &self.records[number] else { continue };
            let index = FlowIndex(number as u32);
            if flow.is_expired(newcomer.last_seen) {
                self.remove(index);
            } else if (!flow.state.is_answered() || flow.is_revoked)
                && (!own_only || flow.in_ports[0] == port)
            {
                let candidate = (flow.is_revoked, flow.last_seen, index);
                oldest = Some(oldest.map_or(candidate, |oldest| oldest.min(candidate)));
            }
        }
        if let Some((.., index)) = oldest
            && !self.has_room(newcomer)
        {
            self.remove(index);
            self.evicted += 1;
        }
    }

    fn next_of_hand(&mut self) -> usize {
        let number = self.hand;
        self.hand = if number + 1 < self.records.len() { number + 1 } else { 0 };
        number
    }

    /// How many flows went before their time to make room, since this was asked last.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Flows in it.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most flows it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.records.len()
    }

    /// All flows, in no order of meaning.
    pub fn iter(&self) -> impl Iterator<Item = (FlowIndex, &Flow)> {
        (0..).map(FlowIndex).zip(&self.records).filter_map(|(index, flow)| Some((index, flow.as_ref()?)))
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.records.capacity() * size_of::<Option<Flow>>()
            + (self.free.capacity() + self.held.len()) * 4
            + size_of_val(&*self.windows)
    }

    #[cfg(test)]
    pub(super) fn occupancy(&self) -> (usize, usize) {
        self.index.occupancy()
    }
}

/// One step of SplitMix64: spreads a seed over as many words as are needed.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
