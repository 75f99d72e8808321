//! Asking policy about flows, and telling of them.

use std::net::IpAddr;

use vswitch_model::{DropReason, RuleId};

use super::route;
use crate::flow::{Direction, Flow, FlowKey, NewFlow, Orientation, TcpFlags};
use crate::flow_log::{FlowLog, FlowRecord, FlowVerdict};
use crate::parse::Parsed;
use crate::policy::FlowPorts;
use crate::stage::{Context, Fate, Scratch};
use crate::tables::{Denied, Judgement, Leaf, Question, StagedVerdict, Tables};
use crate::{BATCH, PortIndex};

/// The packets of a batch that belong to no known flow, and what the tables say of each as the first of one.
#[derive(Debug)]
pub(crate) struct Misses {
    questions: [Question; BATCH],
    judged: [Result<Judgement, Denied>; BATCH],
    /// The rules that allowed what was opened, to be counted together.
    opened: [[RuleId; 2]; BATCH],
    opened_count: usize,
}

impl Misses {
    pub(crate) fn new() -> Self {
        let nobody = Question {
            in_port: PortIndex(0),
            source: Leaf::default(),
            destination: Leaf::default(),
            ports: FlowPorts::to(0, 0),
        };
        let denied =
            Denied { reason: DropReason::PolicyIngress, rule: RuleId::NO_RULE_MATCHED, marks: [None; 2] };
        Self {
            questions: [nobody; BATCH],
            judged: [Err(denied); BATCH],
            opened: [[RuleId::NOT_ISOLATED; 2]; BATCH],
            opened_count: 0,
        }
    }

    /// Asks about all packets of `packets`, one table after another so that their waits for memory overlap.
    pub(super) fn ask(
        &mut self,
        context: &Context<'_>,
        scratch: &Scratch,
        packets: impl Iterator<Item = usize> + Clone,
    ) {
        let parsed = packets.clone().map(|index| &scratch.parsed[index]);
        let (mut sources, mut destinations) = ([Leaf::default(); BATCH], [Leaf::default(); BATCH]);
        context.tables.lookup_batch(parsed.clone().map(|parsed| parsed.source), &mut sources);
        context.tables.lookup_batch(parsed.clone().map(|parsed| parsed.destination), &mut destinations);
        let mut count = 0;
        for (question, (index, parsed)) in self.questions.iter_mut().zip(packets.zip(parsed)) {
            let ports = FlowPorts {
                protocol: parsed.protocol,
                destination: parsed.destination_port,
                source: parsed.source_port,
            };
            let [source, destination] = [sources[count], destinations[count]]
                .map(|leaf| context.tables.choose(leaf, scratch.entropy[index]));
            *question = Question { in_port: scratch.ingress[index], source, destination, ports };
            count += 1;
        }
        context.tables.judge_batch(&self.questions[..count], &mut self.judged[..count]);
    }

    /// Packet `number` of those that were asked about, and what was said of it.
    #[inline]
    pub(super) fn asked<'a>(
        &'a self,
        context: &'a Context<'a>,
        parsed: &'a Parsed,
        number: usize,
    ) -> (Asked<'a>, &'a Result<Judgement, Denied>) {
        let number = number % BATCH;
        (Asked { context, parsed, question: &self.questions[number] }, &self.judged[number])
    }

    /// A flow was opened by these rules.
    #[inline]
    pub(super) fn opened(&mut self, rules: [RuleId; 2]) {
        self.opened[self.opened_count % BATCH] = rules;
        self.opened_count += 1;
    }

    /// Counts what was opened since this was called last.
    #[inline]
    pub(super) fn count(&mut self, context: &Context<'_>) {
        let count = std::mem::take(&mut self.opened_count);
        for rules in self.opened.iter().take(count) {
            context.counters.rules.opened(*rules, context.tables.revision);
        }
        context.counters.flows_created.add(count as u64);
    }
}

/// The first packet of a flow, as policy is asked about it.
pub(super) struct Asked<'a> {
    context: &'a Context<'a>,
    parsed: &'a Parsed,
    question: &'a Question,
}

