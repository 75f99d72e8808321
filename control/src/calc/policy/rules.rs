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

use std::collections::BTreeSet;
use std::sync::Arc;

use vswitch_model::{Action, IdentityId, Rule, RuleId, SetId};

use super::compile::PolicyKey;
use super::members::Members;
use super::ports::{Range, intersection, port_matches};
use super::scope::{PortName, PortNumber, Scope};
use super::sets::{SetKey, Sets};
use super::view::{EntityMatch, FlowEnd, PortView, Ports, RuleAction, RuleView};
use crate::calc::Numbering;
use crate::calc::address_list::ServicePort;
use crate::calc::identity::IdentityKey;
use crate::calc::output::Output;
use crate::object::Protocol;

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

/// A rule on its way: what it does, and to whom as far as that is settled.
#[derive(Clone)]
struct Draft<'v> {
    policy: &'v PolicyKey,
    view: &'v RuleView,
    action: Action,
    /// Whether those of whom it is not known count as meant.
    unknown: bool,
    service_port: Option<ServicePort>,
    /// In which cases it is meant, after the position.
    case: String,
}

/// One of the ways in which the ports of one end come to numbers.
#[derive(Clone, Default)]
struct Case {
    /// What names come to there.
    names: Vec<(PortName, PortNumber)>,
    /// One of these. None: everything.
    any_of: Option<Vec<Range>>,
    /// None of these.
    none_of: Vec<Range>,
    /// In words, after the position.
    text: String,
}

impl<'a> RuleMaker<'a> {
    /// The rules for one rule of a policy that selects these identities.
    pub(super) fn rules(
        &mut self,
        policy: &PolicyKey,
        view: &RuleView,
        selected: &[IdentityId],
        rules: &mut Vec<Rule>,
    ) {
        let draft = |action, unknown, case: &str| Draft {
            policy,
            view,
            action,
            unknown,
            service_port: None,
            case: case.to_owned(),
        };
        match view.action {
            RuleAction::Allow => self.add(&draft(Action::Allow, false, ""), selected, rules),
            RuleAction::Deny => self.add(&draft(Action::Deny, true, ""), selected, rules),
            RuleAction::Log => self.add(&draft(Action::Log, false, ""), selected, rules),
            RuleAction::Pass => {
                self.add(&draft(Action::Pass, false, ""), selected, rules);
                if self.members.has_unknown() {
                    self.add(&draft(Action::Deny, true, ", labels not known"), selected, rules);
                }
            }
        }
    }

    /// One rule for each port of the service that is the destination, if one is.
    fn add(&mut self, draft: &Draft<'_>, selected: &[IdentityId], rules: &mut Vec<Rule>) {
        let service = draft.entity(FlowEnd::Destination).service.as_ref();
        let Some(service) = service.filter(|service| service.with_ports) else {
            return self.add_cases(draft, selected, rules);
        };
        let ports = self.members.referred.service_ports(&service.namespace, &service.name);
        for port in ports {
            let (protocol, first, last) = port;
            let case = format!("{}, service port {first}-{last} of protocol {protocol}", draft.case);
            let draft = Draft { service_port: Some(port), case, ..draft.clone() };
            self.add_cases(&draft, selected, rules);
        }
    }

    /// One rule for each case of the source with each of the destination.
    fn add_cases(&mut self, draft: &Draft<'_>, selected: &[IdentityId], rules: &mut Vec<Rule>) {
        let sources = self.cases(draft, FlowEnd::Source, selected);
        let destinations = self.cases(draft, FlowEnd::Destination, selected);
        for source in &sources {
            for destination in &destinations {
                self.push(draft, source, destination, rules);
            }
        }
    }

    /// The ways in which the ports of an end come to numbers: excepted names first, then those that are meant.
    fn cases(&self, draft: &Draft<'_>, end: FlowEnd, selected: &[IdentityId]) -> Vec<Case> {
        let (any_of, none_of) = draft.view.traffic.at(end);
        // Who is meant is worth finding out only where a name has to come to a number.
        let whom = if has_names(draft.view, end) { self.whom(draft, end, selected) } else { Vec::new() };
        let excepted: Vec<_> = names(none_of).into_iter().collect();
        let numbers =
            |key: &IdentityKey| -> Vec<_> { excepted.iter().map(|name| PortNumber::of(name, key)).collect() };
        let mut ways: BTreeSet<Vec<PortNumber>> = BTreeSet::new();
        if !excepted.is_empty() {
            ways.extend(whom.iter().map(|key| numbers(key)));
        }
        // Whoever is no pod; or everybody, where nothing is excepted by name.
        ways.insert(vec![PortNumber::Absent; excepted.len()]);
        let case = |numbers: Vec<PortNumber>| {
            let names: Vec<_> = excepted.iter().cloned().zip(numbers).collect();
            let mut none_of = ranges(none_of);
            none_of.extend(names.iter().filter_map(|(name, number)| draft.excepted(name, *number)));
            Case { text: describe(end, &names), names, any_of: None, none_of }
        };
        ways.into_iter().flat_map(|numbers| draft.cases_by_name(end, any_of, &case(numbers), &whom)).collect()
    }

