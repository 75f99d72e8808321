//! Random clusters with policies of all kinds mixed: what the slow reference says of random flows, the tables, what
//! explains them, and packets through the walk have to say too.
//!
//! Not among them: what the reference has no part for, the labels that profiles give.

mod calico;
mod cluster;
mod dice;
mod focus;
mod kubernetes;
mod shrink;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::reference::{Flow, Reference, with_staged};
use crate::report::{Report, Way};
use crate::scene::{Expected, Scene};
use crate::switch::Switch;
use cluster::Cluster;
use dice::Dice;
use focus::Focus;

/// Probes of one state.
const PROBES: usize = 64;
/// States of one cluster, one after another: the policies change, and flows live on.
const STATES: usize = 8;

/// How many probes are asked for: 50,000, or what `VSWITCH_PROBES` says.
pub(crate) fn probes_wanted() -> usize {
    let said = std::env::var("VSWITCH_PROBES").ok();
    said.map_or(50_000, |text| text.parse().expect("VSWITCH_PROBES is a number of probes"))
}

/// Where chance begins: 1, or what `VSWITCH_SEED` says.
pub(crate) fn seed() -> u64 {
    let said = std::env::var("VSWITCH_SEED").ok();
    said.map_or(1, |text| text.parse().expect("VSWITCH_SEED is a number"))
}

/// Checks clusters until there were enough probes, on all cores.
pub(crate) fn check(report: &mut Report) {
    let clusters = probes_wanted().div_ceil(PROBES * STATES);
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut report = Report::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= clusters {
                return report;
            }
            check_cluster(seed().wrapping_mul(1_000_003).wrapping_add(number as u64), &mut report);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().for_each(|worker| report.add(worker.join().unwrap()));
    });
}

fn check_cluster(seed: u64, report: &mut Report) {
    let mut dice = Dice::new(seed);
    let is_ipv4 = dice.chance(60);
    // Either each state is about one thing, or policies of all kinds meet.
    let has_focus = dice.chance(60);
    let cluster = Cluster::roll(&mut dice, is_ipv4);
    let mut switch = Switch::default();
    let mut kept: Vec<Value> = Vec::new();
    report.cases += 1;
    for state in 0..STATES {
        let focus = if has_focus {
            kept = Vec::new();
            focus::roll(&mut dice, 2 * state, is_ipv4)
        } else {
            // About half of the policies stay.
            kept.retain(|_| dice.chance(50));
            Focus { objects: policies(&mut dice, state, is_ipv4), traffic: Vec::new() }
        };
        // Some have the one name there may be.
        let key = |object: &Value| format!("{} {}", object["kind"], object["metadata"]);
        for object in focus.objects {
            if !kept.iter().any(|other| key(other) == key(&object)) {
                kept.push(object);
            }
        }
        if has_focus {
            kept.extend((0..4).map(|number| calico::endpoint_slice(&mut dice, 10 * state + number, is_ipv4)));
        }
        let objects = cluster.objects.iter().chain(&kept).cloned();
        let mut scene = Scene {
            name: format!("cluster {seed} state {state}"),
            objects: objects.collect(),
            ends: cluster.ends.clone(),
            probes: (0..PROBES).map(|_| cluster.probe(&mut dice, &focus.traffic)).collect(),
        };
        expect(&mut scene);
        report.states += 1;
        report.probes += PROBES;
        let mut of_state = Report::default();
        switch.apply(&scene.objects);
        switch.judge(&scene, &mut of_state);
        switch.send(if state == 0 { Way::Packets } else { Way::Changed }, &scene, &mut of_state);
        let is_wrong = of_state.first_told().map(str::to_owned);
        report.add(of_state);
        if let Some(wrong) = is_wrong {
            report.note(format!("{wrong}\n{}", shrink::told(&scene)));
            return;
        }
    }
}

/// Has the reference say what is expected.
fn expect(scene: &mut Scene) {
    let reference = Reference::read(&scene.objects);
    let staged = Reference::read(&with_staged(&scene.objects));
    let Scene { ends, probes, .. } = scene;
    for probe in probes {
        let flow = Flow::of(probe, ends);
        let (now, then) = (reference.judge(&flow), staged.judge(&flow));
        let sides = now.map(|verdict| verdict.allowed);
        probe.expected = Expected {
            allowed: sides == [true; 2],
            sides: Some(sides),
            logged: Some(now.map(|verdict| verdict.logged)),
            staged: Some(then.map(|verdict| verdict.allowed)),
        };
    }
}

/// Policies of all kinds, and what they refer to.
fn policies(dice: &mut Dice, state: usize, is_ipv4: bool) -> Vec<Value> {
    let mut objects: Vec<Value> = calico::tiers().collect();
    // A place among the others that nobody else has, of this state or another.
    let free: Vec<_> = (0..1000).filter(|place| place % STATES == state).collect();
    let places: Vec<usize> = dice.some_of(&free, 16, 16);
    let mut places = places.into_iter();
    let mut place = move || places.next().unwrap();
    for number in 4 * state..4 * state + 4 {
        if dice.chance(70) {
            objects.push(kubernetes::network_policy(dice, number));
        }
        if dice.chance(10) {
            let policy = kubernetes::network_policy(dice, number);
            objects.push(calico::staged_kubernetes(policy));
        }
        if dice.chance(40) {
            objects.push(kubernetes::cluster_network_policy(dice, number, place()));
        }
        if dice.chance(20) {
            objects.push(kubernetes::admin_network_policy(dice, number, Some(place())));
        }
        if dice.chance(50) {
            // Odd: 1000 is where Kubernetes' policies are.
            objects.push(calico::policy(dice, number, 2 * place() + 1));
        }
        if dice.chance(30) {
            objects.push(calico::network_set(dice, number));
        }
        if dice.chance(25) {
            objects.push(calico::endpoint_slice(dice, number, is_ipv4));
        }
    }
    if dice.chance(20) {
        objects.push(kubernetes::admin_network_policy(dice, 0, None));
    }
    if dice.chance(20) {
        let is_of_namespace = dice.chance(70);
        objects.push(calico::profile(dice, is_of_namespace));
    }
    objects
}
