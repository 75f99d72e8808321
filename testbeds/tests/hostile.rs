//! What a hostile pod or a stranger on the wire may try: each a counted drop, and nothing of it arrives.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::{FAMILIES, Scene, V4, must, scene, three_pods};
use etherparse::PacketBuilder;
use vswitch_model::Mac;
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::command::wait_until;
use vswitch_testbeds::netns::Netns;
use vswitch_testbeds::topology::{VNI, VXLAN_PORT};
use vswitch_testbeds::traffic::ping::{Ping, all_answered};
use vswitch_testbeds::traffic::probe::{any, udp_answers, udp_socket};
use vswitch_testbeds::traffic::raw::RawPort;

const EVIL: &str = "test/near";
const VICTIM: &str = "test/beside";
const FAR: &str = "test/far";
/// What every hostile datagram carries, so that its arrival would be noticed.
const MARK: &[u8] = b"hostile datagram";
const PORT: u16 = 4444;

/// A datagram as a frame.
fn datagram(source_mac: [u8; 6], destination_mac: [u8; 6], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let step = PacketBuilder::ethernet2(source_mac, destination_mac);
    let step = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => step.ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => step.ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("{source} and {destination} are of two families"),
    };
    let mut frame = Vec::new();
    step.udp(PORT, PORT).write(&mut frame, MARK).unwrap();
    frame
}

/// A VXLAN header and a frame behind it.
fn vxlan(flags: u8, vni: u32, inner: &[u8]) -> Vec<u8> {
    let mut packet = vec![flags, 0, 0, 0];
    packet.extend((vni << 8).to_be_bytes());
    packet.extend(inner);
    packet
}

fn has_mark(frame: &[u8]) -> bool {
    frame.windows(MARK.len()).any(|window| window == MARK)
}

/// Nothing marked arrives at the victim while `body` runs, nor shortly after.
#[track_caller]
fn nothing_arrives(scene: &Scene, victim: &str, body: impl FnOnce()) {
    let port = must(RawPort::open(&must(scene.pod(victim)).netns, "eth0"));
    body();
    let arrived = must(port.receive(Duration::from_millis(200), has_mark));
    assert_eq!(arrived, None, "a hostile frame arrived at {victim}");
}

#[test]
fn a_pod_cannot_speak_as_somebody_else() {
    let Some(mut scene) = scene("tspoof", three_pods(), Settings::default()) else { return };
    let evil = must(RawPort::open(&must(scene.pod(EVIL)).netns, "eth0"));
    let gateway = Mac::GATEWAY.0;
    for family in FAMILIES {
        let own = must(scene.address(EVIL, family));
        let (beside, far) = (must(scene.address(VICTIM, family)), must(scene.address(FAR, family)));
        // The probe itself: an honest frame made the same way arrives.
        let listener = must(RawPort::open(&must(scene.pod(VICTIM)).netns, "eth0"));
        must(evil.send(&datagram(evil.mac, gateway, own, beside)));
        assert!(
            must(listener.receive(Duration::from_secs(2), has_mark)).is_some(),
            "the honest frame to {beside}"
        );

        nothing_arrives(&scene, VICTIM, || {
            scene.drops("node1", "spoofed-address", 20, || {
                (0..20).for_each(|_| must(evil.send(&datagram(evil.mac, gateway, far, beside))));
            });
            scene.drops("node1", "spoofed-mac", 20, || {
                (0..20).for_each(|_| must(evil.send(&datagram([2, 0, 0, 0, 0, 9], gateway, own, beside))));
            });
            // Past the router, straight to the neighbour's Ethernet address.
            let victims_mac = listener.mac;
            scene.drops("node1", "mac-not-ours", 20, || {
                (0..20).for_each(|_| must(evil.send(&datagram(evil.mac, victims_mac, own, beside))));
            });
        });
        nothing_arrives(&scene, FAR, || {
            scene.drops("node1", "spoofed-address", 1, || {
                must(evil.send(&datagram(evil.mac, gateway, beside, far)));
            });
        });
    }
    scene.no_frame_is_lost();
    scene.stops_whole();
}

