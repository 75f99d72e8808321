//! The numbers that the ports of a rule come to at its ends, where names do not mean the same at all pods.

use std::collections::{BTreeMap, BTreeSet};

use super::ports::Range;
use super::rules::Draft;
use super::scope::{PortName, PortNumber};
use super::view::{FlowEnd, PortView, Ports, RuleView};
use crate::calc::identity::IdentityKey;
use crate::object::Protocol;

/// One of the ways in which the ports of one end come to numbers.
#[derive(Clone, Default)]
pub(super) struct Case {
    /// What names come to there.
    pub(super) names: Vec<(PortName, PortNumber)>,
    /// One of these. None: everything.
    pub(super) any_of: Option<Vec<Range>>,
    /// None of these.
    pub(super) none_of: Vec<Range>,
    /// In words, after the position.
    pub(super) text: String,
}

impl Draft<'_> {
    /// The ways in which the ports of an end come to numbers: excepted names first, then those that are meant. There are
    /// no more than two for each of `whom` and name, and one. `whom`: the identities whose ports they are; looked at only
    /// where there are names.
    pub(super) fn cases(&self, end: FlowEnd, whom: &[&IdentityKey]) -> Vec<Case> {
        let (any_of, none_of) = self.view.traffic.at(end);
        let excepted: Vec<_> = names(none_of).into_iter().collect();
        // Whoever is no pod is in the way in which no name is a number; everybody is, where nothing is excepted by name.
        let mut ways = BTreeMap::from([(vec![PortNumber::Absent; excepted.len()], Vec::new())]);
        for key in whom {
            let numbers: Vec<_> = excepted.iter().map(|name| PortNumber::of(name, key)).collect();
            ways.entry(numbers).or_default().push(*key);
        }
        let case = |numbers: Vec<PortNumber>| {
            let names: Vec<_> = excepted.iter().cloned().zip(numbers).collect();
            let mut none_of = ranges(none_of);
            none_of.extend(names.iter().filter_map(|(name, number)| self.excepted(name, *number)));
            Case { text: describe(end, &names), names, any_of: None, none_of }
        };
        let ways = ways.into_iter();
        ways.flat_map(|(numbers, whom)| self.cases_by_name(end, any_of, &case(numbers), &whom)).collect()
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
