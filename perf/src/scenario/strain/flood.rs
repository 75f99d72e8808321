//! What known flows, and the new ones of others, lose to a flood of new ones.

use crate::result::Measurement;
use crate::scenario::engine::bench::{Offer, node};
use crate::session::Session;
use crate::workload::{Case, Endpoint, Stream, Traffic, Transport};
use crate::{Error, Result};

use super::{NAME, bench};

/// Million packets a second of known flows, and as many new flows.
const FLOOD_MPPS: f64 = 1.0;
/// The same of new flows that are no flood.
const CALM_MPPS: f64 = 0.01;
/// How many cases there are.
pub(super) const CASES: usize = 3;

/// A flood.
struct Flood {
    /// What its case is called, after the rate.
    name: &'static str,
    /// What it is of.
    transport: Transport,
    /// The pod that floods; known flows are pod 0's, and of pods 0 and 1 the other opens some flows.
    pod: usize,
}

const FLOODS: [Flood; CASES] = [
    Flood { name: "", transport: Transport::Udp, pod: 1 },
    Flood { name: "/syn", transport: Transport::Syn, pod: 1 },
    Flood { name: "/same-port", transport: Transport::Udp, pod: 0 },
];

pub(super) fn flood(session: &mut Session, seconds: f64) -> Result<()> {
    for flood in &FLOODS {
        let name = format!("flood-{FLOOD_MPPS:.0}Mpps{}", flood.name);
        if session.wants(&name) {
            let mut rounds = Vec::new();
            for _ in 0..session.config.rounds.max(1) {
                session.step(&name)?;
                rounds.push(round(session, flood, seconds)?);
            }
            for (at, metric) in ["goodput", "looked-at", "opened", "others-opened"].into_iter().enumerate() {
                let figures: Vec<f64> = rounds.iter().map(|round| round[at] * 100.0).collect();
                session.record(Measurement::of_rounds(NAME, &name, metric, "%", &figures));
            }
        }
        session.advance();
    }
    Ok(())
}

/// The parts that came through, in the order of their names above.
fn round(session: &Session, flood: &Flood, seconds: f64) -> Result<[f64; 4]> {
    let case = Case::BASE;
    let mut bench = bench(case, case.flows, session)?;
    let offers = [0, 1].map(|pod| {
        let floods = pod == flood.pod;
        Ok(Offer {
            stream: stream(&case, pod, if floods { flood.transport } else { Transport::Udp })?,
            known_mpps: if pod == 0 { FLOOD_MPPS } else { 0.0 },
            new_mpps: if floods { FLOOD_MPPS } else { CALM_MPPS },
        })
    });
    let offers = offers.into_iter().collect::<Result<Vec<_>>>()?;
    let calm = Offer { new_mpps: 0.0, ..offers[0].clone() };
    let alone = bench.flood(&[calm], seconds)?;
    let flooded = bench.flood(&offers, seconds)?;
    let (new, others) = (flooded.new[flood.pod], flooded.new[1 - flood.pod]);
    Ok([flooded.known / alone.known, new.looked_at, new.opened, others.opened])
}

/// Packets of a pod: of as many flows as there may be, the first of which are the case's.
fn stream(case: &Case, number: usize, transport: Transport) -> Result<Stream> {
    let node = node(case);
    let pod = node.pods.get(number);
    let pod = pod.ok_or_else(|| Error::setup("make packets", format!("there is no pod {number}")))?;
    let traffic = Traffic { transport, ..Traffic::new(case.way, case.family, Traffic::FLOWS_MAX) };
    let near = Endpoint { port: pod.port.clone(), mac: pod.mac, address: pod.v4.into() };
    let mut stream = traffic.on(&node)?;
    (stream.enters, stream.near) = (pod.port.clone(), near);
    Ok(stream)
}
