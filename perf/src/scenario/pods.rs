//! From one pod to 250: what a packet costs among many ports, and what an idle engine costs.
//!
//! Packets as in `lockstep`, from one pod to one of the others, or to all of them in turn. Idle, the worker is turned by
//! hand for what an empty turn costs (which is what busy polling costs, over and over), and runs by itself for what
//! adaptive polling takes of a core.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use vswitch::config::Poll;

use super::lockstep::on_one_core;
use super::lockstep::track::{Between, Exit, Track};
use super::{About, Scenario};
use crate::machine::Watch;
use crate::net::topology::Layout;
use crate::net::{Ends, Pattern, Switch, SwitchOptions, Topology};
use crate::result::{Measurement, median_of_sorted};
use crate::session::Session;
use crate::workload::{Case, Family, Kind, Node, Size, Traffic, Transport, Way};
use crate::{Error, Result};

const NAME: &str = "pods";
/// Flows of all packets together, or a little more.
const FLOWS: u32 = 1000;
/// Rules of policy in force.
const RULES: usize = 100;
/// How long a worker that nobody sends to is watched.
const IDLE: Duration = Duration::from_millis(400);
/// How long what was sent before is given to end.
const QUIET: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Pods;

impl Scenario for Pods {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "what a packet costs among 1 to 250 pods, all on one core, and what an idle engine costs",
            cases: "known-flow/v4/plain/.../pods-N/{to-one,to-all}, idle/pods-N/{busy,adaptive}",
            metrics: "packet (ns, generator and sink included), net (ns, less those of `drop`), growth (1: packet, by \
                      that of the fewest pods), turn (ns, empty), turns (1/s), cpu (% of a core), sleeps (1/s)",
            peers: "drop: generator straight into the sink",
            root: true,
            cores: 1,
            default: true,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let sizes: &[usize] = match (session.config.quick, session.config.full) {
            (true, _) => &[1, 100],
            (_, false) => &[1, 10, 50, 250],
            (_, true) => &[1, 2, 10, 50, 100, 175, 250],
        };
        session.begin(NAME, sizes.len() as u64 * 2);
        let mut first = [None, None];
        for pods in sizes {
            // By hand all is done on this core; by itself the worker has it, and nobody else is awake.
            on_one_core(|| by_hand(*pods, &mut first, session))?;
            session.advance();
            adaptive(*pods, session)?;
            session.advance();
        }
        Ok(())
    }
}

fn options(poll: Poll) -> SwitchOptions {
    SwitchOptions { poll, ..SwitchOptions::default() }
}

/// A node with one pod that sends, and `pods` others.
fn node(pods: usize) -> Node {
    Node { uplink: None, ..Node::in_memory(pods + 1, 0).with_rules(RULES) }
}

fn name(pods: usize, to: &str) -> String {
    let (kind, transport, size) = (Kind::KnownFlow, Transport::Udp, Size::Frame(64));
    let case = Case {
        kind,
        family: Family::V4,
        transport,
        way: Way::Local,
        flows: u64::from(FLOWS),
        rules: RULES,
        size,
        batch: crate::net::BATCH,
        ..Case::BASE
    };
    format!("{}/pods-{pods}/{to}", case.name())
}

/// Packets from the first pod to the second, or to all others in turn.
fn pattern(node: &Node, receivers: usize) -> Result<Pattern> {
    let stream = Traffic::new(Way::Local, Family::V4, 1).on(node)?;
    let ends = Ends::of(&stream.frame(0))?;
    let others = node.pods.iter().skip(1).take(receivers);
    let all: Vec<Ends> = others.map(|pod| Ends { destination: pod.v4.into(), ..ends }).collect();
    Ok(Pattern::new(&all, FLOWS.div_ceil(receivers as u32), 60))
}

