//! IP protocols and services, as people write them.

use std::fmt;
use std::str::FromStr;

use vswitch_model::PortMatch;

/// An IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Protocol(pub(super) u8);

/// ICMP of IPv6.
pub(super) const ICMPV6: u8 = 58;

/// The names people use, and their numbers (IANA, Protocol Numbers).
const NAMES: [(&str, u8); 5] = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", ICMPV6), ("sctp", 132)];

impl Protocol {
    /// Whether it has ports.
    pub(super) const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 132)
    }

    /// The message that asks for an echo, where it is ICMP: type * 256 + code.
    const fn echo_request(self) -> Option<u16> {
        match self.0 {
            1 => Some(PortMatch::message(8, 0)),
            58 => Some(PortMatch::message(128, 0)),
            _ => None,
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let typed = text.to_ascii_lowercase();
        let named = NAMES.iter().find(|(name, _)| *name == typed).map(|(_, number)| *number);
        // As it is printed, too.
        named.or_else(|| typed.strip_prefix("protocol ").unwrap_or(&typed).parse().ok()).map(Self).ok_or_else(
            || {
                let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
                format!(
                    "{text:?} is not a protocol: {} or a number from 0 to 255, as in \"protocol 47\"",
                    names.join(", ")
                )
            },
        )
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "protocol {}", self.0),
        }
    }
}

/// A protocol as a message has it, which gives it 32 bits.
pub(super) fn protocol_name(number: u32) -> String {
    u8::try_from(number).map_or_else(|_| format!("protocol {number}"), |number| Protocol(number).to_string())
}

/// The queries of ICMP and ICMPv6 that open a flow, by name (IANA, ICMP and ICMPv6 Parameters): type in each, if it is in
/// both.
const QUERIES: [(&str, Option<u8>, Option<u8>); 5] = [
    ("echo-request", Some(8), Some(128)),
    ("timestamp-request", Some(13), None),
    ("information-request", Some(15), None),
    ("address-mask-request", Some(17), None),
    ("extended-echo-request", Some(42), Some(160)),
];

/// What a flow is for: `5060/udp`, `icmp` or `echo-request/icmp` (an echo request), `13/icmp` (a message of type 13),
/// `13.1/icmp` (and code 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) protocol: Protocol,
    /// Of ICMP type * 256 + code; 0 for protocols without ports.
    pub(super) port: u16,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not PORT/PROTO: 5060/udp, 443/tcp, 80 (TCP), icmp, echo-request/icmp, 3.1/icmp (type 3, code 1)"
            )
        };
        let number = |port: &str| port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
        if let Some((port, protocol)) = text.split_once('/') {
            let named = |name: &str| name.parse::<Protocol>().is_ok() && name.parse::<u16>().is_err();
            if named(port) && protocol.parse::<u16>().is_ok() {
                return Err(format!("the port comes first: {protocol}/{port}"));
            }
            let protocol: Protocol = protocol.parse()?;
            if protocol.echo_request().is_some() {
                return Ok(Self { protocol, port: message(port, protocol)? });
            }
            if QUERIES.iter().any(|(name, ..)| *name == port) {
                return Err(format!("{port} is a message of ICMP: say {port}/icmp or {port}/icmpv6"));
            }
            if !protocol.has_ports() {
                return Err(format!("{protocol} has no ports: say \"{protocol}\" alone"));
            }
            return Ok(Self { protocol, port: number(port)? });
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self { protocol: Protocol(6), port: number(text)? });
        }
        match text.parse::<Protocol>() {
            Ok(protocol) if !protocol.has_ports() => {
                Ok(Self { protocol, port: protocol.echo_request().unwrap_or_default() })
            }
            Ok(protocol) => Err(format!("{protocol} has ports: say for instance 5060/{protocol}")),
            Err(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, code] = self.port.to_be_bytes();
        match self.protocol.echo_request() {
            Some(echo) if echo == self.port => self.protocol.fmt(f),
            Some(_) if code == 0 => write!(f, "{kind}/{}", self.protocol),
            Some(_) => write!(f, "{kind}.{code}/{}", self.protocol),
            None if self.protocol.has_ports() => write!(f, "{}/{}", self.port, self.protocol),
            None => self.protocol.fmt(f),
        }
    }
}

