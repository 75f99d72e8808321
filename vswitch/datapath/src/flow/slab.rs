//! The records of the table, by number, and which of them are free.

use super::line::{Latest, Line, Rest};
use super::{Flow, FlowKey, Now};

/// As many records as there may be flows.
#[derive(Debug)]
pub(super) struct Slab {
    lines: Box<[Line]>,
    rests: Box<[Rest]>,
    /// [`FlowKey::upper`] of IPv6 flows. Zeros that nobody has touched take no memory: without such flows it has none.
    uppers: Box<[[u64; 3]]>,
    /// Records up to the last that ever was an IPv6 flow.
    uppers_used: usize,
    /// The first record without a flow, the start of a chain; beyond the last when there is none.
    free: u32,
    len: usize,
    latest: Latest,
}

impl Slab {
    /// Bytes of an IPv6 flow that one of IPv4 does not take.
    pub(super) const V6_BYTES: usize = size_of::<[u64; 3]>();

    pub(super) fn new(capacity: usize) -> Self {
        Self {
            lines: (1..=capacity as u32).map(Line::free).collect(),
            rests: vec![Rest::default(); capacity].into(),
            uppers: vec![[0; 3]; capacity].into(),
            uppers_used: 0,
            free: 0,
            len: 0,
            latest: Latest::default(),
        }
    }

    pub(super) const fn capacity(&self) -> usize {
        self.lines.len()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.rests) + self.uppers_used * Self::V6_BYTES
    }

    /// The line of a flow.
    #[inline]
    pub(super) fn line(&self, number: u32) -> Option<&Line> {
        self.lines.get(number as usize).filter(|line| line.is_used())
    }

    #[inline]
    pub(super) fn line_mut(&mut self, number: u32) -> Option<&mut Line> {
        self.lines.get_mut(number as usize).filter(|line| line.is_used())
    }

    /// Whether a record is the flow of this key.
    #[inline]
    pub(super) fn is(&self, number: u32, key: &FlowKey) -> bool {
        let number = number as usize;
        // A line without a flow fits no key.
        self.lines.get(number).is_some_and(|line| line.fits(key))
            && (!key.is_v6() || self.uppers.get(number) == Some(&key.upper))
    }

    pub(super) fn key(&self, number: u32) -> Option<FlowKey> {
        self.line(number).map(|line| line.key(self.upper(number)))
    }

    fn upper(&self, number: u32) -> [u64; 3] {
        let number = number as usize;
        // One that holds IPv4 is not even looked at.
        let is_v6 = self.lines.get(number).is_some_and(Line::is_v6);
        if is_v6 { self.uppers.get(number).copied().unwrap_or_default() } else { [0; 3] }
    }

    pub(super) fn get(&self, number: u32) -> Option<Flow> {
        let line = self.line(number)?;
        Some(line.told(self.rests.get(number as usize)?, self.upper(number), self.latest))
    }

    /// The record that [`Self::add`] takes next.
    #[inline]
    pub(super) fn next_free(&self) -> Option<u32> {
        ((self.free as usize) < self.lines.len()).then_some(self.free)
    }

    /// Puts a flow into the next free record.
    pub(super) fn add(&mut self, flow: &Flow) {
        let number = self.free;
        let Some(line) = self.lines.get(number as usize) else { return };
        self.free = line.next_free();
        self.len += 1;
        self.set(number, flow);
    }

    /// Puts a flow in the place of another.
    #[inline]
    pub(super) fn set(&mut self, number: u32, flow: &Flow) {
        let number = number as usize;
        let (Some(line), Some(rest)) = (self.lines.get_mut(number), self.rests.get_mut(number)) else {
            return;
        };
        (*line, *rest) = Line::of(flow);
        if flow.key.is_v6()
            && let Some(upper) = self.uppers.get_mut(number)
        {
            *upper = flow.key.upper;
            self.uppers_used = self.uppers_used.max(number + 1);
        }
        self.latest.revision = self.latest.revision.max(flow.revision);
        self.see(flow.last_seen);
    }

    /// Takes a flow out.
    pub(super) fn take(&mut self, number: u32) -> Option<Flow> {
        let flow = self.get(number)?;
        *self.lines.get_mut(number as usize)? = Line::free(self.free);
        self.free = number;
        self.len -= 1;
        Some(flow)
    }

    /// It is now at least so late.
    pub(super) fn see(&mut self, now: Now) {
        self.latest.now = self.latest.now.max(now);
    }
}
