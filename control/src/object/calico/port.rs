//! Ports and protocols, each a number or a text.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Destination ports: numbers or a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// From, to, both 1 to 65535 and both included. Written `80`, `"10000:20000"`.
    Range(u16, u16),
    /// The number the destination pod gives this name.
    Name(String),
}

/// An IP protocol, 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleProtocol(u8);

impl RuleProtocol {
    /// Internet Control Message Protocol.
    pub const ICMP: Self = Self(1);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// Internet Control Message Protocol of IPv6.
    pub const ICMPV6: Self = Self(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self(132);
    const NAMES: [(&'static str, Self); 6] = [
        ("TCP", Self::TCP),
        ("UDP", Self::UDP),
        ("ICMP", Self::ICMP),
        ("ICMPv6", Self::ICMPV6),
        ("SCTP", Self::SCTP),
        ("UDPLite", Self(136)),
    ];

    /// As IP headers have it.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether rules can name ports of it.
    #[must_use]
    pub fn has_ports(self) -> bool {
        [Self::TCP, Self::UDP, Self::SCTP].contains(&self)
    }

    /// Whether rules can name types of it.
    #[must_use]
    pub fn is_icmp(self) -> bool {
        [Self::ICMP, Self::ICMPV6].contains(&self)
    }
}

impl fmt::Display for RuleProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(first, last) if first == last => write!(f, "{first}"),
            Self::Range(first, last) => write!(f, "{first}:{last}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl std::str::FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let number = |text: &str| match text.parse() {
            Ok(number @ 1..=u16::MAX) => Ok(number),
            _ => Err(format!("{text} is not a port: 1 to 65535")),
        };
        if is_number(text) {
            return number(text).map(|port| Self::Range(port, port));
        }
        if let Some((first, last)) = text.split_once(':').filter(|(a, b)| is_number(a) && is_number(b)) {
            let (first, last) = (number(first)?, number(last)?);
            return if first <= last {
                Ok(Self::Range(first, last))
            } else {
                Err(format!("the range {text} is upside down; {last}:{first} would be right"))
            };
        }
        if let Some((first, last)) = text.split_once('-').filter(|(a, b)| is_number(a) && is_number(b)) {
            return Err(format!(
                "{text} is no port's name: one has a letter; the range is \"{first}:{last}\""
            ));
        }
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(fits) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(format!(
            "{text:?} is no port: a number, a range like \"10000:20000\", or a name of at most 128 letters, digits, \
             '_', '.' and '-'"
        ))
    }
}

impl std::str::FromStr for RuleProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol);
        let numbered = || text.parse().ok().filter(|number| *number > 0).map(Self);
        named.or_else(numbered).ok_or_else(|| {
            let names = Self::NAMES.map(|(name, _)| name).join(", ");
            format!("{text:?} is no protocol; {names} or a number 1 to 255 would be right")
        })
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Range(first, last) if first == last => serializer.serialize_u16(*first),
            other => serializer.collect_str(other),
        }
    }
}

impl Serialize for RuleProtocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Self::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0),
        }
    }
}

/// Reads a number or a text by way of its text.
struct NumberOrText<T>(&'static str, std::marker::PhantomData<T>);

impl<T: std::str::FromStr<Err = String>> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number)
            .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            .and_then(|number| number.to_string().parse().map_err(E::custom))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a port 1 to 65535, a range like \"10000:20000\", or a port's name";
        deserializer.deserialize_any(NumberOrText(expected, std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for RuleProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a protocol's name or its number, 1 to 255";
        deserializer.deserialize_any(NumberOrText(expected, std::marker::PhantomData))
    }
}
