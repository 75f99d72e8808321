//! The table: records by number, found through the index, forgotten by a clock hand.
//!
//! When there is no room for a newcomer, a flow that was never answered gives way, or one that policy has revoked; those
//! that were answered stay. And flows that were opened by packets of one port take three quarters of the table at most, so
//! that there is room for everybody else whatever one pod does.

use std::cmp::Reverse;
use std::sync::Arc;

use vswitch_model::limits::PORTS_MAX;

use super::index::{Index, Place};
use super::slab::Slab;
use super::{Flow, FlowKey, Line, Now, Windows};
use crate::tally::RuleTallies;
use crate::{Buffer, PortIndex};

/// Number of a record; it means that flow until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowIndex(pub u32);

/// No room for one more flow: the newcomer is refused ([`vswitch_model::DropReason::FlowTableFull`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the flow table is full")]
pub struct FlowTableFull;

/// Flows of one worker. Its memory is taken by [`FlowTable::new`]: 89.1 bytes a flow, of which a line of 64 and a rest of 16
/// are its record and the others its part of the index; and 4 KiB. With [`FlowTable::following_windows`] 24 more a flow. Where
/// there are IPv6 flows each record takes 24 more for their addresses, once it holds one: only that memory comes later.
#[derive(Debug)]
pub struct FlowTable {
    index: Index,
    slab: Slab,
    /// By record; empty when windows are not followed.
    windows: Box<[Windows]>,
    secret: [u64; 6],
    /// The next record the clock hand looks at.
    hand: u32,
    /// By port: how many flows its packets opened. Numbers that no port has share the last place.
    held: Box<[u32]>,
    evicted: u64,
    /// Where it is counted what flows that end had.
    tallies: Arc<RuleTallies>,
}

