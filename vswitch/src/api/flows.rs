//! The flows that exist now, taken from the workers piece by piece so that none of them stops for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vswitch_datapath::flow::{Direction, Flow, FlowState, TcpState};
use vswitch_model::Invalid;
use vswitch_model::api::engine as pb;

use super::{Streamed, explain, silent};
use crate::engine::{Shared, Snapshot};
use crate::worker::{Command, FlowChunk, Handle, WorkerError};

/// Flows listed when nobody says how many.
const LIMIT: u32 = 1000;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Flows on their way to the client.
const QUEUE: usize = 256;

/// Which flows are listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlowQuery {
    limit: u32,
    address: Option<IpAddr>,
}

impl TryFrom<pb::ListFlowsRequest> for FlowQuery {
    type Error = Invalid;

    fn try_from(request: pb::ListFlowsRequest) -> Result<Self, Invalid> {
        let address = match request.address.as_str() {
            "" => None,
            text => Some(explain::address(text, "address")?),
        };
        Ok(Self { limit: if request.limit == 0 { LIMIT } else { request.limit }, address })
    }
}

pub(super) fn list(shared: Arc<Shared>, query: FlowQuery) -> Streamed<pb::Flow> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut left = query.limit;
        for worker in &shared.workers {
            if let Err(error) = send(&shared, worker, query, &mut left, &sender) {
                // The client may have gone away, too.
                sender.blocking_send(Err(error)).ok();
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

fn send(
    shared: &Shared,
    worker: &Handle,
    query: FlowQuery,
    left: &mut u32,
    sender: &mpsc::Sender<Result<pb::Flow, Status>>,
) -> Result<(), Status> {
    for chunk in chunks(worker) {
        let chunk = chunk.map_err(silent)?;
        if *left == 0 {
            break;
        }
        let snapshot = shared.snapshot.load();
        let matching = chunk.flows.iter().filter(|flow| {
            query.address.is_none_or(|wanted| {
                [Direction::Original, Direction::Reply].iter().any(|end| flow.address(*end) == wanted)
            })
        });
        for flow in matching.take(*left as usize) {
            *left -= 1;
            let idle_ms = chunk.now.since(flow.last_seen) / 1_000_000;
            if sender.blocking_send(Ok(message(&snapshot, worker, flow, idle_ms))).is_err() {
                *left = 0;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Addresses, and since when, in milliseconds, flows must have been to count.
pub(super) fn ends(request: &pb::FindFlowsRequest) -> Result<BTreeMap<IpAddr, u64>, Invalid> {
    let read = |(index, end): (usize, &pb::FlowEnd)| {
        Ok((explain::address(&end.address, &format!("ends[{index}].address"))?, end.age_ms))
    };
    request.ends.iter().enumerate().map(read).collect()
}

/// Those that a flow of that age, or older, leads to or comes from, which policy has not revoked.
pub(super) fn find(shared: &Shared, ends: &BTreeMap<IpAddr, u64>) -> Result<Vec<String>, Status> {
    let mut found = BTreeSet::new();
    for chunk in shared.workers.iter().flat_map(chunks) {
        let chunk = chunk.map_err(silent)?;
        for flow in chunk.flows.iter().filter(|flow| !flow.is_expired(chunk.now) && !flow.is_revoked) {
            let age_ms = chunk.now.since(flow.created) / 1_000_000;
            let is_meant = |end: &IpAddr| ends.get(end).is_some_and(|wanted| age_ms >= *wanted);
            found.extend(
                [Direction::Original, Direction::Reply]
                    .map(|end| flow.address(end))
                    .into_iter()
                    .filter(is_meant),
            );
        }
    }
    Ok(found.iter().map(ToString::to_string).collect())
}

/// A worker's flows, chunk by chunk. After an error there is no more.
pub(super) fn chunks(worker: &Handle) -> impl Iterator<Item = Result<FlowChunk, WorkerError>> {
    let mut from = Some(0);
    std::iter::from_fn(move || {
        let first = from.take()?;
        let chunk = worker.ask(|reply| Command::Flows(FlowChunk::starting_at(first), reply), PATIENCE);
        from = chunk.as_ref().ok().and_then(|chunk| chunk.next);
        Some(chunk)
    })
}

fn message(snapshot: &Snapshot, worker: &Handle, flow: &Flow, idle_ms: u64) -> pb::Flow {
    let ((source, source_port), (destination, destination_port)) =
        (flow.end(Direction::Original), flow.end(Direction::Reply));
    pb::Flow {
        worker: worker.config.number as u32,
        source: source.to_string(),
        destination: destination.to_string(),
        protocol: u32::from(flow.key.protocol()),
        source_port: u32::from(source_port),
        destination_port: u32::from(destination_port),
        state: if flow.is_revoked { "revoked".to_owned() } else { state(flow.state) },
        packets_original: flow.packets[0],
        bytes_original: flow.bytes[0],
        packets_reply: flow.packets[1],
        bytes_reply: flow.bytes[1],
        idle_ms,
        source_identity: flow.identities[0].0,
        destination_identity: flow.identities[1].0,
        egress_rule: flow.egress.0,
        ingress_rule: flow.ingress.0,
        generation: snapshot.generation_of(flow.revision).map_or(0, |generation| generation.0),
    }
}

fn state(state: FlowState) -> String {
    match state {
        FlowState::Tcp(state) => tcp_state(state),
        FlowState::Udp { replied }
        | FlowState::Icmp { replied }
        | FlowState::Sctp { replied }
        | FlowState::Other { replied } => if replied { "replied" } else { "new" }.to_owned(),
    }
}

/// `SynSent` is `syn-sent`.
fn tcp_state(state: TcpState) -> String {
    let mut text = String::new();
    for (index, letter) in format!("{state:?}").chars().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
