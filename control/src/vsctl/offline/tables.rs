//! What the engine's own tables, compiled from the objects, say of a flow.

use std::net::IpAddr;

use vswitch_datapath::policy::{self, FlowPorts, PolicyDirection};
use vswitch_datapath::tables::Revision;
use vswitch_datapath::{CompileInputs, PortMap, Underlay, compile};
use vswitch_model::{DesiredState, Generation, RuleId};

use crate::calc::{CalcConfig, Explanation, Inputs, Numbering, Question, calculate};
use crate::object::Endpoint;

/// What one end's tables say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether it is the sender's end.
    pub(super) is_egress: bool,
    /// Whether it allows the flow.
    pub(super) allowed: bool,
    /// Whether it is a tunnel packet that pods may not send.
    pub(super) is_refused: bool,
    /// In words.
    pub(super) text: String,
}

/// Asks the tables of the node of each end that is an attached pod.
pub(super) fn ask(
    inputs: &Inputs,
    question: &Question,
    answer: &Explanation,
) -> Result<Vec<Verdict>, String> {
    let (from, to) = (answer.from_address, answer.to_address);
    let [sender, receiver] = [from, to].map(|address| endpoint_of(inputs, address));
    if let (Some(sender), Some(receiver)) = (sender, receiver)
        && sender.metadata.name == receiver.metadata.name
    {
        return Ok(Vec::new()); // It never leaves the pod.
    }
    let mut verdicts = Vec::new();
    for (direction, endpoint, own, other) in
        [(PolicyDirection::Egress, sender, from, to), (PolicyDirection::Ingress, receiver, to, from)]
    {
        let Some(endpoint) = endpoint else { continue };
        let ports =
            FlowPorts { protocol: question.protocol, destination: question.port, source: answer.source_port };
        verdicts.push(judge(inputs, &endpoint.spec.node, direction, own, other, ports)?);
    }
    Ok(verdicts)
}

fn endpoint_of(inputs: &Inputs, address: IpAddr) -> Option<&Endpoint> {
    inputs.endpoints.values().map(AsRef::as_ref).find(|endpoint| endpoint.spec.addresses.contains(&address))
}

fn judge(
    inputs: &Inputs,
    node: &str,
    direction: PolicyDirection,
    own: IpAddr,
    other: IpAddr,
    ports: FlowPorts,
) -> Result<Verdict, String> {
    let state = calculate(inputs, node, &CalcConfig::default(), &mut Numbering::default()).state;
    state.check().map_err(|invalid| format!("what these files come to cannot be in force: {invalid}"))?;
    let tables = compile(&CompileInputs {
        generation: Generation(1),
        revision: Revision(1),
        desired: &state,
        ports: &PortMap::default(),
        underlay: &Underlay::default(),
    })
    .map_err(|error| format!("what these files come to cannot be in force: {error}"))?;
    let [own, other] = [own, other].map(|address| tables.lookup(address).identity);
    let is_egress = direction == PolicyDirection::Egress;
    let is_refused = is_egress && tables.refuses_tunnel(ports);
    let verdict = if is_refused {
        policy::Verdict { allow: false, rule: RuleId::TUNNEL_FROM_POD, log: None }
    } else {
        tables.policy.verdict(direction, own, other, ports)
    };
    let (way, said) =
        (if is_egress { "leaving" } else { "arriving" }, if verdict.allow { "allowed" } else { "denied" });
    let text = format!("{way}: {said}{}", reason(&state, verdict.rule));
    Ok(Verdict { is_egress, allowed: verdict.allow, is_refused, text })
}

/// What decided, in words that go on from the verdict.
fn reason(state: &DesiredState, rule: RuleId) -> String {
    match rule {
        RuleId::NOT_ISOLATED => {
            ": no policy isolates the pod, or those that do leave it to be allowed".to_owned()
        }
        RuleId::NO_RULE_MATCHED => ": policy isolates the pod, and no rule matched".to_owned(),
        RuleId::TOO_LARGE => ": the pod's policy is too large for the engine".to_owned(),
        RuleId::LOCAL_NODE => ": the node always reaches its own pods".to_owned(),
        RuleId::TUNNEL_FROM_POD => ": pods may not send tunnel packets of this kind".to_owned(),
        id => {
            let policies = state.policies.values();
            let mut rules = policies.flat_map(|policy| policy.places().map(move |rule| (policy, rule)));
            let found = rules.find(|(_, (rule, _))| *rule == id);
            found.map_or_else(
                || format!(" by rule {id}"),
                |(policy, (_, position))| format!(" by {}, {position}", policy.name),
            )
        }
    }
}
