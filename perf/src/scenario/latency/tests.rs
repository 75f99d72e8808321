//! Delays of every frame that came, and rows of them.

use super::*;

#[test]
fn every_frame_that_comes_has_a_delay_loaded_or_not() {
    let cores = Cores::choose().ok().filter(|_| nix::unistd::geteuid().is_root());
    assert!(cores.is_some() || std::env::var_os("CI").is_none(), "this test needs root, and two cores");
    let Some(cores) = cores else { return eprintln!("SKIPPED: needs root, and two cores") };
    let mut bench = Bench::start(Who::Ours, WAY, cores, true).unwrap();
    for busy in [None, Some(cores.generator)] {
        // That there are as many delays as frames is looked at inside.
        let (delays, _) = one(&mut bench, 20_000.0, 0.1, busy).unwrap();
        let (of_frames, late) = delays.split_at(QUANTILES.len() + 1);
        assert!(of_frames.is_sorted() && of_frames[0] > 0.0, "{delays:?}");
        assert!(late[0] >= 0.0, "{delays:?}");
    }
}

fn delays(p99: f64) -> Delays {
    [1.0, 2.0, p99, 50.0, 60.0, 70.0, 0.5]
}

#[test]
fn a_peer_that_takes_twice_as_long_has_the_ratio_two() {
    let mut session = Session::for_tests();
    let one = |who, p99| {
        let mut all: Vec<_> = cases().map(|_| None).collect();
        all[2] = Some((delays(p99), None));
        One { who, delays: all }
    };
    record(&mut session, &[vec![one(Who::Ours, 10.0), one(Who::Bare, 20.0)]]);
    assert!(session.results.iter().all(|row| row.case == "load-50/quiet/plain/v4"));
    let metrics: Vec<&str> = session.results.iter().map(|row| row.metric.as_str()).collect();
    assert_eq!(metrics, ["p50", "p90", "p99", "ratio/bare", "p99.9", "p99.99", "max", "generator-late"]);
    let ratio = &session.results[3];
    assert!((ratio.value - 2.0).abs() < 1e-9, "{ratio:?}");
    assert!((session.results[2].peers["bare"] - 20.0).abs() < 1e-9);
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
