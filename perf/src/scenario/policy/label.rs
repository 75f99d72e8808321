//! One label of one pod: from the agent's objects to the engine's workers.

use prost::Message;
use vswitch_control::calc::{CalcConfig, Inputs, Numbering, calculate};
use vswitch_model::api::apply_request;
use vswitch_model::api::engine::ApplyRequest;
use vswitch_model::api::engine::apply_request::Change as Sent;
use vswitch_model::{Delta, DesiredState, Generation};

use super::NAME;
use super::cpu::{ms, time_of};
use crate::result::Measurement;
use crate::scenario::engine::bench::Held;
use crate::session::Session;
use crate::workload::{Cluster, count};
use crate::{Error, Result};

/// The cluster.
const CLUSTER: Cluster = Cluster { pods_per_node: 100, nodes: 100, policies: 1000 };
/// Room for flows: none come.
const FLOWS: u64 = 1024;

/// A pod whose label changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    name: String,
    cluster: Cluster,
    pod: usize,
}

/// A pod of this node, and one of another in a namespace that this node has pods in.
fn all(cluster: Cluster) -> [Case; 2] {
    let (pods, policies) = (count(cluster.pods() as u64), count(cluster.policies as u64));
    [("local", 0), ("remote", cluster.pods() / 500 * 250)].map(|(whose, pod)| Case {
        name: format!("label/pods-{pods}/policies-{policies}/{whose}"),
        cluster,
        pod,
    })
}

/// Those that are wanted.
pub(super) fn cases(session: &Session) -> Vec<Case> {
    all(CLUSTER).into_iter().filter(|case| session.wants(&case.name)).collect()
}

/// An agent and its engine.
struct Node {
    cluster: Cluster,
    inputs: Inputs,
    numbering: Numbering,
    config: CalcConfig,
    name: String,
    state: DesiredState,
    generation: Generation,
    held: Held,
}

/// Milliseconds of a core that the parts of a change took.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Parts {
    calculate: f64,
    check: f64,
    send: f64,
    receive: f64,
    apply: f64,
}

/// A figure of the parts.
type Figure = fn(&Parts) -> f64;

impl Parts {
    /// What is recorded of them.
    const FIGURES: [(&'static str, Figure); 8] = [
        ("agent", |parts| parts.calculate + parts.check + parts.send),
        ("part/calculate", |parts| parts.calculate),
        ("part/check", |parts| parts.check),
        ("part/send", |parts| parts.send),
        ("engine", |parts| parts.receive + parts.apply),
        ("part/receive", |parts| parts.receive),
        ("part/apply", |parts| parts.apply),
        ("label", |parts| parts.calculate + parts.check + parts.send + parts.receive + parts.apply),
    ];
}

/// Measures the cases, one after another on the same node.
pub(super) fn run(session: &mut Session, cases: &[Case]) -> Result<()> {
    let Some(first) = cases.first() else { return Ok(()) };
    session.step(&format!("{}: start", first.name))?;
    let (mut node, whole) = Node::start(first.cluster)?;
    for case in cases {
        // Two changes are one there and one back.
        let mut rounds = Vec::new();
        for round in 0..2 * session.config.rounds {
            session.step(&case.name)?;
            rounds.push(node.relabel(case.pod, 1 - round as usize % 2)?);
        }
        for (metric, of) in Parts::FIGURES {
            let values: Vec<f64> = rounds.iter().map(of).collect();
            session.record(Measurement::of_rounds(NAME, &case.name, metric, "ms", &values));
        }
        session.record(Measurement::of_rounds(NAME, &case.name, "calculate-all", "ms", &[whole]));
        session.advance();
    }
    Ok(())
}

impl Node {
    /// The node, and what its first calculation took, in milliseconds of a core.
    fn start(cluster: Cluster) -> Result<(Self, f64)> {
        let (inputs, node) = (cluster.inputs()?, cluster.node());
        let (mut numbering, config) = (Numbering::default(), CalcConfig::default());
        let (calculated, whole) = time_of(|| calculate(&inputs, &node.name, &config, &mut numbering))?;
        if let [problem, ..] = &calculated.problems[..] {
            return Err(Error::setup("make a cluster", problem));
        }
        let state = calculated.state;
        let held = Held::start(&node, FLOWS, state.clone())?;
        let (generation, name) = (Generation(1), node.name);
        Ok((Self { cluster, inputs, numbering, config, name, state, generation, held }, ms(whole)))
    }

    /// Gives a pod the app that is so many further than the one it began with, and brings that into force.
    fn relabel(&mut self, pod: usize, further: usize) -> Result<Parts> {
        self.inputs.set(self.cluster.pod(pod, further)?);
        let Self { inputs, name, config, numbering, .. } = self;
        let (calculated, calculate) = time_of(|| calculate(inputs, name, config, numbering))?;
        let state = calculated.state;
        let (whole, check) = time_of(|| state.check())?;
        whole.map_err(|error| Error::setup("calculate a node's state", error))?;
        let (base, next) = (self.generation, Generation(self.generation.0 + 1));
        let (bytes, send) =
            time_of(|| apply_request(next, Some((base, &self.state)), &state).encode_to_vec())?;
        let (delta, receive) = time_of(|| received(&bytes))?;
        let changes = delta?.changes;
        if changes.is_empty() {
            return Err(Error::setup("change a label", "it changed nothing of this node's state"));
        }
        let apply = self.held.change(changes)?;
        (self.state, self.generation) = (state, next);
        let [calculate, check, send, receive, apply] = [calculate, check, send, receive, apply].map(ms);
        Ok(Parts { calculate, check, send, receive, apply })
    }
}

/// What the engine makes of the agent's bytes.
fn received(bytes: &[u8]) -> Result<Delta> {
    let failed = |error: &dyn std::fmt::Display| Error::setup("read what the agent sends", error);
    match ApplyRequest::decode(bytes).map_err(|error| failed(&error))?.change {
        Some(Sent::Delta(delta)) => Delta::try_from(delta).map_err(|error| failed(&error)),
        _ => Err(failed(&"no delta")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the first pod of this node lets a pod of its namespace in, as the engine has it.
    fn lets_in(node: &Node, other: usize) -> bool {
        let tables = node.held.tables();
        let [pod, other] =
            [0, other].map(|number| tables.lookup(node.cluster.address(number).into()).identity);
        tables.policy.ingress(pod, other, 6, 8080).allow
    }

    #[test]
    fn a_label_of_either_pod_turns_a_verdict_of_the_engine_around_and_back() {
        let cluster = Cluster { pods_per_node: 20, nodes: 30, policies: 1000 };
        let (mut node, _) = Node::start(cluster).unwrap();
        assert_eq!(node.state.ports.len(), 20);
        let [local, remote] = all(cluster);
        assert_eq!((local.pod, remote.pod), (0, 250), "of one namespace");
        for case in [&local, &remote] {
            assert!(lets_in(&node, remote.pod));
            let parts = node.relabel(case.pod, 1).unwrap();
            assert!(Parts::FIGURES.iter().all(|(_, of)| of(&parts) > 0.0), "{parts:?}");
            assert!(!lets_in(&node, remote.pod), "{case:?}");
            node.relabel(case.pod, 0).unwrap();
        }
        assert!(node.relabel(remote.pod, 0).is_err(), "nothing changes");
    }
}
