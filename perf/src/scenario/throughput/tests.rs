//! Nothing is lost uncounted, and nobody is believed who loses something.

use super::bench::{LENGTH, ends, pattern};
use super::*;
use crate::net::{Ends, Pattern};
use crate::workload::policy::DENIED_PORT;

/// Whether tests that need root and two cores can run. Skipped loudly without; under CI that is a failure.
fn cores() -> Option<Cores> {
    let cores = Cores::choose().ok().filter(|_| nix::unistd::geteuid().is_root());
    assert!(cores.is_some() || std::env::var_os("CI").is_none(), "these tests need root, and two cores");
    if cores.is_none() {
        eprintln!("SKIPPED: needs root, and two cores");
    }
    cores
}

#[track_caller]
fn assert_every_frame_is_known(bench: &mut Bench) {
    for (rate, seconds) in [(20_000.0, 0.1), (2_000_000.0, 0.1)] {
        let Outcome { sent, received, lost } = bench.offer(rate, seconds).unwrap();
        assert_eq!(sent.frames, (rate * seconds) as u64);
        assert_eq!(sent.frames, received + lost.all(), "{lost:?}");
    }
    let mut last = 0;
    let flood = bench.flood(300_000, |count| last = count.max(last)).unwrap();
    assert_eq!(
        (flood.sent.frames, flood.received + flood.lost.all()),
        (300_000, 300_000),
        "{:?}",
        flood.lost
    );
    assert!(last <= flood.received);
}

#[test]
fn ours_accounts_for_every_frame() {
    let Some(cores) = cores() else { return };
    for way in [Way::Local, Way::IntoVxlan] {
        assert_every_frame_is_known(&mut Bench::start(Who::Ours, way, cores, false).unwrap());
    }
}

#[test]
fn the_kernel_and_a_bare_forwarder_carry_the_same_frames() {
    let Some(cores) = cores() else { return };
    for (who, way) in [(Who::Kernel, Way::Local), (Who::Kernel, Way::IntoVxlan), (Who::Bare, Way::Local)] {
        assert_every_frame_is_known(&mut Bench::start(who, way, cores, false).unwrap());
    }
}

#[test]
fn peers_that_are_installed_carry_the_same_frames() {
    let Some(cores) = cores() else { return };
    for who in [Who::Ovs, Who::Testpmd] {
        match Bench::start(who, Way::Local, cores, false) {
            Ok(mut bench) => {
                assert!(bench.offer(20_000.0, 0.1).unwrap().received > 0);
                assert!(bench.watch().taken_percent() >= 0.0);
            }
            // CI has no peers: that they are named is all there is to see.
            Err(Error::Unmet(why)) => eprintln!("SKIPPED: {why}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A thousand templates, the last of which policy denies.
fn every_thousandth_denied(node: &crate::workload::Node, way: Way) -> Result<Pattern> {
    let ends = ends(node, way)?;
    let mut all: Vec<Ends> = (0..1000).map(|number| Ends { source_port: 1024 + number, ..ends }).collect();
    all[999].destination_port = DENIED_PORT;
    Ok(Pattern::new(&all, 1, LENGTH))
}

#[test]
fn a_switch_that_drops_every_thousandth_frame_has_no_no_drop_rate() {
    let Some(cores) = cores() else { return };
    let mut bench = Bench::start_with(Who::Ours, Way::Local, cores, false, every_thousandth_denied).unwrap();
    let outcome = bench.offer(50_000.0, 0.2).unwrap();
    let reached = outcome.sent.frames - outcome.lost.before;
    assert_eq!(outcome.sent.frames, 10_000);
    assert!(outcome.loss() >= 0.001, "{outcome:?}");
    assert!(outcome.lost.within >= reached / 1000 - 1 && outcome.lost.within <= 10, "{outcome:?}");
    let effort = Effort { trial_s: 0.1, decide_s: 0.1, budget_s: 0.6, flood: 0 };
    let search = search(&Session::for_tests(), &mut bench, 100_000.0, effort).unwrap();
    assert_eq!(search.outcome(0).lower, None, "{:?}", search.trials());
}

#[test]
fn a_generator_that_cannot_keep_its_schedule_says_so() {
    let Some(cores) = cores() else { return };
    let mut bench = Bench::start_with(Who::Bare, Way::Local, cores, false, pattern).unwrap();
    // No core makes 500 million frames a second.
    let outcome = bench.offer(5e8, 0.001).unwrap();
    assert!(outcome.sent.behind > Duration::from_millis(1), "{outcome:?}");
    assert!(outcome.sent.behind_max >= outcome.sent.behind);
}

fn figures(ndr: f64) -> Figures {
    Figures { ndr, pdr: ndr * 2.0, saturated: ndr * 3.0, mean: ndr, trials: 20.0, width: 2.0 }
}

#[test]
fn ratios_are_of_the_same_round_and_void_rounds_are_left_out() {
    let mut session = Session::for_tests();
    let void = || Some("taken".to_owned());
    let rounds: Vec<Round> = vec![
        vec![(Who::Ours, figures(1.0), None), (Who::Kernel, figures(0.5), None)],
        vec![(Who::Ours, figures(9.0), void()), (Who::Kernel, figures(0.1), None)],
        vec![(Who::Ours, figures(1.2), None), (Who::Kernel, figures(0.4), None)],
    ];
    record(&mut session, Way::Local, &rounds);
    let find =
        |metric: &str| session.results.iter().find(|row| row.case == "ndr/plain/v4" && row.metric == metric);
    let ndr = find("ndr").unwrap();
    assert_eq!((ndr.low, ndr.high, ndr.void.clone()), (1.0, 1.2, None));
    assert!((ndr.peers["kernel"] - 0.45).abs() < 1e-9);
    let ratio = find("ratio/kernel").unwrap();
    assert!((ratio.low - 2.0).abs() < 1e-9 && (ratio.high - 3.0).abs() < 1e-9, "{ratio:?}");
    assert!(find("ratio/ovs").is_none(), "a peer that was not there has no ratio");
    let flood = session.results.iter().filter(|row| row.case == "saturated/plain/v4");
    let metrics: Vec<&str> = flood.map(|row| row.metric.as_str()).collect();
    assert_eq!(metrics, ["saturated", "ratio/kernel", "mean"]);
}

#[test]
fn when_every_round_is_void_the_figure_is_there_and_void() {
    let (pairs, void) = usable(&[(1.0, 2.0, Some("taken".to_owned())), (3.0, 4.0, Some("again".to_owned()))]);
    assert_eq!((pairs, void), (vec![(1.0, 2.0), (3.0, 4.0)], Some("taken".to_owned())));
}
