//! `diff`: which flows that exist now would get another verdict if files were applied, or deleted. Nothing is written.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::json;
use tonic::transport::Channel;
use vswitch_model::api::agent::ListObjectsRequest;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::engine::{Flow, ListFlowsRequest};

use super::cli::Diff;
use super::output::{Report, table};
use super::protocol::{Protocol, Service};
use super::{Failure, files};
use crate::calc::{End, Explainer, Explanation, Inputs, Question};
use crate::object::{Kind, Object, manifest};

/// A flow that would get another verdict.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    from: String,
    to: String,
    service: Service,
    /// Whether it would be allowed; now it is the other way round.
    allowed: bool,
    /// What would decide, in words.
    reason: String,
    /// How many flows are like this, other than in their source port.
    flows: usize,
}

/// The report, and whether any flow would get another verdict.
pub(super) async fn diff(
    agent: &mut AgentClient<Channel>,
    engine: &mut EngineClient<Channel>,
    diff: &Diff,
) -> Result<(Report, bool), Failure> {
    let documents = files::read(&diff.filename)?;
    let texts = documents.iter().map(|document| (document.file.as_str(), document.text.as_str()));
    let objects = manifest::parse_all(texts, &diff.namespace, Object::unenforced);
    let objects = objects.map_err(|error| Failure(error.to_string()))?;
    let now = current(agent).await?;
    let then = with(&now, objects, diff.delete);
    let request = ListFlowsRequest { limit: diff.limit, ..ListFlowsRequest::default() };
    let mut stream = engine.list_flows(request).await?.into_inner();
    let mut flows = Vec::new();
    while let Some(flow) = stream.message().await? {
        flows.push(flow);
    }
    let changes = changes(&now, &then, &flows)?;
    Ok((report(&changes, flows.len()), !changes.is_empty()))
}

/// The objects of the cluster, as the agent has them.
async fn current(agent: &mut AgentClient<Channel>) -> Result<Inputs, Failure> {
    let mut inputs = Inputs::default();
    for kind in Kind::ALL {
        let request =
            ListObjectsRequest { kind: kind.plural().to_owned(), all_namespaces: true, ..Default::default() };
        for text in agent.list(request).await?.into_inner().objects {
            let object = Object::from_json(text.as_bytes());
            inputs.set(object.map_err(|error| Failure(format!("of the objects there are now: {error}")))?);
        }
    }
    Ok(inputs)
}

fn with(now: &Inputs, objects: Vec<Object>, delete: bool) -> Inputs {
    let mut then = now.clone();
    for object in objects {
        if delete { then.remove(&object.key()) } else { then.set(object) }
    }
    then
}

/// A flow but for its source port: source, destination, protocol, destination port.
type Ends = (IpAddr, IpAddr, u8, u16);

fn changes(now: &Inputs, then: &Inputs, flows: &[Flow]) -> Result<Vec<Change>, Failure> {
    let (now, then) = (Explainer::new(now), Explainer::new(then));
    let mut changes: Vec<Change> = Vec::new();
    for (question, flows) in questions(&now, &then, flows)? {
        let answer = |by: &Explainer<'_>| by.explain(&question).map_err(|error| Failure(error.to_string()));
        let (before, after) = (answer(&now)?, answer(&then)?);
        if before.allowed != after.allowed {
            let service = Service { protocol: Protocol(question.protocol), port: question.port };
            let (allowed, reason) = (after.allowed, reason(&before, &after));
            let change = Change { from: after.from, to: after.to, service, allowed, reason, flows };
            add(&mut changes, change);
        }
    }
    Ok(changes)
}