fn by_hand(pods: usize, first: &mut [Option<f64>; 2], session: &mut Session) -> Result<()> {
    let node = node(pods);
    let topology = Topology::build(&node.desired(), Layout::default())?;
    let from = node.pods[0].port.to_string();
    let others: Vec<String> = node.pods.iter().skip(1).map(|pod| pod.port.to_string()).collect();
    for (number, (to, receivers)) in [("to-one", 1), ("to-all", pods)].into_iter().enumerate() {
        let case = name(pods, to);
        if !session.wants(&case) {
            continue;
        }
        session.step(&case)?;
        let pattern = pattern(&node, receivers)?;
        let between = Between::engine(&topology, &node.desired(), &from, options(Poll::Busy))?;
        let exit = Exit::Pods(&others);
        let ours = Track::new(super::lockstep::OURS, between, &topology, &pattern, &from, &exit)?;
        packets(&case, [ours, Track::alone(&pattern)?], &mut first[number], session)?;
    }
    let case = format!("idle/pods-{pods}/busy");
    if session.wants(&case) {
        session.step(&case)?;
        empty_turns(&case, &topology, &node, session)?;
    }
    Ok(())
}

/// Rounds, and batches in each.
fn effort(session: &Session) -> (usize, usize) {
    let rounds = session.config.rounds as usize;
    if session.config.quick { (rounds.max(3), 60) } else { (rounds.max(5), 200) }
}

fn packets(case: &str, mut tracks: [Track; 2], first: &mut Option<f64>, session: &mut Session) -> Result<()> {
    let (rounds, batches) = effort(session);
    let (watch, mut times) = (Watch::start(), [Vec::new(), Vec::new()]);
    for round in 0..=rounds {
        for (track, times) in tracks.iter_mut().zip(&mut times) {
            session.check()?;
            let mut took = track.run(batches)?;
            took.sort_by(f64::total_cmp);
            // The first round makes the flows.
            if round > 0 {
                times.push(median_of_sorted(&took));
            }
        }
    }
    let void = watch.void();
    for track in &mut tracks {
        track.check()?;
        if let Some(lost) = track.lost()? {
            return Err(Error::Miscounted(format!("{case}: {lost}")));
        }
    }
    let [ours, drop] = times;
    let net: Vec<f64> = ours.iter().zip(&drop).map(|(ours, drop)| ours - drop).collect();
    let row = |metric: &str, unit: &str, rounds: &[f64]| {
        Measurement::of_rounds(NAME, case, metric, unit, rounds).void_because(void.clone())
    };
    let beside = Measurement::of_rounds("", "", "", "", &drop).value;
    let packet = row("packet", "ns", &ours).beside("drop", beside);
    let fewest = *first.get_or_insert(packet.value);
    session.record(packet);
    session.record(row("net", "ns", &net));
    let growth: Vec<f64> = ours.iter().map(|time| time / fewest).collect();
    session.record(row("growth", "1", &growth));
    Ok(())
}

/// What a turn costs in which nothing comes.
fn empty_turns(case: &str, topology: &Topology, node: &Node, session: &mut Session) -> Result<()> {
    let options = options(Poll::Busy);
    // The hand goes first when both go, so that the engine's end finds its worker turning.
    let (_switch, mut hand) = Switch::by_hand(topology, &node.desired(), options)?;
    let worker = hand.take()?;
    let (watch, mut rounds) = (Watch::start(), Vec::new());
    let mut turn = |count: u32| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..count {
            if matches!(worker.step(), ControlFlow::Break(_)) {
                return Err(Error::setup("turn the worker", "it was told to end"));
            }
        }
        Ok(start.elapsed().as_nanos() as f64 / f64::from(count))
    };
    // Ports are taken for silent after 1024 visits without a packet.
    turn(4096)?;
    for _ in 0..effort(session).0 {
        session.check()?;
        // The median of many short spells: a spell that the machine interrupted is not one of them.
        let mut spells = (0..50).map(|_| turn(1024)).collect::<Result<Vec<f64>>>()?;
        spells.sort_by(f64::total_cmp);
        rounds.push(median_of_sorted(&spells));
    }
    let void = watch.void();
    let per_second: Vec<f64> = rounds.iter().map(|ns| 1e9 / ns).collect();
    for (metric, unit, values) in [("turn", "ns", &rounds), ("turns", "1/s", &per_second)] {
        session.record(Measurement::of_rounds(NAME, case, metric, unit, values).void_because(void.clone()));
    }
    Ok(())
}

