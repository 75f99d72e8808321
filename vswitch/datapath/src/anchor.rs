//! Which port a packet's flow belongs to, when several workers share the ports: its worker follows the flow.
//!
//! The answer is the same for both directions, for every fragment, and for an ICMP error as for the flow it speaks of,
//! without looking at any flow: it depends only on which of this node's ports are at the flow's two ends.
//!
//! | ends | the port |
//! |---|---|
//! | two pods | the one with the lower number when the sum of the numbers is even, else the other: half of the pairs each |
//! | a pod, and anything else | the pod's |
//! | the host, and anything that is no pod | the host's |
//! | neither | none: whoever received it will end it |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::PortIndex;
use crate::parse::{ETHERNET, IPV4, IPV6, Network, Parsed, Piece, parse_into, protocol};
use crate::read::{be16, chunk};
use crate::tables::{Role, Tables};

/// Bytes of UDP and VXLAN headers.
const UDP_VXLAN: usize = 16;

/// The port that the flow of a frame belongs to, which came by `port`. What cannot be read belongs to whoever received it.
///
/// Nothing is judged here: the walk of the worker that gets the frame does, from the frame's first byte.
#[must_use]
pub fn anchor(tables: &Tables, port: PortIndex, frame: &[u8]) -> Option<PortIndex> {
    let ingress = tables.port(port).role;
    let mut parsed = Parsed::EMPTY;
    let readable = parse_into(frame, &mut parsed).is_ok() && parsed.network != Network::Arp;
    let destination = match ingress {
        _ if !readable => None,
        Role::Uplink => inner_destination(tables, frame, &parsed).or(Some(parsed.destination)),
        Role::Pod | Role::Host | Role::None => Some(parsed.destination),
    };
    let way = destination.and_then(|to| tables.adjacency(tables.lookup(to).adjacency).port());
    between((ingress, port), way.map(|way| (tables.port(way).role, way)))
}

fn between(from: (Role, PortIndex), to: Option<(Role, PortIndex)>) -> Option<PortIndex> {
    match (from, to) {
        ((Role::Pod, from), Some((Role::Pod, to))) => {
            let is_even = from.0.wrapping_add(to.0).is_multiple_of(2);
            Some(if is_even { from.min(to) } else { from.max(to) })
        }
        ((Role::Pod, pod), _) | (_, Some((Role::Pod, pod))) => Some(pod),
        ((Role::Host, host), _) | (_, Some((Role::Host, host))) => Some(host),
        _ => None,
    }
}

/// Where the packet inside one that is addressed to this node goes. Whether it is one of our tunnels is not asked: if it is
/// not, its walk ends with that, whoever walks it.
fn inner_destination(tables: &Tables, frame: &[u8], outer: &Parsed) -> Option<IpAddr> {
    let local = tables.local()?;
    if outer.piece != Piece::Whole || !local.underlay.contains(&Some(outer.destination)) {
        return None;
    }
    let payload = usize::from(outer.transport);
    match outer.protocol {
        protocol::UDP => {
            let inner = payload + UDP_VXLAN;
            let ethertype = be16(frame, inner + ETHERNET - 2)?;
            destination(frame, inner + ETHERNET, ethertype)
        }
        protocol::IPV4 => destination(frame, payload, IPV4),
        protocol::IPV6 => destination(frame, payload, IPV6),
        _ => None,
    }
}

