//! Nothing is lost uncounted, and nobody is believed who loses something.

use std::time::Duration;

use super::bench::{LENGTH, ends, pattern};
use super::rows::usable;
use super::search::{is_heaped, is_offered};
use super::*;
use crate::Error;
use crate::machine::Taken;
use crate::net::{Ends, Pattern, Sent};
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

/// With a sink that is slower than the switch, as its core is the generator's.
#[test]
fn a_frame_that_the_ring_before_the_sink_has_no_room_for_is_counted_once() {
    let Some(cores) = cores() else { return };
    let mut bench = Bench::start(Who::Ours, Way::Local, cores, false).unwrap();
    bench.starve_sink(cores.generator).unwrap();
    // Where frames are lost depends on who gets the cores: slower and slower, until the switch carries some too many.
    let mut rates = [2e6, 1e6, 5e5, 2e5, 1e5].into_iter().cycle().take(25);
    let carried_too_many = rates.any(|rate| {
        let Outcome { sent, received, lost } = bench.offer(rate, 0.1).unwrap();
        assert_eq!(sent.frames, received + lost.all(), "{lost:?}");
        lost.behind > 0
    });
    assert!(carried_too_many, "no frame was lost before the sink");
}

#[test]
fn the_kernel_and_a_bare_forwarder_carry_the_same_frames() {
    let Some(cores) = cores() else { return };
    for (who, way) in [
        (Who::Kernel, Way::Local),
        (Who::Kernel, Way::IntoVxlan),
        (Who::KernelThreaded, Way::Local),
        (Who::Bare, Way::Local),
    ] {
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
    let Found { search, .. } = search(&Session::for_tests(), &mut bench, 100_000.0, effort).unwrap();
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
    assert!(!is_offered(&outcome, 0.001));
}

#[test]
fn a_rate_that_was_not_offered_does_not_count_as_carried() {
    let Some(cores) = cores() else { return };
    let mut bench = Bench::start(Who::Kernel, Way::Local, cores, false).unwrap();
    // The kernel forwards on the generator's core: it loses nothing, and holds the generator up.
    let effort = Effort { trial_s: 0.02, decide_s: 0.04, budget_s: 0.4, flood: 0 };
    let Found { search, not_offered, void } = search(&Session::for_tests(), &mut bench, 1e8, effort).unwrap();
    assert!(search.trials().iter().any(|trial| trial.rate >= 1e8 && trial.loss >= 1.0));
    // When the machine is at fault instead, that is said.
    let limit = not_offered.unwrap_or(f64::INFINITY);
    assert!(not_offered.is_some() || void.is_some());
    assert!(search.outcome(0).lower.is_none_or(|lower| lower < limit), "{:?}", search.trials());
}

#[test]
fn what_is_lost_of_a_heap_is_not_the_forwarders() {
    let outcome = |behind_max: u64, received| Outcome {
        sent: Sent {
            frames: 1000,
            rate: 1e6,
            behind: Duration::ZERO,
            behind_max: Duration::from_micros(behind_max),
            taken: Taken { percent: 0.0, by: "other programs" },
        },
        received,
        lost: Lost { behind: 1000 - received, ..Lost::default() },
    };
    // At a million in a second 250 us are 250 frames.
    assert!(is_heaped(&outcome(250, 990), 1e6));
    assert!(!is_heaped(&outcome(250, 1000), 1e6), "nothing was lost");
    assert!(!is_heaped(&outcome(150, 990), 1e6));
    assert!(!is_heaped(&outcome(250, 990), 5e5), "125 frames");
    assert!(is_offered(&outcome(250, 990), 0.1));
}

fn figures(ndr: f64) -> Figures {
    let (trials, width, not_offered) = (20.0, 2.0, None);
    Figures { ndr, pdr: ndr * 2.0, saturated: ndr * 3.0, mean: ndr, trials, width, not_offered }
}

fn find<'a>(session: &'a Session, metric: &str) -> Option<&'a Measurement> {
    session.results.iter().find(|row| row.case.starts_with("ndr/plain") && row.metric == metric)
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
    let ndr = find(&session, "ndr").unwrap();
    assert_eq!((ndr.low, ndr.high, ndr.void.clone()), (1.0, 1.2, None));
    assert!((ndr.peers["kernel"] - 0.45).abs() < 1e-9);
    let ratio = find(&session, "ratio/kernel/ndr").unwrap();
    assert!((ratio.low - 2.0).abs() < 1e-9 && (ratio.high - 3.0).abs() < 1e-9, "{ratio:?}");
    assert!(find(&session, "ratio/ovs/ndr").is_none(), "a peer that was not there has no ratio");
    let flood = session.results.iter().filter(|row| row.case == "saturated/plain/v4");
    let metrics: Vec<&str> = flood.map(|row| row.metric.as_str()).collect();
    assert_eq!(metrics, ["saturated", "ratio/kernel/saturated", "mean"]);
}

