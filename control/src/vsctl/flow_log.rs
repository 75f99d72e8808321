//! `flow-log`: flows that policy denies, or that a rule logs, as they begin.

use std::io;

use serde_json::json;
use tonic::transport::Channel;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::engine::{FlowLogRecord, RuleName, RuleVerdict, WatchFlowLogRequest};

use super::Failure;
use super::cli::{FlowLog, Format};
use super::engine::end;
use super::names::Names;
use super::output::{Report, indent, print_one};
use super::protocol::{Protocol, Service, protocol_name};

/// Prints records until the limit, the reader or the person at the keyboard says enough. The agent, where it answers,
/// names pods that this node's engine knows by their labels alone.
pub(super) async fn flow_log(
    engine: &mut EngineClient<Channel>,
    agent: Option<AgentClient<Channel>>,
    asked: &FlowLog,
    format: Format,
) -> Result<(), Failure> {
    let request = WatchFlowLogRequest {
        address: asked.address.map(|address| address.to_string()).unwrap_or_default(),
        denied_only: asked.denied,
        limit: asked.limit.unwrap_or(0),
    };
    let mut stream = engine.watch_flow_log(request).await?.into_inner();
    let mut names = Names::of(agent);
    loop {
        let record = tokio::select! {
            record = stream.message() => record?,
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map_err(|error: io::Error| Failure(error.to_string()));
            }
        };
        let Some(mut record) = record else { return Ok(()) };
        names.fill_in(&mut record).await;
        if !print_one(report(&record), format)? {
            return Ok(());
        }
    }
}

fn report(record: &FlowLogRecord) -> Report {
    let said = |verdict: &Option<RuleVerdict>| verdict.as_ref().map(|verdict| verdict.text.clone());
    let logged: Vec<_> = record.logged_by.iter().map(name).collect();
    let value = json!({
        "timeMs": record.time_ms, "worker": record.worker, "inPort": record.in_port,
        "source": record.source, "destination": record.destination,
        "protocol": protocol_name(record.protocol),
        "sourcePort": record.source_port, "destinationPort": record.destination_port,
        "sourceName": record.source_name, "destinationName": record.destination_name,
        "allowed": record.allowed, "dropReason": record.drop_reason,
        "egress": said(&record.egress), "ingress": said(&record.ingress), "loggedBy": logged,
        "stagedEgress": said(&record.staged_egress), "stagedIngress": said(&record.staged_ingress),
        "suppressed": record.suppressed,
    });
    let (protocol, destination_port) = match (u8::try_from(record.protocol), record.destination_port) {
        (Ok(number @ (1 | 58)), message) => {
            (Service { protocol: Protocol(number), port: message as u16 }.to_string(), 0)
        }
        (_, port) => (protocol_name(record.protocol), port),
    };
    let named = |name: &str| if name.is_empty() { String::new() } else { format!(" ({name})") };
    let head = format!(
        "{} {} {} {}{} to {}{}",
        time_of_day(record.time_ms),
        if record.allowed { "allowed" } else { "DENIED" },
        protocol,
        end(&record.source, record.source_port),
        named(&record.source_name),
        end(&record.destination, destination_port),
        named(&record.destination_name),
    );
    let mut lines: Vec<String> = Vec::new();
    for (what, verdict) in [
        ("egress", &record.egress),
        ("ingress", &record.ingress),
        ("egress, were what is staged in force", &record.staged_egress),
        ("ingress, were what is staged in force", &record.staged_ingress),
    ] {
        lines.extend(said(verdict).map(|text| format!("{what}: {text}")));
    }
    lines.extend(logged.iter().map(|rule| format!("logged by {rule}")));
    let mut text = format!("{head}\n{}", indent(&lines.join("\n"), 4));
    if record.suppressed > 0 {
        text = format!("{}\n{text}", not_told(record.suppressed));
    }
    Report { value, text }
}

/// What came before a record and has no line of its own: most often the same flows again, as of a client that tries on.
fn not_told(flows: u64) -> String {
    format!(
        "({flows} more before this: tries again of flows told a short while ago, or too many at once to tell)"
    )
}

/// `23:59:59.999Z`, of milliseconds since 1970.
fn time_of_day(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

fn name(rule: &RuleName) -> String {
    if rule.policy.is_empty() {
        format!("rule {}", rule.rule)
    } else {
        format!("{}, {}", rule.policy, rule.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_who_and_why() {
        let record = FlowLogRecord {
            time_ms: (24 * 3600 - 1) * 1000 + 7,
            source: "10.0.0.1".into(),
            source_port: 4000,
            source_name: "media/caller".into(),
            destination: "10.0.0.2".into(),
            destination_port: 5060,
            protocol: 17,
            drop_reason: "policy-ingress".into(),
            ingress: Some(RuleVerdict {
                text: "denied by NetworkPolicy media/relay, rule 2".into(),
                ..RuleVerdict::default()
            }),
            logged_by: vec![RuleName {
                rule: 20,
                policy: "NetworkPolicy media/relay".into(),
                position: "rule 1".into(),
            }],
            suppressed: 3,
            ..FlowLogRecord::default()
        };
        let told = report(&record);
        let expected = "(3 more before this: tries again of flows told a short while ago, or too many at once to tell)\n\
                        23:59:59.007Z DENIED udp 10.0.0.1:4000 (media/caller) to 10.0.0.2:5060\n    \
                        ingress: denied by NetworkPolicy media/relay, rule 2\n    \
                        logged by NetworkPolicy media/relay, rule 1";
        assert_eq!(told.text, expected);
        assert_eq!(told.value["loggedBy"][0], "NetworkPolicy media/relay, rule 1");
        let ping = FlowLogRecord { protocol: 1, destination_port: 0x0d00, allowed: true, ..record };
        assert!(report(&ping).text.contains("allowed 13/icmp 10.0.0.1:4000"), "{}", report(&ping).text);
    }
}
