use std::collections::BTreeSet;

use super::*;
use crate::workload::shape::{Policies, SPREADS, Spread};

fn metrics(session: &Session, case: &str) -> BTreeSet<String> {
    let rows = session.results.iter().filter(|row| row.case == case);
    rows.map(|row| row.metric.clone()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn measured(shape: Shape, family: Family, counts: &[usize], changes: bool) -> Session {
    let mut session = Session::for_tests();
    verdict::run(&mut session, &Group { shape, family, counts: counts.to_vec(), changes }).unwrap();
    assert!(session.results.iter().all(|row| row.value > 0.0), "{:?}", session.results);
    let about = Policy.about();
    let told: BTreeSet<&str> = about.metrics.iter().flat_map(|(names, _)| names.split(", ")).collect();
    assert!(session.results.iter().all(|row| told.contains(&*row.metric)));
    session
}

const OF_PACKETS: [&str; 4] = ["asked", "miss", "packet", "walk"];
const OF_TABLES: [&str; 5] = ["bytes-each", "compile", "load", "policy-tables", "tables"];

#[test]
fn a_larger_table_is_compared_with_the_smallest_and_changed() {
    let session = measured(Shape::Policies, Family::V4, &[100, 300], true);
    for spread in SPREADS.map(Spread::key) {
        assert_eq!(metrics(&session, &format!("policies/v4/rules-100/{spread}")), names(&OF_PACKETS));
        let growth = ["turn-growth", "walk-growth", "miss-growth"];
        let larger = [&OF_PACKETS[..], &growth].concat();
        assert_eq!(metrics(&session, &format!("policies/v4/rules-300/{spread}")), names(&larger));
    }
    let changed = [&OF_TABLES[..], &["change-rule", "change-member"]].concat();
    assert_eq!(metrics(&session, "policies/v4/rules-300"), names(&changed));
}

#[test]
fn packets_of_every_shape_make_flows_of_their_own() {
    let v4 = [Shape::Ranges, Shape::Overlaps, Shape::Blocks, Shape::List].map(|shape| (shape, Family::V4));
    for (shape, family) in v4.into_iter().chain([(Shape::Policies, Family::V6)]) {
        let session = measured(shape, family, &[100], false);
        let name = Policies { shape, family, count: 100 }.name();
        assert_eq!(metrics(&session, &name), names(&OF_TABLES));
        for spread in SPREADS.map(Spread::key) {
            assert_eq!(metrics(&session, &format!("{name}/{spread}")), names(&OF_PACKETS));
        }
    }
}

#[test]
fn what_is_wanted_is_measured_with_what_it_is_compared_with() {
    let mut session = Session::for_tests();
    session.config.quick = false;
    let wanted = |session: &Session| -> Vec<_> {
        groups(session).into_iter().filter_map(|group| group.wanted(session)).collect()
    };
    assert_eq!(wanted(&session), groups(&session));
    session.config.only = Some("ranges/v4/rules-100k/of-all".to_owned());
    let [only] = &wanted(&session)[..] else { panic!("{:?}", wanted(&session)) };
    assert_eq!((only.shape, &*only.counts), (Shape::Ranges, &[100, 100_000][..]));
    session.config.only = Some("label".to_owned());
    assert!(wanted(&session).is_empty() && label::cases(&session).len() == 2);
}

#[test]
fn an_interrupt_ends_it() {
    let mut session = Session::for_tests();
    session.interrupt.set();
    assert!(matches!(Policy.run(&mut session), Err(Error::Interrupted)));
    assert!(session.results.is_empty());
}