/// `13`, `13.1` or `echo-request`: type and code of a message.
fn message(text: &str, protocol: Protocol) -> Result<u16, String> {
    let typed = text.to_ascii_lowercase();
    let of = |(_, v4, v6): &(&str, Option<u8>, Option<u8>)| if protocol.0 == 1 { *v4 } else { *v6 };
    if let Some(query) = QUERIES.iter().find(|(name, ..)| *name == typed) {
        let kind = of(query).ok_or_else(|| format!("{protocol} has no {typed}"))?;
        return Ok(PortMatch::message(kind, 0));
    }
    let (kind, code) = text.split_once('.').unwrap_or((text, "0"));
    kind.parse().ok().zip(code.parse().ok()).map(|(kind, code)| PortMatch::message(kind, code)).ok_or_else(|| {
        let names: Vec<_> = QUERIES.iter().filter(|query| of(query).is_some()).map(|(name, ..)| *name).collect();
        format!(
            "{text:?} is no message of {protocol}: a type from 0 to 255, with or without a code (3, 3.1), or {}",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_they_are_printed() {
        for (text, protocol, port) in [
            ("5060/udp", 17, 5060),
            ("443/tcp", 6, 443),
            ("1/sctp", 132, 1),
            ("icmp", 1, 0x0800),
            ("13/icmp", 1, 0x0d00),
            ("13.1/icmp", 1, 0x0d01),
            ("icmpv6", 58, 0x8000),
            ("protocol 47", 47, 0),
            ("8/icmpv6", 58, 0x0800),
        ] {
            let service: Service = text.parse().unwrap();
            assert_eq!((service.protocol.0, service.port), (protocol, port));
            assert_eq!(service.to_string(), text);
        }
        for (text, read) in [
            ("echo-request/icmp", "icmp"),
            ("Echo-Request/ICMPv6", "icmpv6"),
            ("8/icmp", "icmp"),
            ("timestamp-request/icmp", "13/icmp"),
            ("extended-echo-request/icmpv6", "160/icmpv6"),
        ] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), read);
        }
        assert_eq!("80".parse::<Service>().unwrap().to_string(), "80/tcp");
        assert_eq!("53/UDP".parse::<Service>().unwrap().to_string(), "53/udp");
        for wrong in ["", "udp", "0/udp", "65536/tcp", "5060/icmp", "x/udp", "5060/", "/udp", "5060/gre2"] {
            assert!(wrong.parse::<Service>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_say_what_would_be_right() {
        for (text, says) in [
            ("5060", None),
            (
                "5060/icmp",
                Some(
                    "\"5060\" is no message of icmp: a type from 0 to 255, with or without a code (3, 3.1), or echo-request, \
                     timestamp-request, information-request, address-mask-request, extended-echo-request",
                ),
            ),
            (
                "echo/icmpv6",
                Some(
                    "\"echo\" is no message of icmpv6: a type from 0 to 255, with or without a code (3, 3.1), or \
                     echo-request, extended-echo-request",
                ),
            ),
            ("timestamp-request/icmpv6", Some("icmpv6 has no timestamp-request")),
            (
                "echo-request/udp",
                Some("echo-request is a message of ICMP: say echo-request/icmp or echo-request/icmpv6"),
            ),
            (
                "1/gre",
                Some(
                    "\"gre\" is not a protocol: icmp, tcp, udp, icmpv6, sctp or a number from 0 to 255, as in \"protocol 47\"",
                ),
            ),
            ("udp/53", Some("the port comes first: 53/udp")),
            ("1/47", Some("protocol 47 has no ports: say \"protocol 47\" alone")),
            ("udp", Some("udp has ports: say for instance 5060/udp")),
        ] {
            assert_eq!(text.parse::<Service>().err().as_deref(), says, "{text}");
        }
    }
}
