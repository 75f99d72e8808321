//! A router on the way between two nodes whose far link is narrower than the near one: pods learn the MTU that is left in the
//! tunnel, by ping and by tracepath, and larger packets arrive in fragments.

mod common;

use std::net::Ipv6Addr;

use common::{FAMILIES, SOON, Scene, V4, must, scene, three_pods};
use vswitch_testbeds::Error;
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::command::wait_for;
use vswitch_testbeds::topology::{ETCD, UPLINK};
use vswitch_testbeds::traffic::ping::{Ping, all_answered, ping};

/// What the router's link to node two takes, in bytes.
const NARROW: u32 = 1400;
/// The router's IPv6 address; its IPv4 one is the bed's of the underlay.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfd89, 0, 0, 0, 0, 0, 0, 1);

/// Lets node one reach node two through the underlay's namespace, which routes to it as by a narrower link. It says so by
/// ICMP, and asks nobody to go another way.
fn put_a_router_in_between(scene: &Scene) {
    let router = &scene.underlay;
    for (key, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv4.conf.br0.send_redirects", "0"),
    ] {
        must(router.sysctl(key, value));
    }
    must(router.ip(&format!("addr add {ROUTER}/64 dev br0 nodad")));
    let Some(far) = scene.topology.nodes.iter().find(|node| node.name == "node2") else {
        panic!("there are two nodes")
    };
    let near = must(scene.netns("node1"));
    for (far, via) in [
        (format!("{}/32", far.underlay_v4()), ETCD.to_string()),
        (format!("{}/128", far.underlay_v6()), ROUTER.to_string()),
    ] {
        must(router.ip(&format!("route add {far} dev br0 mtu lock {NARROW}")));
        must(near.ip(&format!("route add {far} via {via} dev {UPLINK}")));
    }
}

#[test]
fn a_narrow_link_of_the_underlay_is_told_to_pods() {
    let Some(mut scene) =
        scene("tpaths", three_pods(), Settings { cni_mtu: Some(1500), ..Settings::default() })
    else {
        return;
    };
    put_a_router_in_between(&scene);
    let near = &must(scene.pod("test/near")).netns;
    for family in FAMILIES {
        let far = must(scene.address("test/far", family));
        let (headers, tunnel) = if family == V4 { (28, 50) } else { (48, 70) };
        let left = NARROW - tunnel;
        // The first of these is lost: it is what the router answers.
        must(wait_for("the tunnel's MTU to be learned", SOON, || {
            let told = ping(near, &Ping::to(far).payload(left - headers + 1).dont_fragment())?;
            match (told.received, told.mtu) {
                (0, Some(mtu)) if mtu == left => Ok(()),
                _ => Err(Error::other(format!("{far}: {told:?}"))),
            }
        }));
        must(all_answered(near, &Ping::to(far).payload(left - headers).dont_fragment()));
        // The other pod's kernel learns what its tunnel takes by its first answer, which is lost when it may not be cut.
        must(ping(near, &Ping { count: 1, ..Ping::to(far).payload(4000) }));
        must(all_answered(near, &Ping::to(far).payload(4000)));

        let path = must(near.run(&format!("tracepath -n -m 6 {far}")));
        println!("{path}");
        let end = path.lines().last().unwrap_or_default();
        assert!(end.contains(&format!("pmtu {left} hops 3")), "{path}");
    }
    // The node itself is told no less: probes of a kubelet go this way. Strict about where packets come from, as some systems are.
    let node = must(scene.netns("node1"));
    must(node.sysctl("net.ipv4.conf.all.rp_filter", "1"));
    for family in FAMILIES {
        let far = must(scene.address("test/far", family));
        let left = NARROW - if family == V4 { 50 } else { 70 };
        let path = must(node.run(&format!("tracepath -n -m 6 {far}")));
        println!("{path}");
        assert!(!path.contains("no reply"), "the first hop answers: {path}");
        let end = path.lines().last().unwrap_or_default();
        assert!(end.contains(&format!("pmtu {left} hops 3")), "{path}");
    }
    scene.stops_whole();
}
