use std::net::IpAddr;

use proptest::prelude::*;
use vswitch_model::{Action, DomainName, PolicyId, Rule, RuleId};

use super::{DnsAnswer, DnsQueue, WAITING, named_addresses};
use crate::parse::{Parsed, Piece};
use crate::testing::World;
use crate::testing::dns::{Record, answer, query};
use crate::testing::frames::Ends;
use crate::testing::world::{A, B, HOST, v4, v6};
use crate::{Buffer, Now, Offload, Packet, PartialChecksum, Segment, SegmentKind, VecBuffer};

fn found(message: &[u8]) -> Vec<(String, String, u32)> {
    let all = named_addresses(message, |_| true).unwrap();
    all.into_iter().map(|it| (it.name.to_string(), it.address.to_string(), it.ttl_s)).collect()
}

fn entry(name: &str, address: &str, ttl_s: u32) -> (String, String, u32) {
    (name.to_owned(), address.to_owned(), ttl_s)
}

#[test]
fn an_answer_gives_addresses_of_the_name_asked_for_alone() {
    let message = answer(
        "SIP.Example.org",
        &[
            Record::address("sip.example.org", 60, "203.0.113.7"),
            Record::address("sip.EXAMPLE.org", 30, "203.0.113.8"),
            Record::address("sip.example.org", 60, "2001:db8::7"),
            Record::address("other.example.org", 60, "203.0.113.66"),
        ],
    );
    assert_eq!(
        found(&message),
        [
            entry("sip.example.org", "203.0.113.7", 60),
            entry("sip.example.org", "203.0.113.8", 30),
            entry("sip.example.org", "2001:db8::7", 60)
        ]
    );
    let none = named_addresses(&message, |name| *name != DomainName::parse("sip.example.org").unwrap());
    assert_eq!(none, Ok(Vec::new()), "nobody wants it");
}

#[test]
fn aliases_are_followed_in_any_order_and_loops_end() {
    let mut records = [
        Record::address("edge.cdn.example.net", 300, "203.0.113.7"),
        Record::alias("www.cdn.example.net", 5, "edge.cdn.example.net"),
        Record::alias("www.example.org", 60, "www.cdn.example.net"),
        Record::alias("elsewhere.example.org", 60, "edge.cdn.example.net"),
    ];
    let expected = [
        entry("edge.cdn.example.net", "203.0.113.7", 300),
        entry("www.cdn.example.net", "203.0.113.7", 5),
        entry("www.example.org", "203.0.113.7", 5),
    ];
    assert_eq!(found(&answer("www.example.org", &records)), expected);
    records.reverse();
    assert_eq!(found(&answer("www.example.org", &records)), expected);
    let round = [Record::alias("a.x.org", 60, "b.x.org"), Record::alias("b.x.org", 60, "a.x.org")];
    assert_eq!(found(&answer("a.x.org", &round)), []);
}

#[test]
fn what_is_no_answer_is_refused() {
    assert!(named_addresses(&query("a.example.org"), |_| true).is_err());
    let mut message = answer("a.example.org", &[Record::address("a.example.org", 60, "203.0.113.7")]);
    assert_eq!(found(&message).len(), 1);
    // Its response code is NXDOMAIN, whatever else it says.
    message[3] |= 3;
    assert_eq!(found(&message), []);
    assert!(named_addresses(&message[..11], |_| true).is_err());
    assert!(named_addresses(&[], |_| true).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        named_addresses(&bytes, |_| true).ok();
        let mut message = answer("www.example.org", &[
            Record::alias("www.example.org", 60, "edge.example.net"),
            Record::address("edge.example.net", 60, "203.0.113.7"),
        ]);
        for (place, byte) in changes {
            *place.get_mut(&mut message) = byte;
        }
        named_addresses(&message, |_| true).ok();
    }
}

const SERVER: &str = "203.0.113.53";

fn told(world: &World) -> Vec<DnsAnswer> {
    std::iter::from_fn(|| world.walk.counters().dns.take()).collect()
}

fn from_server(world: &World, pod: IpAddr, server: IpAddr) -> Ends {
    Ends { source: server, ..world.host_ends(pod) }
}

