use proptest::prelude::*;

use super::*;
use crate::result::{Config, SCHEMA};

fn file(rows: Vec<Measurement>) -> ResultFile {
    ResultFile {
        schema: SCHEMA.to_owned(),
        commit: "0123abc".to_owned(),
        machine: Machine { cpu: "X".to_owned(), cores: 2, tsc_mhz: 2000.0, ..Machine::default() },
        config: Config { rounds: 3, ..Config::default() },
        complete: true,
        results: rows,
        notes: Vec::new(),
    }
}

fn figure(metric: &str, unit: &str, rounds: &[f64]) -> Measurement {
    Measurement::of_rounds("lockstep", "plain/v4", metric, unit, rounds)
}

fn of(comparison: &Comparison, metric: &str) -> Row {
    comparison.rows.iter().find(|row| row.metric == metric).unwrap().clone()
}

#[test]
fn only_ranges_that_do_not_overlap_have_moved() {
    let a = file(vec![
        figure("packet", "ns", &[100.0, 102.0, 104.0]).beside("kernel", 200.0),
        figure("slow", "ns", &[10.0, 10.2, 10.4]).beside("kernel", 20.0),
        figure("net", "ns", &[50.0, 52.0, 54.0]),
        figure("ratio/kernel", "1", &[1.9, 2.0, 2.1]),
    ]);
    let b = file(vec![
        figure("packet", "ns", &[80.0, 82.0, 84.0]).beside("kernel", 202.0),
        figure("slow", "ns", &[15.0, 15.1, 15.2]).beside("kernel", 29.0),
        figure("net", "ns", &[53.0, 55.0, 57.0]),
        figure("ratio/kernel", "1", &[1.0, 1.1, 1.2]),
    ]);
    let found = compare(&a, &b);
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    let metrics: Vec<_> =
        found.rows.iter().map(|row| (row.metric.as_str(), row.verdict, row.improved)).collect();
    assert_eq!(
        metrics,
        [
            ("ratio/kernel", Verdict::Moved, Some(false)),
            ("packet", Verdict::Moved, Some(true)),
            ("slow", Verdict::MachineMoved, None),
            ("net", Verdict::Within, None),
        ],
        "the largest move comes first"
    );
    let packet = of(&found, "packet");
    assert_eq!((packet.factor, packet.peers["kernel"]), (Some(82.0 / 102.0), 1.01));
    let text = text(&found);
    for part in [
        RULE,
        "-19.6 %",
        "better",
        "WORSE",
        "within noise",
        "kernel +1.0 %",
        "the machine moved",
        "2 of 4 figures moved: 1 better, 1 worse; 1 moved with the machine",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_cannot_be_compared_is_said_by_name() {
    let mut a = file(vec![
        figure("old", "ns", &[1.0]),
        figure("spoilt", "ns", &[1.0]).void_because(Some("steal 40 %".to_owned())),
        figure("twice", "ns", &[1.0]).void_because(Some("steal 40 %".to_owned())),
        figure("both", "ns", &[1.0]).void_because(Some("steal 50 %".to_owned())),
        figure("once", "ns", &[1.0]),
        figure("renamed", "ns", &[1.0]),
    ]);
    a.complete = false;
    let b = file(vec![
        figure("new", "ns", &[1.0]),
        figure("spoilt", "ns", &[9.0]),
        figure("twice", "ns", &[9.0]),
        figure("both", "ns", &[9.0]).void_because(Some("steal 50 %".to_owned())),
        figure("once", "ns", &[9.0, 9.0, 9.0]),
        figure("renamed", "cycles", &[9.0]),
        figure("renamed", "cycles", &[7.0]),
    ]);
    let found = compare(&a, &b);
    assert_eq!(of(&found, "spoilt").verdict, Verdict::Void);
    let once = of(&found, "once");
    assert_eq!((once.verdict, once.improved, once.noise), (Verdict::OneRound, None, None));
    let text = text(&found);
    for part in [
        "void, not compared (A and B: steal 50 %):\n  lockstep plain/v4 both ns\n",
        "void, not compared (A: steal 40 %):\n  lockstep plain/v4 spoilt ns\n  lockstep plain/v4 twice ns\n",
        "only in A: lockstep plain/v4 old ns",
        "only in A: lockstep plain/v4 renamed ns",
        "only in B: lockstep plain/v4 new ns",
        "only in B: lockstep plain/v4 renamed cycles",
        "A is not complete",
        "6 of 6 figures of A are of one round",
        "unknown",
        "B has lockstep plain/v4 renamed cycles more than once",
        "0 of 4 figures moved: 0 better, 0 worse; 0 moved with the machine, 1 of one round, 3 void",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn files_with_nothing_in_common_are_said_to_have_nothing() {
    let found = compare(&file(vec![figure("a", "ns", &[1.0])]), &file(vec![figure("b", "ns", &[1.0])]));
    assert!(found.rows.is_empty());
    let text = text(&found);
    assert!(
        text.contains("only in A") && text.ends_with("no figure in common: nothing was compared\n"),
        "{text}"
    );
}

#[test]
fn what_is_counted_needs_no_second_round() {
    let of_count = |count: f64| file(vec![figure("packet", "instructions", &[count]).beside("kept", count)]);
    let found = compare(&of_count(100.0), &of_count(103.0));
    let row = of(&found, "packet");
    assert_eq!(
        (row.verdict, row.improved),
        (Verdict::Moved, Some(false)),
        "what is kept is no machine that moves"
    );
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}

#[test]
fn on_another_machine_only_ratios_are_compared() {
    let rows = |time: f64, ratio: f64| {
        let ratios =
            ["ratio/kernel", "ratio/kernel/delay-p99"].map(|metric| figure(metric, "1", &[ratio; 2]));
        [vec![figure("packet", "ns", &[time; 2])], ratios.to_vec()].concat()
    };
    let (a, mut b) = (file(rows(100.0, 2.0)), file(rows(50.0, 3.0)));
    b.machine.cpu = "Y".to_owned();
    let found = compare(&a, &b);
    assert_eq!(of(&found, "packet").verdict, Verdict::OtherMachine);
    for ratio in ["ratio/kernel", "ratio/kernel/delay-p99"] {
        let row = of(&found, ratio);
        assert_eq!((row.verdict, row.improved), (Verdict::Moved, Some(true)), "{ratio}");
    }
    assert!(found.warnings.iter().any(|text| text.contains("processor X and Y")), "{:?}", found.warnings);
    b.machine = a.machine.clone();
    b.machine.tsc_mhz *= 1.001;
    assert!(compare(&a, &b).warnings.is_empty());
}

#[test]
fn from_nothing_to_something_is_the_largest_move() {
    let a = file(vec![
        figure("lost", "packets", &[0.0; 2]),
        figure("packet", "ns", &[1.0; 2]),
        figure("loss", "1", &[0.0; 2]),
    ]);
    let b = file(vec![
        figure("lost", "packets", &[3.0; 2]),
        figure("packet", "ns", &[9.0; 2]),
        figure("loss", "1", &[0.0; 2]),
    ]);
    let found = compare(&a, &b);
    assert_eq!(found.rows[0].metric, "lost");
    assert_eq!((found.rows[0].factor, found.rows[0].improved), (None, Some(false)));
    assert_eq!(of(&found, "loss").verdict, Verdict::Within);
    assert!(text(&found).contains("from 0"));
}

#[test]
fn which_way_is_better() {
    use Better::{Less, More};
    for (metric, unit, expected) in [
        ("packet", "ns", Some(Less)),
        ("stage/lookup", "cycles", Some(Less)),
        ("ratio/kernel", "1", Some(More)),
        ("ratio/kernel/delay-p99", "1", Some(More)),
        ("ratio/kernel/jitter", "1", Some(More)),
        ("ndr", "Mpps", Some(More)),
        ("new-flows", "M/s", Some(More)),
        ("p99.99", "us", Some(Less)),
        ("mos", "1", Some(More)),
        ("loss", "1", Some(Less)),
        ("packet-growth", "1", Some(Less)),
        ("calls", "calls", Some(More)),
        ("goodput", "Gbit/s", Some(More)),
        ("burst-loss", "1", Some(Less)),
        ("idle-cost", "%", Some(Less)),
        ("lost", "packets", Some(Less)),
        ("players", "1", None),
        ("sleeps", "1/s", None),
        ("turns", "1/s", None),
        ("turn", "ns", Some(Less)),
        ("tables", "bytes", Some(Less)),
        ("miss-growth", "1", Some(Less)),
    ] {
        assert_eq!(better(metric, unit), expected, "{metric} {unit}");
    }
}

proptest! {
    /// Swapping the files turns each move around and changes no verdict.
    #[test]
    fn there_and_back(a in proptest::collection::vec(1.0..1e3, 1..5), b in proptest::collection::vec(1.0..1e3, 1..5)) {
        let (a, b) = (file(vec![figure("packet", "ns", &a)]), file(vec![figure("packet", "ns", &b)]));
        let (there, back) = (of(&compare(&a, &b), "packet"), of(&compare(&b, &a), "packet"));
        prop_assert_eq!(there.verdict, back.verdict);
        prop_assert!((there.factor.unwrap() * back.factor.unwrap() - 1.0).abs() < 1e-9);
        prop_assert!((there.size() - back.size()).abs() < 1e-9);
        prop_assert!(there.improved.is_none() || there.improved != back.improved || there.factor == Some(1.0));
    }
}
