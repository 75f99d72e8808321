//! Games: all players speak at every tick, and then all servers, so that packets come in bursts.
//!
//! Players are in one pod and each server is in its own: the bursts meet the 256 entries of a veth's ring, the players'
//! own on the way back the worst of all. One thread plays all of them by packet sockets, receivers are XDP programs.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{About, Scenario};
use crate::Result;
use crate::session::Session;
use crate::traffic::rounds::{Better, Rounds};
use crate::traffic::{Bed, Contender, Cores, Schedule, Sender, Stream, Trial};
use crate::workload::{ALLOWED_PORTS, Node, Rules};

const NAME: &str = "game";
/// Bytes of a player's command, and of a server's snapshot, behind RTP's header: frames of 114 and 354 bytes.
const COMMAND: usize = 60;
const SNAPSHOT: usize = 300;

/// The scenario.
#[derive(Debug)]
pub struct Game;

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Match {
    servers: u32,
    /// On each server.
    players: u32,
    ticks_per_second: u32,
}

impl Match {
    fn case(self) -> String {
        format!("tick-{}/servers-{}/players-{}", self.ticks_per_second, self.servers, self.players)
    }

    fn period(self) -> Duration {
        Duration::from_nanos(1_000_000_000 / u64::from(self.ticks_per_second))
    }

    /// At each tick all players at once, and half a tick later all servers.
    fn schedule(self) -> Schedule {
        let all = self.servers * self.players;
        Schedule::bursts(&[all, all], self.period())
    }
}

const fn game(servers: u32, players: u32, ticks_per_second: u32) -> Match {
    Match { servers, players, ticks_per_second }
}

/// Bursts of 64, of 256 (as many as a veth's ring has entries) and of 1024.
const QUICK: [Match; 2] = [game(1, 64, 64), game(4, 64, 128)];
const DEFAULT: [Match; 4] = [game(1, 64, 64), game(1, 64, 128), game(4, 64, 128), game(8, 128, 128)];

impl Scenario for Game {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "players and servers of games, all at once at every tick: what bursts lose, and how much ticks jitter",
            cases: "tick-HZ/servers-N/players-N (players of each server)",
            sets: "--quick: tick-64/servers-1/players-64 and tick-128/servers-4/players-64, without kernel-threaded; the others also tick-128/servers-1/players-64 and tick-128/servers-8/players-128, longest with --full",
            metrics: &[
                ("burst-loss", "1: part of the packets"),
                (
                    "delay-p50, delay-p99",
                    "us: from the tick, of all packets sent; a lost one is later than all others, and where too many are lost there is no figure",
                ),
                ("delay-max", "us: of those that arrived"),
                ("jitter", "us: RFC 3550, the mean of all streams"),
                ("sender-late-p99", "us: what of the delay is the sender's own"),
                ("ratio/PEER/METRIC", "1, of delay-p50, delay-p99: above 1 we are better"),
            ],
            peers: "kernel (forwarding as it comes, on the sender's core), kernel-threaded (its receive work in threads on the worker's core, behind a veth's ring; not with --quick), kernel-conntrack (as it comes, with nftables: conntrack and a set of 1000)",
            root: true,
            cores: 2,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let (cases, time): (&[Match], u64) = match (session.config.quick, session.config.full) {
            (true, _) => (&QUICK, 300),
            (_, false) => (&DEFAULT, 500),
            (_, true) => (&DEFAULT, 10_000),
        };
        let (cores, time) = (Cores::two()?, Duration::from_millis(time));
        let cases: Vec<Match> = cases.iter().copied().filter(|game| session.wants(&game.case())).collect();
        let steps = cases.len() * Contender::of(session).len();
        session.begin(NAME, steps as u64 * u64::from(session.config.rounds));
        let mut figures = Rounds::new(NAME);
        let outcome = rounds(session, cores, &cases, time, &mut figures);
        figures.record(session);
        outcome
    }
}

fn rounds(
    session: &mut Session,
    cores: Cores,
    cases: &[Match],
    time: Duration,
    figures: &mut Rounds,
) -> Result<()> {
    for _ in 0..session.config.rounds {
        for game in cases {
            for contender in Contender::of(session) {
                let outcome = measure(session, cores, *contender, *game, time)
                    .map(|trial| add(figures, *contender, *game, &trial));
                figures.without(session, *contender, outcome)?;
                session.advance();
            }
        }
        figures.next();
    }
    Ok(())
}

fn measure(
    session: &Session,
    cores: Cores,
    contender: Contender,
    game: Match,
    time: Duration,
) -> Result<Trial> {
    session.step(&format!("{}: {}", contender.key(), game.case()))?;
    let mut node = Node::in_memory(1 + game.servers as usize, 1);
    (node.uplink, node.rules) = (None, Rules(100));
    let mut bed = Bed::build(contender, &node.desired(), None, cores)?;
    let pods = || 1..=game.servers as usize;
    let commands = pods().map(|server| bed.source(0, server, COMMAND));
    let sources = commands.chain(pods().map(|server| bed.source(server, 0, SNAPSHOT)));
    let mut sender = Sender::new(sources.collect::<Result<Vec<_>>>()?);
    let (schedule, streams) = (game.schedule(), streams(game));
    let round = u64::from(schedule.streams());
    // The first ticks make the flows.
    bed.run(&mut sender, (&schedule, &streams), round * 2, |_, _| Ok(()))?;
    session.check()?;
    let packets = schedule.packets_in(time);
    let (trial, ()) = bed.run(&mut sender, (&schedule, &streams), packets, |_, stop| {
        crate::traffic::wait(session, time, stop)
    })?;
    Ok(trial)
}

/// Players' streams, server by server; then the servers' to each of their players.
fn streams(game: Match) -> Vec<Stream> {
    let first = *ALLOWED_PORTS.start();
    let of = |source: u32| {
        (0..game.players).map(move |player| Stream { source: source as usize, port: first + player as u16 })
    };
    (0..2 * game.servers).flat_map(of).collect()
}

fn add(figures: &mut Rounds, contender: Contender, game: Match, trial: &Trial) {
    let (case, received) = (game.case(), &trial.received);
    let loss = trial.lost() as f64 / trial.sent.packets.max(1) as f64;
    let jitter: f64 = received.streams.iter().map(|stream| stream.jitter_ns as f64 / 1e3).sum();
    for (metric, unit, better, value) in [
        ("burst-loss", "1", Better::Neither, loss),
        ("delay-p50", "us", Better::Lower, trial.delay_us(0.5)),
        ("delay-p99", "us", Better::Lower, trial.delay_us(0.99)),
        ("delay-max", "us", Better::Neither, trial.longest_us()),
        ("jitter", "us", Better::Neither, jitter / received.streams.len().max(1) as f64),
        ("sender-late-p99", "us", Better::Neither, trial.late_us(0.99)),
    ] {
        figures.add((&case, metric, unit, better), contender, value, trial.void());
    }
}
