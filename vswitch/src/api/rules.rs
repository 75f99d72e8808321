//! What each rule did.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vswitch_datapath::RuleCounts;
use vswitch_model::api::engine as pb;
use vswitch_model::{Policy, RuleId, Standing};

use super::flows::chunks;
use super::{Streamed, silent};
use crate::engine::Shared;

/// Rules on their way to the client.
const QUEUE: usize = 256;
/// Those the engine has built in that may decide, and what they are.
const BUILT_IN: [(RuleId, &str); 4] = [
    (RuleId::NO_RULE_MATCHED, "policy isolates the pod, and no rule matched"),
    (RuleId::LOCAL_NODE, "the node always reaches its own pods"),
    (RuleId::TOO_LARGE, "the pod's policy is too large for the engine"),
    (RuleId::TUNNEL_FROM_POD, "pods may not send tunnel packets of this kind"),
];

/// The rules and the ends of the policies of this name, of all when it is empty; and then what the engine has built in, where it did
/// anything.
pub(super) fn list(shared: Arc<Shared>, policy: String) -> Streamed<pb::RuleCounters> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || match counts(&shared) {
        Ok(counts) => {
            let snapshot = shared.snapshot.load_full();
            let of = |rule: RuleId| counts.get(&rule).copied().unwrap_or_default();
            let policies = snapshot.desired.policies.values();
            let asked = policies.filter(|known| policy.is_empty() || known.name == policy);
            let rules = asked.flat_map(|policy| {
                let actions = policy.rules.iter().map(|rule| pb::Action::from(rule.action));
                let actions = actions.chain([pb::Action::Deny]);
                let rules = policy.places().zip(actions);
                rules.map(move |(rule, action)| message(Some(policy), rule, action, of(rule.0)))
            });
            let built_in =
                BUILT_IN.into_iter().filter(|(rule, _)| policy.is_empty() && !of(*rule).is_empty());
            let built_in = built_in.map(|named| message(None, named, pb::Action::Unspecified, of(named.0)));
            for rule in rules.chain(built_in) {
                if sender.blocking_send(Ok(rule)).is_err() {
                    return;
                }
            }
        }
        // The client may have gone away, too.
        Err(error) => drop(sender.blocking_send(Err(error))),
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// What the rules did on all workers. A flow that ends while this goes on may be left out.
fn counts(shared: &Shared) -> Result<HashMap<RuleId, RuleCounts>, Status> {
    let mut counts: HashMap<RuleId, RuleCounts> = HashMap::new();
    let snapshot = shared.snapshot.load_full();
    let rules = snapshot.desired.policies.values().flat_map(Policy::places).map(|(rule, _)| rule);
    for rule in rules.chain(BUILT_IN.map(|(rule, _)| rule)) {
        let total = shared.workers.iter().map(|worker| worker.counters.rules.counts(rule));
        let total = total.fold(RuleCounts::default(), RuleCounts::plus);
        if !total.is_empty() {
            counts.insert(rule, total);
        }
    }
    for worker in &shared.workers {
        for chunk in chunks(worker) {
            for flow in chunk.map_err(silent)?.flows {
                for rule in [flow.egress, flow.ingress] {
                    if worker.counters.rules.is_of(rule, flow.revision) {
                        let before = counts.entry(rule).or_default();
                        *before = before.plus_flow(&flow);
                    }
                }
            }
        }
    }
    Ok(counts)
}

fn message(
    policy: Option<&Policy>,
    (rule, position): (RuleId, &str),
    action: pb::Action,
    counts: RuleCounts,
) -> pb::RuleCounters {
    // A flow that changed its rule and was left out would show as less than nothing.
    let positive = |count: u64| if count > i64::MAX as u64 { 0 } else { count };
    pb::RuleCounters {
        rule: rule.0,
        policy: policy.map(|policy| policy.name.clone()).unwrap_or_default(),
        position: position.to_owned(),
        action: action.into(),
        standing: pb::Standing::from(policy.map_or(Standing::Enforced, |policy| policy.standing)).into(),
        flows: counts.flows,
        packets: positive(counts.packets),
        bytes: positive(counts.bytes),
        denied_packets: counts.denied_packets,
        denied_bytes: counts.denied_bytes,
        logged: counts.marked,
        staged_allowed: counts.staged_allowed,
        staged_denied: counts.staged_denied,
    }
}
