//! All protocols and ports on one line, so that what rules say of them is stretches of it.

use vswitch_model::PortMatch;

/// IP protocols whose ports or messages are compared, and what of the line is theirs: TCP, UDP, SCTP, ICMP, ICMPv6.
const WITH_PORTS: [(u8, u32); 5] = [(6, 0), (17, 1), (132, 2), (1, 3), (58, 4)];
/// The part of all other protocols, 256 places each.
const OTHERS: usize = 5;

/// Parts of the line, of 65536 places each.
pub(super) const PARTS: usize = 6;
/// Places of a part, as a power of two.
pub(super) const PART_BITS: u32 = 16;
/// Places of the line.
pub(super) const PLACES: u32 = (PARTS as u32) << PART_BITS;

/// The part of the line in which a protocol and port are, and the place there.
#[inline]
pub(super) fn place(protocol: u8, port: u16) -> (usize, u16) {
    match protocol {
        6 => (0, port),
        17 => (1, port),
        132 => (2, port),
        1 => (3, port),
        58 => (4, port),
        other => (OTHERS, u16::from(other) << 8),
    }
}

/// A stretch of the line: its first place, and the one after its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stretch {
    pub(super) first: u32,
    pub(super) end: u32,
}

/// What `matches` name: ascending stretches with gaps between them. No matches name everything.
pub(super) fn stretches(matches: &[PortMatch]) -> Vec<Stretch> {
    if matches.is_empty() {
        return vec![Stretch { first: 0, end: PLACES }];
    }
    let mut named: Vec<Stretch> = matches.iter().map(stretch).collect();
    named.sort_unstable();
    named.dedup_by(|next, last| {
        let joined = next.first <= last.end;
        if joined {
            last.end = last.end.max(next.end);
        }
        joined
    });
    named.shrink_to_fit();
    named
}

fn stretch(range: &PortMatch) -> Stretch {
    match WITH_PORTS.iter().find(|(protocol, _)| *protocol == range.protocol) {
        Some((_, part)) => {
            let start = part << PART_BITS;
            Stretch { first: start + u32::from(range.first), end: start + u32::from(range.last) + 1 }
        }
        None => {
            let first = ((OTHERS as u32) << PART_BITS) + (u32::from(range.protocol) << 8);
            Stretch { first, end: first + (1 << 8) }
        }
    }
}
