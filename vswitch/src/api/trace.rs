//! What the engine does with packets, told while it does it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vswitch_datapath::trace::Step;
use vswitch_datapath::{TraceFilter, TraceRecord, TraceSpec};
use vswitch_model::api::engine as pb;
use vswitch_model::{Invalid, RuleId};

use super::{Streamed, explain, invalid, silent};
use crate::engine::{Shared, Snapshot};
use crate::worker::Command;

/// Most records of one trace, and how many when nobody says.
const LIMIT: u32 = 1000;
/// Records that wait to be read; more are lost, and told as lost.
const QUEUE: usize = 1024;
/// How often records are taken from the workers.
const TAKE: Duration = Duration::from_millis(10);
/// How long a worker may take to hear of a trace.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends the trace in the workers, and lets the next one start, when it is dropped.
struct Running {
    shared: Arc<Shared>,
    /// One queue for each worker.
    queues: Vec<Arc<ArrayQueue<TraceRecord>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Running {
    fn drop(&mut self) {
        for worker in &self.shared.workers {
            worker.command(Command::Trace(None), PATIENCE).ok();
        }
    }
}

pub(super) fn start(
    shared: Arc<Shared>,
    request: &pb::TraceRequest,
    permit: OwnedSemaphorePermit,
) -> Result<Streamed<pb::TraceRecord>, Status> {
    let filter = filter(&shared.snapshot.load(), request).map_err(invalid)?;
    let limit = match request.limit {
        0 => LIMIT,
        limit if limit <= LIMIT => limit,
        limit => {
            return Err(invalid(Invalid::new("limit", format!("{limit} is out of range: 0 to {LIMIT}"))));
        }
    };
    let queues = shared.workers.iter().map(|_| Arc::new(ArrayQueue::new(QUEUE))).collect();
    let running = Running { shared, queues, _permit: permit };
    for (worker, queue) in running.shared.workers.iter().zip(&running.queues) {
        let spec = TraceSpec { filter: filter.clone(), records: Arc::clone(queue) };
        worker.command(Command::Trace(Some(spec)), PATIENCE).map_err(silent)?;
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(pass_on(running, limit, sender));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Passes records on until there were enough or the client has gone.
async fn pass_on(running: Running, limit: u32, sender: mpsc::Sender<Result<pb::TraceRecord, Status>>) {
    let mut left = limit;
    let mut take = tokio::time::interval(TAKE);
    while left > 0 {
        tokio::select! {
            () = sender.closed() => return,
            _ = take.tick() => {}
        }
        let snapshot = running.shared.snapshot.load_full();
        for (worker, queue) in running.queues.iter().enumerate() {
            while left > 0
                && let Some(record) = queue.pop()
            {
                left -= 1;
                if sender.send(Ok(message(&snapshot, worker, &record))).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn filter(snapshot: &Snapshot, request: &pb::TraceRequest) -> Result<TraceFilter, Invalid> {
    let address =
        |text: &str, field| if text.is_empty() { Ok(None) } else { explain::address(text, field).map(Some) };
    let in_port = match request.in_port.as_str() {
        "" => None,
        name => {
            let open = snapshot.ports.open.iter().find(|(open, _)| open.as_str() == name);
            let problem = || Invalid::new("in_port", format!("no port {name:?} is open"));
            Some(open.ok_or_else(problem)?.1.index)
        }
    };
    Ok(TraceFilter {
        source: address(&request.source, "source")?,
        destination: address(&request.destination, "destination")?,
        address: address(&request.address, "address")?,
        protocol: Some(explain::narrow(request.protocol, "protocol", u8::MAX.into())?)
            .filter(|number| *number != 0),
        port: Some(explain::narrow(request.port, "port", u16::MAX.into())?).filter(|number| *number != 0),
        in_port,
        drops_only: request.drops_only,
    })
}

fn message(snapshot: &Snapshot, worker: usize, record: &TraceRecord) -> pb::TraceRecord {
    let step = |step: &Step| pb::Step { stage: step.stage().to_owned(), detail: detail(snapshot, step) };
    let out_port = record.outcome.ok().map(|port| snapshot.port_name(port));
    pb::TraceRecord {
        time_ns: record.time.0,
        worker: worker as u32,
        in_port: snapshot.port_name(record.in_port),
        head: record.head().to_vec(),
        length: record.length as u32,
        steps: record.steps().map(step).collect(),
        out_port: out_port.unwrap_or_default(),
        drop_reason: record.outcome.err().map(|reason| reason.key().to_owned()).unwrap_or_default(),
        lost: record.lost,
    }
}

/// What a step says, with its rules by name.
fn detail(snapshot: &Snapshot, step: &Step) -> String {
    let rules: &[RuleId] = match step {
        Step::FlowOpened { egress, ingress } | Step::FlowKnown { egress, ingress } => &[*egress, *ingress],
        Step::Denied(rule) => &[*rule],
        _ => &[],
    };
    let names: Vec<_> = rules
        .iter()
        .filter_map(|rule| Some((rule, snapshot.rule(*rule)?)))
        .map(|(rule, source)| format!("{rule} is {}, {}", source.policy, source.position))
        .collect();
    if names.is_empty() { step.to_string() } else { format!("{step} ({})", names.join("; ")) }
}
