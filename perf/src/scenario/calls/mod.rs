//! VoIP: relayed G.711 calls, how many there can be and how they sound.
//!
//! A call goes from the caller's pod to the relay's to the callee's, and back: four times 50 packets a second through the
//! switch. One thread plays all callers and callees by packet sockets, open loop; the relay and the receivers are XDP
//! programs in the pods, so that the ends cost less than what is measured. Where the sender still falls behind its
//! schedule, whatever was lost, that number counts as too many: it is said, and the number found is a lower bound, but for
//! who forwards on the sender's core, and so is what makes it late. More than the sender can play with nobody forwarding
//! is not asked for.

mod relayed;
mod search;
#[cfg(test)]
mod tests;

use std::time::Duration;

use relayed::{CALLS_MAX, Calls, Quality, THROUGH_SWITCH, quality};
use search::{Attempt, Found, Range};

use super::{About, Scenario};
use crate::Result;
use crate::math::confidence::packets_to_show;
use crate::math::mlrsearch::Goal;
use crate::session::Session;
use crate::traffic::rounds::{Better, Rounds};
use crate::traffic::{Contender, Cores, Trial};

const NAME: &str = "calls";
const MOST: &str = "relayed/g711/most";
/// The loss that may not be exceeded; how sure what is said of it is.
const LOSS: f64 = 1e-6;
const CONFIDENCE: f64 = 0.95;
/// A sender that hands a hundredth of its packets over this late, in nanoseconds, cannot keep its schedule: a call's own
/// packets are 20 ms apart.
const BEHIND_NS: u64 = 5_000_000;
/// What the machine may take from the sender in a trial that lost packets, in percent; beyond, it is tried again.
const TAKEN: f64 = 2.0;
/// How often a trial is tried again for that.
const AGAIN: u32 = 2;

/// The scenario.
#[derive(Debug)]
pub struct VoIp;

/// How long things are measured.
struct Effort {
    /// A full trial, what of them decides on a number, and the whole search, in seconds.
    search_s: [f64; 3],
    within: f64,
    quality: Duration,
    calls: &'static [u32],
}

impl Effort {
    fn of(session: &Session) -> Self {
        let (search_s, within, quality_ms, calls): (_, _, _, &[u32]) =
            match (session.config.quick, session.config.full) {
                (true, _) => ([0.1, 0.3, 2.0], 0.1, 600, &[100]),
                (_, false) => ([0.2, 0.6, 4.0], 0.05, 1000, &[100, 500]),
                (_, true) => ([shown_s(1000), 3.0 * shown_s(1000), 900.0], 0.03, 10_000, &[100, 500, 1000]),
            };
        Self { search_s, within, quality: Duration::from_millis(quality_ms), calls }
    }

    /// See [`Range`].
    fn range(&self, most: u32) -> Range {
        let [trial_s, duration_s, budget_s] = self.search_s;
        let goal = Goal { loss_ratio: LOSS, width: self.within, ..Goal::ndr(trial_s, duration_s) };
        Range { most, goal, budget: Duration::from_secs_f64(budget_s) }
    }
}

/// Seconds in which so many calls show that less than [`LOSS`] is lost.
fn shown_s(calls: u32) -> f64 {
    packets_to_show(LOSS, CONFIDENCE) as f64 / (f64::from(calls) * THROUGH_SWITCH / 2.0)
}

impl Scenario for VoIp {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "relayed G.711 calls (20 ms packets, 214-byte frames; 200 packets/s of a call cross the switch): the most without loss, and how they sound",
            cases: "relayed/g711/most, relayed/g711/calls-N",
            sets: "--quick: most and calls-100, without kernel-threaded; by default also calls-500; --full also calls-1000, with trials long enough to show 1e-6",
            metrics: &[
                (
                    "calls",
                    "calls at once, by MLRsearch: the most with a loss below 1e-6, half of the trials may be spoilt. A sender that hands 1 % of its packets over 5 ms too late could not play as many, and that number counts as too many",
                ),
                ("packet-rate", "Mpps: what these calls are in packets"),
                (
                    "loss-bound",
                    "1: the loss at most (95 %) by the trials that lost nothing; 1e-6 takes 3 million packets, so --full",
                ),
                ("search-width", "1: how far apart the most carried and the least not carried are"),
                ("ends", "calls: what the sender could play with nobody forwarding"),
                ("loss", "1: part of the packets"),
                ("delay-mean, delay-max", "us: one way, of the packets that arrived"),
                ("delay-p99, delay-p99.9", "us: of all packets sent; a lost one is later than all others"),
                ("jitter-mean, jitter-worst", "us: RFC 3550, of all streams and of the worst"),
                ("mos-mean, mos-worst", "mos, 1 to 4.5: E-model (G.107), of all streams and of the worst"),
                ("sender-late-p99", "us: what of the delay is the sender's own"),
                ("ratio/PEER/METRIC", "1, of calls, delay-p99, delay-p99.9: above 1 we are better"),
            ],
            peers: "kernel (forwarding as it comes, on the sender's core: its calls are what that core can do of both), kernel-threaded (its receive work in threads on the worker's core, behind a veth's ring; not with --quick), kernel-conntrack (as it comes, with nftables: conntrack and a set of 1000)",
            root: true,
            cores: 2,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let (effort, cores) = (Effort::of(session), Cores::two()?);
        let rounds = session.config.rounds;
        let steps = Contender::of(session).len() * (1 + effort.calls.len());
        session.begin(NAME, u64::from(rounds) * steps as u64);
        let mut figures = Rounds::new(NAME);
        let outcome = (0..rounds).try_for_each(|_| {
            round(session, &effort, cores, &mut figures)?;
            figures.next();
            Ok(())
        });
        figures.record(session);
        outcome
    }
}

