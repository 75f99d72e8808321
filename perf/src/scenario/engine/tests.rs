use vswitch_datapath::{Mark, parse};

use super::bench::Bench;
use super::stages::walk;
use super::*;
use crate::Error;
use crate::session::Interrupt;
use crate::workload::{Family, Size, Transport, Way};

fn bench(case: Case) -> Bench<Stream> {
    Bench::start(case, 4096, 1000.0, Interrupt::default()).unwrap()
}

fn small(case: Case) -> Case {
    Case { flows: 200, rules: 20, routes: 50, ..case }
}

#[test]
fn packets_of_every_way_come_through_and_are_counted() {
    for family in [Family::V4, Family::V6] {
        for way in [Way::Local, Way::Direct, Way::IntoVxlan, Way::FromVxlan] {
            let mut bench = bench(small(Case { family, way, size: Size::Imix, ..Case::BASE }));
            assert_eq!(bench.flows_created(), 200, "each flow is known before anything is measured");
            bench.far().keep();
            let took = bench.run(1000).unwrap();
            assert!(took.cycles > 0.0 && took.left_out < 1.0);
            assert_eq!(bench.flows_created(), 200);
            let parsed = parse::parse(&bench.far().keep()).unwrap();
            assert_eq!(parsed.destination_port == 4789, way == Way::IntoVxlan, "{family:?} {way:?}");
        }
    }
}

#[test]
fn each_packet_of_new_flows_opens_one() {
    for transport in [Transport::Udp, Transport::Syn] {
        let mut bench = bench(small(Case { kind: Kind::NewFlow, transport, ..Case::BASE }));
        bench.run(700).unwrap();
        assert_eq!(bench.flows_created(), 700);
    }
}

#[test]
fn an_engine_that_loses_every_thousandth_packet_is_caught() {
    let mut bench = bench(small(Case::BASE));
    bench.run(3000).unwrap();
    bench.far().lose_every(1000);
    // The port looks at it after its first packets.
    let error = bench.run(3000).unwrap_err();
    assert!(matches!(error, Error::Miscounted(_)));
    let text = error.to_string();
    assert!(
        text.contains("3000 packets were sent, 2997 came through") && text.contains("3 are nowhere"),
        "{text}"
    );
}

#[test]
fn packets_the_engine_drops_are_named_by_reason() {
    let mut bench = bench(small(Case::BASE));
    bench.send_denied();
    let text = bench.run(100).unwrap_err().to_string();
    assert!(text.contains("100 policy-egress") && text.contains("0 are nowhere"), "{text}");
}

#[test]
fn flows_that_gave_way_are_noticed() {
    // One port may hold three quarters of 1024.
    let many = Case { flows: 900, ..small(Case::BASE) };
    let run = |mut bench: Bench<Stream>| bench.run(900);
    let error = Bench::start(many, 1024, 1000.0, Interrupt::default()).and_then(run).unwrap_err();
    assert!(matches!(error, Error::Miscounted(_)), "{error}");
}

#[test]
fn every_stage_of_a_turn_is_marked() {
    let mut bench = bench(small(Case::BASE));
    let (stages, packets) = bench.run_stages(1000).unwrap();
    assert!((1..=1000).contains(&packets));
    let per_packet = stages.per_packet(packets);
    let marks: Vec<Mark> = per_packet.iter().map(|(mark, _)| *mark).collect();
    for mark in
        [Mark::Receive, Mark::Parse, Mark::Key, Mark::Lookup, Mark::Advance, Mark::Forward, Mark::Leave]
    {
        assert!(marks.contains(&mark), "{mark:?} in {marks:?}");
    }
    assert!(!marks.contains(&Mark::Miss), "all flows are known");
    let sum: f64 = per_packet.iter().map(|(_, cycles)| cycles).sum();
    assert!(walk(&per_packet) > 0.0 && walk(&per_packet) < sum);
}

#[test]
fn an_interrupt_ends_it() {
    let interrupt = Interrupt::default();
    let mut bench = Bench::start(small(Case::BASE), 4096, 1000.0, interrupt.clone()).unwrap();
    interrupt.set();
    assert!(matches!(bench.run(1000), Err(Error::Interrupted)));
}

fn running(case: Case) -> Running {
    let (planned, bench) = (Planned { case, stages: false }, bench(case));
    Running { planned, bench, rounds: Vec::new(), void: None, failed: None }
}

#[test]
fn one_case_that_fails_and_an_interruption_leave_what_was_measured() {
    let case = small(Case::BASE);
    let mut session = Session::for_tests();
    let mut all = [running(case), running(case)];
    all[0].bench.far().lose_every(1000);
    // The port looks at it after its first packets.
    run_rounds(&mut session, &mut all, 3000, 2).unwrap();
    assert!(matches!(all[0].failed, Some(Error::Miscounted(_))), "{:?}", all[0].failed);
    assert!(session.notes.len() == 1 && session.notes[0].contains(&case.name()), "{:?}", session.notes);
    assert!(all[1].failed.is_none());

    session.interrupt.set();
    assert!(matches!(run_rounds(&mut session, &mut all, 3000, 1), Err(Error::Interrupted)));
    assert_eq!(all[1].rounds.len(), 2);
    record(&mut session, &all[1], 1000.0);
    let rows: Vec<_> = session.results.iter().map(|row| (&*row.metric, &*row.unit)).collect();
    let with_tsc = [("packet", "cycles"), ("packet", "ns"), ("rate", "Mpps"), ("left-out", "%")];
    assert_eq!(rows, if has_tsc() { &with_tsc[..] } else { &with_tsc[1..] });
}

#[test]
fn the_flow_table_is_as_large_as_it_ships_or_larger() {
    let ships = u64::from(Config::default().flows);
    assert_eq!(room(&Case { flows: 1, ..Case::BASE }, 0), ships);
    assert!(room(&Case { flows: 10_000_000, ..Case::BASE }, 0) > 13_000_000);
}
