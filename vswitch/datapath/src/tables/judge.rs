//! The judgement of a flow by the tables: when its first packet comes, and again when the tables have changed.

use vswitch_model::{DropReason, IdentityId, RuleId};

use super::{AdjacencyIndex, Leaf, Role, Tables};
use crate::flow::{Direction, Flow};
use crate::policy::{FlowPorts, PolicyDirection, PolicyQuestion, Verdict};
use crate::{BATCH, PortIndex};

/// A flow as policy is asked about it.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The port its first packet came by.
    pub in_port: PortIndex,
    /// Of the originator.
    pub source: Leaf,
    /// Of the responder.
    pub destination: Leaf,
    /// Its ports.
    pub ports: FlowPorts,
}

/// A flow that policy allows, as its record keeps it. Arrays are indexed by [`Direction`]: the first element belongs
/// to what the originator sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Of the originator and of the responder.
    pub identities: [IdentityId; 2],
    /// The way to the responder and the way back.
    pub adjacencies: [AdjacencyIndex; 2],
    /// What decided at the originator's end; [`RuleId::NOT_ISOLATED`] when that is not a pod of ours.
    pub egress: RuleId,
    /// What decided at the responder's end; [`RuleId::NOT_ISOLATED`] when that is not a pod of ours.
    pub ingress: RuleId,
    /// The rules that marked it, at either end.
    pub marks: [Option<RuleId>; 2],
}

impl Judgement {
    /// Nothing has been said yet.
    #[inline]
    fn of(flow: &Question) -> Self {
        Self {
            identities: [flow.source.identity, flow.destination.identity],
            adjacencies: [flow.destination.adjacency, flow.source.adjacency],
            egress: RuleId::NOT_ISOLATED,
            ingress: RuleId::NOT_ISOLATED,
            marks: [None; 2],
        }
    }

    /// Takes in what the policy of one end says.
    #[inline]
    fn heed(&mut self, direction: PolicyDirection, verdict: Verdict) -> Result<(), Denied> {
        let (end, reason, rule) = match direction {
            PolicyDirection::Egress => (0, DropReason::PolicyEgress, &mut self.egress),
            PolicyDirection::Ingress => (1, DropReason::PolicyIngress, &mut self.ingress),
        };
        *rule = verdict.rule;
        self.marks[end] = verdict.log;
        if verdict.allow { Ok(()) } else { Err(Denied { reason, rule: verdict.rule, marks: self.marks }) }
    }
}

/// A flow that policy denies, or that no pod may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// [`DropReason::PolicyEgress`], [`DropReason::PolicyIngress`] or [`DropReason::TunnelFromPod`].
    pub reason: DropReason,
    /// What decided.
    pub rule: RuleId,
    /// The rules that marked it, at either end.
    pub marks: [Option<RuleId>; 2],
}

impl Denied {
    /// A pod's own tunnel packet: policy is not asked.
    const TUNNEL: Self =
        Self { reason: DropReason::TunnelFromPod, rule: RuleId::TUNNEL_FROM_POD, marks: [None; 2] };
}

/// What would be said of a flow, were what is staged in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedVerdict {
    /// At the originator's end; None where that is not a pod of ours.
    pub egress: Option<Verdict>,
    /// At the responder's end; None where that is not a pod of ours, or the originator's denies.
    pub ingress: Option<Verdict>,
}

impl StagedVerdict {
    /// Whether the flow could be.
    #[must_use]
    pub fn allow(&self) -> bool {
        [self.egress, self.ingress].iter().flatten().all(|verdict| verdict.allow)
    }
}

impl Tables {
    /// Judges a flow: egress when it comes by a pod's port or the source is a pod of this node (which differs when a port
    /// has gone and its number or address came back), ingress when the destination is. Where egress is, tunnel packets are
    /// denied before it, unless pods may send them. Whether the adjacencies lead anywhere is not asked.
    #[inline]
    pub fn judge(&self, flow: &Question) -> Result<Judgement, Denied> {
        let mut judgement = Judgement::of(flow);
        let (ours, theirs) = self.judged_ends(flow);
        if ours && self.refuses_tunnel(flow.ports) {
            return Err(Denied::TUNNEL);
        }
        if ours {
            judgement.heed(
                PolicyDirection::Egress,
                self.policy.egress(flow.source.identity, flow.destination.identity, flow.ports),
            )?;
        }
        if theirs {
            judgement.heed(
                PolicyDirection::Ingress,
                self.policy.ingress(flow.destination.identity, flow.source.identity, flow.ports),
            )?;
        }
        Ok(judgement)
    }

    /// The same of up to [`BATCH`] flows, see [`crate::policy::PolicyTables::verdicts`]; of more the rest is left alone.
    #[inline]
    pub fn judge_batch(&self, flows: &[Question], judged: &mut [Result<Judgement, Denied>]) {
        let (mut ours, mut theirs) = (Numbers::NONE, Numbers::NONE);
        for (number, (flow, judged)) in flows.iter().zip(judged.iter_mut()).enumerate().take(BATCH) {
            *judged = Ok(Judgement::of(flow));
            let (is_ours, is_theirs) = self.judged_ends(flow);
            if is_ours && self.refuses_tunnel(flow.ports) {
                *judged = Err(Denied::TUNNEL);
                continue;
            }
            ours.push_if(is_ours, number);
            theirs.push_if(is_theirs, number);
        }
        self.ask(PolicyDirection::Egress, &ours, flows, judged);
        self.ask(PolicyDirection::Ingress, &theirs, flows, judged);
    }

