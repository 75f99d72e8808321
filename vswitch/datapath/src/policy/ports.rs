//! All protocols and ports on one line, so that what rules say of them is stretches of it; and where rules ask for source
//! ports, a second line across each place of the first.

use std::sync::Arc;

use vswitch_model::{PortMatch, Rule};

use super::FlowPorts;

/// IP protocols whose ports or messages are compared, and what of the line is theirs: TCP, UDP, SCTP, ICMP, ICMPv6.
const WITH_PORTS: [(u8, u32); 5] = [(6, 0), (17, 1), (132, 2), (1, 3), (58, 4)];
/// Those of them that have source ports come first.
const WITH_SOURCE_PORTS: u32 = 3;
/// The part of all other protocols, 256 places each.
const OTHERS: usize = 5;

/// Parts of the line, of 65536 places each.
pub(super) const PARTS: usize = 6;
/// Places of a part, as a power of two; and source ports.
pub(super) const PART_BITS: u32 = 16;
/// Places of the line.
pub(super) const PLACES: u32 = (PARTS as u32) << PART_BITS;

/// The place of a flow on the line.
#[inline]
pub(super) fn place(ports: FlowPorts) -> u32 {
    let at = |part: u32, place: u16| part << PART_BITS | u32::from(place);
    match ports.protocol {
        6 => at(0, ports.destination),
        17 => at(1, ports.destination),
        132 => at(2, ports.destination),
        1 => at(3, ports.destination),
        58 => at(4, ports.destination),
        other => at(OTHERS as u32, u16::from(other) << 8),
    }
}

/// A stretch of a line: its first place, and the one after its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stretch {
    pub(super) first: u32,
    pub(super) end: u32,
}

/// A stretch of the line, and from where to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) places: Stretch,
    /// Source ports: ascending stretches with gaps between them. None: all.
    pub(super) sources: Option<Arc<[Stretch]>>,
}

/// What a rule names: areas apart from each other.
pub(super) fn areas(rule: &Rule) -> Vec<Area> {
    let places = stretches(&rule.ports, |range| (range.first, range.last));
    let area = |places: Stretch, sources: Option<&Arc<[Stretch]>>| Area { places, sources: sources.cloned() };
    if rule.source_ports.is_empty() {
        return places.into_iter().map(|places| area(places, None)).collect();
    }
    let has_source_ports =
        |protocol| WITH_PORTS.iter().any(|(known, part)| *known == protocol && *part < WITH_SOURCE_PORTS);
    let from = stretches(&rule.source_ports, |range| match has_source_ports(range.protocol) {
        true => (range.first, range.last),
        false => (0, u16::MAX),
    });
    let mut areas = Vec::new();
    for part in 0..PARTS as u32 {
        let start = part << PART_BITS;
        let whole = Stretch { first: start, end: start + (1 << PART_BITS) };
        let (to, from) = (common(&places, &[whole]), common(&from, &[whole]));
        if part >= WITH_SOURCE_PORTS || from == [whole] {
            areas.extend(common(&to, &from).into_iter().map(|places| area(places, None)));
        } else if !from.is_empty() {
            let sources = from.iter().map(|it| Stretch { first: it.first - start, end: it.end - start });
            let sources = Arc::from_iter(sources);
            areas.extend(to.into_iter().map(|places| area(places, Some(&sources))));
        }
    }
    areas
}

/// What `matches` name, of each the ports that `ports` gives: ascending stretches with gaps between them. No matches name
/// everything.
fn stretches(matches: &[PortMatch], ports: impl Fn(&PortMatch) -> (u16, u16)) -> Vec<Stretch> {
    if matches.is_empty() {
        return vec![Stretch { first: 0, end: PLACES }];
    }
    let mut named: Vec<Stretch> = matches.iter().map(|range| stretch(range.protocol, ports(range))).collect();
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

fn stretch(protocol: u8, (first, last): (u16, u16)) -> Stretch {
    match WITH_PORTS.iter().find(|(known, _)| *known == protocol) {
        Some((_, part)) => {
            let start = part << PART_BITS;
            Stretch { first: start + u32::from(first), end: start + u32::from(last) + 1 }
        }
        None => {
            let first = ((OTHERS as u32) << PART_BITS) + (u32::from(protocol) << 8);
            Stretch { first, end: first + (1 << 8) }
        }
    }
}

/// What two lists of ascending stretches have in common.
fn common(one: &[Stretch], other: &[Stretch]) -> Vec<Stretch> {
    let (mut one, mut other) = (one, other);
    let mut both = Vec::new();
    while let ([a, ..], [b, ..]) = (one, other) {
        let (first, end) = (a.first.max(b.first), a.end.min(b.end));
        if first < end {
            both.push(Stretch { first, end });
        }
        if a.end <= b.end { one = &one[1..] } else { other = &other[1..] }
    }
    both
}

#[cfg(test)]
mod tests {
    use vswitch_model::{Action, RuleId};

    use super::*;

    fn text(ports: &[(u8, u16, u16)], source_ports: &[(u8, u16, u16)]) -> String {
        let matches = |list: &[(u8, u16, u16)]| -> Vec<_> {
            list.iter().map(|&(protocol, first, last)| PortMatch { protocol, first, last }).collect()
        };
        let rule = Rule {
            ports: matches(ports),
            source_ports: matches(source_ports),
            ..Rule::new(RuleId(16), Action::Allow, String::new())
        };
        let stretch = |it: &Stretch| format!("{:x}-{:x}", it.first, it.end);
        let area = |it: Area| match it.sources {
            None => stretch(&it.places),
            Some(from) => {
                let from: Vec<_> = from.iter().map(stretch).collect();
                format!("{}<{}", stretch(&it.places), from.join("+"))
            }
        };
        areas(&rule).into_iter().map(area).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_rule_is_areas_of_places_and_source_ports() {
        for (ports, source_ports, expected) in [
            (&[][..], &[][..], "0-60000"),
            (&[(6, 80, 80)], &[], "50-51"),
            (&[(6, 80, 80)], &[(6, 1, 2), (6, 3, 3), (6, 9, 9)], "50-51<1-4+9-a"),
            (&[(6, 80, 80)], &[(17, 1, 2)], ""),
            (&[(6, 80, 80), (17, 53, 53)], &[(17, 65_535, 65_535)], "10035-10036<ffff-10000"),
            (&[(6, 80, 80), (17, 53, 53)], &[(17, 0, 65_535), (6, 7, 7)], "50-51<7-8 10035-10036"),
            (&[], &[(132, 5, 5)], "20000-30000<5-6"),
            (&[], &[(1, 5, 5)], "30000-40000"),
            (&[(47, 0, 0), (1, 0x800, 0x8ff)], &[(47, 5, 5), (1, 9, 9)], "30800-30900 52f00-53000"),
            (&[(47, 0, 0), (50, 0, 0)], &[(50, 0, 65_535)], "53200-53300"),
        ] {
            assert_eq!(text(ports, source_ports), expected, "{ports:?} from {source_ports:?}");
        }
    }
}