#[test]
fn a_pod_cannot_take_an_address_by_arp_or_neighbour_discovery() {
    let Some(scene) = scene("tarp", three_pods(), Settings::default()) else { return };
    let evil = must(RawPort::open(&must(scene.pod(EVIL)).netns, "eth0"));
    let victim = must(RawPort::open(&must(scene.pod(VICTIM)).netns, "eth0"));
    let IpAddr::V4(stolen) = must(scene.address(VICTIM, V4)) else { panic!("an IPv4 address was asked for") };
    let arp = |operation: u8, sender: Ipv4Addr, target: Ipv4Addr| {
        let mut frame = [[0xff; 6], evil.mac].concat();
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(evil.mac);
        frame.extend(sender.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    };
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    // Announcing another's address, as a request and as a reply, and the gateway's.
    for (operation, sender) in [(1, stolen), (2, stolen), (1, gateway), (2, gateway)] {
        let before = drops_of(&scene, &["arp-invalid", "spoofed-address", "spoofed-mac"]);
        must(evil.send(&arp(operation, sender, sender)));
        must(wait_until("the announcement to be dropped", Duration::from_secs(3), || {
            drops_of(&scene, &["arp-invalid", "spoofed-address", "spoofed-mac"]) > before
        }));
    }
    // A neighbour advertisement of the victim's address, to all nodes (RFC 4861, section 4.4).
    let IpAddr::V6(stolen) = must(scene.address(VICTIM, common::V6)) else {
        panic!("an IPv6 address was asked for")
    };
    let mut target = stolen.octets().to_vec();
    target.extend([2, 1]);
    target.extend(evil.mac);
    let mut advertisement = Vec::new();
    PacketBuilder::ethernet2(evil.mac, [0x33, 0x33, 0, 0, 0, 1])
        .ipv6(stolen.octets(), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 255)
        .icmpv6_raw(136, 0, [0x20, 0, 0, 0])
        .write(&mut advertisement, &target)
        .unwrap();
    let reasons = ["nd-invalid", "spoofed-address", "destination-invalid"];
    let before = drops_of(&scene, &reasons);
    must(evil.send(&advertisement));
    must(wait_until("the advertisement to be dropped", Duration::from_secs(3), || {
        drops_of(&scene, &reasons) > before
    }));

    // None of it came to the victim, and it is who it was.
    let arrived = must(victim.receive(Duration::from_millis(200), |frame| frame[6..12] == evil.mac));
    assert_eq!(arrived, None);
    for family in FAMILIES {
        must(all_answered(&must(scene.pod(FAR)).netns, &Ping::to(must(scene.address(VICTIM, family)))));
    }
}

fn drops_of(scene: &Scene, reasons: &[&str]) -> u64 {
    let engine = must(must(scene.node("node1")).engine());
    reasons.iter().map(|reason| must(engine.drops(reason))).sum()
}

#[test]
fn the_wire_is_not_trusted() {
    let Some(mut scene) = scene("twire", three_pods(), Settings::default()) else { return };
    let node1 = scene.topology.nodes[0].clone();
    let vteps = [Mac::vtep_v4("node2").0, Mac::vtep_v4("node1").0];
    let [victim, far] = [VICTIM, FAR].map(|pod| must(scene.address(pod, V4)));
    let inner = datagram(vteps[0], vteps[1], far, victim);
    let to = SocketAddr::new(node1.underlay_v4().into(), VXLAN_PORT);
    let send = |from: &Netns, packet: &[u8]| {
        let socket = must(udp_socket(from, SocketAddr::new(any(to.ip()), 0)));
        (0..20).for_each(|_| drop(socket.send_to(packet, to)));
    };
    let (stranger, peer) = (&scene.underlay, must(scene.netns("node2")));
    // The probe itself: the same packet from the node it should come from arrives.
    let listener = must(RawPort::open(&must(scene.pod(VICTIM)).netns, "eth0"));
    send(peer, &vxlan(8, VNI, &inner));
    assert!(must(listener.receive(Duration::from_secs(2), has_mark)).is_some(), "the honest tunnel packet");
    while must(listener.receive(Duration::from_millis(200), has_mark)).is_some() {}

    nothing_arrives(&scene, VICTIM, || {
        scene.drops("node1", "tunnel-peer-unknown", 20, || send(stranger, &vxlan(8, VNI, &inner)));
        scene.drops("node1", "tunnel-header-invalid", 20, || send(peer, &vxlan(0, VNI, &inner)));
        // A source that lives elsewhere: here, behind us.
        let near = must(scene.address(EVIL, V4));
        let forged = datagram(vteps[0], vteps[1], near, victim);
        scene.drops("node1", "tunnel-source-invalid", 20, || send(peer, &vxlan(8, VNI, &forged)));
        // Cut off within the inner headers.
        scene.drops("node1", "truncated", 20, || send(peer, &vxlan(8, VNI, &inner[..20])));
        // Another network's packets are not ours: they are the kernel's, which has no such device.
        let before = uplink_packets(&scene);
        send(peer, &vxlan(8, VNI + 1, &inner));
        // What comes after them is the engine's: by then they would have come, too.
        scene.drops("node1", "tunnel-header-invalid", 20, || send(peer, &vxlan(0, VNI, &inner)));
        assert_eq!(uplink_packets(&scene) - before, 20, "packets of another VNI came to the engine");
        // Under the name of a pod behind a tunnel, without the tunnel.
        let wire = must(RawPort::open(stranger, "br0"));
        let uplink = must(RawPort::open(must(scene.netns("node1")), "eth0")).mac;
        for family in FAMILIES {
            let [victim, far] = [VICTIM, FAR].map(|pod| must(scene.address(pod, family)));
            let frame = datagram(wire.mac, uplink, far, victim);
            scene.drops("node1", "spoofed-address", 20, || (0..20).for_each(|_| must(wire.send(&frame))));
        }
    });
    scene.no_frame_is_lost();
    scene.stops_whole();
}

fn uplink_packets(scene: &Scene) -> u64 {
    let counters = must(must(must(scene.node("node1")).engine()).counters());
    counters.ports.iter().filter(|port| port.role == "uplink").map(|port| port.rx_packets).sum()
}

#[test]
fn noise_does_not_hurt() {
    let Some(mut scene) = scene("tnoise", three_pods(), Settings::default()) else { return };
    let evil = must(RawPort::open(&must(scene.pod(EVIL)).netns, "eth0"));
    let _server = scene.serve(VICTIM, &[7]);
    let gateway = Mac::GATEWAY.0;
    for family in FAMILIES {
        let (own, victim) = (must(scene.address(EVIL, family)), must(scene.address(VICTIM, family)));
        let whole = datagram(evil.mac, gateway, own, victim);
        // Cut at every length, and every byte of the headers turned over. Less than an Ethernet header the kernel
        // itself refuses to send.
        for length in 14..whole.len() {
            must(evil.send(&whole[..length]));
        }
        for byte in 12..62.min(whole.len()) {
            let mut turned = whole.clone();
            turned[byte] ^= 0xff;
            must(evil.send(&turned));
        }
    }
    // Random bytes behind honest Ethernet addresses (xorshift, the same in every run).
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..5000 {
        let mut frame = [gateway, evil.mac].concat();
        frame.extend([[8, 0], [0x86, 0xdd], [8, 6], [0x12, 0x34]][usize::try_from(random() % 4).unwrap()]);
        let length = random() % 400;
        frame.extend((0..length).map(|_| u8::try_from(random() & 0xff).unwrap()));
        must(evil.send(&frame));
    }
    for family in FAMILIES {
        assert!(scene.udp(EVIL, scene.at(VICTIM, family, 7)));
        assert!(scene.tcp(FAR, scene.at(VICTIM, family, 7)));
    }
    scene.no_frame_is_lost();
    scene.stops_whole();
}

#[test]
fn a_pod_that_fills_the_flow_table_hurts_itself_only() {
    let settings = Settings { flows: Some(1024), ..Settings::default() };
    let Some(mut scene) = scene("tflows", three_pods(), settings) else { return };
    let _server = scene.serve(VICTIM, &[7]);
    let target = scene.at(VICTIM, V4, 7);
    let established = must(udp_socket(&must(scene.pod(FAR)).netns, SocketAddr::new(any(target.ip()), 0)));
    established.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let passes =
        || established.send_to(b"still here", target).is_ok() && established.recv_from(&mut [0; 16]).is_ok();
    must(wait_until("the first flow", Duration::from_secs(3), passes));

    let evil = must(RawPort::open(&must(scene.pod(EVIL)).netns, "eth0"));
    let (own, gateway) = (must(scene.address(EVIL, V4)), Mac::GATEWAY.0);
    let before = received_of(&scene, EVIL);
    for port in 10_000..13_000_u16 {
        let mut frame = datagram(evil.mac, gateway, own, target.ip());
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        // No UDP checksum: allowed over IPv4, and saves computing it anew.
        frame[40..42].fill(0);
        must(evil.send(&frame));
        // No faster than the engine takes them: what its ring loses opens no flow.
        if port % 100 == 0 {
            must(wait_until("the engine to take what was sent", Duration::from_secs(3), || {
                received_of(&scene, EVIL) - before >= u64::from(port - 10_000)
            }));
        }
    }
    let counters = must(must(must(scene.node("node1")).engine()).counters());
    let flows = counters.flows.unwrap();
    assert!(flows.current >= 768, "it has all that one port may have: {flows:?}");
    must(wait_until("the established flow to go on", Duration::from_secs(3), passes));
    assert!(
        must(udp_answers(&must(scene.pod(FAR)).netns, target, Duration::from_secs(3))),
        "no room for another pod's newcomer"
    );
    scene.stops_whole();
}

/// Packets the engine has taken from a pod.
fn received_of(scene: &Scene, pod: &str) -> u64 {
    let counters = must(must(must(scene.node("node1")).engine()).counters());
    counters.ports.iter().filter(|port| port.workload == pod).map(|port| port.rx_packets).sum()
}

#[test]
fn few_frames_are_enough_to_survive_a_flood() {
    let settings = Settings { frames: Some(1024), ..Settings::default() };
    let Some(mut scene) = scene("tframes", three_pods(), settings) else { return };
    let _server = scene.serve(VICTIM, &[7]);
    let target = scene.at(VICTIM, V4, 7);
    std::thread::scope(|scope| {
        for pod in [EVIL, FAR] {
            let netns = &must(scene.pod(pod)).netns;
            scope.spawn(move || {
                let socket = must(udp_socket(netns, SocketAddr::new(any(target.ip()), 0)));
                for _ in 0..100_000 {
                    // A full queue is what this is about.
                    let _refused = socket.send_to(&[9; 1000], target);
                }
            });
        }
    });
    for family in FAMILIES {
        assert!(scene.udp(EVIL, scene.at(VICTIM, family, 7)));
        assert!(scene.udp(FAR, scene.at(VICTIM, family, 7)));
    }
    must(wait_until("all frames to be accounted for", Duration::from_secs(3), || {
        let counters = must(must(must(scene.node("node1")).engine()).counters());
        counters.frames.is_some_and(|frames| frames.unaccounted == 0)
    }));
    scene.stops_whole();
}
