//! Which traffic a rule means, as the engine takes it: ranges, complements worked out.

use vswitch_model::PortMatch;

/// Protocol, first and last port.
pub(in crate::calc) type Range = (u8, u16, u16);

/// What is in one of `any_of` (None: everything) and in none of `none_of`, as far as it is of a protocol that `other_end`
/// has, the other end's `any_of`. None: nothing; empty: everything.
pub(super) fn port_matches(
    any_of: Option<&[Range]>,
    none_of: &[Range],
    other_end: Option<&[Range]>,
) -> Option<Vec<PortMatch>> {
    if any_of.is_none() && none_of.is_empty() {
        return Some(Vec::new());
    }
    let all: Vec<Range>;
    let any_of = match any_of {
        Some(any_of) => any_of,
        None => {
            let has =
                |protocol| other_end.is_none_or(|ranges| ranges.iter().any(|range| range.0 == protocol));
            let protocols = (0..=u8::MAX).filter(|protocol| has(*protocol));
            all = protocols.map(|protocol| (protocol, 0, u16::MAX)).collect();
            &all
        }
    };
    let left: Vec<_> = any_of.iter().flat_map(|range| without(*range, none_of)).collect();
    (!left.is_empty()).then_some(left)
}

/// What is in both lists.
pub(super) fn intersection(one: &[Range], other: &[Range]) -> Vec<Range> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    let common = pairs.map(|(a, b)| (a.0 == b.0, (a.0, a.1.max(b.1), a.2.min(b.2))));
    common.filter(|(same, (_, first, last))| *same && first <= last).map(|(_, range)| range).collect()
}

/// A range less others, in order.
fn without((protocol, first, last): Range, none_of: &[Range]) -> Vec<PortMatch> {
    let mut holes: Vec<_> = none_of.iter().filter(|hole| hole.0 == protocol).collect();
    holes.sort();
    let mut left = Vec::new();
    // Wider than a port, so that one after the last there is can be told.
    let mut next = u32::from(first);
    for (_, from, to) in holes {
        let end = u32::from(*from).min(u32::from(last) + 1);
        if next < end {
            left.push((next, end - 1));
        }
        next = next.max(u32::from(*to) + 1);
    }
    if next <= u32::from(last) {
        left.push((next, u32::from(last)));
    }
    let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    left.into_iter()
        .map(|(first, last)| PortMatch { protocol, first: port(first), last: port(last) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(matches: Option<Vec<PortMatch>>) -> String {
        let Some(matches) = matches else { return "nothing".into() };
        let one = |m: PortMatch| format!("{}:{}-{}", m.protocol, m.first, m.last);
        matches.into_iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn holes_are_cut_out_of_ranges() {
        let all = (6, 0, u16::MAX);
        for (any_of, none_of, expected) in [
            (vec![all], vec![], "6:0-65535"),
            (vec![all], vec![(17, 0, 9)], "6:0-65535"),
            (vec![all], vec![(6, 80, 80)], "6:0-79 6:81-65535"),
            (vec![all], vec![(6, 65535, 65535), (6, 0, 0)], "6:1-65534"),
            (vec![all], vec![all], "nothing"),
            (vec![(6, 10, 20)], vec![(6, 17, 30), (6, 12, 13), (6, 12, 15), (6, 0, 3)], "6:10-11 6:16-16"),
            (vec![(6, 10, 20), (17, 1, 2), (6, 5, 5)], vec![(6, 0, 15)], "6:16-20 17:1-2"),
            (vec![(6, 10, 20)], vec![(6, 21, 30)], "6:10-20"),
            (vec![], vec![], "nothing"),
        ] {
            assert_eq!(
                text(port_matches(Some(&any_of), &none_of, None)),
                expected,
                "{any_of:?} less {none_of:?}"
            );
        }
    }

    #[test]
    fn all_but_a_protocol_is_every_other() {
        assert_eq!(port_matches(None, &[], None), Some(vec![]), "everything");
        let others = port_matches(None, &[(17, 0, u16::MAX), (6, 1, u16::MAX)], None).unwrap();
        assert_eq!(others.len(), 255);
        assert!(others.iter().all(|m| m.protocol != 17));
        assert_eq!(text(Some(vec![others[6]])), "6:0-0");
    }

    #[test]
    fn what_is_left_is_of_the_protocols_of_the_other_end() {
        let of = |none_of: &[Range], other_end: &[Range]| text(port_matches(None, none_of, Some(other_end)));
        assert_eq!(of(&[(17, 5060, 5060)], &[(17, 1, 9)]), "17:0-5059 17:5061-65535");
        assert_eq!(
            of(&[(17, 5060, 5060)], &[(132, 1, 9), (132, 20, 20), (6, 1, 9)]),
            "6:0-65535 132:0-65535"
        );
        assert_eq!(of(&[(17, 0, u16::MAX)], &[(17, 1, 9)]), "nothing");
        assert_eq!(of(&[], &[(17, 1, 9)]), "", "everything");
    }

    #[test]
    fn an_intersection_is_what_is_in_both() {
        let one = [(6, 10, 20), (17, 1, 1)];
        assert_eq!(intersection(&one, &[(6, 15, 30), (6, 18, 18), (17, 2, 2)]), [(6, 15, 20), (6, 18, 18)]);
    }
}
