//! The rules for one rule of a policy, and the sets they refer to.
//!
//! A rule becomes several where what it means differs from pod to pod, or from endpoint to endpoint of a service:
//!
//! - a port that is a name is a rule for each number the name has, narrowed to the pods that have it, at the end whose
//!   port it is: for that of the destination the policy's own pods for ingress, the peers for egress, and the other way
//!   round for that of the source;
//! - excepted ports that are names part those at that end by what the names come to;
//! - a service as the destination is a rule for each port of its endpoints, narrowed to those that have it;
//! - Pass is followed by a rule that denies those of whom it is not known whether they are meant.
//!
//! These multiply, and who owns pods says how many numbers a name has. So one rule may come to [`RULES_OF_ONE_MAX`], which
//! is asked before any is made.

use std::collections::BTreeSet;
use std::sync::Arc;

use vswitch_model::{Action, IdentityId, Rule, RuleId, SetId};

use super::cases::{Case, has_names};
use super::compile::PolicyKey;
use super::members::Members;
use super::ports::{intersection, port_matches};
use super::scope::Scope;
use super::sets::{SetKey, Sets};
use super::view::{EntityMatch, FlowEnd, RuleAction, RuleView};
use crate::calc::Numbering;
use crate::calc::address_list::ServicePort;
use crate::calc::identity::IdentityKey;
use crate::calc::output::Output;

/// How many rules one rule of a policy may come to. A name has one number or two where people choose it, so this is far
/// from what anybody means, and far from [`vswitch_model::limits::RULES_MAX`], which a node's policies have together.
pub(super) const RULES_OF_ONE_MAX: usize = 4096;

/// Names a rule: its policy, and its position there with what it was narrowed to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::calc) struct RuleKey {
    pub(super) policy: PolicyKey,
    pub(super) position: String,
}

/// Makes rules.
pub(super) struct RuleMaker<'a> {
    pub(super) members: &'a Members,
    pub(super) sets: &'a mut Sets,
    pub(super) numbering: &'a mut Numbering,
    pub(super) output: &'a mut Output,
    /// The sets that the rules made so far refer to, or would if there were anybody in them.
    pub(super) used: BTreeSet<Arc<SetKey>>,
}

/// A rule of a policy comes to more than [`RULES_OF_ONE_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyRules {
    /// Of the rule as it was written.
    pub(super) position: String,
    /// How many it comes to.
    pub(super) rules: usize,
}

/// A rule on its way: what it does, and to whom as far as that is settled.
#[derive(Clone)]
pub(super) struct Draft<'v> {
    policy: &'v PolicyKey,
    pub(super) view: &'v RuleView,
    action: Action,
    /// Whether those of whom it is not known count as meant.
    pub(super) unknown: bool,
    service_port: Option<ServicePort>,
    /// In which cases it is meant, after the position.
    case: String,
}

/// What becomes a rule for each case of the source with each of the destination.
pub(super) struct Planned<'v> {
    draft: Draft<'v>,
    sources: Vec<Case>,
    destinations: Vec<Case>,
}

/// What one rule of a policy that selects these identities comes to.
pub(super) fn plan<'v>(
    members: &Members,
    policy: &'v PolicyKey,
    view: &'v RuleView,
    selected: &[IdentityId],
) -> Result<Vec<Planned<'v>>, TooManyRules> {
    let (mut planned, mut rules) = (Vec::new(), 0_usize);
    for draft in drafts(members, policy, view) {
        let cases = |end| {
            // Who is meant is worth finding out only where a name has to come to a number.
            let whom = if has_names(view, end) { draft.whom(members, end, selected) } else { Vec::new() };
            draft.cases(end, &whom)
        };
        let (sources, destinations) = (cases(FlowEnd::Source), cases(FlowEnd::Destination));
        rules = rules.saturating_add(sources.len().saturating_mul(destinations.len()));
        if rules <= RULES_OF_ONE_MAX {
            planned.push(Planned { draft, sources, destinations });
        }
    }
    if rules > RULES_OF_ONE_MAX {
        return Err(TooManyRules { position: view.position.clone(), rules });
    }
    Ok(planned)
}