fn asking() -> World {
    let world = World::node(1);
    world.walk.counters().dns.want(&[], false);
    world
}

#[test]
fn an_answer_to_a_pod_is_told_with_who_sent_it() {
    let message = answer("www.example.org", &[Record::address("www.example.org", 60, "203.0.113.7")]);
    for (server, pod) in [(SERVER, v4(1, A)), ("2001:db8::53", v6(1, A))] {
        let mut world = asking();
        let server: IpAddr = server.parse().unwrap();
        let ask = world.ends(A, server).udp(4000, 53, &query("www.example.org"));
        let reply = from_server(&world, pod, server).udp(53, 4000, &message);
        let unasked = from_server(&world, pod, server).udp(53, 4999, &message);
        assert_eq!(world.send(HOST, &unasked).len(), 1, "a flow of the server's own");
        assert_eq!(world.send(HOST, &unasked).len(), 1);
        assert_eq!(world.send(A, &ask).len(), 1);
        assert_eq!(world.send(HOST, &reply).len(), 1);
        let [answer] = &told(&world)[..] else { panic!("one answer") };
        assert_eq!((answer.server, answer.pod, answer.message()), (server, pod, message.as_slice()));
        assert_eq!(world.walk.counters().dns.told.get(), 1);
        world.walk.counters().dns.want_nothing();
        assert_eq!(world.send(HOST, &reply).len(), 1);
        assert!(told(&world).is_empty(), "nobody wants to know");
    }
}

#[test]
fn an_answer_is_held_for_the_pods_that_are_named() {
    let mut world = asking();
    let server: IpAddr = SERVER.parse().unwrap();
    let ask = world.ends(A, server).udp(4000, 53, &query("www.example.org"));
    let reply = from_server(&world, v4(1, A), server).udp(53, 4000, &answer("www.example.org", &[]));
    let plain = from_server(&world, v4(1, A), server).udp(5000, 5000, b"");
    world.walk.counters().dns.want(&[v4(1, A)], true);
    world.send(A, &ask);
    assert!(!world.out.told);
    world.moved();
    let batch = [(HOST, reply.clone()), (HOST, plain.clone()), (HOST, reply.clone())];
    let [(A, at_once)] = &world.send_all(batch)[..] else { panic!("what is no answer goes on") };
    assert_eq!(at_once.len(), plain.len());
    assert!(std::mem::take(&mut world.out.told));
    assert_eq!(told(&world).iter().map(|answer| answer.held).collect::<Vec<_>>(), [1, 2]);
    let held: Vec<_> = world.out.held.drain(..).collect();
    assert_eq!(
        held.iter().map(|(number, packet)| (*number, packet.port)).collect::<Vec<_>>(),
        [(1, A), (2, A)]
    );
    assert_eq!(world.moved_ports(), ["a tx 1", "flows created 1", "host rx 3"], "sent when it leaves");

    world.walk.counters().dns.want(&[v4(1, A)], false);
    let [(A, at_once)] = &world.send(HOST, &reply)[..] else { panic!("nothing is held") };
    assert_eq!(held[0].1.buffer.bytes(), at_once, "as it would have left");
    assert_eq!(told(&world)[0].held, 0);
    world.out.told = false;
    world.walk.counters().dns.want(&[v4(1, B)], true);
    assert_eq!(world.send(HOST, &reply).len(), 1);
    assert!(told(&world).is_empty() && !world.out.told, "another pod's answers are wanted");
}

#[test]
fn a_large_packet_is_not_held() {
    let mut world = asking();
    for facts in world.ports.values_mut() {
        facts.takes_large = true;
        facts.finishes_checksums = true;
    }
    world.recompile();
    world.walk.counters().dns.want(&[], true);
    let server: IpAddr = SERVER.parse().unwrap();
    world.send(A, &world.ends(A, server).udp(4000, 53, b"?"));
    let reply = from_server(&world, v4(1, A), server).udp(53, 4000, &[7; 300]);
    let start = crate::parse::parse(&reply).unwrap().transport;
    let offload = Offload {
        checksum: Some(PartialChecksum { start, offset: 6 }),
        segment: Some(Segment::new(SegmentKind::Udp, 100)),
    };
    let packet = Packet { buffer: VecBuffer::of(&reply), port: HOST, offload };
    assert_eq!(world.walk_packets(vec![packet]).len(), 1);
    assert!(told(&world).is_empty() && world.out.held.is_empty());
}

