//! From one pod to 250: what a packet costs among many ports, and what an idle engine costs.
//!
//! Packets as in `lockstep`, from one pod to one of the others, or to all of them in turn. Idle, the worker is turned by
//! hand for what an empty turn costs (which is what busy polling costs, over and over), and runs by itself for what
//! adaptive polling takes of a core.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use vswitch::config::Poll;

use super::lockstep::track::{Between, Exit, Track};
use super::lockstep::turns::{Entrant, account_all, take_turns};
use super::lockstep::{OURS, on_one_core};
use super::{About, Scenario};
use crate::machine::Watch;
use crate::net::topology::Layout;
use crate::net::{Ends, Pattern, Switch, SwitchOptions, Topology};
use crate::result::{Measurement, median_of_sorted};
use crate::session::Session;
use crate::workload::{Case, Family, Kind, Node, Size, Traffic, Transport, Way};
use crate::{Error, Result};

const NAME: &str = "pods";
/// The track of one pod to send to.
const BASE: &str = "one-pod";
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
            sets: "--quick: pods-1 and -100; by default 1, 10, 50 and 250; --full 1, 2, 10, 50, 100, 175 and 250",
            metrics: &[
                ("packet", "ns: generator and sink included"),
                ("net", "ns: packet less that of `drop`, round by round: the engine's own"),
                (
                    "growth",
                    "1: net by that of an engine with one pod to send to, which takes turns with this one",
                ),
                ("packet-growth", "1: the same of packet, diluted by generator and sink"),
                ("turn", "ns: a turn in which nothing comes (busy)"),
                ("turns", "1/s: as many of these fit into a second (busy)"),
                ("cpu", "% of a core that an idle worker takes (adaptive)"),
                ("sleeps", "1/s: how often it sleeps (adaptive)"),
            ],
            peers: "drop: generator straight into the sink",
            root: true,
            cores: 1,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let sizes: &[usize] = match (session.config.quick, session.config.full) {
            (true, _) => &[1, 100],
            (_, false) => &[1, 10, 50, 250],
            (_, true) => &[1, 2, 10, 50, 100, 175, 250],
        };
        session.begin(NAME, sizes.len() as u64 * 2);
        for pods in sizes {
            // By hand all is done on this core; by itself the worker has it, and nobody else is awake.
            on_one_core(|| by_hand(*pods, session))?;
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

fn by_hand(pods: usize, session: &mut Session) -> Result<()> {
    let node = node(pods);
    let topology = Topology::build(&node.desired(), Layout::default())?;
    let others: Vec<String> = node.pods.iter().skip(1).map(|pod| pod.port.to_string()).collect();
    for (to, receivers) in [("to-one", 1), ("to-all", pods)] {
        let case = name(pods, to);
        if !session.wants(&case) {
            continue;
        }
        session.step(&case)?;
        let pattern = pattern(&node, receivers)?;
        let ours = track(OURS, &node, &topology, &pattern, &others)?;
        let mut tracks = vec![ours, Track::alone(&pattern)?];
        if pods > 1 {
            tracks.push(base()?);
        }
        packets(&case, tracks, session)?;
    }
    let case = format!("idle/pods-{pods}/busy");
    if session.wants(&case) {
        session.step(&case)?;
        empty_turns(&case, &topology, &node, session)?;
    }
    Ok(())
}

/// An engine whose packets come from the first pod.
fn track(
    name: &'static str,
    node: &Node,
    topology: &Topology,
    pattern: &Pattern,
    others: &[String],
) -> Result<Track> {
    let from = node.pods[0].port.to_string();
    let between = Between::engine(topology, &node.desired(), &from, options(Poll::Busy))?;
    Track::new(name, between, topology, pattern, &from, &Exit::Pods(others))
}

/// The engine that others are compared with: as many flows, one pod to send to.
fn base() -> Result<Track> {
    let node = node(1);
    let topology = Topology::build(&node.desired(), Layout::default())?;
    let other = [node.pods[1].port.to_string()];
    track(BASE, &node, &topology, &pattern(&node, 1)?, &other)
}

/// Rounds, and batches that count in each.
fn effort(session: &Session) -> (usize, usize) {
    let rounds = session.config.rounds as usize;
    if session.config.quick { (rounds.max(3), 60) } else { (rounds.max(5), 200) }
}

fn packets(case: &str, tracks: Vec<Track>, session: &mut Session) -> Result<()> {
    let (rounds, batches) = effort(session);
    let mut all: Vec<Entrant> = tracks.into_iter().map(Entrant::new).collect();
    let watch = Watch::start();
    let outcome = take_turns(&mut all, rounds, batches, &|| session.check());
    let void = watch.void();
    // Whole rounds before an interruption are worth keeping.
    if matches!(outcome, Ok(()) | Err(Error::Interrupted)) {
        account_all(&mut all).map_err(|error| Error::Miscounted(format!("{case}: {error}")))?;
        // The other two are nobody's peers: without them there is nothing to record.
        if let Some(error) = all.iter_mut().find_map(|one| one.failed.take()) {
            return Err(Error::Miscounted(format!("{case}: {error}")));
        }
        if all.iter().all(|one| !one.rounds.is_empty()) {
            record(case, &all, void.as_ref(), session);
        }
    }
    outcome
}

fn record(case: &str, all: &[Entrant], void: Option<&String>, session: &mut Session) {
    let (ours, drop) = (&all[0].rounds, &all[1].rounds);
    let by = |a: &[f64], b: &[f64], of: fn(f64, f64) -> f64| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| of(*a, *b)).collect()
    };
    let row = |metric: &str, unit: &str, rounds: &[f64]| {
        Measurement::of_rounds(NAME, case, metric, unit, rounds).void_because(void.cloned())
    };
    let beside = Measurement::of_rounds("", "", "", "", drop).value;
    session.record(row("packet", "ns", ours).beside("drop", beside));
    let net = by(ours, drop, |all, drop| all - drop);
    session.record(row("net", "ns", &net));
    if let Some(base) = all.get(2) {
        let net_of_base = by(&base.rounds, drop, |all, drop| all - drop);
        session.record(row("growth", "1", &by(&net, &net_of_base, |many, one| many / one)));
        session.record(row("packet-growth", "1", &by(ours, &base.rounds, |many, one| many / one)));
    }
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
        cpu.push(ran_ns(&thread)?.saturating_sub(ran) as f64 / 1e9 / seconds * 100.0);
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