    /// A rule, unless there is no port left that it could be for.
    fn push(&mut self, draft: &Draft<'_>, source: &Case, destination: &Case, rules: &mut Vec<Rule>) {
        let within = draft.service_port.map(|port| match &destination.any_of {
            None => vec![port],
            Some(any_of) => intersection(any_of, &[port]),
        });
        let to = within.as_deref().or(destination.any_of.as_deref());
        let Some(ports) = port_matches(to, &destination.none_of) else { return };
        let Some(source_ports) = port_matches(source.any_of.as_deref(), &source.none_of) else { return };
        let (peer, own) = draft.scopes(source, destination);
        let (peers, not_peers) = self.set(peer, draft.unknown);
        let (subjects, not_subjects) = self.set(own, draft.unknown);
        let position = format!("{}{}{}{}", draft.view.position, draft.case, source.text, destination.text);
        let key = RuleKey { policy: draft.policy.clone(), position: position.clone() };
        let id = RuleId(self.numbering.rules.number(&key));
        rules.push(Rule {
            peers,
            not_peers,
            subjects,
            not_subjects,
            ports,
            source_ports,
            ..Rule::new(id, draft.action, position)
        });
    }

    /// The identities whose port that of an end is.
    fn whom(&self, draft: &Draft<'_>, end: FlowEnd, selected: &[IdentityId]) -> Vec<&'a IdentityKey> {
        let identities = &self.members.identities;
        if end == FlowEnd::own_and_peer(draft.policy.direction).0 {
            return selected.iter().filter_map(|id| identities.by_number.get(id)).collect();
        }
        let (peer, _) = draft.scopes(&Case::default(), &Case::default());
        if peer.is_negative() {
            return identities.by_number.values().filter(|key| key.pod().is_some()).collect();
        }
        let meant = self.members.listed(&peer, &self.members.prepare(&peer, draft.unknown), draft.unknown);
        meant.iter().filter_map(|id| identities.by_number.get(id)).collect()
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

    /// A case for the ports of an end that are numbers, and one for each number that those that are names come to.
    fn cases_by_name(
        &self,
        end: FlowEnd,
        any_of: &[PortView],
        case: &Case,
        whom: &[&IdentityKey],
    ) -> Vec<Case> {
        let mut cases = Vec::new();
        let numbers = ranges(any_of);
        if any_of.is_empty() {
            cases.push(case.clone());
        } else if !numbers.is_empty() {
            cases.push(Case { any_of: Some(numbers), ..case.clone() });
        }
        for name in names(any_of) {
            let settled = case.names.iter().find(|(settled, _)| *settled == name).map(|(_, number)| *number);
            let found: BTreeSet<_> = whom.iter().map(|key| PortNumber::of(&name, key)).collect();
            for number in found.into_iter().filter(|found| settled.is_none_or(|settled| settled == *found)) {
                let protocol = name.protocol.number();
                let range = match number {
                    PortNumber::Number(number) => (protocol, number, number),
                    PortNumber::Unknown if self.unknown => (protocol, 0, u16::MAX),
                    PortNumber::Unknown | PortNumber::Absent => continue,
                };
                let port = [(name.clone(), number)];
                let text = format!("{}{}", case.text, describe(end, &port));
                let names =
                    if settled.is_some() { case.names.clone() } else { [&case.names[..], &port].concat() };
                cases.push(Case { names, any_of: Some(vec![range]), text, none_of: case.none_of.clone() });
            }
        }
        cases
    }

    /// What an excepted name comes to where it is this.
    fn excepted(&self, name: &PortName, number: PortNumber) -> Option<Range> {
        let protocol = name.protocol.number();
        match number {
            PortNumber::Number(number) => Some((protocol, number, number)),
            PortNumber::Unknown if !self.unknown => Some((protocol, 0, u16::MAX)),
            PortNumber::Unknown | PortNumber::Absent => None,
        }
    }
}

/// The ports that are numbers.
fn ranges(ports: &[PortView]) -> Vec<Range> {
    let ranges = ports.iter().filter_map(|port| match port.ports {
        Ports::Range(first, last) => Some((port.protocol, first, last)),
        Ports::Named(_) => None,
    });
    ranges.collect()
}

/// The ports that are names.
fn names(ports: &[PortView]) -> BTreeSet<PortName> {
    let names = ports.iter().filter_map(|port| match &port.ports {
        Ports::Named(name) => {
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            let protocol = protocol.into_iter().find(|protocol| protocol.number() == port.protocol)?;
            Some(PortName { name: name.clone(), protocol })
        }
        Ports::Range(..) => None,
    });
    names.collect()
}

/// `, port http = 80/TCP`, `, source port http = 80/TCP`
fn describe(end: FlowEnd, ports: &[(PortName, PortNumber)]) -> String {
    let what = match end {
        FlowEnd::Source => "source port",
        FlowEnd::Destination => "port",
    };
    let one = |(name, number): &(PortName, PortNumber)| {
        let number = match number {
            PortNumber::Number(number) => number.to_string(),
            PortNumber::Absent => "nothing".to_owned(),
            PortNumber::Unknown => "unknown".to_owned(),
        };
        format!(", {what} {} = {number}/{}", name.name, name.protocol)
    };
    ports.iter().map(one).collect()
}

/// Whether a rule comes to other rules when names of ports mean other numbers, at whatever pods of that end.
pub(super) fn has_names(view: &RuleView, end: FlowEnd) -> bool {
    let (any_of, none_of) = view.traffic.at(end);
    any_of.iter().chain(none_of).any(|port| matches!(port.ports, Ports::Named(_)))
}
