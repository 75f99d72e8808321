//! DNS messages.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

/// A record of an answer: its name, its time to live in seconds, and what it says.
#[derive(Debug, Clone)]
pub struct Record(ResourceRecord<'static>);

fn name(text: &str) -> Name<'static> {
    Name::new(text).expect("a name").into_owned()
}

impl Record {
    /// A or AAAA.
    ///
    /// # Panics
    /// When there is no name or no address.
    #[must_use]
    pub fn address(of: &str, ttl_s: u32, address: &str) -> Self {
        let data = match address.parse().expect("an address") {
            IpAddr::V4(address) => RData::A(A { address: address.to_bits() }),
            IpAddr::V6(address) => RData::AAAA(AAAA { address: address.to_bits() }),
        };
        Self(ResourceRecord::new(name(of), CLASS::IN, ttl_s, data))
    }

    /// CNAME.
    ///
    /// # Panics
    /// When there is no name.
    #[must_use]
    pub fn alias(of: &str, ttl_s: u32, target: &str) -> Self {
        Self(ResourceRecord::new(name(of), CLASS::IN, ttl_s, RData::CNAME(CNAME(name(target)))))
    }
}

/// An answer to the question for the addresses of a name.
///
/// # Panics
/// When there is no name.
#[must_use]
pub fn answer(asked: &str, records: &[Record]) -> Vec<u8> {
    let mut packet = Packet::new_reply(7);
    packet.questions.push(question(asked));
    packet.answers.extend(records.iter().map(|record| record.0.clone()));
    packet.build_bytes_vec_compressed().expect("a message")
}

/// That question.
///
/// # Panics
/// When there is no name.
#[must_use]
pub fn query(asked: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    packet.questions.push(question(asked));
    packet.build_bytes_vec().expect("a message")
}

fn question(asked: &str) -> Question<'static> {
    Question::new(name(asked), QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false)
}