/// Nanoseconds a thread has run: the first figure of its schedstat. 0 of one that has ended meanwhile.
fn ran_ns(folder: &str) -> Result<u64> {
    let path = format!("{folder}/schedstat");
    let text = match std::fs::read_to_string(&path) {
        // ENOENT before it is opened, ESRCH after.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(0);
        }
        text => text.map_err(|error| Error::setup(&path, error))?,
    };
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
        for pods in [1, 12] {
            on_one_core(|| by_hand(pods, &mut session)).unwrap();
        }
        adaptive(12, &mut session).unwrap();
        let of = |case: &str, metric: &str| {
            let rows = session.results.iter().filter(|row| row.case.ends_with(case) && row.metric == metric);
            rows.map(|row| row.value).collect::<Vec<f64>>()
        };
        assert!(of("pods-1/to-one", "growth").is_empty(), "one pod is what others are compared with");
        assert!(of("pods-12/to-all", "packet-growth")[0] > 0.0);
        assert_eq!(of("pods-12/to-one", "growth").len(), 1);
        assert!(of("pods-12/to-all", "packet")[0] > 0.0 && of("pods-12/busy", "turn")[0] > 0.0);
        let sleeps = of("pods-12/adaptive", "sleeps")[0];
        assert!(sleeps > 0.0, "it never slept");
        assert_eq!(session.results.len(), 2 * (2 * 2 + 2) + 2 * 2 + 2);
    }
}
