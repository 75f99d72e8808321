//! Delays of every frame that came, and rows of them.

use super::*;
use crate::result::Measurement;

#[test]
fn every_frame_that_comes_has_a_delay_loaded_or_not() {
    let cores = Cores::choose().ok().filter(|_| nix::unistd::geteuid().is_root());
    assert!(cores.is_some() || std::env::var_os("CI").is_none(), "this test needs root, and two cores");
    let Some(cores) = cores else { return eprintln!("SKIPPED: needs root, and two cores") };
    let mut bench = Bench::start(Who::Ours, WAY, cores, true).unwrap();
    for busy in [false, true] {
        // That there are as many delays as frames is looked at inside.
        let values = one(&mut bench, 20_000.0, 0.1, busy).unwrap();
        let numbers = values.clone().map(|(value, _)| value);
        let (of_frames, rest) = numbers.split_at(QUANTILES.len() + 1);
        assert!(of_frames.is_sorted() && of_frames[0] > 0.0, "{values:?}");
        // What the generator is late, the frames are: to the width of a bucket.
        assert!(rest[0] >= 0.0 && of_frames[QUANTILES.len()] >= rest[0] * 0.98, "{values:?}");
        assert!(rest[1] > 0.0 && rest[1] <= 0.0201, "no faster than it was asked to: {values:?}");
    }
}

fn values(p99: f64) -> Values {
    [1.0, 2.0, p99, 50.0, 60.0, 70.0, 0.5, 0.1].map(|value| (value, None))
}

fn round(ours: Values, bare: Values) -> Vec<One> {
    let of = |who, values| {
        let mut all: Vec<_> = cases().map(|_| None).collect();
        all[2] = Some(values);
        One { who, cases: all }
    };
    vec![of(Who::Ours, ours), of(Who::Bare, bare)]
}

#[test]
fn a_peer_that_takes_twice_as_long_has_the_ratio_two() {
    let mut session = Session::for_tests();
    record(&mut session, &[round(values(10.0), values(20.0))]);
    assert!(session.results.iter().all(|row| row.case == "load-50/quiet/plain/v4"));
    let metrics: Vec<&str> = session.results.iter().map(|row| row.metric.as_str()).collect();
    assert_eq!(
        metrics,
        [
            "p50",
            "ratio/bare/p50",
            "p90",
            "p99",
            "ratio/bare/p99",
            "p99.9",
            "p99.99",
            "max",
            "generator-late",
            "offered"
        ]
    );
    let ratio = &session.results[4];
    assert!((ratio.value - 2.0).abs() < 1e-9, "{ratio:?}");
    assert!((session.results[3].peers["bare"] - 20.0).abs() < 1e-9);
}

#[test]
fn a_quantile_that_is_the_generators_own_is_void_and_no_other() {
    let mut session = Session::for_tests();
    let mut theirs = values(20.0);
    theirs[2].1 = Some("late".to_owned());
    record(&mut session, &[round(values(10.0), theirs)]);
    let find = |metric: &str| session.results.iter().find(|row| row.metric == metric).unwrap();
    assert_eq!((find("p99").void.clone(), find("p99").peers.len()), (None, 0));
    assert_eq!(find("ratio/bare/p99").void.as_deref(), Some("late"));
    assert_eq!((find("p90").peers.len(), find("ratio/bare/p50").void.clone()), (1, None));
    assert_eq!(session.notes.len(), 1, "{:?}", session.notes);
    assert!(session.notes[0].contains("load-50/quiet/plain/v4") && session.notes[0].contains("bare"));
}

#[test]
fn the_rate_that_throughput_found_is_used_and_a_void_one_is_not() {
    let mut session = Session::for_tests();
    let case = throughput::case("ndr", WAY);
    let row = Measurement::of_rounds(throughput::NAME, &case, "ndr", "Mpps", &[0.5]).beside("ovs", 0.25);
    session.record(row.clone());
    assert_eq!(known_rate(&session, Who::Ours), Some(500_000.0));
    assert_eq!(known_rate(&session, Who::Ovs), Some(250_000.0));
    assert_eq!(known_rate(&session, Who::Bare), None);
    session.results = vec![row.void_because(Some("taken".to_owned()))];
    assert_eq!(known_rate(&session, Who::Ours), None);
}
