//! Change under traffic: policy swapped, routes loaded, pods coming and going, while two pods that have nothing to do
//! with it speak with each other.

mod change;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::time::Duration;

use change::{Change, State};

use super::{About, Scenario};
use crate::Result;
use crate::session::Session;
use crate::traffic::rounds::{Better, Rounds};
use crate::traffic::{Bed, Contender, Cores, Schedule, Sender, Stream, Trial};
use crate::workload::ALLOWED_PORTS;

const NAME: &str = "churn";
/// Conversations, a stream each way, and how often each sends: 20 000 packets a second, a small part of what any contender
/// forwards.
const CONVERSATIONS: u32 = 32;
const PERIOD: Duration = Duration::from_micros(3200);
/// Payload behind RTP's header.
const PAYLOAD: usize = 60;
/// Traffic before a change is asked for and after it is in force.
const AROUND: Duration = Duration::from_millis(100);

/// The scenario.
#[derive(Debug)]
pub struct Churn;

impl Scenario for Churn {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "change under 20 000 packets/s of pods that have nothing to do with it: how long until it is in force, what is lost and delayed meanwhile",
            cases: "quiet, policy/rules-N/load and /swap (every rule replaced), routes/routes-N/load and /withdraw, pods/pods-N/come and /go (one by one)",
            sets: "--quick: rules-10k, routes-100k, pods-4; by default rules-100k, also routes-1M (ours alone), pods-16; --full pods-128, and the kernel's routes-1M and kernel-threaded",
            metrics: &[
                (
                    "in-force",
                    "ms: asked to acknowledged; of pods for each; ours asked within this process, not by its API's socket, and the state saved to memory, not to a disk; the kernel's with the start of ip or nft by nsenter and setpriv, and the reading of its text. What changes shares the two cores with the traffic: while it does, only what the sender loses makes a figure void",
                ),
                ("lost", "packets"),
                ("delay-p99", "us: of all packets sent"),
                ("delay-max", "us: of those that arrived"),
                ("sender-late-max", "us: what of the delay is the sender's own"),
                ("ratio/PEER/in-force", "1: above 1 we are faster"),
            ],
            peers: "kernel (as it comes; routes by ip -batch; a million only with --full), kernel-threaded (its receive work in threads on the worker's core; only with --full), kernel-conntrack (as it comes; nft -f replacing a set of N addresses by which it decides; N rules in a row would be slower by far); none for pods",
            root: true,
            cores: 2,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let (cores, plan) = (Cores::two()?, plan(session));
        session.begin(NAME, plan.len() as u64 * u64::from(session.config.rounds));
        let mut figures = Rounds::new(NAME);
        let outcome = (0..session.config.rounds).try_for_each(|_| {
            round(session, cores, &plan, &mut figures)?;
            figures.next();
            Ok(())
        });
        figures.record(session);
        outcome
    }
}

/// What is done in a round, and by whom. A million routes by `ip -batch` take more than a minute: only with --full.
fn plan(session: &Session) -> Vec<(Contender, Change)> {
    let (rules, pods) = match (session.config.quick, session.config.full) {
        (true, _) => (10_000, 4),
        (_, false) => (100_000, 16),
        (_, true) => (100_000, 128),
    };
    let (few, many) = (Change::Routes(100_000), Change::Routes(1_000_000));
    let mut plan = vec![
        (Contender::Ours, Change::Policy(rules)),
        (Contender::KernelConntrack, Change::Policy(rules)),
        (Contender::Ours, few),
        (Contender::Kernel, few),
        (Contender::Ours, Change::Pods(pods)),
    ];
    if !session.config.quick {
        plan.push((Contender::Ours, many));
    }
    if session.config.full {
        plan.extend([(Contender::KernelThreaded, few), (Contender::Kernel, many)]);
    }
    plan
}

