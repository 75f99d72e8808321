//! A packet's first bytes, in one line for people: addresses, ports, flags, and what is inside a tunnel.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpSlice, TransportSlice};
use vswitch_model::Mac;

use super::engine::end;
use super::protocol::Protocol;

/// UDP ports of VXLAN: IANA's, and the one Linux and flannel had before there was one.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
/// A VXLAN header (RFC 7348, section 5).
const VXLAN_HEADER: usize = 8;

/// One line about an Ethernet frame, which may be cut off anywhere.
pub(super) fn describe(frame: &[u8]) -> String {
    if frame.is_empty() {
        return "(no packet)".to_owned();
    }
    match LaxSlicedPacket::from_ethernet(frame) {
        Ok(packet) => describe_packet(&packet),
        Err(_) => format!("{} bytes, too few for Ethernet", frame.len()),
    }
}

fn describe_packet(packet: &LaxSlicedPacket<'_>) -> String {
    let (source, destination, number, fragmented) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            (IpAddr::V4(source), IpAddr::V4(destination), ip.payload().ip_number, ip.payload().fragmented)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            (IpAddr::V6(source), IpAddr::V6(destination), ip.payload().ip_number, ip.payload().fragmented)
        }
        Some(LaxNetSlice::Arp(arp)) => return describe_arp(arp.slice()),
        None => return describe_link(packet),
    };
    let protocol = Protocol(number.0);
    let ends = |source_port: u16, destination_port: u16| {
        let source = end(&source.to_string(), source_port.into());
        format!("{source} > {}", end(&destination.to_string(), destination_port.into()))
    };
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            let line = format!("{} udp", ends(udp.source_port(), udp.destination_port()));
            match inside(udp.destination_port(), udp.payload()) {
                Some(inner) => format!("{line} {inner}"),
                None => line,
            }
        }
        Some(TransportSlice::Tcp(tcp)) => {
            format!("{} tcp {}", ends(tcp.source_port(), tcp.destination_port()), flags(tcp))
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            format!("{} icmp {}", ends(0, 0), icmp_name(4, icmp.type_u8(), icmp.code_u8()))
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            format!("{} icmpv6 {}", ends(0, 0), icmp_name(6, icmp.type_u8(), icmp.code_u8()))
        }
        None if fragmented => format!("{} {protocol}, a fragment", ends(0, 0)),
        None => match (number, packet.ip_payload().map(|payload| payload.payload)) {
            // etherparse knows no SCTP; its ports are where UDP's are (RFC 9260, section 3.1).
            (IpNumber::SCTP, Some([a, b, c, d, ..])) => {
                format!("{} sctp", ends(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            (IpNumber::IPV4 | IpNumber::IPV6, Some(inner)) => {
                let inner = told(LaxSlicedPacket::from_ip(inner).ok().as_ref());
                format!("{} {protocol} [{inner}]", ends(0, 0))
            }
            _ => format!("{} {protocol}", ends(0, 0)),
        },
    }
}

/// What a VXLAN packet carries: `[vni 4096: ...]`.
fn inside(port: u16, payload: &[u8]) -> Option<String> {
    if !VXLAN_PORTS.contains(&port) || payload.len() < VXLAN_HEADER {
        return None;
    }
    let (header, frame) = payload.split_at(VXLAN_HEADER);
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    let inner = told(LaxSlicedPacket::from_ethernet(frame).ok().as_ref());
    Some(format!("[vni {vni}: {inner}]"))
}

/// What is in a tunnel packet. One level: of a tunnel in a tunnel no more than that.
fn told(inner: Option<&LaxSlicedPacket<'_>>) -> String {
    match inner {
        Some(packet) if !is_tunnel(packet) => describe_packet(packet),
        Some(_) => "another tunnel".to_owned(),
        None => "cut off".to_owned(),
    }
}

fn is_tunnel(packet: &LaxSlicedPacket<'_>) -> bool {
    let carried = packet.ip_payload().map(|payload| payload.ip_number);
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) => VXLAN_PORTS.contains(&udp.destination_port()),
        Some(_) => false,
        None => matches!(carried, Some(IpNumber::IPV4 | IpNumber::IPV6)),
    }
}

fn flags(tcp: &TcpSlice<'_>) -> String {
    let all = [
        (tcp.syn(), "syn"),
        (tcp.ack(), "ack"),
        (tcp.psh(), "psh"),
        (tcp.fin(), "fin"),
        (tcp.rst(), "rst"),
        (tcp.urg(), "urg"),
    ];
    let set: Vec<_> = all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
    if set.is_empty() { "no flags".to_owned() } else { set.join(",") }
}

fn icmp_name(version: u8, kind: u8, code: u8) -> String {
    let name = match (version, kind) {
        (4, 0) | (6, 129) => "echo reply",
        (4, 8) | (6, 128) => "echo request",
        (4, 3) if code == 4 => "fragmentation needed",
        (4, 3) | (6, 1) => "unreachable",
        (6, 2) => "packet too big",
        (4, 11) | (6, 3) => "time exceeded",
        (6, 133) => "router solicitation",
        (6, 135) => "neighbour solicitation",
        (6, 136) => "neighbour advertisement",
        _ => return format!("type {kind} code {code}"),
    };
    name.to_owned()
}

