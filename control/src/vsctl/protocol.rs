//! IP protocols and services, as people write them.

use std::fmt;
use std::str::FromStr;

/// An IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Protocol(pub(super) u8);

/// The names people use, and their numbers (IANA, Protocol Numbers).
const NAMES: [(&str, u8); 5] = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132)];

impl Protocol {
    /// Whether it has ports.
    pub(super) const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 132)
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let typed = text.to_ascii_lowercase();
        let named = NAMES.iter().find(|(name, _)| *name == typed).map(|(_, number)| *number);
        named.or_else(|| typed.parse().ok()).map(Self).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("{text:?} is not a protocol: {} or a number from 0 to 255", names.join(", "))
        })
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

/// What a flow is for: `5060/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) protocol: Protocol,
    /// 0 for protocols without ports.
    pub(super) port: u16,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not PORT/PROTO: 5060/udp, 443/tcp, 80 (TCP), icmp, icmpv6");
        let number = |port: &str| port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
        if let Some((port, protocol)) = text.split_once('/') {
            let protocol: Protocol = protocol.parse()?;
            if !protocol.has_ports() {
                return Err(format!("{protocol} has no ports: say {protocol} alone"));
            }
            return Ok(Self { protocol, port: number(port)? });
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self { protocol: Protocol(6), port: number(text)? });
        }
        match text.parse::<Protocol>() {
            Ok(protocol) if !protocol.has_ports() => Ok(Self { protocol, port: 0 }),
            Ok(protocol) => Err(format!("{protocol} has ports: say for instance 5060/{protocol}")),
            Err(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol.has_ports() {
            write!(f, "{}/{}", self.port, self.protocol)
        } else {
            self.protocol.fmt(f)
        }
    }
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
            ("icmp", 1, 0),
            ("icmpv6", 58, 0),
        ] {
            let service: Service = text.parse().unwrap();
            assert_eq!((service.protocol.0, service.port), (protocol, port));
            assert_eq!(service.to_string(), text);
        }
        assert_eq!("80".parse::<Service>().unwrap().to_string(), "80/tcp");
        assert_eq!("53/UDP".parse::<Service>().unwrap().to_string(), "53/udp");
        for wrong in ["", "udp", "0/udp", "65536/tcp", "5060/icmp", "x/udp", "5060/", "/udp", "5060/gre2"] {
            assert!(wrong.parse::<Service>().is_err(), "{wrong}");
        }
    }
}