#[test]
fn when_every_round_is_void_the_figure_is_there_and_void() {
    let void = |why: &str| Some(why.to_owned());
    assert_eq!(usable([(1.0, void("taken")), (3.0, void("again"))]), (vec![1.0, 3.0], void("taken")));
    assert_eq!(usable([(1.0, void("taken")), (3.0, None)]), (vec![3.0], None));
}

#[test]
fn a_void_peer_does_not_stand_beside_a_figure_that_is_not() {
    let mut session = Session::for_tests();
    let rounds: Vec<Round> = vec![vec![
        (Who::Ours, figures(1.0), None),
        (Who::Kernel, figures(0.5), Some("taken".to_owned())),
        (Who::Bare, figures(2.0), None),
    ]];
    record(&mut session, Way::Local, &rounds);
    let ndr = find(&session, "ndr").unwrap();
    assert_eq!(
        (ndr.void.clone(), ndr.peers.keys().cloned().collect::<Vec<_>>()),
        (None, vec!["bare".to_owned()])
    );
    assert_eq!(find(&session, "ratio/kernel/ndr").unwrap().void.as_deref(), Some("taken"));
    assert_eq!(find(&session, "ratio/bare/ndr").unwrap().void, None);
    assert!(
        session.notes.iter().any(|note| note.contains("kernel") && note.contains("taken")),
        "{:?}",
        session.notes
    );
}

#[test]
fn a_peer_that_carried_nothing_in_a_round_has_a_figure_and_no_ratio() {
    let mut session = Session::for_tests();
    let round = |kernel: f64| vec![(Who::Ours, figures(1.0), None), (Who::Kernel, figures(kernel), None)];
    record(&mut session, Way::Local, &[round(0.5), round(0.0), round(0.5)]);
    assert!((find(&session, "ndr").unwrap().peers["kernel"] - 0.5).abs() < 1e-9);
    assert!(find(&session, "ratio/kernel/ndr").is_none());
    assert!(session.notes.iter().any(|note| note.contains("kernel (1 of 3)")), "{:?}", session.notes);
}

#[test]
fn a_round_that_was_cut_short_counts_with_what_it_has() {
    let mut session = Session::for_tests();
    let whole = vec![(Who::Ours, figures(1.0), None), (Who::Kernel, figures(0.5), None)];
    record(&mut session, Way::Local, &[whole, vec![(Who::Ours, figures(3.0), None)], Round::new()]);
    let ndr = find(&session, "ndr").unwrap();
    assert_eq!((ndr.low, ndr.high), (1.0, 3.0));
    let mut empty = Session::for_tests();
    record(&mut empty, Way::Local, &[Round::new()]);
    assert!(empty.results.is_empty());
}

#[test]
fn a_peer_that_fails_is_tried_again_once_and_an_interrupt_is_no_failure() {
    let mut session = Session::for_tests();
    let mut missing = Missing::default();
    let failed = || Err::<(), _>(Error::setup("start it", "no memory"));
    for (round, given_up) in [(0, false), (1, true)] {
        assert!(missing.or_note(&mut session, (NAME, Who::Ovs, round), failed()).unwrap().is_none());
        assert_eq!(missing.is(Who::Ovs), given_up);
    }
    assert!(session.notes[0].contains("ovs in round 1: start it: no memory"), "{:?}", session.notes);
    let unmet = Err::<(), _>(Error::Unmet("not installed".to_owned()));
    assert!(missing.or_note(&mut session, (NAME, Who::Testpmd, 0), unmet).unwrap().is_none());
    assert!(missing.is(Who::Testpmd));
    assert!(missing.or_note(&mut session, (NAME, Who::Ours, 0), failed()).is_err());
    session.interrupt.set();
    let ended = missing.or_note(&mut session, (NAME, Who::Bare, 0), failed());
    assert!(matches!(ended, Err(Error::Interrupted)));
    assert_eq!((missing.is(Who::Bare), session.notes.len()), (false, 3));
}

#[test]
fn a_generator_at_its_limit_is_named() {
    let mut session = Session::for_tests();
    session.record(Measurement::of_rounds(NAME, &case(GENERATOR, Way::Local), GENERATOR, "Mpps", &[3.0]));
    let held_up = Figures { not_offered: Some(0.7), ..figures(0.2) };
    let rounds: Vec<Round> = vec![vec![
        (Who::Ours, figures(0.95), None),
        (Who::Kernel, held_up, None),
        (Who::Bare, figures(0.8), None),
    ]];
    note_limits(&mut session, Way::Local, &rounds);
    let [ours, kernel] = &session.notes[..] else { panic!("{:?}", session.notes) };
    assert!(ours.contains("ours: 2.85 Mpps") && ours.contains("(3.00)"), "{ours}");
    assert!(
        kernel.contains("kernel: the generator was the limit at 0.700 Mpps, which is the kernel's"),
        "{kernel}"
    );
}