fn round(
    session: &mut Session,
    cores: Cores,
    plan: &[(Contender, Change)],
    figures: &mut Rounds,
) -> Result<()> {
    for (contender, change) in plan {
        if change.steps().iter().any(|step| session.wants(&change.case(step))) {
            let outcome = run(session, cores, *contender, *change, figures);
            figures.without(session, *contender, outcome)?;
        }
        session.advance();
    }
    Ok(())
}

fn run(
    session: &mut Session,
    cores: Cores,
    contender: Contender,
    change: Change,
    figures: &mut Rounds,
) -> Result<()> {
    session.step(&format!("{}: {}: set up", contender.key(), change.case("")))?;
    let mut traffic = Traffic::set_up(contender, cores, change)?;
    let (quiet, _) = traffic.during(|_| Ok(Duration::ZERO))?;
    if change == Change::Policy(change.count()) {
        add(figures, "quiet", contender, &quiet, quiet.void());
    }
    for step in change.steps() {
        let case = change.case(step);
        session.step(&format!("{}: {case}", contender.key()))?;
        let prepared = traffic.state.prepare(step)?;
        let (trial, took) = traffic.during(|switch| prepared.bring_into_force(switch))?;
        let ms = took.as_secs_f64() * 1e3 / change.parts() as f64;
        let in_force = (case.as_str(), "in-force", "ms", Better::Lower);
        // The switch's compiler, or nft and ip, run wherever the kernel puts them: that they take time from those that
        // forward is part of what a change costs.
        let why = |void: &String| format!("{void}, what changes included");
        let void = trial.sender_void.as_ref().map(why);
        figures.add(in_force, contender, ms, void.as_ref());
        add(figures, &case, contender, &trial, void.as_ref());
    }
    Ok(())
}

fn add(figures: &mut Rounds, case: &str, contender: Contender, trial: &Trial, void: Option<&String>) {
    for (metric, unit, value) in [
        ("lost", "packets", trial.lost() as f64),
        ("delay-p99", "us", trial.delay_us(0.99)),
        ("delay-max", "us", trial.longest_us()),
        ("sender-late-max", "us", trial.late_us(1.0)),
    ] {
        figures.add((case, metric, unit, Better::Neither), contender, value, void);
    }
}

/// Two pods that speak with each other all the time.
struct Traffic {
    bed: Bed,
    sender: Sender,
    schedule: Schedule,
    streams: Vec<Stream>,
    state: State,
}

impl Traffic {
    fn set_up(contender: Contender, cores: Cores, change: Change) -> Result<Self> {
        let state = State::new(contender, change);
        let bed = Bed::build(contender, state.desired(), None, cores)?;
        let (one, other) = (bed.place("pod-0")?, bed.place("pod-1")?);
        let sources = [(one, other), (other, one)].map(|(from, to)| bed.source(from, to, PAYLOAD));
        let sender = Sender::new(sources.into_iter().collect::<Result<Vec<_>>>()?);
        let first = *ALLOWED_PORTS.start();
        let both = |n: u32| [0, 1].map(|source| Stream { source, port: first + n as u16 });
        let streams = (0..CONVERSATIONS).flat_map(both).collect();
        let schedule = Schedule::even(2 * CONVERSATIONS, PERIOD);
        let state = state.on(bed.topology())?;
        let mut traffic = Self { bed, sender, schedule, streams, state };
        // The first packets make the flows.
        traffic.during(|_| Ok(Duration::ZERO))?;
        Ok(traffic)
    }

    /// What becomes of the traffic while `body` works, from a moment before to a moment after; and what `body` gives.
    fn during(
        &mut self,
        body: impl FnOnce(Option<&crate::net::Switch>) -> Result<Duration>,
    ) -> Result<(Trial, Duration)> {
        let plan = (&self.schedule, self.streams.as_slice());
        self.bed.run(&mut self.sender, plan, u64::MAX, |switch, stop| {
            std::thread::sleep(AROUND);
            let took = body(switch.as_ref());
            std::thread::sleep(AROUND);
            stop.store(true, Ordering::Relaxed);
            took
        })
    }
}
