//! The frames that generators send: UDP, one or more templates, each in a number of flows.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use vswitch_model::Mac;

/// Bytes of the UDP payload that say which frame it is: its number, when it was due, and [`MARK`].
pub const PAYLOAD: usize = 18;
/// What tells our frames from others.
pub const MARK: u16 = 0x5356;
/// Flows beyond this many take other destination ports.
pub const SOURCE_PORTS: u32 = 1 << 15;
/// Bytes VXLAN puts before a frame, over IPv4.
pub const VXLAN_V4: usize = 50;

/// Who speaks to whom, in a frame's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Ethernet source.
    pub source_mac: Mac,
    /// Ethernet destination.
    pub destination_mac: Mac,
    /// Source address, of the same family as the destination.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port of the first flow.
    pub source_port: u16,
    /// Destination port of the first flows.
    pub destination_port: u16,
}

impl Ends {
    /// Those of a UDP frame without a tunnel, the first of its flows.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setup`] when it is none.
    pub fn of(frame: &[u8]) -> crate::Result<Self> {
        use etherparse::{LinkSlice, NetSlice, SlicedPacket, TransportSlice};
        let failed = |cause: &dyn std::fmt::Display| crate::Error::setup("read a frame", cause);
        let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| failed(&error))?;
        let (Some(LinkSlice::Ethernet2(link)), Some(TransportSlice::Udp(udp))) =
            (&sliced.link, &sliced.transport)
        else {
            return Err(failed(&"it is not UDP"));
        };
        let (source, destination) = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            Some(NetSlice::Ipv6(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            _ => return Err(failed(&"it is not IP")),
        };
        Ok(Self {
            source_mac: Mac(link.source()),
            destination_mac: Mac(link.destination()),
            source,
            destination,
            source_port: udp.source_port(),
            destination_port: udp.destination_port(),
        })
    }

    /// The frame of `length` bytes (without FCS): 60 or more for IPv4, 80 or more for IPv6. The payload is zero but for
    /// the mark; the checksum is zero for IPv4, which says there is none, and not yet right for IPv6.
    ///
    /// # Panics
    /// When it is shorter, or its ends are not of one family.
    #[must_use]
    pub fn frame(&self, length: usize) -> Vec<u8> {
        let at = payload_at(self.destination.is_ipv6());
        assert!(length >= at + PAYLOAD, "a frame has {} bytes at least, not {length}", at + PAYLOAD);
        let mut payload = vec![0; length - at];
        payload[16..PAYLOAD].copy_from_slice(&MARK.to_le_bytes());
        let builder = PacketBuilder::ethernet2(self.source_mac.0, self.destination_mac.0);
        let builder = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                builder.ipv4(source.octets(), destination.octets(), 64)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                builder.ipv6(source.octets(), destination.octets(), 64)
            }
            _ => panic!("{} and {} are not of one family", self.source, self.destination),
        };
        let builder = builder.udp(self.source_port, self.destination_port);
        let mut frame = Vec::with_capacity(length);
        builder.write(&mut frame, &payload).expect("a vector takes all that is written");
        frame[at - 2..at].fill(0);
        frame
    }
}

/// Where the UDP payload begins, without a tunnel.
#[must_use]
pub const fn payload_at(v6: bool) -> usize {
    if v6 { 62 } else { 42 }
}

/// What a generator sends, over and over: frame n is of template `n % templates` and of its flow
/// `n / templates % flows`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    templates: Vec<Vec<u8>>,
    flows: u32,
    v6: bool,
}

impl Pattern {
    /// Frames between each of `ends`, which are of one family, with `flows` flows each: their source ports count up from
    /// the first, and after 32768 of them the destination port does.
    ///
    /// # Panics
    /// When there are no ends or flows, they are of two families, or ports run over.
    #[must_use]
    pub fn new(ends: &[Ends], flows: u32, length: usize) -> Self {
        assert!(!ends.is_empty() && flows > 0, "a pattern has a frame");
        let v6 = ends[0].destination.is_ipv6();
        assert!(ends.iter().all(|ends| ends.destination.is_ipv6() == v6), "a pattern is of one family");
        let fits = |ends: &Ends| {
            let most = flows - 1;
            u32::from(ends.source_port) + most.min(SOURCE_PORTS - 1) <= 0xffff
                && u32::from(ends.destination_port) + most / SOURCE_PORTS <= 0xffff
        };
        assert!(ends.iter().all(fits), "{flows} flows do not fit behind these ports");
        Self { templates: ends.iter().map(|ends| ends.frame(length)).collect(), flows, v6 }
    }

    /// The templates.
    #[must_use]
    pub fn templates(&self) -> &[Vec<u8>] {
        &self.templates
    }

    /// Flows of each template.
    #[must_use]
    pub fn flows(&self) -> u32 {
        self.flows
    }

    /// Flows of all templates: frame n is the `n / all`-th of the flow `n % all`.
    #[must_use]
    pub fn all_flows(&self) -> u32 {
        self.flows * self.templates.len() as u32
    }

    /// What those it is sent to would answer: the same flows the other way, from behind `mac`.
    #[must_use]
    pub fn answers(&self, mac: Mac) -> Vec<Vec<u8>> {
        let mut frame = self.templates[0].clone();
        (0..u64::from(self.all_flows()))
            .map(|number| {
                self.write(number, 0, &mut frame);
                let mut answer = frame.clone();
                answer[..6].copy_from_slice(&Mac::GATEWAY.0);
                answer[6..12].copy_from_slice(&mac.0);
                // Exchanged, addresses and ports leave both checksums as they are.
                let (at, size) = if self.v6 { (22, 16) } else { (26, 4) };
                answer[at..at + size].copy_from_slice(&frame[at + size..at + 2 * size]);
                answer[at + size..at + 2 * size].copy_from_slice(&frame[at..at + size]);
                let ports = at + 2 * size;
                answer[ports..ports + 2].copy_from_slice(&frame[ports + 2..ports + 4]);
                answer[ports + 2..ports + 4].copy_from_slice(&frame[ports..ports + 2]);
                answer
            })
            .collect()
    }

