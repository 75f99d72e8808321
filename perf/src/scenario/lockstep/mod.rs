//! Generator, switch and sink take turns on one core: what a packet costs on real veths, steady on a noisy machine.
//!
//! A packet socket puts a batch of 64 frames on a pod's end of a veth; the kernel's part is done inside that system call,
//! the engine's by turning its worker by hand, and an XDP program at the far end counts and drops. Peers do the same in the
//! same round, a few batches at a time. In the cases of sockets programs in the pods send and receive instead.

mod cases;
mod sockets;
pub(crate) mod track;
pub(crate) mod turns;

#[cfg(test)]
mod tests;

use super::{About, Scenario};
use crate::machine::Watch;
use crate::result::{Measurement, ratio_name};
use crate::session::Session;
use crate::{Error, Result};

use cases::Rig;
use turns::{Entrant, account_all, take_turns};

const NAME: &str = "lockstep";
/// The name of what is measured, among its peers.
pub(crate) const OURS: &str = "ours";
/// The peer that is only generator and sink.
const DROP: &str = "drop";

/// See the module.
#[derive(Debug)]
pub struct Lockstep;

impl Scenario for Lockstep {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "what a packet costs from veth to veth, all on one core, in batches of 64",
            cases: "known-flow/{v4,v6}/{plain,vxlan}/flows-1k/rules-{0,1k,10k}/batch-64; sockets/...: datagrams from a program in a pod with a tun to one in another, with what their kernels do",
            sets: "--quick: rules-0 of each, and plain/v4 with rules-1k; the others add rules-10k, plain/v6 and vxlan with rules-1k",
            metrics: &[
                ("packet", "ns: generator and sink included"),
                ("net", "ns: packet less that of `drop`, round by round"),
                (
                    "ratio/PEER/packet",
                    "1: the peer's time by ours, above 1 we are faster; diluted by generator and sink, which all share",
                ),
                ("ratio/PEER/net", "1: the same of net, so of what forwards alone"),
            ],
            peers: "drop: generator straight into the sink; kernel: forwarding (VXLAN in the cases that encapsulate); \
                    bare: AF_XDP and no decision, nor encapsulation, so that its ratios of a vxlan case set our \
                    50 bytes more beside none; nftables behind connection tracking: conntrack (all new ones pass), \
                    set-1k, linear-100, linear-1k (one-way flows, so that each packet goes through the rules), \
                    answered-1k (linear-1k with flows that were answered); of sockets: kernel, and veth (ours, with pods that have \
                    veths, received by AF_XDP)",
            root: true,
            cores: 1,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let wanted: Vec<Rig> = cases::all(&session.config);
        let wanted: Vec<Rig> = wanted.into_iter().filter(|rig| session.wants(&rig.name())).collect();
        session.begin(NAME, wanted.len() as u64);
        on_one_core(|| {
            for rig in &wanted {
                session.step(&rig.name())?;
                measure(rig, session)?;
                session.advance();
            }
            Ok(())
        })
    }
}

/// Runs `body` on a thread that stays on the last core.
pub(crate) fn on_one_core(body: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let core = core_affinity::get_core_ids().and_then(|cores| cores.last().copied());
    let core = core.ok_or_else(|| Error::setup("choose a core", "none is known"))?;
    std::thread::scope(|scope| {
        let pinned = move || {
            if core_affinity::set_for_current(core) {
                body()
            } else {
                Err(Error::setup(format!("use core {}", core.id), "refused"))
            }
        };
        let thread = std::thread::Builder::new().name(NAME.to_owned()).spawn_scoped(scope, pinned);
        let thread = thread.map_err(|error| Error::setup("start a thread", error))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Rounds of a case, and batches of each track that count in one.
fn effort(session: &Session) -> (usize, usize) {
    let rounds = session.config.rounds as usize;
    match (session.config.quick, session.config.full) {
        (true, _) => (rounds.max(5), 60),
        (_, false) => (rounds.max(9), 150),
        (_, true) => (rounds.max(15), 400),
    }
}

fn measure(rig: &Rig, session: &mut Session) -> Result<()> {
    let (tracks, missing) = rig.tracks()?;
    missing.into_iter().for_each(|note| session.note(note));
    let mut all: Vec<Entrant> = tracks.into_iter().map(Entrant::new).collect();
    let (rounds, batches) = effort(session);
    let watch = Watch::start();
    let outcome = take_turns(&mut all, rounds, batches, &|| session.check());
    let void = watch.void();
    // Whole rounds before an interruption are worth keeping; packets of ours that are nowhere make all of them worthless.
    if matches!(outcome, Ok(()) | Err(Error::Interrupted)) {
        let case = rig.name();
        account_all(&mut all).map_err(|error| Error::Miscounted(format!("{case}: {error}")))?;
        record(&case, &all, void.as_ref(), session);
    }
    outcome
}

fn record(case: &str, all: &[Entrant], void: Option<&String>, session: &mut Session) {
    for one in all {
        if let Some(error) = &one.failed {
            session.note(format!("{NAME}: {case}: peer {} is left out: {error}", one.track.name));
        }
    }
    let fit = || all.iter().filter(|one| one.failed.is_none() && !one.rounds.is_empty());
    let rounds = |name: &str| fit().find(|one| one.track.name == name).map(|one| &one.rounds);
    let peers = || fit().filter(|one| one.track.name != OURS);
    let row = |metric: &str, unit: &str, rounds: &[f64]| {
        Measurement::of_rounds(NAME, case, metric, unit, rounds).void_because(void.cloned())
    };
    let median = |rounds: &[f64]| Measurement::of_rounds("", "", "", "", rounds).value;
    let Some(ours) = rounds(OURS) else { return };
    let beside = |row: Measurement, peer: &Entrant| row.beside(peer.track.name, median(&peer.rounds));
    session.record(peers().fold(row("packet", "ns", ours), beside));
    let drop = rounds(DROP);
    if let Some(drop) = drop {
        let beside =
            |row: Measurement, peer: &Entrant| row.beside(peer.track.name, median(&less(&peer.rounds, drop)));
        session.record(peers().fold(row("net", "ns", &less(ours, drop)), beside));
    }
    for peer in peers().filter(|peer| peer.track.name != DROP) {
        let name = |metric| ratio_name(peer.track.name, metric);
        session.record(row(&name("packet"), "1", &by(&peer.rounds, ours)));
        let Some(drop) = drop else { continue };
        let (theirs, ours) = (less(&peer.rounds, drop), less(ours, drop));
        // What costs no more than generator and sink alone has a cost of its own that cannot be told.
        if theirs.iter().chain(&ours).all(|net| *net > 0.0) {
            session.record(row(&name("net"), "1", &by(&theirs, &ours)));
        } else {
            session.note(format!("{NAME}: {case}: no {}: a round cost no more than `{DROP}`", name("net")));
        }
    }
}

/// Round by round, these less those.
fn less(these: &[f64], those: &[f64]) -> Vec<f64> {
    these.iter().zip(those).map(|(this, that)| this - that).collect()
}

/// Round by round, these by those.
fn by(these: &[f64], those: &[f64]) -> Vec<f64> {
    these.iter().zip(those).map(|(this, that)| this / that).collect()
}