impl Asked<'_> {
    /// Whether anybody wants to know more of it than that it was opened.
    #[inline]
    pub(super) fn is_to_be_told(&self, judged: &Result<Judgement, Denied>) -> bool {
        is_to_be_told(self.context.tables, judged)
    }

    /// Counts what was said for the rules that said it, and tells of it where that is worth it.
    #[cold]
    pub(super) fn tell(&self, judged: &Result<Judgement, Denied>, log: &mut FlowLog, hash: u64) {
        let Self { context, parsed, question } = *self;
        if let Err(Denied { rule, .. }) = judged {
            context.counters.rules.denied(*rule, context.tables.revision, parsed.ip_length());
        }
        let (ends, ports) = ([parsed.source, parsed.destination], parsed.told_ports());
        let told = Told { context, ends, ports, question: *question };
        told.tell(judged, log, hash);
    }

    /// The record of a flow that policy allows, where a way leads on. Policy came first: who may not send learns nothing
    /// about routes.
    pub(super) fn open(
        &self,
        judgement: &Judgement,
        key: FlowKey,
        orientation: Orientation,
    ) -> Result<Flow, Fate> {
        let Self { context, question: &Question { in_port, destination, .. }, .. } = *self;
        let way = context.tables.adjacency(destination.adjacency);
        route(context, in_port, way).map_err(|reason| match reason {
            DropReason::NoRoute | DropReason::RouteUnreachable | DropReason::NextHopUnresolved => {
                Fate::unreachable(reason)
            }
            _ => Fate::Dropped(reason),
        })?;
        let new = NewFlow {
            key,
            orientation,
            in_port,
            judgement: *judgement,
            revision: context.tables.revision,
            tcp_flags: TcpFlags(self.parsed.tcp_flags),
            now: context.now,
        };
        Flow::new(&new).map_err(Fate::Dropped)
    }
}

/// Whether anybody wants to know more of what was judged so than that it was.
#[inline]
fn is_to_be_told(tables: &Tables, judged: &Result<Judgement, Denied>) -> bool {
    let unmarked = judged.as_ref().is_ok_and(|judgement| judgement.marks == [None; 2]);
    !unmarked || tables.policy.staged().is_some()
}

/// Counts for the rules that log, and for what is staged, that a flow was judged anew, and tells of it: the policy that
/// says so may not have been there when it was opened.
pub(super) fn tell_again(
    context: &Context<'_>,
    flow: &Flow,
    judged: &Result<Judgement, Denied>,
    log: &mut FlowLog,
    hash: u64,
) {
    let tables = context.tables;
    if !is_to_be_told(tables, judged) {
        return;
    }
    let [(source, source_port), (destination, destination_port)] =
        [flow.end(Direction::Original), flow.end(Direction::Reply)];
    let (ends, ports) = ([source, destination], (source_port, destination_port));
    let told = Told { context, ends, ports, question: tables.question(flow, hash) };
    told.tell(judged, log, hash);
}

/// A flow that was judged. Arrays have the originator first.
struct Told<'a> {
    context: &'a Context<'a>,
    ends: [IpAddr; 2],
    /// As [`FlowRecord::ports`].
    ports: (u16, u16),
    question: Question,
}

impl Told<'_> {
    fn tell(&self, judged: &Result<Judgement, Denied>, log: &mut FlowLog, hash: u64) {
        let Context { tables, now, counters } = *self.context;
        let (verdict, marks) = match judged {
            Ok(Judgement { egress, ingress, marks, .. }) => {
                (FlowVerdict::Allowed { egress: *egress, ingress: *ingress }, *marks)
            }
            Err(Denied { reason, rule, marks }) => {
                (FlowVerdict::Denied { reason: *reason, rule: *rule }, *marks)
            }
        };
        // A flood of what is denied comes here, packet by packet, and nearly all of it is neither marked nor staged.
        if marks != [None; 2] {
            marks.into_iter().flatten().for_each(|rule| counters.rules.marked(rule, tables.revision));
        }
        let allowed = judged.is_ok();
        let staged = if tables.policy.staged().is_some() { self.staged_otherwise(allowed) } else { None };
        if allowed && marks == [None; 2] && staged.is_none() {
            return;
        }
        let Self { ends: [source, destination], ports, question, .. } = *self;
        log.tell(now, hash, allowed, || FlowRecord {
            time: now,
            revision: tables.revision,
            in_port: question.in_port,
            source,
            destination,
            protocol: question.ports.protocol,
            ports,
            identities: [question.source, question.destination].map(|leaf| leaf.identity),
            verdict,
            marks,
            staged,
            suppressed: 0,
        });
    }

    /// Counts what would be said, were what is staged in force, and gives it where that is another verdict.
    fn staged_otherwise(&self, allowed: bool) -> Option<StagedVerdict> {
        let Context { tables, counters, .. } = *self.context;
        let staged = tables.judge_staged(&self.question)?;
        for verdict in [staged.egress, staged.ingress].into_iter().flatten() {
            counters.rules.staged(verdict.allow, verdict.rule, tables.revision);
        }
        Some(staged).filter(|staged| staged.allow() != allowed)
    }
}
