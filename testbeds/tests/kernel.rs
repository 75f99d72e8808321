//! The testbed itself, on kernels in place of our engines: what it builds forwards, and nothing of it stays behind.

mod common;

use common::{FAMILIES, must, scene, three_pods};
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::netns::Netns;
use vswitch_testbeds::run::Run;
use vswitch_testbeds::traffic::ping::{Ping, all_answered};

#[test]
fn kernel_nodes_forward_and_go_without_a_trace() {
    let id = "tkernel";
    let Some(scene) = scene(id, three_pods().on_kernel(), Settings::default()) else { return };
    let _servers = scene.serve("test/far", &[7]);
    for family in FAMILIES {
        must(all_answered(
            &must(scene.pod("test/near")).netns,
            &Ping::to(must(scene.address("test/beside", family))),
        ));
        must(all_answered(must(scene.netns("node1")), &Ping::to(must(scene.address("test/near", family)))));
        assert!(scene.udp("test/near", scene.at("test/far", family, 7)));
        assert!(scene.tcp("test/near", scene.at("test/far", family, 7)));
        // Nobody listens there: the probe must be able to say no.
        assert!(scene.udp_denied("test/near", scene.at("test/far", family, 8)));
        assert!(scene.tcp_denied("test/near", scene.at("test/far", family, 8)));
    }
    drop(scene);
    assert!(!must(Netns::all()).iter().any(|name| name.starts_with("vsw-tkernel-")));
    assert!(!must(Run::all()).contains(&id.to_owned()));
}
