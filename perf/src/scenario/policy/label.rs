//! One label of one pod: from the agent's objects to the engine's workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use vswitch_control::agent::Wanted;
use vswitch_control::calc::{CalcConfig, Calculator, Inputs};
use vswitch_model::api::engine::ApplyRequest;
use vswitch_model::api::engine::apply_request::Change as Sent;
use vswitch_model::{Delta, DesiredState, Generation, Port, PortName};

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
    /// As the agent's picture of the store has them: what was calculated from last is still held when the next come.
    inputs: Arc<Inputs>,
    wanted: Wanted,
    ports: Arc<BTreeMap<PortName, Port>>,
    generation: Generation,
    held: Held,
}

/// Milliseconds of a core that the parts of a change took.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Parts {
    picture: f64,
    calculate: f64,
    send: f64,
    receive: f64,
    apply: f64,
}

/// A figure of the parts.
type Figure = fn(&Parts) -> f64;

impl Parts {
    /// What is recorded of them.
    const FIGURES: [(&'static str, Figure); 8] = [
        ("agent", Self::agent),
        ("part/picture", |parts| parts.picture),
        ("part/calculate", |parts| parts.calculate),
        ("part/send", |parts| parts.send),
        ("engine", Self::engine),
        ("part/receive", |parts| parts.receive),
        ("part/apply", |parts| parts.apply),
        ("label", |parts| parts.agent() + parts.engine()),
    ];

    fn agent(&self) -> f64 {
        self.picture + self.calculate + self.send
    }

    fn engine(&self) -> f64 {
        self.receive + self.apply
    }
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
        let (inputs, node, generation) = (Arc::new(cluster.inputs()?), cluster.node(), Generation(1));
        let mut wanted = Wanted::new(Calculator::new(&node.name, CalcConfig::default()));
        let (calculated, whole) = time_of(|| wanted.follow(&inputs))?;
        calculated.map_err(|error| failed(&error))?;
        if let [problem, ..] = wanted.problems() {
            return Err(failed(problem));
        }
        let bytes = wanted.request(generation, None).ok_or_else(|| failed(&"no state"))?.encode_to_vec();
        let Some(Sent::Full(state)) = received(&bytes)? else { return Err(failed(&"not the whole state")) };
        let state = DesiredState::try_from(state).map_err(|error| failed(&error))?;
        let ports = wanted.acknowledged(None);
        let held = Held::start(&node, FLOWS, state)?;
        Ok((Self { cluster, inputs, wanted, ports, generation, held }, ms(whole)))
    }

    /// Gives a pod the app that is so many further than the one it began with, and brings that into force.
    fn relabel(&mut self, pod: usize, further: usize) -> Result<Parts> {
        let Self { cluster, inputs, wanted, ports, generation, held } = self;
        let (object, before) = (cluster.pod(pod, further)?, Arc::clone(inputs));
        let ((), picture) = time_of(|| Arc::make_mut(inputs).set(object))?;
        let (followed, calculate) = time_of(|| wanted.follow(inputs))?;
        if !followed.map_err(|error| failed(&error))? {
            return Err(failed(&"the label changed nothing of this node's state"));
        }
        drop(before);
        let (base, next) = (*generation, Generation(generation.0 + 1));
        let (bytes, send) = time_of(|| {
            let bytes = wanted.request(next, Some(base)).map(|request| request.encode_to_vec());
            *ports = wanted.acknowledged(Some(Arc::clone(ports)));
            bytes
        })?;
        let bytes = bytes.ok_or_else(|| failed(&"no state"))?;
        let (delta, receive) = time_of(|| match received(&bytes)? {
            Some(Sent::Delta(delta)) => Delta::try_from(delta).map_err(|error| failed(&error)),
            _ => Err(failed(&"no delta")),
        })?;
        let apply = held.change(delta?.changes)?;
        *generation = next;
        let [picture, calculate, send, receive, apply] = [picture, calculate, send, receive, apply].map(ms);
        Ok(Parts { picture, calculate, send, receive, apply })
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::setup("lead an engine as an agent does", error)
}

/// What the engine makes of the agent's bytes.
fn received(bytes: &[u8]) -> Result<Option<Sent>> {
    Ok(ApplyRequest::decode(bytes).map_err(|error| failed(&error))?.change)
}

#[cfg(test)]
mod tests {
    use vswitch_datapath::policy::FlowPorts;

    use super::*;

    /// Whether the first pod of this node lets a pod of its namespace in, as the engine has it.
    fn lets_in(node: &Node, other: usize) -> bool {
        let tables = node.held.tables();
        let [pod, other] =
            [0, other].map(|number| tables.lookup(node.cluster.address(number).into()).identity);
        tables.policy.ingress(pod, other, FlowPorts::to(6, 8080)).allow
    }

    #[test]
    fn a_label_of_either_pod_turns_a_verdict_of_the_engine_around_and_back() {
        let cluster = Cluster { pods_per_node: 20, nodes: 30, policies: 1000 };
        let (mut node, _) = Node::start(cluster).unwrap();
        assert_eq!(node.ports.len(), 20);
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