/// What there is to ask of the flows, and of how many each: flows that differ in nothing but a source port that no rule
/// asks for are asked about once.
fn questions(
    now: &Explainer<'_>,
    then: &Explainer<'_>,
    flows: &[Flow],
) -> Result<Vec<(Question, usize)>, Failure> {
    let mut by_ends: BTreeMap<Ends, Vec<u16>> = BTreeMap::new();
    for flow in flows {
        let (ends, source_port) = read(flow)?;
        by_ends.entry(ends).or_default().push(source_port);
    }
    let mut questions = Vec::new();
    for ((from, to, protocol, port), mut source_ports) in by_ends {
        let (from, to) = (End::Address(from), End::Address(to));
        let question = Question { from, to, protocol, port, source_port: None, is_ipv4: None };
        if ![now, then].iter().any(|by| by.asks_for_source_port(&question)) {
            questions.push((question, source_ports.len()));
            continue;
        }
        source_ports.sort_unstable();
        questions.extend(source_ports.chunk_by(PartialEq::eq).map(|alike| {
            let question = Question { source_port: alike.first().copied(), ..question.clone() };
            (question, alike.len())
        }));
    }
    Ok(questions)
}

/// Those that differ in nothing but their source port, which come one after another, are one.
fn add(changes: &mut Vec<Change>, change: Change) {
    let is_of_ends = |other: &&mut Change| {
        (&other.from, &other.to, other.service) == (&change.from, &change.to, change.service)
    };
    let mut same = changes.iter_mut().rev().take_while(is_of_ends);
    match same.find(|other| (other.allowed, &other.reason) == (change.allowed, &change.reason)) {
        Some(same) => same.flows += change.flows,
        None => changes.push(change),
    }
}

/// A flow, and its source port.
fn read(flow: &Flow) -> Result<(Ends, u16), Failure> {
    let wrong = || Failure("the engine sent a flow that cannot be one".to_owned());
    let ends = (
        flow.source.parse().map_err(|_| wrong())?,
        flow.destination.parse().map_err(|_| wrong())?,
        u8::try_from(flow.protocol).map_err(|_| wrong())?,
        u16::try_from(flow.destination_port).map_err(|_| wrong())?,
    );
    Ok((ends, u16::try_from(flow.source_port).map_err(|_| wrong())?))
}

/// What the end that changes its mind would say.
fn reason(before: &Explanation, after: &Explanation) -> String {
    let (way, side) = if before.egress.allowed == after.egress.allowed {
        ("arriving", &after.ingress)
    } else {
        ("leaving", &after.egress)
    };
    format!("{way}: {}", side.reason)
}

