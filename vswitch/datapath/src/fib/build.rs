//! From prefixes to ranges, from ranges to groups and lines.

use std::marker::PhantomData;
use std::sync::Arc;

use super::lines::{BRANCHES, BRANCHES_MAX, LINE, LINES_MAX, Line, PIECES_MAX};
use super::{Address, Fib, GROUP_BITS, Group, Levels, WINDOW_BITS};

/// A FIB that its 30-bit numbers cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the FIB would take {lines} lines of 64 bytes, but at most 1073741824 are supported: fewer prefixes, or longer runs of \
     equal neighbours, would fit"
)]
pub struct FibTooLarge {
    /// Lines it would take.
    pub lines: usize,
}

/// From `start` (an address, aligned to the left: IPv4 in the upper 32 bits) to the next range's start all addresses
/// have one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u128,
    /// What it and those after it have; below 2^31.
    pub value: u32,
}

/// Cuts the address space at the ends of `prefixes` (first address aligned to the left, length, value): where they
/// nest, the longest counts; where none is, `default`. The ranges ascend, the first starts at 0, neighbours differ.
#[must_use]
pub fn ranges(mut prefixes: Vec<(u128, u8, u32)>, default: u32) -> Vec<Range> {
    prefixes.sort_unstable_by_key(|(start, length, _)| (*start, *length));
    let mut ranges = vec![Range { start: 0, value: default }];
    // The prefixes around the current address, outermost first: last address, value.
    let mut open: Vec<(u128, u32)> = Vec::new();
    for (start, length, value) in prefixes {
        close(&mut ranges, &mut open, default, |last| last < start);
        push(&mut ranges, start, value);
        open.push((start | u128::MAX.checked_shr(u32::from(length)).unwrap_or(0), value));
    }
    close(&mut ranges, &mut open, default, |_| true);
    ranges
}

fn close(ranges: &mut Vec<Range>, open: &mut Vec<(u128, u32)>, default: u32, ends: impl Fn(u128) -> bool) {
    while let Some((last, _)) = open.pop_if(|(last, _)| ends(*last)) {
        let around = open.last().map_or(default, |(_, value)| *value);
        if let Some(next) = last.checked_add(1) {
            push(ranges, next, around);
        }
    }
}

fn push(ranges: &mut Vec<Range>, start: u128, value: u32) {
    // What began at the same address is hidden by what nests deeper or follows.
    ranges.pop_if(|range| range.start == start);
    if ranges.last().is_none_or(|range| range.value != value) {
        ranges.push(Range { start, value });
    }
}

/// Lays one list of ranges over another; `join` gives the value of each pair, and must give equal ones for equals.
#[must_use]
pub fn merge(a: &[Range], b: &[Range], mut join: impl FnMut(u32, u32) -> u32) -> Vec<Range> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    let (mut value_a, mut value_b) = (0, 0);
    while i < a.len() || j < b.len() {
        let start_a = a.get(i).map_or(u128::MAX, |range| range.start);
        let start_b = b.get(j).map_or(u128::MAX, |range| range.start);
        let start = start_a.min(start_b);
        while let Some(range) = a.get(i).filter(|range| range.start == start) {
            value_a = range.value;
            i += 1;
        }
        while let Some(range) = b.get(j).filter(|range| range.start == start) {
            value_b = range.value;
            j += 1;
        }
        push(&mut merged, start, join(value_a, value_b));
    }
    merged
}

impl<A: Address> Fib<A> {
    /// The FIB of `ranges`, as [`ranges`] and [`merge`] give them.
    pub fn build(ranges: &[Range]) -> Result<Self, FibTooLarge> {
        let first = ranges.first().map_or(0, |range| range.value);
        let group_bits = A::TOP_BITS - GROUP_BITS;
        // Zeroed memory is not touched before something is written to it: groups of the first value cost nothing.
        let levels = Levels { groups: vec![0; 1 << group_bits], runs: vec![first], lines: Vec::new() };
        let mut builder = Builder { levels, top_bits: A::TOP_BITS };
        let (mut value, mut next) = (first, 0);
        for here in ranges.chunk_by(|a, b| a.start >> (128 - group_bits) == b.start >> (128 - group_bits)) {
            let number = (here[0].start >> (128 - group_bits)) as usize;
            builder.fill(next..number, value);
            builder.levels.groups[number] = builder.group(here, value);
            value = here.last().map_or(value, |range| range.value);
            next = number + 1;
        }
        builder.fill(next..1 << group_bits, value);
        let Builder { mut levels, .. } = builder;
        if levels.lines.len() > LINES_MAX {
            return Err(FibTooLarge { lines: levels.lines.len() });
        }
        levels.runs.shrink_to_fit();
        levels.lines.shrink_to_fit();
        Ok(Self { levels: Arc::new(levels), family: PhantomData })
    }
}

