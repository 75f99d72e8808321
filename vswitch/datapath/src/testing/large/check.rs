//! What is to leave of a large packet, as another parser sees it.

use etherparse::{IpSlice, NetSlice, SlicedPacket, TransportSlice};

use super::super::world::{A, HOST};
use super::{Sent, Way};
use crate::parse::{ETHERNET, parse};
use crate::{Buffer, Offload, Packet, VecBuffer};

/// That what left is what should have.
pub(super) fn check(sent: &Sent, left: &[Packet<VecBuffer>]) {
    let Some(size) = sent.piece() else {
        // It ends, or an error about it goes back.
        let error = |packet: &Packet<VecBuffer>| {
            let told = parse(packet.buffer.bytes()).is_ok_and(|parsed| parsed.is_icmp_error());
            packet.port == HOST && told && packet.offload == Offload::default()
        };
        assert!(left.len() <= 1 && left.iter().all(error), "{} packets left of {sent:?}", left.len());
        return;
    };
    if sent.way == Way::Tun && size == usize::from(sent.size) {
        let [whole] = left else { panic!("{} packets left of {sent:?}", left.len()) };
        let bytes = whole.buffer.bytes();
        assert_eq!((whole.port, whole.offload), (A, sent.offload()));
        assert!(
            bytes.len() == ETHERNET + sent.headers() + sent.payload.len() && bytes.ends_with(&sent.payload)
        );
        return;
    }
    let mut joined = Vec::with_capacity(sent.payload.len());
    for (index, packet) in left.iter().enumerate() {
        let last = index + 1 == left.len();
        assert_eq!((packet.port, packet.offload), (sent.way.port(), Offload::default()), "{sent:?}");
        let length = packet.buffer.bytes().len() - ETHERNET;
        assert!(length <= sent.way.sizes().0, "{length} bytes leave of {sent:?}");
        inner(sent.way, packet.buffer.bytes(), |ip, transport| {
            let payload = piece(sent, ip, transport, (index, last), joined.len());
            assert!(payload.len() == size || last && payload.len() < size, "piece {index} of {sent:?}");
            joined.extend_from_slice(payload);
        });
    }
    assert!(
        joined == sent.payload,
        "{} of {} bytes in {} pieces of {sent:?}",
        joined.len(),
        sent.payload.len(),
        left.len()
    );
    assert_eq!(left.len(), sent.payload.len().div_ceil(size).max(1), "{sent:?}");
}

fn ip_of<'a>(sliced: &SlicedPacket<'a>) -> IpSlice<'a> {
    match sliced.net.clone() {
        Some(NetSlice::Ipv4(v4)) => IpSlice::Ipv4(v4),
        Some(NetSlice::Ipv6(v6)) => IpSlice::Ipv6(v6),
        other => panic!("{other:?}"),
    }
}

/// Shows the inner packet of what leaves, when all headers before it are right.
fn inner(way: Way, frame: &[u8], mut show: impl FnMut(&IpSlice<'_>, &TransportSlice<'_>)) {
    let outer = SlicedPacket::from_ethernet(frame).expect("it can be read");
    let outer_ip = ip_of(&outer);
    check_ip(&outer_ip, frame.len() - ETHERNET);
    let carried = outer_ip.payload().payload;
    let carried = match way {
        Way::Vxlan(over_v6) => {
            let Some(TransportSlice::Udp(udp)) = &outer.transport else { panic!("no UDP") };
            assert_eq!((udp.destination_port(), udp.to_header().checksum == 0), (4789, !over_v6));
            assert!(!over_v6 || transport_checksum(&outer_ip, &TransportSlice::Udp(udp.clone())));
            &udp.payload()[8 + ETHERNET..]
        }
        Way::IpIp(_) => carried,
        _ => {
            let Some(transport) = &outer.transport else { panic!("no transport") };
            return show(&outer_ip, transport);
        }
    };
    let sliced = SlicedPacket::from_ip(carried).expect("the inner one can be read");
    let ip = ip_of(&sliced);
    check_ip(&ip, carried.len());
    let Some(transport) = &sliced.transport else { panic!("no transport") };
    show(&ip, transport);
}

/// That a header says how long the packet is, and has the right checksum.
fn check_ip(ip: &IpSlice<'_>, length: usize) {
    match ip {
        IpSlice::Ipv4(v4) => {
            assert_eq!(usize::from(v4.header().total_len()), length);
            assert_eq!(v4.header().header_checksum(), v4.header().to_header().calc_header_checksum());
        }
        IpSlice::Ipv6(v6) => assert_eq!(usize::from(v6.header().payload_length()) + 40, length),
    }
}

fn transport_checksum(ip: &IpSlice<'_>, transport: &TransportSlice<'_>) -> bool {
    match (ip, transport) {
        (IpSlice::Ipv4(v4), TransportSlice::Tcp(tcp)) => {
            let sum = tcp.to_header().calc_checksum_ipv4(&v4.header().to_header(), tcp.payload());
            sum == Ok(tcp.checksum())
        }
        (IpSlice::Ipv6(v6), TransportSlice::Tcp(tcp)) => {
            let sum = tcp.to_header().calc_checksum_ipv6(&v6.header().to_header(), tcp.payload());
            sum == Ok(tcp.checksum())
        }
        (IpSlice::Ipv4(v4), TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv4(&v4.header().to_header(), udp.payload());
            sum == Ok(udp.checksum())
        }
        (IpSlice::Ipv6(v6), TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv6(&v6.header().to_header(), udp.payload());
            sum == Ok(udp.checksum())
        }
        _ => false,
    }
}

/// That a piece has the headers it should, `before` bytes of the payload having come before it; its own payload.
fn piece<'a>(
    sent: &Sent,
    ip: &IpSlice<'_>,
    transport: &TransportSlice<'a>,
    (index, last): (usize, bool),
    before: usize,
) -> &'a [u8] {
    assert!(transport_checksum(ip, transport), "checksum of piece {index} of {sent:?}");
    match ip {
        IpSlice::Ipv4(v4) => {
            let header = v4.header();
            assert_eq!((header.ttl(), header.dont_fragment()), (sent.ttl - 1, sent.dont_fragment));
            assert_eq!(header.identification(), sent.identification.wrapping_add(index as u16));
            assert!(header.options() == vec![1; sent.ip_options * 4] && !header.more_fragments());
        }
        IpSlice::Ipv6(v6) => {
            assert_eq!(v6.header().hop_limit(), sent.ttl - 1);
            assert_eq!(v6.extensions().slice().len(), sent.ip_options * 8);
        }
    }
    match transport {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(tcp.sequence_number(), sent.sequence.wrapping_add(before as u32));
            let kept = if last { 0xff } else { !0x09 } & if index == 0 { 0xff } else { !0x80 };
            assert_eq!(tcp.slice()[13], sent.flags & kept, "flags of piece {index} of {sent:?}");
            assert_eq!(tcp.options(), vec![1; sent.tcp_options * 4]);
            tcp.payload()
        }
        TransportSlice::Udp(udp) => {
            assert_eq!(usize::from(udp.length()), udp.payload().len() + 8);
            udp.payload()
        }
        other => panic!("{other:?}"),
    }
}
