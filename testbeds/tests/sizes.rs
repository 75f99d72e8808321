//! Packet sizes: all that fit arrive whole, those that do not are told so by the router on their way, both families.

mod common;

use common::{FAMILIES, must, scene, three_pods};
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::traffic::iperf;
use vswitch_testbeds::traffic::ping::{Ping, all_answered, ping};

#[test]
fn pods_wider_than_the_tunnel_are_told_its_mtu() {
    // Pods as wide as the underlay: what is too long for the tunnel is only known on the way.
    let settings = Settings { cni_mtu: Some(1500), ..Settings::default() };
    let Some(scene) = scene("tsizes", three_pods(), settings) else { return };
    let near = &must(scene.pod("test/near")).netns;
    for family in FAMILIES {
        let (headers, tunnel_mtu) = if family.is_ipv4() { (28, 1450) } else { (48, 1430) };
        let beside = must(scene.address("test/beside", family));
        let far = must(scene.address("test/far", family));
        for payload in [0, 1, 56, 999, 1500 - headers] {
            must(all_answered(near, &Ping::to(beside).payload(payload).dont_fragment()));
        }
        must(all_answered(near, &Ping::to(far).payload(tunnel_mtu - headers).dont_fragment()));
        let told = must(ping(near, &Ping::to(far).payload(tunnel_mtu - headers + 1).dont_fragment()));
        assert_eq!((told.received, told.mtu), (0, Some(tunnel_mtu)), "{far}: {told:?}");
        // The kernel of the pod has learned it, and that of the other pod does by its first answer; from then on what
        // may be fragmented arrives, and so does a stream of full segments.
        must(ping(near, &Ping { count: 1, ..Ping::to(far).payload(4000) }));
        must(all_answered(near, &Ping::to(far).payload(4000)));
        let _server = must(iperf::Server::start(&must(scene.pod("test/far")).netns, &scene.file("")));
        let mbit = must(iperf::tcp(near, far, 1));
        assert!(mbit > 10.0, "{mbit} Mbit/s of TCP to {far}");
    }
}