fn round(session: &mut Session, effort: &Effort, cores: Cores, figures: &mut Rounds) -> Result<()> {
    let mut ends = CALLS_MAX;
    if session.wants(MOST) {
        session.step("what the sender can do")?;
        let (can, void) = Calls::of_the_ends(session, cores)?;
        figures.add((MOST, "ends", "calls", Better::Neither), Contender::Ours, can, void.as_ref());
        ends = (can as u32).clamp(1, CALLS_MAX);
    }
    for contender in Contender::of(session) {
        let outcome = measure(session, effort, cores, (*contender, ends), figures);
        figures.without(session, *contender, outcome)?;
    }
    Ok(())
}

fn measure(
    session: &mut Session,
    effort: &Effort,
    cores: Cores,
    (contender, ends): (Contender, u32),
    figures: &mut Rounds,
) -> Result<()> {
    session.step(&format!("{}: set up", contender.key()))?;
    let mut calls = Calls::set_up(contender, cores)?;
    for count in effort.calls {
        let case = format!("relayed/g711/calls-{count}");
        if session.wants(&case) {
            session.step(&format!("{}: {count} calls", contender.key()))?;
            let trial = calls.run(session, *count, effort.quality)?;
            add_quality(figures, &case, contender, &trial, &quality(&trial, 2 * count)?);
        }
        session.advance();
    }
    if session.wants(MOST) {
        add_most(session, effort, (contender, ends), &mut calls, figures)?;
    }
    session.advance();
    Ok(())
}

fn add_quality(figures: &mut Rounds, case: &str, contender: Contender, trial: &Trial, heard: &Quality) {
    let [delay, delay_p99, delay_p999, delay_max] = heard.delay_us;
    for (metric, unit, better, value) in [
        ("loss", "1", Better::Neither, heard.loss),
        ("delay-mean", "us", Better::Neither, delay),
        ("delay-p99", "us", Better::Lower, delay_p99),
        ("delay-p99.9", "us", Better::Lower, delay_p999),
        ("delay-max", "us", Better::Neither, delay_max),
        ("jitter-mean", "us", Better::Neither, heard.jitter_us.0),
        ("jitter-worst", "us", Better::Neither, heard.jitter_us.1),
        ("mos-mean", "mos", Better::Neither, heard.mos.0),
        ("mos-worst", "mos", Better::Neither, heard.mos.1),
        ("sender-late-p99", "us", Better::Neither, trial.late_us(0.99)),
    ] {
        figures.add((case, metric, unit, better), contender, value, trial.void());
    }
}

fn add_most(
    session: &mut Session,
    effort: &Effort,
    (contender, ends): (Contender, u32),
    calls: &mut Calls,
    figures: &mut Rounds,
) -> Result<()> {
    // What was lost while the machine took the cores away says nothing of the contender.
    let mut void = None;
    let found = search::most(effort.range(ends), CONFIDENCE, |count, time| {
        session.step(&format!("{}: {count} calls", contender.key()))?;
        let trial = attempt(session, calls, count, time)?;
        spoil(&mut void, &trial);
        Ok(Attempt { packets: (trial.sent.packets, trial.lost()), ends_too_slow: is_late(&trial) })
    })?;
    let packets = f64::from(found.calls) * THROUGH_SWITCH / 1e6;
    // That the ends could not play a single call says nothing of who forwards: there is no figure then.
    let nothing = found.calls == 0 && found.ends_too_slow;
    let shown = |value: f64| if nothing { f64::NAN } else { value };
    for (metric, unit, better, value) in [
        ("calls", "calls", Better::Higher, shown(f64::from(found.calls))),
        ("packet-rate", "Mpps", Better::Neither, shown(packets)),
        ("loss-bound", "1", Better::Neither, found.loss_bound),
        ("search-width", "1", Better::Neither, found.width),
    ] {
        figures.add((MOST, metric, unit, better), contender, value, void.as_ref());
    }
    notes(session, contender, &found);
    Ok(())
}

fn notes(session: &mut Session, contender: Contender, found: &Found) {
    let (who, calls) = (contender.key(), found.calls);
    if calls == 0 {
        session.note(format!("calls: {who}: none is shown to work"));
    } else if found.ends_too_slow {
        session.note(if contender.is_where_the_sender_is() {
            format!("calls: {calls} calls are what one core can send and {who} forward together")
        } else {
            format!("calls: the sender, not {who}, was the limit at {calls} calls: there could be more")
        });
    }
    if found.loss_bound > LOSS {
        session.note(
            "calls: loss-bound is what so many packets without a loss show (95 %); 1e-6 takes 3 million: --full",
        );
    }
}

/// Keeps why an attempt that was not whole must not be used. Less than what voids other figures makes a sender late.
fn spoil(void: &mut Option<String>, trial: &Trial) {
    let (taken, late) = (trial.taken_percent, is_late(trial));
    let why = (late && taken > TAKEN)
        .then(|| format!("the sender was late, and others took {taken:.0} % of the time"));
    if (late || trial.lost() > 0) && void.is_none() {
        *void = trial.void().cloned().or(why);
    }
}

/// One number of calls; tried again when it was too many while the machine took the cores away.
fn attempt(session: &Session, calls: &mut Calls, count: u32, time: Duration) -> Result<Trial> {
    let mut again = 0;
    loop {
        let trial = calls.run(session, count, time)?;
        let whole = trial.lost() == 0 && !is_late(&trial);
        if whole || trial.taken_percent <= TAKEN || again == AGAIN {
            return Ok(trial);
        }
        again += 1;
    }
}

/// A sender that was late has not asked for as many calls as it should have, whatever was lost of what it did send.
fn is_late(trial: &Trial) -> bool {
    trial.sent.lateness.value_at_quantile(0.99) > BEHIND_NS
}