/// By action, and one for each port of the service that is the destination, if one is.
fn drafts<'v>(members: &Members, policy: &'v PolicyKey, view: &'v RuleView) -> Vec<Draft<'v>> {
    let draft = |action, unknown, case: &str| Draft {
        policy,
        view,
        action,
        unknown,
        service_port: None,
        case: case.to_owned(),
    };
    let mut drafts = match view.action {
        RuleAction::Allow => vec![draft(Action::Allow, false, "")],
        RuleAction::Deny => vec![draft(Action::Deny, true, "")],
        RuleAction::Log => vec![draft(Action::Log, false, "")],
        RuleAction::Pass => vec![draft(Action::Pass, false, "")],
    };
    if view.action == RuleAction::Pass && members.has_unknown() {
        drafts.push(draft(Action::Deny, true, ", labels not known"));
    }
    let service = drafts.first().and_then(|draft| draft.entity(FlowEnd::Destination).service.as_ref());
    let Some(service) = service.filter(|service| service.with_ports) else { return drafts };
    let ports = members.referred.service_ports(&service.namespace, &service.name);
    let at_port = |draft: &Draft<'v>, port: ServicePort| {
        let (protocol, first, last) = port;
        let case = format!("{}, service port {first}-{last} of protocol {protocol}", draft.case);
        Draft { service_port: Some(port), case, ..draft.clone() }
    };
    drafts.iter().flat_map(|draft| ports.iter().map(|port| at_port(draft, *port))).collect()
}

impl RuleMaker<'_> {
    /// The rules that were planned.
    pub(super) fn rules(&mut self, planned: &Planned<'_>) -> Vec<Rule> {
        let Planned { draft, sources, destinations } = planned;
        let pairs = sources.iter().flat_map(|source| destinations.iter().map(move |to| (source, to)));
        pairs.filter_map(|(source, destination)| self.rule(draft, source, destination)).collect()
    }

    /// A rule, unless there is no port left that it could be for.
    fn rule(&mut self, draft: &Draft<'_>, source: &Case, destination: &Case) -> Option<Rule> {
        let within = draft.service_port.map(|port| match &destination.any_of {
            None => vec![port],
            Some(any_of) => intersection(any_of, &[port]),
        });
        let to = within.as_deref().or(destination.any_of.as_deref());
        let from = source.any_of.as_deref();
        // A flow has one protocol: what is meant at the one end bounds what may be meant at the other.
        let ports = port_matches(to, &destination.none_of, from)?;
        let source_ports = port_matches(from, &source.none_of, to)?;
        let (peer, own) = draft.scopes(source, destination);
        let (peers, not_peers) = self.set(peer, draft.unknown);
        let (subjects, not_subjects) = self.set(own, draft.unknown);
        let position = format!("{}{}{}{}", draft.view.position, draft.case, source.text, destination.text);
        let key = RuleKey { policy: draft.policy.clone(), position: position.clone() };
        let id = RuleId(self.numbering.rules.number(&key));
        Some(Rule {
            peers,
            not_peers,
            subjects,
            not_subjects,
            ports,
            source_ports,
            ..Rule::new(id, draft.action, position)
        })
    }

    /// The set of those meant, and that of those not meant, in the state from then on; None where none is needed.
    fn set(&mut self, scope: Scope, unknown: bool) -> (Option<SetId>, Option<SetId>) {
        if scope.is_everybody() {
            return (None, None);
        }
        let is_negative = scope.is_negative();
        let key = SetKey { scope, unknown };
        let set = self.sets.of(key, self.members, self.numbering, self.output, &mut self.used);
        if is_negative { (None, set) } else { (set, None) }
    }
}

impl Draft<'_> {
    fn entity(&self, end: FlowEnd) -> &EntityMatch {
        if end == FlowEnd::own_and_peer(self.policy.direction).0 { &self.view.own } else { &self.view.peer }
    }

    /// The other end, and the policy's own.
    fn scopes(&self, source: &Case, destination: &Case) -> (Scope, Scope) {
        let of = |end: FlowEnd| {
            let (case, service_port) = match end {
                FlowEnd::Source => (source, None),
                FlowEnd::Destination => (destination, self.service_port),
            };
            let (entity, ports) = (self.entity(end).clone(), case.names.clone());
            Scope { entity, service_port, ports, ..Scope::default() }
        };
        let (own, peer) = FlowEnd::own_and_peer(self.policy.direction);
        // The other end is of the same family.
        (Scope { family: self.view.traffic.ip_version, ..of(peer) }, of(own))
    }

    /// The identities whose port that of an end is.
    fn whom<'m>(&self, members: &'m Members, end: FlowEnd, selected: &[IdentityId]) -> Vec<&'m IdentityKey> {
        let identities = &members.identities;
        if end == FlowEnd::own_and_peer(self.policy.direction).0 {
            return selected.iter().filter_map(|id| identities.by_number.get(id)).collect();
        }
        let (peer, _) = self.scopes(&Case::default(), &Case::default());
        if peer.is_negative() {
            return identities.by_number.values().filter(|key| key.pod().is_some()).collect();
        }
        let meant = members.listed(&peer, &members.prepare(&peer, self.unknown), self.unknown);
        meant.iter().filter_map(|id| identities.by_number.get(id)).collect()
    }
}