#[test]
fn what_cannot_be_told_is_not_held() {
    let mut world = asking();
    world.walk.counters().dns.want(&[], true);
    let server: IpAddr = SERVER.parse().unwrap();
    let reply = from_server(&world, v4(1, A), server).udp(53, 4000, b"!");
    world.send(A, &world.ends(A, server).udp(4000, 53, b"?"));
    for _ in 0..WAITING {
        assert!(world.send(HOST, &reply).is_empty());
        world.out.held.clear();
    }
    assert_eq!(world.send(HOST, &reply).len(), 1, "nobody reads");
    assert_eq!(world.walk.counters().dns.lost.get(), 1);
}

#[test]
fn who_waits_is_woken_once() {
    let queue = DnsQueue::default();
    assert!(!queue.wakes(), "nobody waits");
    assert!(queue.sleep());
    assert!(queue.wakes() && !queue.wakes());
    let parsed = Parsed { piece: Piece::Whole, transport: 0, end: 9, ..Parsed::EMPTY };
    let packet = Packet { buffer: VecBuffer::of(&[0; 9]), port: HOST, offload: Offload::default() };
    assert_eq!(queue.tell(Now(0), &parsed, &packet), None);
    assert!(!queue.sleep(), "there is an answer to read first");
    assert!(!queue.wakes());
    assert!(queue.take().is_some() && queue.sleep());
}

#[test]
fn what_is_no_answer_to_a_pod_is_not_told() {
    let mut world = asking();
    let server: IpAddr = SERVER.parse().unwrap();
    let payload = answer("www.example.org", &[]);
    let client = world.ends(A, server);
    // A pod that is a server itself: what it sends is no answer to a pod here.
    world.desired.policies.get_mut(&PolicyId(1)).unwrap().rules =
        vec![Rule::new(RuleId(20), Action::Allow, "any".into())];
    world.recompile();
    let asked = from_server(&world, v4(1, A), server).udp(4000, 53, &query("a.b"));
    world.send(HOST, &asked);
    let answered = client.udp(53, 4000, &payload);
    assert_eq!(world.send(A, &answered).len(), 1);
    // Another port, and TCP.
    world.send(A, &client.udp(4001, 54, b""));
    assert_eq!(world.send(HOST, &from_server(&world, v4(1, A), server).udp(54, 4001, &payload)).len(), 1);
    world.send(A, &client.tcp(4002, 53, 2, b""));
    assert_eq!(world.send(HOST, &from_server(&world, v4(1, A), server).tcp(53, 4002, 0x12, b"")).len(), 1);
    assert!(told(&world).is_empty());
    // A pod of this node that answers one of this node is a server as any other.
    let server = world.ends(B, v4(1, A));
    world.send(A, &world.ends(A, v4(1, B)).udp(4003, 53, &query("a.b")));
    assert_eq!(world.send(B, &server.udp(53, 4003, &payload)).len(), 1);
    assert_eq!(told(&world).len(), 1);
}

#[test]
fn what_cannot_be_told_is_counted() {
    let mut world = asking();
    let server: IpAddr = SERVER.parse().unwrap();
    world.send(A, &world.ends(A, server).udp(4000, 53, b"?"));
    let reply =
        |world: &World, length: usize| from_server(world, v4(1, A), server).udp(53, 4000, &vec![7; length]);
    for _ in 0..WAITING + 3 {
        assert_eq!(world.send(HOST, &reply(&world, 12)).len(), 1, "the pod gets it all the same");
    }
    let dns = &world.walk.counters().dns;
    assert_eq!((dns.told.get(), dns.lost.get(), dns.too_long.get()), (WAITING as u64, 3, 0));
}
