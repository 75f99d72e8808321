//! What the engine would do with the first packet of a flow, with the rules by name.

use std::net::IpAddr;

use vswitch_datapath::explain::RuleVerdict;
use vswitch_datapath::{Query, explain as walk};
use vswitch_model::api::engine as pb;
use vswitch_model::{DropReason, Invalid, RuleId};

use super::routes::Routes;
use crate::engine::Snapshot;

pub(super) fn query(request: &pb::ExplainRequest) -> Result<Query, Invalid> {
    Ok(Query {
        source: address(&request.source, "source")?,
        destination: address(&request.destination, "destination")?,
        protocol: narrow(request.protocol, "protocol", u8::MAX.into())?,
        source_port: narrow(request.source_port, "source_port", u16::MAX.into())?,
        destination_port: narrow(request.destination_port, "destination_port", u16::MAX.into())?,
    })
}

/// An address of a request.
pub(super) fn address(text: &str, field: &str) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid::new(field, format!("\"{text}\" is not an IP address")))
}

/// A number of a request, at most `most`.
pub(super) fn narrow<T: TryFrom<u32>>(value: u32, field: &str, most: u32) -> Result<T, Invalid> {
    T::try_from(value).map_err(|_| Invalid::new(field, format!("{value} is out of range: 0 to {most}")))
}

pub(super) fn explain(snapshot: &Snapshot, query: &Query) -> pb::ExplainReply {
    let told = walk(&snapshot.tables, query);
    let steps = told.steps.iter().map(|step| {
        let verdict = match step.stage {
            "policy-egress" => told.egress,
            "policy-ingress" => told.ingress,
            _ => None,
        };
        let why = step.stage == "drop" && told.outcome == Err(DropReason::NextHopUnresolved);
        if why && let Some(hindrance) = hindrance(snapshot, query.destination) {
            let detail = format!("{}: {hindrance}", DropReason::NextHopUnresolved);
            return pb::Step { stage: step.stage.to_owned(), detail };
        }
        let detail = match verdict.and_then(|verdict| snapshot.rule(verdict.rule)) {
            Some(source) => format!("{} ({}, {})", step.detail, source.policy, source.position),
            None => step.detail.clone(),
        };
        pb::Step { stage: step.stage.to_owned(), detail }
    });
    let out_port = told.outcome.ok().map(|port| snapshot.port_name(port));
    pb::ExplainReply {
        generation: snapshot.tables.generation.0,
        allowed: told.outcome.is_ok(),
        steps: steps.collect(),
        drop_reason: told.outcome.err().map(|reason| reason.key().to_owned()).unwrap_or_default(),
        out_port: out_port.unwrap_or_default(),
        egress: told.egress.map(|verdict| rule_verdict(snapshot, verdict)),
        ingress: told.ingress.map(|verdict| rule_verdict(snapshot, verdict)),
    }
}

/// Why nothing goes to an address now.
fn hindrance(snapshot: &Snapshot, address: IpAddr) -> Option<String> {
    let route = Routes::of(snapshot).to(address)?;
    Some(route.hindrance).filter(|hindrance| !hindrance.is_empty())
}

pub(super) fn rule_verdict(snapshot: &Snapshot, verdict: RuleVerdict) -> pb::RuleVerdict {
    let said = if verdict.allowed { "allowed" } else { "denied" };
    let source = snapshot.rule(verdict.rule);
    let text = match (verdict.rule, source) {
        (RuleId::NOT_ISOLATED, _) => {
            format!("{said}: no policy isolates the pod, or those that do leave it to be allowed")
        }
        (RuleId::NO_RULE_MATCHED, _) => format!("{said}: policy isolates the pod, and no rule matched"),
        (RuleId::TOO_LARGE, _) => {
            format!("{said}: the pod's policy is too large for the engine, see its status")
        }
        (RuleId::LOCAL_NODE, _) => format!("{said}: the node always reaches its own pods"),
        (RuleId::TUNNEL_FROM_POD, _) => format!("{said}: pods may not send tunnel packets of this kind"),
        (_, Some(source)) => format!("{said} by {}, {}", source.policy, source.position),
        (rule, None) => format!("{said} by rule {rule}"),
    };
    let (policy, position) =
        source.map(|source| (source.policy.clone(), source.position.clone())).unwrap_or_default();
    pb::RuleVerdict { allowed: verdict.allowed, rule: verdict.rule.0, policy, position, text }
}
