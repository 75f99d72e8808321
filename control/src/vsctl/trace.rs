//! `trace`: packets as the engine handles them, one after the other.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::transport::Channel;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::engine::{TraceRecord, TraceRequest};

use super::Failure;
use super::cli::{Format, Trace};
use super::decode::describe;
use super::output::{Report, indent, print_one};

/// Prints records until the limit, the time, the reader or the person at the keyboard says enough.
pub(super) async fn trace(
    engine: &mut EngineClient<Channel>,
    trace: &Trace,
    format: Format,
) -> Result<(), Failure> {
    let mut stream = engine.trace(request(trace)).await?.into_inner();
    let enough = async {
        match trace.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(enough);
    loop {
        let record = tokio::select! {
            record = stream.message() => record?,
            () = &mut enough => return Ok(()),
            interrupted = tokio::signal::ctrl_c() => {
                return interrupted.map_err(|error: io::Error| Failure(error.to_string()));
            }
        };
        let Some(record) = record else { return Ok(()) };
        if !print_one(report(&record), format)? {
            return Ok(());
        }
    }
}

fn request(trace: &Trace) -> TraceRequest {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    TraceRequest {
        source: text(trace.source),
        destination: text(trace.destination),
        address: text(trace.address),
        protocol: trace.protocol.map_or(0, |protocol| u32::from(protocol.0)),
        port: trace.port.map_or(0, u32::from),
        in_port: trace.in_port.clone().unwrap_or_default(),
        drops_only: trace.drops,
        limit: trace.limit,
    }
}

fn report(record: &TraceRecord) -> Report {
    let steps: Vec<Value> =
        record.steps.iter().map(|step| json!({"stage": step.stage, "detail": step.detail})).collect();
    let packet = describe(&record.head);
    let head: String = record.head.iter().map(|byte| format!("{byte:02x}")).collect();
    let value = json!({
        "timeNs": record.time_ns, "worker": record.worker, "inPort": record.in_port, "packet": packet,
        "length": record.length, "head": head, "steps": steps, "outPort": record.out_port,
        "dropReason": record.drop_reason, "lost": record.lost,
    });
    let fate = if record.drop_reason.is_empty() {
        format!("sent by {}", record.out_port)
    } else {
        format!("DROPPED: {}", record.drop_reason)
    };
    let width = record.steps.iter().map(|step| step.stage.len()).max().unwrap_or(0);
    let lines: Vec<_> =
        record.steps.iter().map(|step| format!("{:<width$}  {}", step.stage, step.detail)).collect();
    let mut text =
        format!("{}  {} in by {}, {} bytes", clock(record.time_ns), packet, record.in_port, record.length);
    if record.lost > 0 {
        text = format!("({} packets not shown: too many at once)\n{text}", record.lost);
    }
    text = format!("{text}\n{}", indent(&[lines, vec![fate]].concat().join("\n"), 4));
    Report { value, text }
}

/// Seconds and microseconds of the engine's clock.
fn clock(time_ns: u64) -> String {
    format!("{}.{:06}", time_ns / 1_000_000_000, time_ns / 1000 % 1_000_000)
}

#[cfg(test)]
mod tests {
    use vswitch_model::api::engine::Step;

    use super::*;

    #[test]
    fn a_record_tells_the_walk_and_the_end() {
        let step = |stage: &str, detail: &str| Step { stage: stage.into(), detail: detail.into() };
        let record = TraceRecord {
            time_ns: 12_000_345_000,
            in_port: "vsw1".into(),
            head: vec![],
            length: 60,
            steps: vec![step("parse", "udp"), step("policy", "denied by media/relay")],
            drop_reason: "policy-denied".into(),
            lost: 2,
            ..TraceRecord::default()
        };
        let report_dropped = report(&record);
        let expected = "(2 packets not shown: too many at once)\n12.000345  (no packet) in by vsw1, 60 bytes\n    \
                        parse   udp\n    policy  denied by media/relay\n    DROPPED: policy-denied";
        assert_eq!(report_dropped.text, expected);
        let sent = TraceRecord { out_port: "eth0".into(), drop_reason: String::new(), lost: 0, ..record };
        assert!(report(&sent).text.ends_with("\n    sent by eth0"));
        assert_eq!(report(&sent).value["steps"][1]["stage"], "policy");
    }
}
