use super::track::{Between, Exit, Track};
use super::*;
use crate::net::topology::Layout;
use crate::net::{Ends, Pattern, SwitchOptions, Topology};
use crate::peer::Bare;
use crate::workload::{Family, Node, Traffic, Way};

/// Whether tests that need root can run. Skipped loudly without; under CI that is a failure.
fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "these tests need root");
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

fn two_pods() -> (Node, Topology, Pattern) {
    let node = Node { uplink: None, ..Node::in_memory(2, 0) };
    let topology = Topology::build(&node.desired(), Layout::default()).unwrap();
    let stream = Traffic::new(Way::Local, Family::V4, 1).on(&node).unwrap();
    let pattern = Pattern::new(&[Ends::of(&stream.frame(0)).unwrap()], 10, 60);
    (node, topology, pattern)
}

/// Every packet of every case is accounted for, and none is dropped, over ours and all peers.
#[test]
fn every_case_counts_to_the_packet() {
    if !root() {
        return;
    }
    let config = crate::result::Config::default();
    on_one_core(|| {
        // Ten times the rules take long to compile here, and are counted in no other way.
        for rig in cases::all(&config).into_iter().filter(|rig| rig.case.rules <= 1000) {
            let (tracks, missing) = rig.tracks()?;
            assert!(missing.is_empty(), "{missing:?}");
            let mut all: Vec<Entrant> = tracks.into_iter().map(Entrant::new).collect();
            take_turns(&mut all, 1, 3, &|| Ok(()))?;
            account_all(&mut all)?;
            assert!(all.iter().all(|one| one.rounds.len() == 1 && one.rounds[0] > 0.0));
            for one in &all {
                let (case, name) = (rig.name(), one.track.name);
                assert!(one.failed.is_none(), "{case}: {name}: {:?}", one.failed);
            }
        }
        Ok(())
    })
    .unwrap();
}

/// A forwarder that drops every thousandth packet.
fn leaky(name: &'static str) -> Track {
    let (_node, topology, pattern) = two_pods();
    let mut bare = Bare::open(&topology.switch, "pod-0", "pod-1").unwrap();
    let mut count = 0;
    let turn = move || {
        bare.turn_keeping(|_| {
            count += 1;
            count % 1000 != 0
        })
    };
    let far = ["pod-1".to_owned()];
    Track::new(name, Between::Other(Box::new(turn)), &topology, &pattern, "pod-0", &Exit::Pods(&far)).unwrap()
}

fn engine() -> Track {
    let (node, topology, pattern) = two_pods();
    let between = Between::engine(&topology, &node.desired(), "pod-0", SwitchOptions::default()).unwrap();
    let far = ["pod-1".to_owned()];
    Track::new(OURS, between, &topology, &pattern, "pod-0", &Exit::Pods(&far)).unwrap()
}

#[test]
fn a_peer_that_loses_packets_is_left_out_by_name_and_ours_is_an_error() {
    if !root() {
        return;
    }
    let mut all: Vec<Entrant> = [engine(), leaky("leaky")].map(Entrant::new).into();
    take_turns(&mut all, 1, 15, &|| Ok(())).unwrap();
    account_all(&mut all).unwrap();
    let mut session = Session::for_tests();
    record("a", &all, None, &mut session);
    let [note] = &*session.notes else { panic!("{:?}", session.notes) };
    assert!(note.starts_with("lockstep: a: peer leaky is left out: leaky: "), "{note}");
    let [packet] = &*session.results else { panic!("{:?}", session.results) };
    assert!(packet.metric == "packet" && packet.peers.is_empty(), "{packet:?}");

    let mut all = [Entrant::new(leaky(OURS))];
    take_turns(&mut all, 1, 15, &|| Ok(())).unwrap();
    assert!(matches!(account_all(&mut all), Err(Error::Miscounted(_))));
}

#[test]
fn whole_rounds_before_an_interruption_are_kept() {
    if !root() {
        return;
    }
    let left = std::cell::Cell::new(7);
    let mut all = [Entrant::new(engine())];
    let check = || {
        left.set(left.get() - 1);
        if left.get() == 0 { Err(Error::Interrupted) } else { Ok(()) }
    };
    // Two turns a round.
    assert!(matches!(take_turns(&mut all, 5, 20, &check), Err(Error::Interrupted)));
    account_all(&mut all).unwrap();
    assert_eq!(all[0].rounds.len(), 2, "three, of which the first warms up");
}

#[test]
fn a_forwarder_that_drops_every_thousandth_packet_is_caught() {
    if !root() {
        return;
    }
    let mut track = leaky("leaky");
    track.run(15).unwrap();
    track.check().unwrap();
    track.run(1).unwrap();
    let error = track.check().unwrap_err().to_string();
    assert_eq!(error, "leaky: 1024 packets were sent, 1023 came and 0 were dropped: 1 are missing");
}

#[test]
fn an_engine_that_drops_every_thousandth_packet_is_caught() {
    if !root() {
        return;
    }
    let mut track = engine();
    track.run(15).unwrap();
    assert_eq!(track.lost().unwrap(), None);
    track.run_with_one_spoofed().unwrap();
    track.check().unwrap();
    let lost = track.lost().unwrap().unwrap();
    assert!(lost.starts_with("ours: 1 of 1024 packets were dropped (") && lost.contains("spoof"), "{lost}");
}

#[test]
fn the_scenario_records_ours_beside_every_peer() {
    if !root() {
        return;
    }
    let mut session = Session::for_tests();
    session.config.only = Some("known-flow/v4/plain/flows-1k/rules-1k".to_owned());
    Lockstep.run(&mut session).unwrap();
    let metrics: Vec<&str> = session.results.iter().map(|row| row.metric.as_str()).collect();
    let peers = ["bare", "kernel", "conntrack", "set-1k", "linear-100", "linear-1k", "answered-1k"];
    let case = &session.results[0].case;
    // On a busy machine a round may cost no more than generator and sink alone did in another: that is told in place of a
    // ratio. Nothing else is.
    let untold = |peer: &&str| format!("lockstep: {case}: no {}: a round", ratio_name(peer, "net"));
    let (without, with): (Vec<&str>, Vec<&str>) =
        peers.into_iter().partition(|peer| session.notes.iter().any(|note| note.starts_with(&untold(peer))));
    assert_eq!(session.notes.len(), without.len(), "{:?}", session.notes);
    let ratios = peers.iter().flat_map(|peer| {
        let metrics: &[&str] = if with.contains(peer) { &["packet", "net"] } else { &["packet"] };
        metrics.iter().map(|metric| ratio_name(peer, metric))
    });
    let expected: Vec<String> = ["packet", "net"].map(str::to_owned).into_iter().chain(ratios).collect();
    assert_eq!(metrics, expected);
    assert_eq!(session.results[0].peers.len(), 8);
    assert!(session.results.iter().all(|row| row.value.is_finite() && row.low <= row.high));
}