    /// Whether it is of IPv6.
    #[must_use]
    pub fn v6(&self) -> bool {
        self.v6
    }

    /// Bytes of a frame.
    #[must_use]
    pub fn length(&self) -> usize {
        self.templates[0].len()
    }

    /// The sum of the IPv6 checksum (RFC 8200, section 8.1) over everything that is the same in all frames of a template:
    /// all but ports, number and due time.
    pub(super) fn fixed_sum(&self, template: usize) -> u32 {
        let frame = &self.templates[template];
        if !self.v6 {
            return 0;
        }
        let udp_length = (frame.len() - 54) as u16;
        let mut words = vec![udp_length, udp_length, 17];
        let pairs = |bytes: &[u8]| -> Vec<u16> {
            bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])).collect()
        };
        words.extend(pairs(&frame[22..54]));
        words.extend(pairs(&frame[62..]));
        // The program sums words as they lie in memory.
        let sum: u64 = words.iter().map(|word| u64::from(word.swap_bytes())).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        ((folded & 0xffff) + (folded >> 16)) as u32
    }

    /// Writes frame `number` over one of the pattern's length that held any.
    pub fn write(&self, number: u64, due_ns: u64, frame: &mut [u8]) {
        let count = self.templates.len() as u64;
        let (template, flow) = ((number % count) as usize, (number / count % u64::from(self.flows)) as u32);
        let from = &self.templates[template];
        let at = payload_at(self.v6);
        frame[..at].copy_from_slice(&from[..at]);
        let ports = if self.v6 { 54 } else { 34 };
        let port = |offset: usize| u16::from_be_bytes([from[offset], from[offset + 1]]);
        let source = port(ports) + (flow % SOURCE_PORTS) as u16;
        let destination = port(ports + 2) + (flow / SOURCE_PORTS) as u16;
        frame[ports..ports + 2].copy_from_slice(&source.to_be_bytes());
        frame[ports + 2..ports + 4].copy_from_slice(&destination.to_be_bytes());
        frame[at..at + 8].copy_from_slice(&number.to_le_bytes());
        frame[at + 8..at + 16].copy_from_slice(&due_ns.to_le_bytes());
        frame[at + 16..].copy_from_slice(&from[at + 16..]);
        if self.v6 {
            let words = |value: u64| (0..4).map(|word| value >> (16 * word) & 0xffff).sum::<u64>() as u32;
            let ports = u32::from(source.swap_bytes()) + u32::from(destination.swap_bytes());
            let mut sum = self.fixed_sum(template) + ports + words(number) + words(due_ns);
            sum = (sum & 0xffff) + (sum >> 16);
            sum = (sum & 0xffff) + (sum >> 16);
            let checksum = if sum == 0xffff { 0xffff } else { !(sum as u16) };
            frame[at - 2..at].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends {
            source_mac: Mac([2, 0, 0, 0, 0, 1]),
            destination_mac: Mac([2, 0, 0, 0, 0, 2]),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: 1000,
            destination_port: 5000,
        }
    }

    #[test]
    fn frames_say_which_they_are_and_their_checksums_hold() {
        for (ends, length) in [(ends("10.0.1.10", "10.0.1.11"), 60), (ends("fd00::1", "fd00::2"), 80)] {
            for length in [length, 214, 1501] {
                let pattern = Pattern::new(&[ends], 40_000, length);
                let mut frame = pattern.templates()[0].clone();
                for (number, due) in [(0, 0), (1, 0x1234_5678_9abc_def0), (39_999, u64::MAX)] {
                    pattern.write(number, due, &mut frame);
                    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
                    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("UDP") };
                    let flow = number as u16;
                    assert_eq!(udp.source_port(), 1000 + flow % 32768);
                    assert_eq!(udp.destination_port(), 5000 + u16::from(flow > 32767));
                    assert_eq!(udp.payload()[..8], number.to_le_bytes());
                    assert_eq!(udp.payload()[8..16], due.to_le_bytes());
                    assert_eq!(udp.payload()[16..18], [0x56, 0x53]);
                    if ends.source.is_ipv6() {
                        let (Some(etherparse::NetSlice::Ipv6(ip)), header) = (sliced.net, udp.to_header())
                        else {
                            panic!("IPv6")
                        };
                        let right =
                            header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).unwrap();
                        assert_eq!(udp.checksum(), right, "length {length}, frame {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn templates_take_turns_and_then_flows_do() {
        let both = [ends("10.0.1.10", "10.0.1.11"), ends("10.0.1.10", "10.0.1.12")];
        let pattern = Pattern::new(&both, 3, 60);
        let mut frame = pattern.templates()[0].clone();
        let seen: Vec<_> = (0..7)
            .map(|number| {
                pattern.write(number, 0, &mut frame);
                (frame[33], frame[35])
            })
            .collect();
        let low = 1000_u16 as u8;
        let (a, b, c) = (low, low + 1, low + 2);
        assert_eq!(seen, [(11, a), (12, a), (11, b), (12, b), (11, c), (12, c), (11, a)]);
        assert_eq!(pattern.all_flows(), 6);
    }

    #[test]
    #[should_panic(expected = "do not fit behind these ports")]
    fn ports_do_not_run_over() {
        let mut ends = ends("10.0.1.10", "10.0.1.11");
        ends.source_port = 40_000;
        let _ = Pattern::new(&[ends], 32_768, 60);
    }
}
