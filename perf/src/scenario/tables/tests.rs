use std::collections::BTreeSet;

use super::*;

fn told() -> BTreeSet<&'static str> {
    Tables.about().metrics.iter().flat_map(|(names, _)| names.split(", ")).collect()
}

fn check(session: &Session, case: &str, metrics: &[&str]) {
    let rows = || session.results.iter().filter(|row| row.case == case);
    for metric in metrics {
        assert!(
            rows().any(|row| row.metric == *metric && row.value > 0.0),
            "{case} {metric}: {:?}",
            session.notes
        );
    }
    assert!(rows().all(|row| row.metric.starts_with("ratio/") || told().contains(&*row.metric)));
}

#[test]
fn a_fib_of_either_family_is_measured() {
    let mut session = Session::for_tests();
    for family in [Family::V4, Family::V6] {
        let case = routes::Case { family, routes: 200 };
        routes::run(&mut session, case).unwrap();
        check(&session, &case.name(), &["build", "memory", "bytes-each"]);
        for spread in ["of-all", "of-4096", "of-64"] {
            check(&session, &format!("{}/{spread}", case.name()), &["look-up"]);
        }
    }
}

#[test]
fn verdicts_and_judgements_are_measured() {
    let mut session = Session::for_tests();
    let case = rules::Case { rules: 100 };
    rules::run(&mut session, case).unwrap();
    check(&session, &case.name(), &["verdict", "judge"]);
}

#[test]
fn a_full_flow_table_is_measured_and_all_in_it_are_found() {
    let mut session = Session::for_tests();
    let case = flows::Case { flows: 1000 };
    flows::run(&mut session, case).unwrap();
    check(&session, &case.name(), &["insert", "look-up", "bytes-each", "flows-a-gib"]);
}

#[test]
fn only_what_is_wanted_is_measured() {
    let mut session = Session::for_tests();
    session.config.quick = false;
    session.config.only = Some("fib/v6/routes-1k/of-64".to_owned());
    let (fibs, verdicts, flows) = cases(&session);
    assert_eq!(fibs, [routes::Case { family: Family::V6, routes: 1000 }]);
    assert!(verdicts.is_empty() && flows.is_empty());
    session.config.only = Some("flows-10M".to_owned());
    assert!(cases(&session).2.is_empty());
    session.config.full = true;
    assert_eq!(cases(&session).2.len(), 1);
}

#[test]
fn an_interrupt_ends_it() {
    let mut session = Session::for_tests();
    session.interrupt.set();
    assert!(matches!(Tables.run(&mut session), Err(Error::Interrupted)));
    assert!(session.results.is_empty());
}
