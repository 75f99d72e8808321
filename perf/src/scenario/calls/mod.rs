//! VoIP: relayed G.711 calls, how many there can be and how they sound.
//!
//! A call goes from the caller's pod to the relay's to the callee's, and back: four times 50 packets a second through the
//! switch. One thread plays all callers and callees by packet sockets, open loop; the relay and the receivers are XDP
//! programs in the pods, so that the ends cost less than what is measured. Where the sender still falls behind its
//! schedule, that is said, and the number found is a lower bound.

mod relayed;
mod search;
#[cfg(test)]
mod tests;

use std::time::Duration;

use relayed::{CALLS_MAX, Calls, Quality, THROUGH_SWITCH, quality};
use search::{Found, Outcome, Range};

use super::{About, Scenario};
use crate::Result;
use crate::math::confidence::{loss_at_most, packets_to_show};
use crate::session::Session;
use crate::traffic::rounds::{Better, Rounds};
use crate::traffic::{Contender, Cores, Trial};

const NAME: &str = "calls";
const MOST: &str = "relayed/g711/most";
/// The loss that may not be exceeded, and how sure that has to be.
const LOSS: f64 = 1e-6;
const CONFIDENCE: f64 = 0.95;
/// A sender that hands a hundredth of its packets over this late, in nanoseconds, cannot keep its schedule: a call's own
/// packets are 20 ms apart.
const BEHIND_NS: u64 = 5_000_000;
/// What the machine may take from the sender in a trial that lost packets, in percent; beyond, it is tried again.
const TAKEN: f64 = 2.0;
/// How often a trial is tried again for that.
const AGAIN: u32 = 2;
/// How often the number found is lowered by a tenth because it lost something in the long run.
const LOWERED: u32 = 6;

/// The scenario.
#[derive(Debug)]
pub struct VoIp;

/// How long things are measured.
struct Effort {
    trial: Duration,
    confirm_max: Duration,
    quality: Duration,
    within: f64,
    calls: &'static [u32],
}

impl Effort {
    fn of(session: &Session) -> Self {
        let ms = Duration::from_millis;
        match (session.config.quick, session.config.full) {
            (true, _) => {
                Self { trial: ms(150), confirm_max: ms(800), quality: ms(600), within: 0.12, calls: &[100] }
            }
            (_, false) => Self {
                trial: ms(300),
                confirm_max: ms(2500),
                quality: ms(1500),
                within: 0.06,
                calls: &[100, 500],
            },
            (_, true) => Self {
                trial: ms(1000),
                confirm_max: ms(30_000),
                quality: ms(10_000),
                within: 0.03,
                calls: &[100, 500, 1000],
            },
        }
    }
}

impl Scenario for VoIp {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "relayed G.711 calls (20 ms packets, 214-byte frames; 200 packets/s of a call cross the switch): the most without loss, and how they sound",
            cases: "relayed/g711/most, relayed/g711/calls-N",
            metrics: "calls, packet-rate Mpps, loss-bound (95 %), ends (calls the sender could play with nobody forwarding); loss, jitter and one-way delay us, mos 1 to 4.5; ratio/PEER above 1: we are better",
            peers: "kernel (forwarding), kernel-conntrack (nftables: conntrack and a set of 1000), both with their receive work on the worker's core",
            root: true,
            cores: 2,
            default: true,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let (effort, cores) = (Effort::of(session), Cores::two()?);
        let rounds = session.config.rounds;
        session
            .begin(NAME, u64::from(rounds) * Contender::ALL.len() as u64 * (1 + effort.calls.len() as u64));
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
    if session.wants(MOST) {
        session.step("what the sender can do")?;
        let ends = Calls::of_the_ends(session, cores)?;
        figures.add((MOST, "ends", "calls", Better::Neither), Contender::Ours, ends, None);
    }
    Contender::ALL.into_iter().try_for_each(|contender| measure(session, effort, cores, contender, figures))
}

fn measure(
    session: &mut Session,
    effort: &Effort,
    cores: Cores,
    contender: Contender,
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
        add_most(session, effort, contender, &mut calls, figures)?;
    }
    session.advance();
    Ok(())
}