    /// Asks the policy of one end about the flows of these numbers. What it says of those that were denied is not heeded.
    #[inline]
    fn ask(
        &self,
        direction: PolicyDirection,
        numbers: &Numbers,
        flows: &[Question],
        judged: &mut [Result<Judgement, Denied>],
    ) {
        let numbers = numbers.items();
        let asked = numbers.iter().filter_map(|number| flows.get(usize::from(*number))).map(|flow| {
            let ends = match direction {
                PolicyDirection::Egress => [flow.source, flow.destination],
                PolicyDirection::Ingress => [flow.destination, flow.source],
            };
            let [subject, peer] = ends.map(|leaf| leaf.identity);
            PolicyQuestion { subject, peer, ports: flow.ports }
        });
        self.policy.verdicts(direction, asked, |at, verdict| {
            if let Some(number) = numbers.get(at)
                && let Some(judged) = judged.get_mut(usize::from(*number))
                && let Ok(judgement) = judged
                && let Err(denied) = judgement.heed(direction, verdict)
            {
                *judged = Err(denied);
            }
        });
    }

    /// Whether the flow's originator and its responder are judged by their policy here.
    #[inline]
    fn judged_ends(&self, flow: &Question) -> (bool, bool) {
        let is_pod = |leaf: Leaf| self.adjacency(leaf.adjacency).is_pod();
        (self.port(flow.in_port).role == Role::Pod || is_pod(flow.source), is_pod(flow.destination))
    }

    /// What [`Self::judge`] would say, were what is staged in force. None: nothing is staged, or it is a pod's own tunnel
    /// packet, of which policy decides nothing.
    #[inline]
    #[must_use]
    pub fn judge_staged(&self, flow: &Question) -> Option<StagedVerdict> {
        let staged = self.policy.staged()?;
        let (ours, theirs) = self.judged_ends(flow);
        if ours && self.refuses_tunnel(flow.ports) {
            return None;
        }
        let ends = (flow.source.identity, flow.destination.identity);
        let egress = ours.then(|| staged.verdict(PolicyDirection::Egress, ends.0, ends.1, flow.ports));
        let asked = theirs && egress.is_none_or(|verdict| verdict.allow);
        let ingress = asked.then(|| staged.verdict(PolicyDirection::Ingress, ends.1, ends.0, flow.ports));
        Some(StagedVerdict { egress, ingress })
    }

    /// Makes a flow of other tables one of these, and judges it again unless both its ends are who they were, with the
    /// policy they had, staged ones included: None then, and otherwise what was judged. When it is denied the record is as
    /// it was. `hash` is the flow's: of several next hops it says which the record gets.
    pub fn revalidate(&self, flow: &mut Flow, hash: u64) -> Result<Option<Judgement>, Denied> {
        let asked = self.question(flow, hash);
        if self.is_as_it_was(flow, &asked) && self.is_staged_as_it_was(flow, &asked) {
            flow.adjacencies = [asked.destination.adjacency, asked.source.adjacency];
            flow.revision = self.revision;
            flow.is_revoked = false;
            return Ok(None);
        }
        let judgement = self.judge(&asked)?;
        flow.adopt(judgement, self.revision);
        Ok(Some(judgement))
    }

    /// Whether the flow would be judged as its record says.
    fn is_as_it_was(&self, flow: &Flow, asked: &Question) -> bool {
        let (ours, theirs) = self.judged_ends(asked);
        let Question { source, destination, .. } = asked;
        let ends = [
            (PolicyDirection::Egress, ours, flow.egress, source.identity),
            (PolicyDirection::Ingress, theirs, flow.ingress, destination.identity),
        ];
        // Whether pods may send tunnel packets can have changed without any policy.
        !(ours && self.refuses_tunnel(asked.ports))
            && flow.identities == [source.identity, destination.identity]
            && ends.into_iter().all(|(direction, judged, rule, subject)| match (judged, rule) {
                // It may not have been a pod of ours then.
                (true, RuleId::NOT_ISOLATED) => self.policy.is_open(direction, subject),
                (true, _) => !self.policy.changed_since(direction, subject, flow.revision),
                (false, rule) => rule == RuleId::NOT_ISOLATED,
            })
    }

    /// Whether what is staged would say of the flow what it said. It decides nothing, but it is counted and told of.
    fn is_staged_as_it_was(&self, flow: &Flow, asked: &Question) -> bool {
        if self.policy.staged().is_none() {
            return true;
        }
        let (ours, theirs) = self.judged_ends(asked);
        let is_other =
            |direction, end: Leaf| self.policy.staged_changed_since(direction, end.identity, flow.revision);
        !(ours && is_other(PolicyDirection::Egress, asked.source)
            || theirs && is_other(PolicyDirection::Ingress, asked.destination))
    }

    /// A flow there is, of this hash, as these tables are asked about it.
    pub(crate) fn question(&self, flow: &Flow, hash: u64) -> Question {
        Question {
            in_port: flow.in_port,
            source: self.choose(self.lookup(flow.address(Direction::Original)), hash),
            destination: self.choose(self.lookup(flow.address(Direction::Reply)), hash),
            ports: flow.policy_ports(),
        }
    }
}

/// Numbers of some flows of a batch.
struct Numbers {
    items: [u8; BATCH],
    count: usize,
}

impl Numbers {
    const NONE: Self = Self { items: [0; BATCH], count: 0 };

    #[inline]
    fn push_if(&mut self, is_one: bool, number: usize) {
        self.items[self.count % BATCH] = number as u8;
        self.count += usize::from(is_one);
    }

    #[inline]
    fn items(&self) -> &[u8] {
        &self.items[..self.count.min(BATCH)]
    }
}