fn report(changes: &[Change], flows: usize) -> Report {
    let value = changes.iter().map(|change| {
        json!({
            "from": change.from, "to": change.to, "service": change.service.to_string(), "flows": change.flows,
            "allowedNow": !change.allowed, "allowedThen": change.allowed, "reason": change.reason,
        })
    });
    let word = |allowed| if allowed { "allowed" } else { "denied" }.to_owned();
    let rows = changes.iter().map(|change| {
        [
            change.from.clone(),
            change.to.clone(),
            change.service.to_string(),
            change.flows.to_string(),
            word(!change.allowed),
            word(change.allowed),
            change.reason.clone(),
        ]
    });
    let changed: usize = changes.iter().map(|change| change.flows).sum();
    let sum = format!("{changed} of {flows} flows would get another verdict");
    let text = match changes {
        [] => sum,
        _ => format!("{}\n{sum}", table(["from", "to", "service", "flows", "now", "then", "because"], rows)),
    };
    Report { value: json!({"flows": flows, "changes": value.collect::<Vec<_>>()}), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {role: caller}}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: media}, status: {podIP: 10.0.0.2}}";
    const POLICY: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: media},
 spec: {podSelector: {}, ingress: [{ports: [{port: 443}]}]}}";

    fn objects(text: &str) -> Vec<Object> {
        manifest::parse_all([("t", text)], "default", |_| Ok(())).unwrap()
    }

    fn flow(source_port: u32, protocol: u32, destination_port: u32) -> Flow {
        let (source, destination) = ("10.0.0.1".to_owned(), "10.0.0.2".to_owned());
        Flow { source, destination, protocol, source_port, destination_port, ..Flow::default() }
    }

    #[test]
    fn flows_that_would_change_are_told_once_for_all_alike() {
        let now: Inputs = objects(PODS).into_iter().collect();
        let then = with(&now, objects(POLICY), false);
        let flows = [flow(1, 6, 80), flow(2, 6, 80), flow(3, 6, 443), flow(4, 1, 0x0800)];
        let found = changes(&now, &then, &flows).unwrap();
        let told: Vec<_> = found.iter().map(|c| (c.service.to_string(), c.flows, c.allowed)).collect();
        assert_eq!(told, [("icmp".to_owned(), 1, false), ("80/tcp".to_owned(), 2, false)]);
        assert!(found[0].reason.starts_with("arriving: "), "{}", found[0].reason);
        let said = report(&found, flows.len());
        assert!(said.text.ends_with("\n3 of 4 flows would get another verdict"), "{}", said.text);
        assert_eq!(said.value["changes"][1]["allowedThen"], false);

        let back = with(&then, objects(POLICY), true);
        assert_eq!(back, now);
        let again = changes(&then, &back, &flows).unwrap();
        assert!(again.len() == 2 && again.iter().all(|change| change.allowed));
        assert_eq!(
            report(&changes(&now, &now, &flows).unwrap(), 4).text,
            "0 of 4 flows would get another verdict"
        );
    }

    #[test]
    fn a_source_port_is_asked_about_only_where_a_rule_asks_for_it() {
        const FROM_5060: &str = "
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: sip, namespace: media},
 spec: {ingress: [{action: Allow, protocol: UDP, source: {ports: [5060]}, destination: {ports: [5060]}},
                  {action: Allow, source: {notPorts: [sip]}, notProtocol: UDP, destination: {nets: [10.9.0.0/16]}}]}}";
        let now: Inputs = objects(PODS).into_iter().collect();
        let then = with(&now, objects(FROM_5060), false);
        let elsewhere = Flow { destination: "198.51.100.1".into(), ..flow(7, 17, 5060) };
        let flows = [
            // At the port of the rule, and beside it.
            &[flow(5060, 17, 5060), flow(9, 17, 5060), flow(9, 17, 5060)][..],
            &[flow(1, 17, 53), flow(2, 17, 53), flow(1, 6, 5060), flow(2, 6, 5060)],
            // The source port of an echo is the number of its query.
            &[flow(1, 1, 0x0800), flow(2, 1, 0x0800), elsewhere],
        ];
        let flows = flows.concat();
        let (before, after) = (Explainer::new(&now), Explainer::new(&then));
        let asked = questions(&before, &after, &flows).unwrap();
        let asked: Vec<_> =
            asked.iter().map(|(q, flows)| (q.protocol, q.port, q.source_port, *flows)).collect();
        let expected = [
            (1, 0x0800, None, 2),
            (6, 5060, None, 2),
            (17, 53, None, 2),
            (17, 5060, Some(9), 2),
            (17, 5060, Some(5060), 1),
            (17, 5060, None, 1),
        ];
        assert_eq!(asked, expected);
        let found = changes(&now, &then, &flows).unwrap();
        let told: Vec<_> = found.iter().map(|c| (c.service.to_string(), c.flows)).collect();
        let told: Vec<_> = told.iter().map(|(service, flows)| (service.as_str(), *flows)).collect();
        assert_eq!(told, [("icmp", 2), ("5060/tcp", 2), ("53/udp", 2), ("5060/udp", 2)]);
    }

    #[test]
    fn a_flow_that_cannot_be_one_is_an_error() {
        let now = Inputs::default();
        let wrong = Flow { source: "here".into(), ..flow(1, 6, 80) };
        assert!(changes(&now, &now, &[wrong]).is_err());
    }
}
