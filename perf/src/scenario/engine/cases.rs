//! Which cases are measured: one axis at a time from the base, then the corners.

use crate::workload::{Case, Family, Kind, Size, Transport, Way};

/// A case, and how much of it is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// The case.
    pub case: Case,
    /// Whether what each stage takes is measured, too.
    pub stages: bool,
}

const BASE: Case = Case::BASE;
const NEW: Case = Case { kind: Kind::NewFlow, ..BASE };

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A handful.
    Quick,
    /// The axes.
    Usual,
    /// The whole matrix: the axes and the corners.
    Full,
}

/// The cases in the order they are measured in.
#[must_use]
pub fn cases(extent: Extent) -> Vec<Planned> {
    let mut cases = Vec::new();
    let mut add = |stages: bool, case: Case| {
        if !cases.iter().any(|planned: &Planned| planned.case == case) {
            cases.push(Planned { case, stages });
        }
    };
    for way in [Way::IntoVxlan, Way::FromVxlan, Way::Local] {
        add(true, Case { way, ..BASE });
    }
    add(true, Case { family: Family::V6, ..BASE });
    add(true, Case { flows: 1_000_000, ..BASE });
    add(true, Case { batch: 1, ..BASE });
    add(false, Case { rules: 100_000, ..BASE });
    add(true, NEW);
    if extent == Extent::Quick {
        return cases;
    }
    for case in [BASE, NEW] {
        axes(case).into_iter().for_each(|case| add(false, case));
    }
    add(true, Case { flows: 10_000_000, ..BASE });
    add(true, Case { way: Way::FromVxlan, routes: 1_000_000, ..BASE });
    if extent == Extent::Full {
        corners().into_iter().for_each(|case| add(true, case));
    }
    cases
}

/// One axis at a time. Of new flows only what matters to them: not how many there are.
fn axes(base: Case) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in [Way::Local, Way::Direct, Way::FromVxlan] {
        cases.push(Case { way, ..base });
    }
    for way in [Way::IntoVxlan, Way::FromVxlan, Way::Local] {
        cases.push(Case { family: Family::V6, way, ..base });
    }
    cases.extend([0, 100, 10_000, 100_000].map(|rules| Case { rules, ..base }));
    cases.push(Case { routes: 1_000_000, ..base });
    if base.kind == Kind::NewFlow {
        cases.push(Case { transport: Transport::Syn, ..base });
        cases.push(Case { batch: 1, ..base });
        return cases;
    }
    cases.extend([1, 1_000_000].map(|flows| Case { flows, ..base }));
    cases.extend([Size::Voice, Size::Imix, Size::Packet(1500)].map(|size| Case { size, ..base }));
    cases.extend([1, 8, 64].map(|batch| Case { batch, ..base }));
    cases
}

fn corners() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in [Family::V4, Family::V6] {
        for way in [Way::Local, Way::Direct, Way::IntoVxlan, Way::FromVxlan] {
            for base in [BASE, NEW] {
                let large = Case { rules: 100_000, routes: 1_000_000, ..base };
                cases.extend([base, large].map(|case| Case { family, way, ..case }));
            }
            let many = Case { family, way, flows: 10_000_000, rules: 100_000, routes: 1_000_000, ..BASE };
            cases.extend([
                many,
                Case { batch: 64, ..many },
                Case { family, way, flows: 1, batch: 64, ..BASE },
            ]);
        }
        for size in [Size::Voice, Size::Imix, Size::Packet(1500)] {
            cases.extend([Way::Local, Way::FromVxlan].map(|way| Case { family, way, size, ..BASE }));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_extent_holds_the_one_before_and_no_name_twice() {
        let names = |extent| cases(extent).iter().map(|planned| planned.case.name()).collect::<Vec<_>>();
        let (quick, usual, full) = (names(Extent::Quick), names(Extent::Usual), names(Extent::Full));
        assert!(
            quick.iter().all(|name| usual.contains(name)) && usual.iter().all(|name| full.contains(name))
        );
        let different: std::collections::BTreeSet<_> = full.iter().collect();
        assert_eq!(different.len(), full.len());
        assert!(quick.contains(&"known-flow/v4/vxlan/flows-10k/rules-1k".to_owned()));
        assert!(usual.contains(&"known-flow/v4/vxlan/flows-10M/rules-1k".to_owned()));
    }
}
