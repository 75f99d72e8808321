//! The rules for one rule of a policy, and the sets they refer to.
//!
//! A rule becomes several where what it means differs from pod to pod, or from endpoint to endpoint of a service:
//!
//! - a port that is a name is a rule for each number the name has, narrowed to the pods that have it, at the end that
//!   is the destination: the policy's own pods for ingress, the peers for egress;
//! - excepted ports that are names part the destinations by what the names come to;
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
use super::view::{PortView, Ports, RuleAction, RuleView};
use crate::calc::Numbering;
use crate::calc::address_list::ServicePort;
use crate::calc::identity::IdentityKey;
use crate::calc::output::Output;
use crate::object::{PolicyType, Protocol};

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
    /// What names of ports come to at the destination.
    ports: Vec<(PortName, PortNumber)>,
    /// In which cases it is meant, after the position.
    case: String,
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
            ports: Vec::new(),
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
        let destination = match draft.policy.direction {
            PolicyType::Ingress => &draft.view.own,
            PolicyType::Egress => &draft.view.peer,
        };
        let Some(service) = destination.service.as_ref().filter(|service| service.with_ports) else {
            return self.add_by_exception(draft, selected, rules);
        };
        let ports = self.members.referred.service_ports(&service.namespace, &service.name);
        for port in ports {
            let (protocol, first, last) = port;
            let case = format!("{}, service port {first}-{last} of protocol {protocol}", draft.case);
            let draft = Draft { service_port: Some(port), case, ..draft.clone() };
            self.add_by_exception(&draft, selected, rules);
        }
    }

    /// One rule for each way in which excepted names come to numbers.
    fn add_by_exception(&mut self, draft: &Draft<'_>, selected: &[IdentityId], rules: &mut Vec<Rule>) {
        // Who is meant is worth finding out only where a name has to come to a number.
        let destinations =
            if has_names(draft.view) { self.destinations(draft, selected) } else { Vec::new() };
        let names: Vec<_> = names(&draft.view.traffic.none_of).into_iter().collect();
        if names.is_empty() {
            return self.add_by_name(draft, &destinations, rules);
        }
        let numbers =
            |key: &IdentityKey| -> Vec<_> { names.iter().map(|name| PortNumber::of(name, key)).collect() };
        let mut cases: BTreeSet<Vec<PortNumber>> = destinations.iter().map(|key| numbers(key)).collect();
        // Whoever is no pod.
        cases.insert(vec![PortNumber::Absent; names.len()]);
        for numbers in cases {
            let ports: Vec<_> = names.iter().cloned().zip(numbers).collect();
            let case = format!("{}{}", draft.case, describe(&ports));
            let draft = Draft { ports, case, ..draft.clone() };
            self.add_by_name(&draft, &destinations, rules);
        }
    }

    /// One rule for the ports that are numbers, and one for each number that those that are names come to.
    fn add_by_name(&mut self, draft: &Draft<'_>, destinations: &[&IdentityKey], rules: &mut Vec<Rule>) {
        let traffic = &draft.view.traffic;
        let numbers = ranges(&traffic.any_of);
        if traffic.any_of.is_empty() {
            self.push(draft, None, rules);
        } else if !numbers.is_empty() {
            self.push(draft, Some(&numbers), rules);
        }
        for name in names(&traffic.any_of) {
            let settled = draft.ports.iter().find(|(settled, _)| *settled == name).map(|(_, number)| *number);
            let found: BTreeSet<_> = destinations.iter().map(|key| PortNumber::of(&name, key)).collect();
            for number in found.into_iter().filter(|found| settled.is_none_or(|settled| settled == *found)) {
                let protocol = name.protocol.number();
                let range = match number {
                    PortNumber::Number(number) => (protocol, number, number),
                    PortNumber::Unknown if draft.unknown => (protocol, 0, u16::MAX),
                    PortNumber::Unknown | PortNumber::Absent => continue,
                };
                let port = [(name.clone(), number)];
                let case = format!("{}{}", draft.case, describe(&port));
                let ports =
                    if settled.is_some() { draft.ports.clone() } else { [&draft.ports[..], &port].concat() };
                self.push(&Draft { ports, case, ..draft.clone() }, Some(&[range]), rules);
            }
        }
    }

    /// A rule, unless there is no port left that it could be for.
    fn push(&mut self, draft: &Draft<'_>, any_of: Option<&[Range]>, rules: &mut Vec<Rule>) {
        let within: Vec<Range>;
        let any_of = match draft.service_port {
            None => any_of,
            Some(port) => {
                within = any_of.map_or_else(|| vec![port], |any_of| intersection(any_of, &[port]));
                Some(&within[..])
            }
        };
        let mut none_of = ranges(&draft.view.traffic.none_of);
        none_of.extend(names(&draft.view.traffic.none_of).iter().filter_map(|name| draft.excepted(name)));
        let Some(ports) = port_matches(any_of, &none_of) else { return };
        let (peer, own) = draft.scopes();
        let (peers, not_peers) = self.set(peer, draft.unknown);
        let (subjects, not_subjects) = self.set(own, draft.unknown);
        let position = format!("{}{}", draft.view.position, draft.case);
        let key = RuleKey { policy: draft.policy.clone(), position: position.clone() };
        let id = RuleId(self.numbering.rules.number(&key));
        rules.push(Rule {
            peers,
            not_peers,
            subjects,
            not_subjects,
            ports,
            ..Rule::new(id, draft.action, position)
        });
    }

    /// The identities at which the port of a flow is to be found.
    fn destinations(&self, draft: &Draft<'_>, selected: &[IdentityId]) -> Vec<&'a IdentityKey> {
        let identities = &self.members.identities;
        if draft.policy.direction == PolicyType::Ingress {
            return selected.iter().filter_map(|id| identities.by_number.get(id)).collect();
        }
        let (peer, _) = draft.scopes();
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
    /// The other end, and the policy's own.
    fn scopes(&self) -> (Scope, Scope) {
        let of = |entity: &super::view::EntityMatch, is_destination: bool| Scope {
            entity: entity.clone(),
            service_port: self.service_port.filter(|_| is_destination),
            ports: if is_destination { self.ports.clone() } else { Vec::new() },
            ..Scope::default()
        };
        let is_egress = self.policy.direction == PolicyType::Egress;
        let mut peer = of(&self.view.peer, is_egress);
        // The other end is of the same family.
        peer.family = self.view.traffic.ip_version;
        (peer, of(&self.view.own, !is_egress))
    }

    /// What an excepted name comes to here.
    fn excepted(&self, name: &PortName) -> Option<Range> {
        let protocol = name.protocol.number();
        match self.ports.iter().find(|(settled, _)| settled == name)?.1 {
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

/// `, port http = 80`
fn describe(ports: &[(PortName, PortNumber)]) -> String {
    let one = |(name, number): &(PortName, PortNumber)| {
        let number = match number {
            PortNumber::Number(number) => number.to_string(),
            PortNumber::Absent => "nothing".to_owned(),
            PortNumber::Unknown => "unknown".to_owned(),
        };
        format!(", port {} = {number}/{}", name.name, name.protocol)
    };
    ports.iter().map(one).collect()
}

/// Whether a rule comes to other rules when names of ports mean other numbers, at whatever pods.
pub(super) fn has_names(view: &RuleView) -> bool {
    let mut ports = view.traffic.any_of.iter().chain(&view.traffic.none_of);
    ports.any(|port| matches!(port.ports, Ports::Named(_)))
}
