//! Why the first packet of a flow would pass or not: policy from the objects, the walk from this node's engine.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::Status;
use vswitch_model::api::agent as pb;
use vswitch_model::api::engine::{ExplainReply, ExplainRequest, RuleVerdict};

use super::Core;
use super::engine::with_names;
use crate::calc::{End, Explanation, Inputs, Question, Side, explain};

impl Core {
    pub(super) async fn explain(
        &self,
        request: pb::ExplainFlowRequest,
    ) -> Result<pb::ExplainFlowReply, Status> {
        let question = question(&request)?;
        let snapshot = self.reflector.current();
        if !snapshot.synced {
            return Err(Status::unavailable(self.store_reason()));
        }
        let mut explanation = explain(&self.inputs_with_names(&snapshot.inputs), &question)
            .map_err(|error| Status::not_found(error.to_string()))?;
        if explanation.leaves_pod && self.settings.refuses_tunnel(&question) {
            explanation.refuse_tunnel();
        }
        let asked = ExplainRequest {
            source: explanation.from_address.to_string(),
            destination: explanation.to_address.to_string(),
            protocol: request.protocol,
            source_port: u32::from(explanation.source_port),
            destination_port: request.port,
        };
        let (walk, walk_error) = match elsewhere(&self.settings.node, &explanation) {
            Some(elsewhere) => (Vec::new(), elsewhere),
            None => match self.engine.explain(asked).await {
                Ok(reply) => (walk(&reply), self.walk_of_others(&reply, &explanation).unwrap_or_default()),
                Err(error) => (Vec::new(), error),
            },
        };
        Ok(pb::ExplainFlowReply {
            allowed: explanation.allowed,
            from: explanation.from,
            to: explanation.to,
            egress: Some(side(explanation.egress)),
            ingress: Some(side(explanation.ingress)),
            walk,
            walk_error,
        })
    }
}

impl Core {
    /// The objects, and what is known of names beside them.
    pub(super) fn inputs_with_names(&self, inputs: &Arc<Inputs>) -> Arc<Inputs> {
        with_names(inputs, self.names.learned())
    }

    /// Why the engine's walk may contradict what the objects say. None: it has the same objects, and does not.
    fn walk_of_others(&self, reply: &ExplainReply, explanation: &Explanation) -> Option<String> {
        let progress = self.engine.progress().borrow().clone();
        if let Some(error) = progress.engine_error.or(progress.calculation_error) {
            return Some(format!(
                "the engine runs generation {}, of older objects: {error}",
                reply.generation
            ));
        }
        if reply.generation < progress.calculated.0 {
            let newest = progress.calculated;
            return Some(format!("the engine runs generation {}, not {newest} yet", reply.generation));
        }
        let sides = [(&reply.egress, &explanation.egress), (&reply.ingress, &explanation.ingress)];
        let contrary = |(engine, objects): &(&Option<RuleVerdict>, &Side)| {
            engine
                .as_ref()
                .filter(|engine| engine.allowed != objects.allowed)
                .map(|engine| engine.text.clone())
        };
        sides.iter().find_map(contrary).map(|text| format!("the engine decides otherwise: {text}"))
    }
}

/// Which nodes to ask, where the flow does not pass this one: an end is of another node, and none is of this one.
fn elsewhere(here: &str, explanation: &Explanation) -> Option<String> {
    let nodes = [&explanation.from_node, &explanation.to_node].into_iter().flatten();
    let nodes: BTreeSet<&str> = nodes.map(String::as_str).collect();
    if nodes.is_empty() || nodes.contains(here) {
        return None;
    }
    let nodes = nodes.into_iter().collect::<Vec<_>>().join(" or ");
    Some(format!("neither end is on this node ({here}): ask on {nodes}"))
}

fn question(request: &pb::ExplainFlowRequest) -> Result<Question, Status> {
    let wrong = |field: &str, problem: String| Status::invalid_argument(format!("{field}: {problem}"));
    let end = |field: &str, text: &str| match text {
        "" => Err(wrong(field, "must not be empty: namespace/pod, pod, or an address".to_owned())),
        text => Ok(End::within(super::objects::or_default(&request.namespace), text)),
    };
    Ok(Question {
        from: end("from", &request.from)?,
        to: end("to", &request.to)?,
        protocol: u8::try_from(request.protocol)
            .map_err(|_| wrong("protocol", format!("{} is not a protocol: 0 to 255", request.protocol)))?,
        port: u16::try_from(request.port)
            .map_err(|_| wrong("port", format!("{} is not a port: 0 to 65535", request.port)))?,
        source_port: request
            .source_port
            .map(|port| {
                let problem = || wrong("source_port", format!("{port} is not a port: 0 to 65535"));
                u16::try_from(port).map_err(|_| problem())
            })
            .transpose()?,
        is_ipv4: match request.family {
            0 => None,
            4 => Some(true),
            6 => Some(false),
            other => return Err(wrong("family", format!("{other}: 4 or 6, or 0 for either"))),
        },
    })
}

/// The engine's answer, a step a line, and what came of it.
fn walk(reply: &ExplainReply) -> Vec<String> {
    let line = |stage: &str, detail: &str| match detail {
        "" => stage.to_owned(),
        detail => format!("{stage}: {detail}"),
    };
    let mut lines: Vec<String> = reply.steps.iter().map(|step| line(&step.stage, &step.detail)).collect();
    lines.push(match (reply.drop_reason.as_str(), reply.out_port.as_str()) {
        ("", "") => "answered".to_owned(),
        ("", port) => format!("sent by port {port}"),
        (reason, _) => format!("dropped: {reason}"),
    });
    lines
}

fn side(side: Side) -> pb::SideVerdict {
    let Side { allowed, isolated, policies, policy, position, reason, hint, staged } = side;
    pb::SideVerdict { allowed, isolated, policies, policy, position, reason, hint, staged }
}
