//! Frames from every kind of port: nothing panics, no buffer is lost, and what leaves is well formed.
#![no_main]

use vswitch_datapath::Buffer;
use vswitch_datapath::testing::Hostile;
use vswitch_datapath::testing::frames::{arp_request, solicitation, vxlan};
use vswitch_datapath::testing::world::{A, B, World, pod_mac, v4, v6};
use vswitch_fuzz::seed;

libfuzzer_sys::fuzz_target!(
    init: {
        let world = World::node(1);
        for (family, of) in [("v4", v4 as fn(u8, _) -> _), ("v6", v6)] {
            let ends = world.ends(A, of(2, B));
            let inner = world.inner_ends(B, of(1, A)).udp(5060, 5060, b"media");
            let frames = [
                ("udp", ends.udp(20_000, 20_004, b"media")),
                ("tcp", ends.tcp(40_000, 80, 2, b"")),
                ("ping", ends.ping(7, &[0; 56])),
                ("tunnelled", vxlan(world.tunnel_ends(false), 4096, 4789, &inner)),
            ];
            for (kind, frame) in frames {
                seed(&format!("{kind}-{family}"), &[&[0], frame.as_slice()].concat());
            }
        }
        // Every encapsulation, option, extension header, fragment and quoted error there is.
        let mut traffic = Hostile::new(1);
        for (number, packet) in std::iter::repeat_with(|| traffic.batch()).flatten().take(500).enumerate() {
            seed(&format!("hostile-{number}"), &[&[number as u8], packet.buffer.bytes()].concat());
        }
        if let (std::net::IpAddr::V4(sender), std::net::IpAddr::V6(sender6)) = (v4(1, A), v6(1, A)) {
            let arp = arp_request(pod_mac(1, A), sender, std::net::Ipv4Addr::new(169, 254, 1, 1));
            let gateway = "fe80::ecee:eeff:feee:eeee".parse().expect("an address");
            seed("arp", &[&[0], arp.as_slice()].concat());
            seed("nd", &[&[0], solicitation(pod_mac(1, A), sender6, gateway).as_slice()].concat());
        }
    },
    |data: &[u8]| vswitch_datapath::testing::fuzz(data)
);
