//! Whatever bytes come, from whatever port: no panic, no buffer lost, and what leaves is well formed.

use std::cell::RefCell;

use super::frames::{ip_in_ip, vxlan};
use super::world::{A, B, HOST, PORTS, UPLINK, World, flannel, pod_mac, uplink_mac, vtep};
use crate::parse::parse;
use crate::{Offload, Packet, PartialChecksum, PortIndex, VecBuffer, WalkConfig};

thread_local! {
    /// Compiled once; only its tables are used again.
    static WORLD: RefCell<World> = RefCell::new(World::node(1));
}

/// Walks `data` as a frame from every kind of port: as it is, with Ethernet addresses that pass, and inside a tunnel packet. The first byte
/// chooses what a port claims of offloads. Each run begins with no flows.
///
/// # Panics
/// When a buffer is lost or doubled, or a malformed packet leaves.
pub fn fuzz(data: &[u8]) {
    let Some((choice, frame)) = data.split_first() else { return };
    WORLD.with_borrow_mut(|world| {
        let config = WalkConfig { flows: 64, fragments: 16, ..WalkConfig::default() };
        world.walk = crate::Walk::new(&config, world.walk.counters().clone());
        let tunnelled = |inner: &[u8]| vxlan(world.tunnel_ends(choice & 1 != 0), 4096, 4789, inner);
        let mut packets = vec![
            packet(*choice, A, frame),
            packet(*choice, A, &with_macs(frame, vswitch_model::Mac::GATEWAY.0, pod_mac(1, A).0)),
            packet(*choice, B, &with_macs(frame, [0x33; 6], pod_mac(1, B).0)),
            packet(*choice, HOST, frame),
            packet(*choice, UPLINK, &with_macs(frame, uplink_mac(1).0, uplink_mac(2).0)),
            packet(*choice, UPLINK, &tunnelled(frame)),
            packet(*choice, UPLINK, &tunnelled(&with_macs(frame, vtep(1, false).0, vtep(2, false).0))),
            packet(*choice, PortIndex(99), frame),
        ];
        if let Some(ip) = frame.get(12..).filter(|rest| rest.len() >= 2) {
            let inner = [&[0; 12][..], ip].concat();
            packets.push(packet(*choice, UPLINK, &ip_in_ip(world.tunnel_ends(choice & 1 != 0), &inner)));
        }
        let ends = flannel(1);
        let inner = with_macs(frame, ends.mac_v4.0, flannel(2).mac_v4.0);
        let outer = world.tunnel_ends(choice & 1 == 0);
        packets.push(packet(*choice, UPLINK, &vxlan(outer, ends.vni.get(), ends.port, &inner)));
        // Twice: the second time flows and fragments may be known.
        packets.extend(packets.iter().map(copy).collect::<Vec<_>>());
        for packet in world.walk_packets(packets) {
            let bytes = crate::Buffer::bytes(&packet.buffer);
            assert!(parse(bytes).is_ok(), "a malformed packet left by port {}", packet.port.0);
            assert!(usize::from(packet.port.0) < PORTS.len(), "a packet left by no port");
        }
    });
}

fn packet(choice: u8, port: PortIndex, frame: &[u8]) -> Packet<VecBuffer> {
    let partial = PartialChecksum { start: u16::from(choice >> 2), offset: 6 };
    let offload = Offload { checksum: (choice & 2 != 0 && port == HOST).then_some(partial), segment: None };
    Packet { buffer: VecBuffer::of(frame), port, offload }
}

fn copy(packet: &Packet<VecBuffer>) -> Packet<VecBuffer> {
    Packet { buffer: packet.buffer.clone(), port: packet.port, offload: packet.offload }
}

fn with_macs(frame: &[u8], destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() >= 12 {
        frame[..6].copy_from_slice(&destination);
        frame[6..12].copy_from_slice(&source);
    }
    frame
}
