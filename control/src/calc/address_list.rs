//! Lists of CIDRs that policies speak of as one: whatever their length, an address is in them or not.
//!
//! Which of the lists in force cover an address is part of its identity. A list that is an object's is told by the
//! object's name, so that another CIDR in it makes no other identities.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use vswitch_model::DomainPattern;

use super::Numbering;
use super::policy::view::Source;

/// Names a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AddressList {
    /// These; made by [`Self::nets`].
    Nets(Vec<IpNet>),
    /// Those of a NetworkSet.
    Set(Source),
    /// The endpoints of a service, by its namespace and name; of those that have it, when a port is given.
    Service(String, String, Option<ServicePort>),
    /// What DNS gave for names like these; ascending.
    Domains(Vec<DomainPattern>),
}

/// A port of an endpoint of a service: protocol, first and last number.
pub(super) type ServicePort = (u8, u16, u16);

impl AddressList {
    /// These, in whatever order.
    pub(super) fn nets(nets: &[IpNet]) -> Self {
        let mut nets = nets.to_vec();
        nets.sort();
        nets.dedup();
        Self::Nets(nets)
    }
}

impl fmt::Display for AddressList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nets(nets) => match nets.as_slice() {
                [] => f.write_str("nothing"),
                [net] => net.fmt(f),
                [first, rest @ ..] => write!(f, "{first} or {} more", rest.len()),
            },
            Self::Set(source) => source.fmt(f),
            Self::Domains(patterns) => match patterns.as_slice() {
                [] => f.write_str("no name"),
                [pattern] => pattern.fmt(f),
                [first, rest @ ..] => write!(f, "{first} or {} more", rest.len()),
            },
            Self::Service(namespace, name, None) => write!(f, "Service {namespace}/{name}"),
            Self::Service(namespace, name, Some((protocol, first, last))) => {
                write!(f, "Service {namespace}/{name} at {first}-{last} of protocol {protocol}")
            }
        }
    }
}

/// The lists that policies in force speak of.
#[derive(Debug, Default)]
pub(super) struct AddressLists {
    numbers: BTreeMap<AddressList, u32>,
    names: BTreeMap<u32, String>,
    /// By CIDR: the lists it is in, ascending.
    cidrs: BTreeMap<IpNet, Vec<u32>>,
    lengths_v4: BTreeSet<u8>,
    lengths_v6: BTreeSet<u8>,
}

impl AddressLists {
    pub(super) fn of(lists: &BTreeMap<AddressList, Vec<IpNet>>, numbering: &mut Numbering) -> Self {
        let mut all = Self::default();
        for (list, nets) in lists {
            let number = numbering.lists.number(list);
            all.numbers.insert(list.clone(), number);
            all.names.insert(number, list.to_string());
            for net in nets {
                let lengths = if net.addr().is_ipv4() { &mut all.lengths_v4 } else { &mut all.lengths_v6 };
                lengths.insert(net.prefix_len());
                all.cidrs.entry(net.trunc()).or_default().push(number);
            }
        }
        for numbers in all.cidrs.values_mut() {
            numbers.sort_unstable();
            numbers.dedup();
        }
        all
    }

    /// The number of a list; None when no policy in force speaks of it.
    pub(super) fn number(&self, list: &AddressList) -> Option<u32> {
        self.numbers.get(list).copied()
    }

    /// What a list is called.
    pub(super) fn name(&self, number: u32) -> &str {
        self.names.get(&number).map_or("", String::as_str)
    }

    /// All CIDRs of all lists.
    pub(super) fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.cidrs.keys().copied()
    }

    /// The lists that cover a prefix whole, ascending: one look-up for each length that occurs.
    pub(super) fn covering(&self, prefix: IpNet) -> Vec<u32> {
        let lengths = if prefix.addr().is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        let nets = lengths
            .range(..=prefix.prefix_len())
            .filter_map(|length| IpNet::new(prefix.addr(), *length).ok().map(|net| net.trunc()));
        let mut numbers: Vec<u32> = nets.filter_map(|net| self.cidrs.get(&net)).flatten().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split(' ').map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn a_prefix_is_in_the_lists_that_hold_all_of_it() {
        let lists: BTreeMap<_, _> = ["10.0.0.0/8 192.0.2.0/24", "10.1.0.0/16 10.2.0.0/16 ::/0", "0.0.0.0/0"]
            .map(|text| (AddressList::nets(&nets(text)), nets(text)))
            .into();
        let all = AddressLists::of(&lists, &mut Numbering::default());
        let names = |prefix: &str| -> Vec<_> {
            all.covering(prefix.parse().unwrap()).into_iter().map(|number| all.name(number)).collect()
        };
        assert_eq!(names("0.0.0.0/0"), ["0.0.0.0/0"]);
        assert_eq!(names("10.1.2.3/32"), ["0.0.0.0/0", "10.0.0.0/8 or 1 more", "10.1.0.0/16 or 2 more"]);
        assert_eq!(names("10.0.0.0/9"), ["0.0.0.0/0", "10.0.0.0/8 or 1 more"]);
        assert_eq!(names("fd00::/64"), ["10.1.0.0/16 or 2 more"]);
        assert_eq!(all.number(&AddressList::nets(&nets("192.0.2.0/24 10.0.0.0/8"))), Some(2));
        assert_eq!(all.number(&AddressList::nets(&nets("192.0.2.0/24"))), None);
    }
}