struct Builder {
    levels: Levels,
    top_bits: u32,
}

impl Builder {
    /// Groups of one value.
    fn fill(&mut self, groups: std::ops::Range<usize>, value: u32) {
        if groups.is_empty() || self.levels.runs[0] == value {
            return;
        }
        let base = self.first_run(value);
        self.levels.groups[groups].fill(group_of(0, base));
    }

    /// The place of a run that a group begins with: the last one of the group before serves, when it is the same.
    fn first_run(&mut self, entry: u32) -> usize {
        let runs = &mut self.levels.runs;
        if runs.last() != Some(&entry) {
            runs.push(entry);
        }
        runs.len() - 1
    }

    /// The group that `ranges` start in; `value` holds before the first of them.
    fn group(&mut self, ranges: &[Range], value: u32) -> Group {
        let bits = self.top_bits;
        let entry_of = |range: &Range| (range.start >> (128 - bits)) as u32 % (1 << GROUP_BITS);
        let (mut marks, mut base) = (0, None);
        let last = (1 << GROUP_BITS) - 1;
        self.stretches(ranges, value, (entry_of, last), bits, |this, first, entry| {
            if base.is_none() {
                base = Some(this.first_run(entry));
            } else if this.levels.runs.last() != Some(&entry) {
                this.levels.runs.push(entry);
                marks |= 1 << first;
            }
        });
        group_of(marks, base.unwrap_or(0))
    }

    /// Says where in a block of addresses the entry may be another than before, and which it is: first at 0. `ranges` start
    /// in the block; `value` holds before the first of them; `place_of` is where in the block one starts, at most `last`;
    /// what shares a place shares `bits` bits of the address.
    fn stretches(
        &mut self,
        ranges: &[Range],
        mut value: u32,
        (place_of, last): (impl Fn(&Range) -> u32, u32),
        bits: u32,
        mut tell: impl FnMut(&mut Self, u32, u32),
    ) {
        // The first place that nothing was said of; None: there is none.
        let mut next = Some(0);
        for here in ranges.chunk_by(|a, b| place_of(a) == place_of(b)) {
            let place = place_of(&here[0]);
            if let Some(before) = next.filter(|next| *next < place) {
                tell(self, before, value);
            }
            let entry = self.entry(here, value, bits);
            tell(self, place, entry);
            value = here.last().map_or(value, |range| range.value);
            next = (place < last).then(|| place + 1);
        }
        if let Some(next) = next {
            tell(self, next, value);
        }
    }

    /// The entry of the block of addresses that share `depth` bits with all of `ranges`, which start in it; `value` holds
    /// before the first of them.
    fn entry(&mut self, ranges: &[Range], value: u32, depth: u32) -> u32 {
        let inside = |range: &Range| range.start.checked_shl(depth).unwrap_or(0);
        if let [range] = ranges
            && inside(range) == 0
        {
            return range.value;
        }
        let window_of = |range: &Range| (inside(range) >> (128 - WINDOW_BITS)) as u32;
        let mut pieces: Vec<(u32, u32)> = Vec::new();
        self.stretches(ranges, value, (window_of, u32::MAX), depth + WINDOW_BITS, |_, first, entry| {
            if pieces.last().is_none_or(|(_, last)| *last != entry) {
                pieces.push((first, entry));
            }
        });
        match pieces[..] {
            [(_, entry)] => entry,
            _ => self.tree(&pieces),
        }
    }

    /// The entry of what leads to these pieces: lines of pieces, and above them as many of branches as it takes. All of a
    /// level are filled alike, and follow each other.
    fn tree(&mut self, pieces: &[(u32, u32)]) -> u32 {
        let lines = &mut self.levels.lines;
        let mut first = LINE | lines.len() as u32;
        let mut firsts: Vec<u32> = Vec::new();
        for here in evenly(pieces, PIECES_MAX) {
            firsts.push(here[0].0);
            lines.push(Line::of_pieces(here));
        }
        while firsts.len() > 1 {
            let above = LINE | BRANCHES | lines.len() as u32;
            let mut firsts_above = Vec::new();
            for here in evenly(&firsts, BRANCHES_MAX) {
                firsts_above.push(here[0]);
                lines.push(Line::of_branches(here, first));
                first += here.len() as u32;
            }
            (first, firsts) = (above, firsts_above);
        }
        first
    }
}

fn group_of(marks: u32, base: usize) -> Group {
    u64::from(marks) | (base as u64) << 32
}

/// As few parts as have at most `most` items each, of sizes that differ by one at most.
fn evenly<T>(items: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    (1..=items.len().div_ceil(most)).rev().map(move |left| {
        let (part, after) = rest.split_at(rest.len().div_ceil(left));
        rest = after;
        part
    })
}
