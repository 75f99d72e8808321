//! What the workers tell of new flows: into the daemon's log, a line of JSON each, and to whoever watches.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use vswitch_datapath::explain::RuleVerdict;
use vswitch_datapath::policy::Verdict;
use vswitch_datapath::{FlowRecord, FlowVerdict};
use vswitch_model::api::engine as pb;
use vswitch_model::{DropReason, IdentityId, Invalid, RuleId};

use super::{Streamed, explain};
use crate::engine::{Shared, Snapshot};

/// How often records are taken from the workers.
const TAKE: Duration = Duration::from_millis(100);
/// Records a watcher may be behind; it loses the oldest then, and is told so.
const BEHIND: usize = 1024;
/// Records on their way to one watcher.
const QUEUE: usize = 256;
/// What the lines of the daemon's log are of: `log = "info,flow=off"` leaves them out.
const TARGET: &str = "flow";

/// Where the records go.
#[derive(Debug, Clone)]
pub(super) struct FlowLog {
    watchers: broadcast::Sender<Arc<pb::FlowLogRecord>>,
}

impl FlowLog {
    pub(super) fn new() -> Self {
        Self { watchers: broadcast::Sender::new(BEHIND) }
    }

    /// Takes what the workers tell and passes it on, for ever.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let mut take = tokio::time::interval(TAKE);
        loop {
            take.tick().await;
            for worker in &shared.workers {
                while let Some(record) = worker.counters.flow_log.take() {
                    let message = message(&shared.snapshot.load(), worker.config.number, &record);
                    tracing::info!(target: TARGET, record = %json(&message));
                    // Nobody may be watching.
                    self.watchers.send(Arc::new(message)).ok();
                }
            }
        }
    }

    /// What is told from now on, as far as it matches.
    pub(super) fn watch(&self, query: FlowLogQuery) -> Streamed<pb::FlowLogRecord> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut records = self.watchers.subscribe();
        tokio::spawn(async move {
            let (mut lost, mut left) = (0, query.limit);
            loop {
                let record = tokio::select! {
                    () = sender.closed() => return,
                    record = records.recv() => record,
                };
                match record {
                    Ok(record) if query.matches(&record) => {
                        let suppressed = record.suppressed + std::mem::take(&mut lost);
                        let record = pb::FlowLogRecord { suppressed, ..pb::FlowLogRecord::clone(&record) };
                        if sender.send(Ok(record)).await.is_err() {
                            return;
                        }
                        if let Some(left) = &mut left {
                            *left -= 1;
                            if *left == 0 {
                                return;
                            }
                        }
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(records)) => lost += records,
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

/// Which records are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlowLogQuery {
    address: Option<IpAddr>,
    denied_only: bool,
    limit: Option<u32>,
}

impl TryFrom<pb::WatchFlowLogRequest> for FlowLogQuery {
    type Error = Invalid;

    fn try_from(request: pb::WatchFlowLogRequest) -> Result<Self, Invalid> {
        let address = match request.address.as_str() {
            "" => None,
            text => Some(explain::address(text, "address")?),
        };
        let limit = Some(request.limit).filter(|limit| *limit != 0);
        Ok(Self { address, denied_only: request.denied_only, limit })
    }
}

impl FlowLogQuery {
    fn matches(&self, record: &pb::FlowLogRecord) -> bool {
        let ends = [&record.source, &record.destination];
        let of_address = |wanted: IpAddr| ends.iter().any(|end| end.parse() == Ok(wanted));
        !(self.denied_only && record.allowed) && self.address.is_none_or(of_address)
    }
}

fn message(snapshot: &Snapshot, worker: usize, record: &FlowRecord) -> pb::FlowLogRecord {
    let verdict = |allowed, rule| explain::rule_verdict(snapshot, RuleVerdict { allowed, rule });
    let staged = |verdict: Verdict| {
        explain::rule_verdict(snapshot, RuleVerdict { allowed: verdict.allow, rule: verdict.rule })
    };
    let (allowed, reason, egress, ingress) = match record.verdict {
        FlowVerdict::Allowed { egress, ingress } => {
            (true, "", Some(verdict(true, egress)), Some(verdict(true, ingress)))
        }
        FlowVerdict::Denied {
            reason: reason @ (DropReason::PolicyEgress | DropReason::TunnelFromPod),
            rule,
        } => (false, reason.key(), Some(verdict(false, rule)), None),
        FlowVerdict::Denied { reason, rule } => (false, reason.key(), None, Some(verdict(false, rule))),
    };
    let logged = |rule: RuleId| {
        let source = snapshot.rule(rule).cloned();
        let (policy, position) = source.map(|source| (source.policy, source.position)).unwrap_or_default();
        pb::RuleName { rule: rule.0, policy, position }
    };
    pb::FlowLogRecord {
        time_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        worker: worker as u32,
        in_port: snapshot.port_name(record.in_port),
        source: record.source.to_string(),
        destination: record.destination.to_string(),
        protocol: u32::from(record.protocol),
        source_port: u32::from(record.ports.0),
        destination_port: u32::from(record.ports.1),
        source_name: name(snapshot, record.source, record.identities[0]),
        destination_name: name(snapshot, record.destination, record.identities[1]),
        allowed,
        drop_reason: reason.to_owned(),
        egress,
        ingress,
        logged_by: record.marks.into_iter().flatten().map(logged).collect(),
        staged_egress: record.staged.and_then(|it| it.egress).map(staged),
        staged_ingress: record.staged.and_then(|it| it.ingress).map(staged),
        suppressed: record.suppressed,
    }
}

/// Who has an address: the workload where that is of this node, else what is known of its identity.
fn name(snapshot: &Snapshot, address: IpAddr, identity: IdentityId) -> String {
    let desired = &snapshot.desired;
    match desired.ports.values().find(|port| port.addresses.contains(&address)) {
        Some(port) => port.workload.clone(),
        None => desired.identities.get(&identity).map(|known| known.description.clone()).unwrap_or_default(),
    }
}

fn json(record: &pb::FlowLogRecord) -> Value {
    let verdict = |verdict: &Option<pb::RuleVerdict>| verdict.as_ref().map(|verdict| verdict.text.clone());
    let logged: Vec<_> =
        record.logged_by.iter().map(|rule| format!("{}, {}", rule.policy, rule.position)).collect();
    json!({
        "source": record.source, "destination": record.destination,
        "protocol": protocol_name(record.protocol),
        "sourcePort": record.source_port, "destinationPort": record.destination_port,
        "sourceName": record.source_name, "destinationName": record.destination_name,
        "inPort": record.in_port, "worker": record.worker,
        "allowed": record.allowed, "dropReason": record.drop_reason,
        "egress": verdict(&record.egress), "ingress": verdict(&record.ingress),
        "loggedBy": logged,
        "stagedEgress": verdict(&record.staged_egress), "stagedIngress": verdict(&record.staged_ingress),
        "suppressed": record.suppressed,
    })
}

/// As `vsctl` has it.
fn protocol_name(number: u32) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_name_the_protocol() {
        let of = |protocol| {
            json(&pb::FlowLogRecord { protocol, ..pb::FlowLogRecord::default() })["protocol"].clone()
        };
        assert_eq!([of(6), of(17), of(47)], ["tcp", "udp", "protocol 47"]);
    }
}