fn add_quality(figures: &mut Rounds, case: &str, contender: Contender, trial: &Trial, heard: &Quality) {
    let [delay, delay_p99, delay_p999, delay_max] = heard.delay_us;
    for (metric, unit, better, value) in [
        ("loss", "1", Better::Neither, heard.loss),
        ("delay-mean", "us", Better::Lower, delay),
        ("delay-p99", "us", Better::Lower, delay_p99),
        ("delay-p99.9", "us", Better::Lower, delay_p999),
        ("delay-max", "us", Better::Neither, delay_max),
        ("jitter-mean", "us", Better::Lower, heard.jitter_us.0),
        ("jitter-worst", "us", Better::Neither, heard.jitter_us.1),
        ("mos-mean", "mos", Better::Neither, heard.mos.0),
        ("mos-worst", "mos", Better::Neither, heard.mos.1),
    ] {
        figures.add((case, metric, unit, better), contender, value, trial.void.as_ref());
    }
}

fn add_most(
    session: &mut Session,
    effort: &Effort,
    contender: Contender,
    calls: &mut Calls,
    figures: &mut Rounds,
) -> Result<()> {
    let range = Range { first: 400, most: CALLS_MAX, within: effort.within };
    // What was lost while the machine took the cores away says nothing of the contender.
    let mut void = None;
    let mut found = search::most(range, |count| {
        session.step(&format!("{}: {count} calls", contender.key()))?;
        let (outcome, trial) = attempt(session, calls, count, effort.trial)?;
        void = void.take().or(trial.void.filter(|_| outcome != Outcome::Whole));
        Ok(outcome)
    })?;
    let bound = confirm(session, effort, contender, calls, &mut found)?;
    let packets = f64::from(found.calls) * THROUGH_SWITCH / 1e6;
    for (metric, unit, better, value) in [
        ("calls", "calls", Better::Higher, f64::from(found.calls)),
        ("packet-rate", "Mpps", Better::Neither, packets),
        ("loss-bound", "1", Better::Neither, bound),
    ] {
        figures.add((MOST, metric, unit, better), contender, value, void.as_ref());
    }
    if found.ends_too_slow {
        session.note(format!(
            "calls: the sender, not {}, was the limit at {} calls: there could be more",
            contender.key(),
            found.calls
        ));
    }
    Ok(())
}

/// One number of calls; tried again when packets were lost while the machine did not let the sender run.
fn attempt(session: &Session, calls: &mut Calls, count: u32, time: Duration) -> Result<(Outcome, Trial)> {
    let mut again = 0;
    loop {
        let trial = calls.run(session, count, time)?;
        if trial.lost() == 0 {
            return Ok((Outcome::Whole, trial));
        }
        if trial.taken_percent <= TAKEN || again == AGAIN {
            let behind = trial.sent.lateness.value_at_quantile(0.99) > BEHIND_NS;
            return Ok((if behind { Outcome::EndsTooSlow } else { Outcome::Lossy }, trial));
        }
        again += 1;
    }
}

/// Runs what was found for as long as it takes to be sure, within the time there is; lowers it while that loses. The loss
/// ratio that is still believable at the end.
fn confirm(
    session: &mut Session,
    effort: &Effort,
    contender: Contender,
    calls: &mut Calls,
    found: &mut Found,
) -> Result<f64> {
    for _ in 0..LOWERED {
        if found.calls == 0 {
            break;
        }
        session.step(&format!("{}: {} calls, to be sure", contender.key(), found.calls))?;
        let wanted =
            packets_to_show(LOSS, CONFIDENCE) as f64 / (f64::from(found.calls) * THROUGH_SWITCH / 2.0);
        let time = Duration::from_secs_f64(wanted.min(effort.confirm_max.as_secs_f64()));
        let (outcome, trial) = attempt(session, calls, found.calls, time)?;
        if outcome == Outcome::Whole {
            let bound = loss_at_most(0, trial.sent.packets, CONFIDENCE);
            if bound > LOSS {
                session.note(
                    "calls: loss-bound is what so many packets without a loss show (95 %); 1e-6 takes 3 million: --full",
                );
            }
            return Ok(bound);
        }
        found.calls = found.calls * 9 / 10;
    }
    session.note(format!("calls: {} loses packets even with {} calls", contender.key(), found.calls));
    found.calls = 0;
    Ok(1.0)
}
