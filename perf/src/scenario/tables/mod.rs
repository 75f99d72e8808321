//! The tables by themselves: the FIB, the verdict of a new flow, the flow table, in batches as the walk asks them, beside
//! those of DPDK.

mod flows;
mod routes;
mod rules;
#[cfg(test)]
mod tests;
mod turns;

use super::{About, Scenario};
use crate::machine::has_tsc;
use crate::session::Session;
use crate::workload::Family;
use crate::{Error, Result};

const NAME: &str = "tables";

/// The scenario.
#[derive(Debug)]
pub struct Tables;

impl Scenario for Tables {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "what a look-up in each table costs by itself, 64 at a time as the walk does it, and what the tables take of \
                       memory and of time to make",
            cases: "fib/FAMILY/routes-N[/SPREAD], prefix lengths as in the Internet's tables, to 64 next hops (IPv6: within the /32s \
                    of N/6 providers). SPREAD: of-all (2^18 addresses behind routes at random, so that nothing repeats soon), \
                    of-4096, of-64 (the same ones again and again). verdict/v4/rules-N: rules of a CIDR and a port of their own, \
                    on 200 pods, all of them asked in turn. flows/v4/flows-N: a table filled to its capacity",
            sets: "--quick: 1k and 1M routes of IPv4, 250k of IPv6, 100 and 1k rules, 10k flows. By default: IPv4 1k to 1M, IPv6 1k \
                   to 250k, 100 to 100k rules, 10k and 1M flows. --full: 10M flows, too",
            metrics: &[
                ("look-up", "ns: of a fib: of an address; of flows: of a key, whose hash is known"),
                ("verdict", "ns: what policy says at one end, who both ends are being known"),
                ("judge", "ns: the look-ups of both addresses, and the judgement of the flow by them"),
                (
                    "look-up-cycles, verdict-cycles, judge-cycles",
                    "cycles of the time stamp counter: the same",
                ),
                (
                    "insert",
                    "ns: one more flow, from its hash on, on the way from an empty table to a full one",
                ),
                ("memory", "bytes: of the FIB"),
                ("bytes-each", "bytes: of the FIB for each route, of the flow table for each flow"),
                ("flows-a-gib", "flows: that a GiB holds"),
                ("build", "ms: of a FIB, from prefixes in no order"),
            ],
            peers: "DPDK's own measurements of the same routes, addresses, rules and packets, without vectors and with AVX-512: \
                    dpdk-test-fib (rte_fib, rte_fib6; beside fib/.../of-all) and dpdk-test-acl (rte_acl, beside verdict and \
                    judge), which takes addresses and ports where verdict takes identities",
            root: false,
            cores: 1,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let (fibs, verdicts, flows) = cases(session);
        session.begin(NAME, (fibs.len() * 3 + verdicts.len() * 2 + flows.len() * 2) as u64);
        if !has_tsc() {
            session.note(format!("{NAME}: there is no time stamp counter: no cycles, and no peers"));
        }
        for case in fibs {
            routes::run(session, case)?;
        }
        for case in verdicts {
            rules::run(session, case)?;
        }
        for case in flows {
            flows::run(session, case)?;
        }
        Ok(())
    }
}

type Cases = (Vec<routes::Case>, Vec<rules::Case>, Vec<flows::Case>);

/// What is measured.
fn cases(session: &Session) -> Cases {
    let (v4, v6, rules, flows): (&[usize], &[usize], &[usize], &[usize]) =
        match (session.config.quick, session.config.full) {
            (true, _) => (&[1000, 1_000_000], &[250_000], &[100, 1000], &[10_000]),
            (false, full) => (
                &[1000, 10_000, 100_000, 1_000_000],
                &[1000, 10_000, 250_000],
                &[100, 1000, 10_000, 100_000],
                if full { &[10_000, 1_000_000, 10_000_000] } else { &[10_000, 1_000_000] },
            ),
        };
    let of = |family, routes: &[usize]| -> Vec<_> {
        routes.iter().map(|routes| routes::Case { family, routes: *routes }).collect()
    };
    let mut fibs = [of(Family::V4, v4), of(Family::V6, v6)].concat();
    fibs.retain(|case| case.is_wanted(session));
    let verdicts = rules.iter().map(|rules| rules::Case { rules: *rules });
    let flows = flows.iter().map(|flows| flows::Case { flows: *flows });
    (
        fibs,
        verdicts.filter(|case| case.is_wanted(session)).collect(),
        flows.filter(|case| case.is_wanted(session)).collect(),
    )
}

/// The peer, if it can be had; otherwise a note says why not.
fn note_of_peer<T>(session: &mut Session, what: &str, peer: Result<T>) -> Option<T> {
    peer.map_err(|error: Error| session.note(format!("{NAME}: {what}: {error}"))).ok()
}

/// A core that this process may use.
fn core() -> usize {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.first().map_or(0, |core| core.id)
}
