//! From prefixes to ranges, from ranges to nodes.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{Address, DIRECT, Fib, NODE, Node};

/// A FIB that its 31-bit numbers cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the FIB would take {nodes} nodes and {entries} entries, but at most 2147483647 of each are supported"
)]
pub struct FibTooLarge {
    /// Nodes it would take.
    pub nodes: usize,
    /// Entries it would take.
    pub entries: usize,
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
        let mut builder = Builder { nodes: Vec::new(), entries: Vec::new(), compressed: A::COMPRESSED };
        let mut direct = Arc::new([0; DIRECT]);
        let mut value = 0;
        let mut rest = ranges;
        for (top, entry) in (0u128..).zip(Arc::make_mut(&mut direct).iter_mut()) {
            if rest.first().is_none_or(|range| range.start >> 112 > top) {
                *entry = value;
                continue;
            }
            let start = top << 112;
            let (here, after) = rest.split_at(rest.partition_point(|range| range.start >> 112 <= top));
            *entry = builder.block(here, value, start, 2);
            value = here.last().map_or(value, |range| range.value);
            rest = after;
        }
        let Builder { nodes, entries, .. } = builder;
        if nodes.len() >= NODE as usize || entries.len() >= NODE as usize {
            return Err(FibTooLarge { nodes: nodes.len(), entries: entries.len() });
        }
        Ok(Self { direct, nodes: nodes.into(), entries: entries.into(), family: PhantomData })
    }
}

struct Builder {
    nodes: Vec<Node>,
    entries: Vec<u32>,
    compressed: bool,
}

/// The part of the address space a node stands for: `depth` bytes are given by `start`.
struct Block<'a> {
    /// The ranges that start in it, but not at its start.
    ranges: &'a [Range],
    /// The value at its start.
    value: u32,
    start: u128,
    depth: u8,
}

impl Builder {
    /// The entry of the block of all addresses that share `depth` bytes with `start`. `ranges` start in it; `value`
    /// holds before the first of them.
    fn block(&mut self, ranges: &[Range], value: u32, start: u128, depth: u8) -> u32 {
        let block = Block::new(ranges, value, start, depth);
        if block.ranges.is_empty() {
            return block.value;
        }
        let aside = block.value;
        let block = if self.compressed { block.skip(aside) } else { block };
        let number = self.nodes.len();
        let node =
            Node { starts: [0; 4], path: block.start, base: 0, aside, ranks: [0; 4], depth: block.depth };
        self.nodes.push(node);
        let runs = self.runs(&block);
        let base = self.entries.len() as u32;
        self.entries.extend(runs.iter().map(|(_, entry)| entry));
        let node = &mut self.nodes[number];
        node.base = base;
        for (first, _) in &runs {
            node.starts[usize::from(first >> 6)] |= 1 << (first & 63);
        }
        for word in 1..4 {
            node.ranks[word] = node.ranks[word - 1] + node.starts[word - 1].count_ones() as u8;
        }
        number as u32 | NODE
    }

    /// The runs of equal entries of a node: first byte, entry.
    fn runs(&mut self, block: &Block<'_>) -> Vec<(u8, u32)> {
        let mut runs: Vec<(u8, u32)> = Vec::new();
        let mut run = |first: usize, entry: u32| {
            if runs.last().is_none_or(|(_, last)| *last != entry) {
                runs.push((first as u8, entry));
            }
        };
        let (mut rest, mut value, mut covered) = (block.ranges, block.value, 0usize);
        while let Some(range) = rest.first() {
            let byte = range.start.byte(block.depth);
            if usize::from(byte) > covered {
                run(covered, value);
            }
            let (here, after) = rest.split_at(rest.partition_point(|r| r.start.byte(block.depth) <= byte));
            run(usize::from(byte), self.block(here, value, block.child(byte), block.depth + 1));
            value = here.last().map_or(value, |range| range.value);
            covered = usize::from(byte) + 1;
            rest = after;
        }
        if covered < 256 {
            run(covered, value);
        }
        runs
    }
}

impl<'a> Block<'a> {
    fn new(ranges: &'a [Range], value: u32, start: u128, depth: u8) -> Self {
        match ranges.split_first() {
            Some((first, rest)) if first.start == start => {
                Self { ranges: rest, value: first.value, start, depth }
            }
            _ => Self { ranges, value, start, depth },
        }
    }

    fn child(&self, byte: u8) -> u128 {
        self.start | u128::from(byte) << ((15 - self.depth) * 8)
    }

    /// The deepest block below this one outside of which all addresses of this one have the value `aside`.
    fn skip(self, aside: u32) -> Self {
        let (Some(first), Some(last)) = (self.ranges.first(), self.ranges.last()) else { return self };
        let byte = first.start.byte(self.depth);
        let inside = self.ranges.partition_point(|range| range.start.byte(self.depth) == byte);
        let beyond = &self.ranges[inside..];
        let ends_at_child = match beyond {
            [] => true,
            [end] => byte < 255 && end.start == self.child(byte + 1),
            _ => false,
        };
        if self.value != aside || last.value != aside || !ends_at_child {
            return self;
        }
        let child = Self::new(&self.ranges[..inside], self.value, self.child(byte), self.depth + 1);
        if child.ranges.is_empty() { self } else { child.skip(aside) }
    }
}
