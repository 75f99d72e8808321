//! What a DNS answer says: which addresses its names have.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, RCODE, ResourceRecord};
use vswitch_model::DomainName;

/// Names that lead to an address one after the other, at most.
const CHAIN_MAX: usize = 16;

/// An address of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedAddress {
    /// The name.
    pub name: DomainName,
    /// The address.
    pub address: IpAddr,
    /// How long that holds, in seconds.
    pub ttl_s: u32,
}

/// A message that is no answer as RFC 1035 has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// The addresses an answer gives for the name that was asked for, and for those this one is an alias of by the CNAME
/// records of the same answer, as far as they are among `wanted`. A time to live is the least on the way. Records of other
/// names mean nothing, nor do other sections. An answer that says something went wrong, or that was cut short, gives what
/// is in it: nothing as a rule.
///
/// # Errors
///
/// [`Unreadable`].
pub fn named_addresses(
    message: &[u8],
    wanted: impl Fn(&DomainName) -> bool,
) -> Result<Vec<NamedAddress>, Unreadable> {
    let packet = Packet::parse(message).map_err(|error| Unreadable(error.to_string()))?;
    let is_answer = packet.has_flags(PacketFlag::RESPONSE) && packet.opcode() == OPCODE::StandardQuery;
    let [question] = packet.questions.as_slice() else {
        return Err(Unreadable(format!("{} questions", packet.questions.len())));
    };
    if !is_answer {
        return Err(Unreadable("no answer to a query".to_owned()));
    }
    let Some(asked) = domain_name(&question.qname).filter(|_| packet.rcode() == RCODE::NoError) else {
        return Ok(Vec::new());
    };
    let records = || packet.answers.iter().filter(|record| record.class == CLASS::IN);
    let aliases: BTreeMap<DomainName, (DomainName, u32)> = records().filter_map(alias).collect();
    // From the name that was asked for to the one that has addresses, each with the least time from there on.
    let mut chain = vec![(asked, u32::MAX)];
    while chain.len() <= CHAIN_MAX
        && let Some((last, _)) = chain.last()
        && let Some((target, ttl_s)) = aliases.get(last)
    {
        let target = target.clone();
        chain.iter_mut().for_each(|(_, least)| *least = (*least).min(*ttl_s));
        chain.push((target, u32::MAX));
    }
    let Some((last, _)) = chain.last() else { return Ok(Vec::new()) };
    let addresses: Vec<_> = records()
        .filter_map(address)
        .filter(|(name, ..)| name == last)
        .map(|(_, a, ttl_s)| (a, ttl_s))
        .collect();
    let mut found: Vec<_> = chain
        .iter()
        .filter(|(name, _)| wanted(name))
        .flat_map(|(name, least)| {
            addresses.iter().map(move |(address, ttl_s)| NamedAddress {
                name: name.clone(),
                address: *address,
                ttl_s: (*least).min(*ttl_s),
            })
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

fn domain_name(name: &Name<'_>) -> Option<DomainName> {
    DomainName::from_labels(name.as_bytes())
}

fn alias(record: &ResourceRecord<'_>) -> Option<(DomainName, (DomainName, u32))> {
    let RData::CNAME(target) = &record.rdata else { return None };
    Some((domain_name(&record.name)?, (domain_name(&target.0)?, record.ttl)))
}

fn address(record: &ResourceRecord<'_>) -> Option<(DomainName, IpAddr, u32)> {
    let address = match &record.rdata {
        RData::A(a) => IpAddr::V4(Ipv4Addr::from(a.address)),
        RData::AAAA(aaaa) => IpAddr::V6(Ipv6Addr::from(aaaa.address)),
        _ => return None,
    };
    Some((domain_name(&record.name)?, address, record.ttl))
}