/// What a worker that sleeps takes of a core while nothing comes.
fn adaptive(pods: usize, session: &mut Session) -> Result<()> {
    let case = format!("idle/pods-{pods}/adaptive");
    if !session.wants(&case) {
        return Ok(());
    }
    session.step(&case)?;
    let node = node(pods);
    let topology = Topology::build(&node.desired(), Layout::default())?;
    let known = workers();
    let switch = Switch::start(&topology, &node.desired(), options(Poll::Adaptive))?;
    let thread = workers().into_iter().find(|thread| !known.contains(thread));
    let thread = thread.ok_or_else(|| Error::setup("watch the worker", "it has no thread"))?;
    let status = &switch.engine().shared().workers[0].status;
    std::thread::sleep(QUIET);
    let (mut cpu, mut sleeps) = (Vec::new(), Vec::new());
    for _ in 0..effort(session).0 {
        session.check()?;
        let (ran, slept, start) = (ran_ns(&thread)?, status.sleeps.get(), Instant::now());
        std::thread::sleep(IDLE);
        let seconds = start.elapsed().as_secs_f64();
        cpu.push((ran_ns(&thread)? - ran) as f64 / 1e9 / seconds * 100.0);
        sleeps.push((status.sleeps.get() - slept) as f64 / seconds);
    }
    session.record(Measurement::of_rounds(NAME, &case, "cpu", "%", &cpu));
    session.record(Measurement::of_rounds(NAME, &case, "sleeps", "1/s", &sleeps));
    Ok(())
}

/// Threads of this process that are workers, by their folders in `/proc`.
fn workers() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let folders = tasks.map(|task| task.path().to_string_lossy().into_owned());
    let is_worker = |folder: &String| {
        std::fs::read_to_string(format!("{folder}/comm")).is_ok_and(|name| name.starts_with("worker-"))
    };
    folders.filter(is_worker).collect()
}

/// Nanoseconds a thread has run: the first figure of its schedstat.
fn ran_ns(folder: &str) -> Result<u64> {
    let path = format!("{folder}/schedstat");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::setup(&path, error))?;
    let first = text.split_whitespace().next().and_then(|figure| figure.parse().ok());
    first.ok_or_else(|| Error::setup(path, "it does not begin with a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_to_all_pods_are_counted_and_the_idle_are_watched() {
        let root = nix::unistd::geteuid().is_root();
        assert!(root || std::env::var_os("CI").is_none(), "this test needs root");
        if !root {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let mut session = Session::for_tests();
        let mut first = [None, None];
        for pods in [1, 12] {
            on_one_core(|| by_hand(pods, &mut first, &mut session)).unwrap();
        }
        adaptive(12, &mut session).unwrap();
        let of = |case: &str, metric: &str| {
            let rows = session.results.iter().filter(|row| row.case.ends_with(case) && row.metric == metric);
            rows.map(|row| row.value).collect::<Vec<f64>>()
        };
        assert_eq!(of("pods-1/to-one", "growth").len(), 1);
        assert!(of("pods-12/to-all", "packet")[0] > 0.0 && of("pods-12/busy", "turn")[0] > 0.0);
        let sleeps = of("pods-12/adaptive", "sleeps")[0];
        assert!(sleeps > 0.0, "it never slept");
        assert_eq!(session.results.len(), 2 * (2 * 3 + 2) + 2);
    }
}
