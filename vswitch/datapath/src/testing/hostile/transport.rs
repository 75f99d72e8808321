//! What IP carries: TCP, UDP, SCTP, ICMP, ICMPv6 and numbers that nobody knows.

use std::net::IpAddr;

use super::Hostile;
use crate::checksum::Sum;
use crate::parse::protocol;

/// Ports: few, so that packets meet flows.
const CLIENT_PORTS: u64 = 16;

/// The protocol, its header and payload, and where in them the checksum goes, when there is one.
pub(super) type Transport = (u8, Vec<u8>, Option<u16>);

impl Hostile {
    pub(super) fn transport(&mut self, over_v6: bool) -> Transport {
        match self.random.below(100) {
            0..52 => self.udp(),
            52..78 => self.tcp(),
            78..86 => self.echo(over_v6),
            86..90 => {
                let quoted = self.random.bytes(80);
                self.error_about(over_v6, &quoted)
            }
            90..93 => self.sctp(),
            93..97 => {
                let kind = if over_v6 { protocol::ICMPV6 } else { protocol::ICMP };
                let mut message = self.random.bytes(60);
                message.resize(message.len().max(4), 0);
                (kind, message, Some(2))
            }
            _ => (self.random.next() as u8, self.random.bytes(80), None),
        }
    }

    /// With its checksum; and where that is when it was left to be finished.
    pub(super) fn summed(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        (protocol, mut payload, at): Transport,
    ) -> (u8, Vec<u8>, Option<u16>) {
        let Some(at) = at.filter(|at| usize::from(*at) + 2 <= payload.len()) else {
            return (protocol, payload, None);
        };
        let unfinished = self.random.chance(20) && matches!(protocol, protocol::TCP | protocol::UDP);
        let sum = self.checksum(source, destination, protocol, &payload, unfinished);
        payload[usize::from(at)..usize::from(at) + 2].copy_from_slice(&sum.to_be_bytes());
        (protocol, payload, unfinished.then_some(at))
    }

    /// The right one as a rule; of the pseudo-header only when the rest is left to others; wrong, or zero.
    fn checksum(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        payload: &[u8],
        unfinished: bool,
    ) -> u16 {
        let pseudo = match protocol {
            protocol::ICMP => Sum::ZERO,
            _ => Sum::ZERO.pseudo(source, destination, protocol, payload.len()),
        };
        match self.random.below(20) {
            _ if unfinished => pseudo.fold(),
            0 => 0,
            1 => self.random.next() as u16,
            _ => pseudo.bytes(payload).finish(),
        }
    }

    fn ports(&mut self, servers: &[u16]) -> Vec<u8> {
        let mut ends = [40_000 + self.random.below(CLIENT_PORTS) as u16, *self.random.pick(servers)];
        if self.random.chance(40) {
            ends.reverse();
        }
        if self.random.chance(2) {
            ends = [self.random.next() as u16, self.random.next() as u16];
        }
        ends.iter().flat_map(|port| port.to_be_bytes()).collect()
    }

    fn body(&mut self) -> Vec<u8> {
        match self.random.below(100) {
            0..80 => self.random.bytes(40),
            80..95 => self.random.bytes(600),
            // Around the MTUs, and jumbo.
            95..99 => self.random.bytes(1600),
            _ if self.random.chance(10) => self.random.bytes(60_000),
            _ => self.random.bytes(9000),
        }
    }

    fn udp(&mut self) -> Transport {
        let mut datagram = self.ports(&[53, 4789, 5000, 5000, 5060, 5060, 6000]);
        let body = self.body();
        let length = if self.random.chance(2) { self.random.next() as u16 } else { 8 + body.len() as u16 };
        datagram.extend(length.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(body);
        (protocol::UDP, datagram, Some(6))
    }

    fn tcp(&mut self) -> Transport {
        let mut segment = self.ports(&[80, 80, 443, 22]);
        // Near one another, so that windows are met and missed.
        for _ in 0..2 {
            let number = if self.random.chance(90) {
                self.random.below(3000) as u32
            } else {
                self.random.next() as u32
            };
            segment.extend(number.to_be_bytes());
        }
        let options = if self.random.chance(30) { self.options() } else { Vec::new() };
        let words =
            if self.random.chance(2) { self.random.below(16) as usize } else { 5 + options.len() / 4 };
        let flags = *self
            .random
            .pick(&[0x02, 0x12, 0x10, 0x10, 0x10, 0x18, 0x18, 0x11, 0x04, 0x14, 0, 0xff, 0x03, 0xc2]);
        segment.extend([(words << 4) as u8, flags]);
        let window = *self.random.pick(&[0, 1, 512, 1024, 0x7fff, 0xffff]);
        segment.extend(u16::to_be_bytes(window));
        segment.extend([0; 4]);
        segment.extend(options);
        segment.extend(self.body());
        (protocol::TCP, segment, Some(16))
    }

    fn options(&mut self) -> Vec<u8> {
        let mut options = match self.random.below(4) {
            0 => vec![2, 4, 5, 0xb4, 1, 3, 3, self.random.below(16) as u8],
            1 => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            2 => vec![3, 0, 0, 0],
            _ => self.random.bytes(40),
        };
        options.resize(options.len().div_ceil(4) * 4, 0);
        options
    }

    fn echo(&mut self, over_v6: bool) -> Transport {
        let (number, kinds) = if over_v6 { (protocol::ICMPV6, [128, 129]) } else { (protocol::ICMP, [8, 0]) };
        let mut message = vec![*self.random.pick(&kinds), 0, 0, 0, 0, self.random.below(8) as u8, 0, 1];
        message.extend(self.body());
        (number, message, Some(2))
    }

    /// Whom to tell of something that was sent before, and the packet.
    pub(super) fn quotable(&mut self, over_v6: bool) -> Option<(IpAddr, Vec<u8>)> {
        let at = self.random.below(self.recent.len() as u64) as usize;
        let quoted = self.recent.get(at)?.clone();
        let sender = match quoted.first()? >> 4 {
            4 => IpAddr::from(*quoted.get(12..)?.first_chunk::<4>()?),
            _ => IpAddr::from(*quoted.get(8..)?.first_chunk::<16>()?),
        };
        (sender.is_ipv6() == over_v6).then_some((sender, quoted))
    }

    /// An error of any kind that quotes a packet, cut anywhere at times.
    pub(super) fn error_about(&mut self, over_v6: bool, quoted: &[u8]) -> Transport {
        let (number, kinds): (_, &[u8]) = if over_v6 {
            (protocol::ICMPV6, &[1, 2, 3, 4, 100])
        } else {
            (protocol::ICMP, &[3, 3, 4, 5, 11, 12])
        };
        let mut message = vec![*self.random.pick(kinds), self.random.below(6) as u8, 0, 0];
        message.extend((self.random.below(1600) as u32).to_be_bytes());
        let cut = self.random.below(quoted.len() as u64 + 1) as usize;
        message.extend(if self.random.chance(70) { quoted } else { &quoted[..cut] });
        (number, message, Some(2))
    }

    fn sctp(&mut self) -> Transport {
        let mut packet = self.ports(&[2905, 3868]);
        packet.extend(self.random.exactly(8));
        packet.extend(self.random.bytes(60));
        (protocol::SCTP, packet, None)
    }
}
