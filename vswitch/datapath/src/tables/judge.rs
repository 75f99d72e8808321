//! The judgement of a flow by the tables: when its first packet comes, and again when the tables have changed.

use std::net::IpAddr;

use vswitch_model::{DropReason, IdentityId, RuleId};

use super::{AdjacencyIndex, Leaf, Role, Tables};
use crate::PortIndex;
use crate::flow::{Direction, Flow};
use crate::policy::{FlowPorts, PolicyDirection, Verdict};

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

/// A flow that policy denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// [`DropReason::PolicyEgress`] or [`DropReason::PolicyIngress`].
    pub reason: DropReason,
    /// What decided.
    pub rule: RuleId,
    /// The rules that marked it, at either end.
    pub marks: [Option<RuleId>; 2],
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
    /// Judges a flow by the leaves of its two ends: egress when `in_port` is a pod's or the source is a pod of this node
    /// (which differs when a port has gone and its number or address came back), ingress when the destination is. Whether the adjacencies lead
    /// anywhere is not asked.
    #[inline]
    pub fn judge(
        &self,
        in_port: PortIndex,
        source: Leaf,
        destination: Leaf,
        ports: FlowPorts,
    ) -> Result<Judgement, Denied> {
        let mut judgement = Judgement {
            identities: [source.identity, destination.identity],
            adjacencies: [destination.adjacency, source.adjacency],
            egress: RuleId::NOT_ISOLATED,
            ingress: RuleId::NOT_ISOLATED,
            marks: [None; 2],
        };
        let (ours, theirs) = self.judged_ends(in_port, source, destination);
        if ours {
            let verdict = self.policy.egress(source.identity, destination.identity, ports);
            judgement.marks[0] = verdict.log;
            if !verdict.allow {
                let (reason, rule, marks) = (DropReason::PolicyEgress, verdict.rule, judgement.marks);
                return Err(Denied { reason, rule, marks });
            }
            judgement.egress = verdict.rule;
        }
        if theirs {
            let verdict = self.policy.ingress(destination.identity, source.identity, ports);
            judgement.marks[1] = verdict.log;
            if !verdict.allow {
                let (reason, rule, marks) = (DropReason::PolicyIngress, verdict.rule, judgement.marks);
                return Err(Denied { reason, rule, marks });
            }
            judgement.ingress = verdict.rule;
        }
        Ok(judgement)
    }

    /// Whether the flow's originator and its responder are judged by their policy here.
    #[inline]
    fn judged_ends(&self, in_port: PortIndex, source: Leaf, destination: Leaf) -> (bool, bool) {
        let ours = self.port(in_port).role == Role::Pod || self.adjacency(source.adjacency).is_pod();
        (ours, self.adjacency(destination.adjacency).is_pod())
    }

    /// What [`Self::judge`] would say, were what is staged in force. None: nothing is staged.
    #[inline]
    #[must_use]
    pub fn judge_staged(
        &self,
        in_port: PortIndex,
        source: Leaf,
        destination: Leaf,
        ports: FlowPorts,
    ) -> Option<StagedVerdict> {
        let staged = self.policy.staged()?;
        let (ours, theirs) = self.judged_ends(in_port, source, destination);
        let ends = (source.identity, destination.identity);
        let egress = ours.then(|| staged.verdict(PolicyDirection::Egress, ends.0, ends.1, ports));
        let asked = theirs && egress.is_none_or(|verdict| verdict.allow);
        let ingress = asked.then(|| staged.verdict(PolicyDirection::Ingress, ends.1, ends.0, ports));
        Some(StagedVerdict { egress, ingress })
    }

    /// Makes a flow of other tables one of these, and judges it again unless both its ends are who they were, with the
    /// policy they had, staged ones included: None then, and otherwise what was judged. When it is denied the record is as
    /// it was.
    pub fn revalidate(&self, flow: &mut Flow) -> Result<Option<Judgement>, Denied> {
        let (source, destination) =
            (self.lookup(flow.address(Direction::Original)), self.lookup(flow.address(Direction::Reply)));
        let in_port = flow.in_ports[Direction::Original as usize];
        if self.is_as_it_was(flow, in_port, source, destination)
            && self.is_staged_as_it_was(flow, in_port, source, destination)
        {
            flow.adjacencies = [destination.adjacency, source.adjacency];
            flow.revision = self.revision;
            flow.is_revoked = false;
            return Ok(None);
        }
        let judgement = self.judge(in_port, source, destination, flow.policy_ports())?;
        flow.adopt(judgement, self.revision);
        Ok(Some(judgement))
    }

    /// Whether the flow would be judged as its record says.
    fn is_as_it_was(&self, flow: &Flow, in_port: PortIndex, source: Leaf, destination: Leaf) -> bool {
        let (ours, theirs) = self.judged_ends(in_port, source, destination);
        let ends = [
            (PolicyDirection::Egress, ours, flow.egress, source.identity),
            (PolicyDirection::Ingress, theirs, flow.ingress, destination.identity),
        ];
        flow.identities == [source.identity, destination.identity]
            && ends.into_iter().all(|(direction, judged, rule, subject)| match (judged, rule) {
                // It may not have been a pod of ours then.
                (true, RuleId::NOT_ISOLATED) => self.policy.is_open(direction, subject),
                (true, _) => !self.policy.changed_since(direction, subject, flow.revision),
                (false, rule) => rule == RuleId::NOT_ISOLATED,
            })
    }

    /// Whether what is staged would say of the flow what it said. It decides nothing, but it is counted and told of.
    fn is_staged_as_it_was(&self, flow: &Flow, in_port: PortIndex, source: Leaf, destination: Leaf) -> bool {
        if self.policy.staged().is_none() {
            return true;
        }
        let (ours, theirs) = self.judged_ends(in_port, source, destination);
        let is_other =
            |direction, identity| self.policy.staged_changed_since(direction, identity, flow.revision);
        !(ours && is_other(PolicyDirection::Egress, source.identity)
            || theirs && is_other(PolicyDirection::Ingress, destination.identity))
    }

    /// The leaf of an address of either family.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Leaf {
        match address {
            IpAddr::V4(address) => self.lookup_v4(address.to_bits()),
            IpAddr::V6(address) => self.lookup_v6(address.to_bits()),
        }
    }
}
