//! The project's own way to a verdict: objects -> calculated state of each node -> its tables -> its walk.

mod frames;
mod node;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use vswitch_control::calc::{End as CalcEnd, Explainer, Inputs, LearnedNames, Question, Side};
use vswitch_control::object::manifest::from_value;
use vswitch_datapath::policy::{FlowPorts, PolicyDirection, Verdict, View};
use vswitch_model::DomainName;

use crate::report::{Report, Way};
use crate::scene::{End, LEARNED, Probe, Scene, Who};
use node::Node;

/// All nodes of a cluster, with what they remember from one state to the next: numbers, tables, flows.
#[derive(Default)]
pub(crate) struct Switch {
    inputs: Inputs,
    nodes: BTreeMap<String, Node>,
    revision: u64,
}

impl Switch {
    /// Makes these objects, and no others, the state of the cluster.
    pub(crate) fn apply(&mut self, objects: &[Value]) {
        let typed = |object: &Value| from_value("case", "default", 1, object.clone()).unwrap();
        self.inputs = objects.iter().map(typed).collect();
        self.inputs.names = learned();
        self.revision += 1;
        self.nodes.retain(|name, _| self.inputs.nodes.contains_key(name));
        for (number, name) in self.inputs.nodes.keys().enumerate() {
            let node = self.nodes.entry(name.clone()).or_insert_with(|| Node::new(number));
            node.apply(&self.inputs, name, self.revision);
        }
    }

    /// Judges each probe by the tables and by what explains them, each side for itself.
    pub(crate) fn judge(&self, scene: &Scene, report: &mut Report) {
        let explainer = Explainer::new(&self.inputs);
        for probe in &scene.probes {
            let (from, to) = (&scene.ends[probe.from], &scene.ends[probe.to]);
            let verdicts = [
                self.verdict(PolicyDirection::Egress, from, to, probe),
                self.verdict(PolicyDirection::Ingress, to, from, probe),
            ];
            let allows = verdicts.map(|told| told.is_none_or(|told| told.verdict.allow));
            judge_sides(report, Way::Tables, scene, probe, allows);

            let question = question(from, to, probe);
            let said = explainer
                .explain(&question)
                .unwrap_or_else(|error| panic!("{}: {error}", scene.describe(probe)));
            judge_sides(report, Way::Explain, scene, probe, [said.egress.allowed, said.ingress.allowed]);
            let sides = [&said.egress, &said.ingress];
            judge_more(report, scene, probe, &verdicts, sides);
            for (told, side) in verdicts.into_iter().zip(sides) {
                let Some(Told { node, verdict, .. }) = told else { continue };
                let rule = node.name_of_rule(verdict);
                if rule != (side.policy.as_str(), side.position.as_str()) {
                    let (policy, position) = (&side.policy, &side.position);
                    let what = format!("the tables name {rule:?}, it says {policy:?}, {position:?}");
                    report.tell(Way::Explain, &format!("{}: {what}", scene.describe(probe)));
                }
            }
        }
    }

    /// What the tables of the node of `own` say of its side. None: it is no pod, and has no policy.
    fn verdict(&self, direction: PolicyDirection, own: &End, other: &End, probe: &Probe) -> Option<Told<'_>> {
        let node = self.nodes.get(&own.node).filter(|_| matches!(own.who, Who::Pod { .. }))?;
        let Probe { protocol, port: destination, source_port: source, .. } = *probe;
        let ports = FlowPorts { protocol, destination, source };
        let ask = |view| node.verdict(view, direction, own.address, other.address, ports);
        Some(Told { node, verdict: ask(View::InForce), staged: ask(View::Staged) })
    }
}

/// What is known of names.
fn learned() -> Arc<LearnedNames> {
    let mut names = LearnedNames::default();
    for (name, address) in LEARNED {
        let addresses = names.0.entry(DomainName::parse(name).unwrap()).or_default();
        addresses.insert(address.parse().unwrap());
    }
    Arc::new(names)
}

/// What the tables of a node say.
#[derive(Clone, Copy)]
struct Told<'a> {
    node: &'a Node,
    verdict: Verdict,
    /// Were what is staged in force.
    staged: Verdict,
}

/// What is logged, and what is staged.
fn judge_more(
    report: &mut Report,
    scene: &Scene,
    probe: &Probe,
    told: &[Option<Told<'_>>; 2],
    sides: [&Side; 2],
) {
    if let Some(expected) = probe.expected.logged {
        let tables = told.map(|told| told.is_some_and(|told| told.verdict.log.is_some()));
        report.compare(Way::Log, scene, probe, "the tables", [expected, tables]);
        let explained = sides.map(|side| side.reason.starts_with("logged by "));
        report.compare(Way::Log, scene, probe, "explain", [expected, explained]);
    }
    if let Some(expected) = probe.expected.staged {
        let tables = told.map(|told| told.is_none_or(|told| told.staged.allow));
        report.compare(Way::Staged, scene, probe, "the tables", [expected, tables]);
        let explained = sides.map(|side| match side.staged.as_str() {
            "" => side.allowed,
            text => text.starts_with("it would be allowed"),
        });
        report.compare(Way::Staged, scene, probe, "explain", [expected, explained]);
    }
}

fn question(from: &End, to: &End, probe: &Probe) -> Question {
    let from = match &from.who {
        Who::Pod { namespace, name } => CalcEnd::Pod(namespace.clone(), name.clone()),
        Who::Node | Who::World => CalcEnd::Address(from.address),
    };
    let is_ipv4 = Some(to.address.is_ipv4());
    let to = CalcEnd::Address(to.address);
    let Probe { protocol, port, source_port, .. } = *probe;
    Question { from, to, protocol, port, source_port: Some(source_port), is_ipv4 }
}

/// Compares each side where the table says it, and what both come to.
pub(crate) fn judge_sides(report: &mut Report, way: Way, scene: &Scene, probe: &Probe, got: [bool; 2]) {
    let expected = probe.expected;
    let (mut allowed, mut more) = (got[0] && got[1], String::new());
    if let Some(sides) = expected.sides
        && sides != got
    {
        // The verdict may be right for a wrong reason.
        allowed = !expected.allowed;
        more = format!("[egress, ingress] is {got:?} instead of {sides:?}: ");
    }
    report.judge(way, scene, probe, expected.allowed, allowed, &more);
}