/// ARP for IPv4 over Ethernet (RFC 826): who asks, or who answers.
fn describe_arp(packet: &[u8]) -> String {
    let four = |at: usize| {
        packet.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(Ipv4Addr::from)
    };
    let sender_mac = packet.get(8..14).and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()).map(Mac);
    match (packet.get(4..8), sender_mac, four(14), four(24)) {
        (Some([6, 4, 0, 1]), _, Some(sender), Some(target)) => format!("arp who has {target}, asks {sender}"),
        (Some([6, 4, 0, 2]), Some(mac), Some(sender), _) => format!("arp {sender} is at {mac}"),
        _ => "arp of an odd kind".to_owned(),
    }
}

fn describe_link(packet: &LaxSlicedPacket<'_>) -> String {
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { return "no Ethernet".to_owned() };
    let (source, destination) = (Mac(ethernet.source()), Mac(ethernet.destination()));
    match ethernet.ether_type() {
        EtherType::IPV4 | EtherType::IPV6 | EtherType::ARP => format!("{source} > {destination}, malformed"),
        EtherType(other) => format!("{source} > {destination}, ethertype {other:#06x}"),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [0xee; 6]);

    fn udp(destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(MACS.0, MACS.1)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, destination_port);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn packets_read_as_people_say_them() {
        assert_eq!(describe(&udp(5061, b"x")), "10.0.0.1:5060 > 10.0.0.2:5061 udp");
        let mut tcp = Vec::new();
        let builder = PacketBuilder::ethernet2(MACS.0, MACS.1).ipv6([0xfd; 16], [0xfe; 16], 64);
        builder.tcp(1, 2, 3, 4).syn().ack(5).write(&mut tcp, &[]).unwrap();
        let line = describe(&tcp);
        assert!(line.starts_with("[fdfd:") && line.ends_with("]:2 tcp syn,ack"), "{line}");
        let mut echo = Vec::new();
        let builder = PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.icmpv4_echo_request(1, 1).write(&mut echo, &[]).unwrap();
        assert_eq!(describe(&echo), "10.0.0.1 > 10.0.0.2 icmp echo request");
    }

    #[test]
    fn a_tunnels_inside_is_told() {
        let vxlan = [&[8, 0, 0, 0, 0, 16, 0, 0][..], &udp(5061, b"x")].concat();
        let line = describe(&udp(4789, &vxlan));
        assert_eq!(line, "10.0.0.1:5060 > 10.0.0.2:4789 udp [vni 4096: 10.0.0.1:5060 > 10.0.0.2:5061 udp]");
        let nested = [&[8, 0, 0, 0, 0, 16, 0, 0][..], &udp(4789, &vxlan)].concat();
        assert!(describe(&udp(4789, &nested)).ends_with("[vni 4096: another tunnel]"));
    }

    #[test]
    fn so_is_what_is_behind_a_second_ip_header() {
        let behind = |inner: &[u8]| {
            let builder = PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64);
            let mut frame = Vec::new();
            builder.write(&mut frame, IpNumber::IPV4, &inner[14..]).unwrap();
            frame
        };
        let once = behind(&udp(5061, b"x"));
        let line = describe(&once);
        assert!(line.starts_with("10.9.0.1 > 10.9.0.2 "), "{line}");
        assert!(line.ends_with(" [10.0.0.1:5060 > 10.0.0.2:5061 udp]"), "{line}");
        assert!(describe(&behind(&once)).ends_with(" [another tunnel]"));
    }

    #[test]
    fn a_cut_off_head_still_has_its_ends() {
        let frame = udp(5061, &[0; 400]);
        assert_eq!(describe(&frame[..128]), "10.0.0.1:5060 > 10.0.0.2:5061 udp");
        assert_eq!(describe(&frame[..36]), "10.0.0.1 > 10.0.0.2 udp");
        assert_eq!(describe(&frame[..10]), "10 bytes, too few for Ethernet");
    }

    #[test]
    fn arp_says_who_asks() {
        let mut frame =
            [&MACS.1[..], &MACS.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MACS.0, &[10, 0, 0, 1]].concat();
        frame.extend([0, 0, 0, 0, 0, 0, 169, 254, 1, 1]);
        assert_eq!(describe(&frame), "arp who has 169.254.1.1, asks 10.0.0.1");
        frame[21] = 2;
        assert_eq!(describe(&frame), "arp 10.0.0.1 is at 02:00:00:00:00:01");
    }

    #[test]
    fn sctp_has_ports_too() {
        let builder = PacketBuilder::ethernet2(MACS.0, MACS.1).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut frame = Vec::new();
        builder.write(&mut frame, IpNumber::SCTP, &[0x13, 0xc4, 0x13, 0xc5, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(describe(&frame), "10.0.0.1:5060 > 10.0.0.2:5061 sctp");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..130), kind in 0_usize..3) {
            let mut frame = bytes;
            if frame.len() > 14 {
                // Mostly IP, so that the inner layers see junk as well.
                frame[12..14].copy_from_slice(&[[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06]][kind]);
                frame[14] = if kind == 1 { 0x60 } else { 0x45 };
            }
            let _ = describe(&frame);
        }
    }
}