fn destination(frame: &[u8], header: usize, ethertype: u16) -> Option<IpAddr> {
    match ethertype {
        IPV4 => chunk::<4>(frame, header + 16).map(|bytes| Ipv4Addr::from(*bytes).into()),
        IPV6 => chunk::<16>(frame, header + 24).map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Buffer;
    use crate::testing::World;
    use crate::testing::frames::{self, Ends};
    use crate::testing::world::{A, B, C, HOST, UPLINK, pod_mac, uplink_mac, v4, v6};

    fn of(world: &World, port: PortIndex, frame: &[u8]) -> Option<PortIndex> {
        anchor(&world.tables, port, frame)
    }

    #[test]
    fn both_directions_between_pods_have_one_and_all_pods_are_some() {
        let world = World::node(1);
        let mut seen = Vec::new();
        for (a, b) in [(A, B), (A, C), (B, C)] {
            for address in [v4, v6] {
                let there = world.ends(a, address(1, b)).udp(1, 2, b"x");
                let back = world.ends(b, address(1, a)).udp(2, 1, b"x");
                assert_eq!(of(&world, a, &there), of(&world, b, &back));
                seen.extend(of(&world, a, &there));
            }
        }
        // 2+3 odd: 3; 2+4 even: 2; 3+4 odd: 4.
        assert_eq!(seen, [B, B, A, A, C, C]);
    }

    #[test]
    fn what_a_pod_and_the_rest_send_each_other_is_the_pods() {
        let world = World::node(1);
        for (here, there) in [(v4(1, B), v4(2, A)), (v6(1, B), v6(2, A))] {
            assert_eq!(of(&world, B, &world.ends(B, there).udp(1, 2, b"x")), Some(B));
            for over_v6 in [false, true] {
                let inner = world.inner_ends(A, here).udp(2, 1, b"x");
                let outer = frames::vxlan(world.tunnel_ends(over_v6), 4096, 4789, &inner);
                assert_eq!(of(&world, UPLINK, &outer), Some(B));
                // Every fragment of it as well.
                let whole = world.inner_ends(A, here).udp(2, 1, &[0; 64]);
                let pieces = if here.is_ipv4() {
                    frames::cut_v4(&frames::may_fragment(whole, 7), 32)
                } else {
                    frames::cut_v6(&whole, 32, 7)
                };
                for piece in pieces {
                    let outer = frames::vxlan(world.tunnel_ends(over_v6), 4096, 4789, &piece);
                    assert_eq!(of(&world, UPLINK, &outer), Some(B));
                }
            }
            assert_eq!(of(&world, HOST, &world.host_ends(here).udp(2, 1, b"x")), Some(B));
            assert_eq!(of(&world, HOST, &world.host_ends(there).udp(2, 1, b"x")), Some(HOST));
        }
    }

    #[test]
    fn an_inner_packet_without_ethernet_is_found_too() {
        let world = World::node(1);
        for (address, number) in [(v4(1, C), protocol::IPV4), (v6(1, C), protocol::IPV6)] {
            for over_v6 in [false, true] {
                let inner = world.inner_ends(A, address).udp(2, 1, b"x");
                let mut outer = world.tunnel_ends(over_v6).udp(1, 2, &inner[ETHERNET..]);
                let transport = if over_v6 { 54 } else { 34 };
                outer.drain(transport..transport + 8);
                outer[if over_v6 { 20 } else { 23 }] = number;
                let length = (outer.len() - transport + if over_v6 { 0 } else { 20 }) as u16;
                let at = if over_v6 { 18 } else { 16 };
                outer[at..at + 2].copy_from_slice(&length.to_be_bytes());
                if !over_v6 {
                    frames::mend_ipv4(&mut outer);
                }
                assert_eq!(of(&world, UPLINK, &outer), Some(C), "protocol {number} over v6: {over_v6}");
            }
        }
    }

    #[test]
    fn an_error_of_our_own_node_goes_with_the_flow_it_speaks_of() {
        let mut world = World::node(1);
        // B is told that its packet to the other node died; so is the flow B has with it.
        let sent = world.send(B, &world.ends(B, v4(2, A)).with_ttl(1).udp(5000, 7, b"x"));
        let [(B, error)] = &sent[..] else { panic!("{sent:?}") };
        assert!(crate::parse::parse(error).is_ok_and(|parsed| parsed.is_icmp_error()));
        // An error of C about what A sent it.
        let quoted = world.ends(A, v4(1, C)).udp(1, 2, b"x");
        let mut about = Vec::new();
        let builder = world.ends(C, v4(1, A)).builder();
        builder.icmpv4_raw(3, 3, [0; 4]).write(&mut about, &quoted[ETHERNET..]).unwrap();
        assert_eq!(of(&world, C, &about), of(&world, A, &quoted));
    }

    #[test]
    fn what_is_for_nobody_here_or_cannot_be_read_stays() {
        let world = World::node(1);
        let ends =
            Ends { source_mac: uplink_mac(3), destination_mac: uplink_mac(1), ..world.tunnel_ends(false) };
        let transit = Ends { destination: v4(2, A), ..ends }.udp(1, 2, b"x");
        assert_eq!(of(&world, UPLINK, &transit), None);
        assert_eq!(of(&world, UPLINK, &transit[..20]), None);
        let request =
            frames::arp_request(pod_mac(1, B), Ipv4Addr::new(10, 0, 1, 11), crate::tables::GATEWAY_V4);
        assert_eq!(of(&world, B, &request), Some(B));
        let junk = crate::VecBuffer::of(&[0xff; 60]);
        assert_eq!(of(&world, A, junk.bytes()), Some(A));
    }
}