impl FlowTable {
    /// Largest capacity.
    pub const CAPACITY_MAX: usize = 1 << 26;
    /// Bytes that each record takes more once it holds an IPv6 flow.
    pub const V6_BYTES: usize = Slab::V6_BYTES;
    /// Records of which those that expired are forgotten together.
    const EXPIRE_TOGETHER: usize = 32;
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
            slab: Slab::new(capacity),
            windows: Box::default(),
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
        Self { windows: vec![Windows::default(); self.capacity()].into(), ..self }
    }

    /// Most flows that packets of one port may have opened.
    #[must_use]
    pub fn port_most(&self) -> usize {
        self.capacity() - self.capacity() / 4
    }

    /// How many flows packets of this port opened.
    fn held(&mut self, PortIndex(port): PortIndex) -> &mut u32 {
        &mut self.held[usize::from(port).min(PORTS_MAX)]
    }

    fn has_room(&mut self, port: PortIndex) -> bool {
        self.slab.next_free().is_some() && (*self.held(port) as usize) < self.port_most()
    }

    /// The hash of a key, to be given to the other methods.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(&self.secret)
    }

    /// A key of this hash is looked up soon.
    #[inline(always)]
    pub(crate) fn foretell<B: Buffer>(&self, hash: u64) {
        B::foretell(self.index.first_bucket(hash));
    }

    /// The flow of a key.
    #[inline]
    #[must_use]
    pub fn lookup(&self, key: &FlowKey, hash: u64) -> Option<FlowIndex> {
        self.index.find(hash, |record| self.slab.is(record, key)).map(FlowIndex)
    }

    /// The flows of a batch of keys: as many as the shortest slice holds. All buckets are asked for before any record
    /// is, so that the waiting overlaps.
    #[inline(always)]
    pub fn lookup_batch(&self, keys: &[FlowKey], hashes: &[u64], flows: &mut [Option<FlowIndex>]) {
        for (flow, hash) in flows.iter_mut().zip(hashes) {
            *flow = self.index.candidate(*hash).map(FlowIndex);
        }
        for ((flow, hash), key) in flows.iter_mut().zip(hashes).zip(keys) {
            let hit = flow.is_some_and(|candidate| self.slab.is(candidate.0, key));
            if !hit {
                *flow = self.lookup(key, *hash);
            }
        }
    }

    /// Adds a flow; one that has its key already is replaced. `hash` is that of its key. When there is no room a few
    /// records are looked at for expired ones, and if there are none one of those goes that was never answered, or is revoked.
    pub fn insert(&mut self, hash: u64, flow: &Flow) -> Result<FlowIndex, FlowTableFull> {
        let there = self.lookup(&flow.key, hash);
        self.insert_at(there, hash, flow)
    }

    /// The same for who has just looked the key up, and what came of it.
    #[inline]
    pub(crate) fn insert_at(
        &mut self,
        there: Option<FlowIndex>,
        hash: u64,
        flow: &Flow,
    ) -> Result<FlowIndex, FlowTableFull> {
        let port = flow.in_port;
        if let Some(there) = there
            && let Some(before) = self.slab.get(there.0)
        {
            *self.held(port) += 1;
            *self.held(before.in_port) -= 1;
            self.tallies.ended(&before);
            self.slab.set(there.0, flow);
            return Ok(there);
        }
        if !self.has_room(port) {
            self.make_room(port, flow.last_seen);
        }
        if !self.has_room(port) {
            return Err(FlowTableFull);
        }
        let number = self.slab.next_free().ok_or(FlowTableFull)?;
        let (slab, secret) = (&self.slab, &self.secret);
        let hash_of = |record: u32| slab.key(record).map_or(0, |key| key.hash(secret));
        if !self.index.insert(hash, number, hash_of) {
            return Err(FlowTableFull);
        }
        self.slab.add(flow);
        *self.held(port) += 1;
        Ok(FlowIndex(number))
    }

    /// Forgets a flow, and gives it as it was last.
    pub fn remove(&mut self, flow: FlowIndex) -> Option<Flow> {
        let place = self.place(flow.0);
        self.remove_at(flow.0, place)
    }

    /// Where a record's entry in the index is.
    #[inline]
    fn place(&self, number: u32) -> Option<Place> {
        self.index.place(self.slab.key(number)?.hash(&self.secret), number)
    }

    /// Forgets a flow whose entry in the index is at `place`.
    #[inline]
    fn remove_at(&mut self, number: u32, place: Option<Place>) -> Option<Flow> {
        let removed = self.slab.take(number)?;
        if let Some(place) = place {
            self.index.free(place);
        }
        *self.held(removed.in_port) -= 1;
        self.tallies.ended(&removed);
        Some(removed)
    }

    /// A flow.
    #[must_use]
    pub fn get(&self, flow: FlowIndex) -> Option<Flow> {
        self.slab.get(flow.0)
    }

    /// Changes a flow, not its key nor its port; what comes of it.
    pub(crate) fn update<T>(&mut self, flow: FlowIndex, change: impl FnOnce(&mut Flow) -> T) -> Option<T> {
        let mut told = self.slab.get(flow.0)?;
        let outcome = change(&mut told);
        self.slab.set(flow.0, &told);
        Some(outcome)
    }

    /// What a packet of a flow reads and writes.
    #[inline]
    #[must_use]
    pub(crate) fn line(&mut self, flow: FlowIndex) -> Option<&mut Line> {
        self.slab.line_mut(flow.0)
    }

    /// The same, and the windows of its TCP connection, where they are followed.
    #[inline]
    #[must_use]
    pub(crate) fn line_with_windows(&mut self, flow: FlowIndex) -> Option<(&mut Line, Option<&mut Windows>)> {
        Some((self.slab.line_mut(flow.0)?, self.windows.get_mut(flow.0 as usize)))
    }

    /// Looks at the next `budget` records and forgets those that expired; how many. Called between batches, it goes
    /// round the whole table again and again.
    pub fn expire(&mut self, now: Now, budget: usize) -> usize {
        self.slab.see(now);
        let (mut left, mut expired) = (budget.min(self.capacity()), 0);
        while left > 0 {
            let count = left.min(Self::EXPIRE_TOGETHER);
            expired += self.expire_next(now, count);
            left -= count;
        }
        expired
    }

    /// The same of [`Self::EXPIRE_TOGETHER`] records at most. The places of all that go are looked for before any is
    /// forgotten, so that the waits for memory overlap.
    fn expire_next(&mut self, now: Now, count: usize) -> usize {
        let mut ended = [0; Self::EXPIRE_TOGETHER];
        let mut places = [None; Self::EXPIRE_TOGETHER];
        let mut expired = 0;
        for _ in 0..count {
            let number = self.next_of_hand();
            let Some(line) = self.slab.line_mut(number) else { continue };
            if !line.is_expired(now) {
                line.bound_age(now);
            } else if let Some(last) = ended.get_mut(expired) {
                *last = number;
                expired += 1;
            }
        }
        for (place, number) in places.iter_mut().zip(ended).take(expired) {
            *place = self.place(number);
        }
        for (place, number) in places.into_iter().zip(ended).take(expired) {
            self.remove_at(number, place);
        }
        expired
    }

    /// Forgets what expired of the next records, or else the oldest of them that was never answered, or else the oldest that
    /// policy has revoked. A newcomer's port that has all it may have makes room at its own expense.
    #[cold]
    fn make_room(&mut self, port: PortIndex, now: Now) {
        let own_only = *self.held(port) as usize >= self.port_most();
        // Never answered before revoked, then the longest silent.
        let mut first: Option<(bool, Reverse<i32>, FlowIndex)> = None;
        for _ in 0..Self::RECLAIM_BUDGET.min(self.capacity()) {
            let number = self.next_of_hand();
            let Some(line) = self.slab.line(number) else { continue };
            let index = FlowIndex(number);
            if line.is_expired(now) {
                self.remove(index);
            } else if let Some(revoked) = line.may_go()
                && (!own_only || line.in_port() == port)
            {
                let candidate = (revoked, Reverse(line.silent(now)), index);
                first = Some(first.map_or(candidate, |first| first.min(candidate)));
            }
        }
        if let Some((.., index)) = first
            && !self.has_room(port)
        {
            self.remove(index);
            self.evicted += 1;
        }
    }

    fn next_of_hand(&mut self) -> u32 {
        let number = self.hand;
        self.hand = if (number as usize) + 1 < self.capacity() { number + 1 } else { 0 };
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
        self.slab.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most flows it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// All flows, in no order of meaning.
    pub fn iter(&self) -> impl Iterator<Item = (FlowIndex, Flow)> {
        (0..self.capacity() as u32).filter_map(|number| Some((FlowIndex(number), self.slab.get(number)?)))
    }

    /// Bytes of memory it takes now.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.slab.memory_bytes()
            + size_of_val(&*self.held)
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
