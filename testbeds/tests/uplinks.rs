//! Two uplinks a node, several workers and queues: traffic goes on by the other uplink when one loses its carrier, and comes back.

mod common;

use common::{FAMILIES, SOON, Scene, must, scene, three_pods};
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::command::wait_for;
use vswitch_testbeds::topology::{UPLINK, UPLINK_2};
use vswitch_testbeds::traffic::ping::{Ping, all_answered};
use vswitch_testbeds::{Error, Result};

const NODES: [&str; 2] = ["node1", "node2"];

/// What a node's engine has sent by a port so far.
fn sent(scene: &Scene, node: &str, port: &str) -> Result<u64> {
    let counters = scene.node(node)?.engine()?.counters()?;
    let found = counters.ports.iter().find(|one| one.name == port);
    found.map(|port| port.tx_packets).ok_or_else(|| Error::other(format!("{node} has no port {port}")))
}

/// Pods of both nodes talk, both ways and families, UDP and TCP.
fn talks(scene: &Scene) -> bool {
    FAMILIES.iter().all(|family| {
        scene.udp("test/near", scene.at("test/far", *family, 7))
            && scene.tcp("test/near", scene.at("test/far", *family, 7))
            && scene.udp("test/far", scene.at("test/beside", *family, 7))
    })
}

/// What is sent now goes by this uplink, and by no other, on both nodes.
fn goes_by(scene: &Scene, uplink: &str, other: &str) {
    scene.becomes(&format!("traffic by {uplink}"), || {
        let before = NODES.map(|node| must(sent(scene, node, uplink)));
        let beside = NODES.map(|node| must(sent(scene, node, other)));
        talks(scene)
            && NODES.iter().zip(before).all(|(node, before)| must(sent(scene, node, uplink)) >= before + 6)
            && NODES.iter().zip(beside).all(|(node, beside)| must(sent(scene, node, other)) == beside)
    });
}

/// Pulls the cables of all nodes out of a bridge, or plugs them in again.
fn cables(scene: &Scene, of: impl Fn(&str) -> String, state: &str) {
    for node in NODES {
        must(scene.underlay.ip(&format!("link set {} {state}", of(node))));
    }
}

#[test]
fn an_uplink_that_goes_down_moves_its_traffic_to_the_other() {
    let settings = Settings { two_uplinks: true, ..Settings::default() };
    let Some(mut scene) = scene("tuplinks", three_pods(), settings) else { return };
    let _servers = [scene.serve("test/far", &[7]), scene.serve("test/beside", &[7])];
    let (first, second) = (|node: &str| node.to_owned(), |node: &str| format!("{node}-2"));
    goes_by(&scene, UPLINK, UPLINK_2);
    cables(&scene, first, "down");
    goes_by(&scene, UPLINK_2, UPLINK);
    let problems = |scene: &Scene| must(must(must(scene.node("node1")).engine()).status()).problems;
    assert!(problems(&scene).contains(&format!("uplink {UPLINK}: no carrier")), "{:?}", problems(&scene));
    cables(&scene, first, "up");
    goes_by(&scene, UPLINK, UPLINK_2);
    assert_eq!(problems(&scene), [""; 0]);
    // The one that is not used may go as well; and with both gone there is no way, until one is back.
    cables(&scene, second, "down");
    goes_by(&scene, UPLINK, UPLINK_2);
    cables(&scene, first, "down");
    let far = scene.at("test/far", FAMILIES[0], 7);
    assert!(scene.udp_denied("test/near", far), "no uplink has a carrier");
    cables(&scene, second, "up");
    goes_by(&scene, UPLINK_2, UPLINK);
    scene.stops_whole();
}

#[test]
fn flows_spread_over_both_uplinks_and_over_the_one_that_is_left() {
    let settings = Settings { two_uplinks: true, ..Settings::default() };
    let Some(mut scene) = scene("tecmp", three_pods(), settings) else { return };
    let _servers = [scene.serve("test/far", &[7]), scene.serve("test/beside", &[7])];
    for (node, other) in [(0, 1), (1, 0)] {
        let find = |at: usize| scene.topology.nodes.iter().find(|node| node.name == NODES[at]);
        let (Some(own), Some(other)) = (find(node), find(other)) else { panic!("there are two nodes") };
        let (to, from, (via, _)) = (other.underlay_v4(), own.underlay_v4(), other.second_addresses());
        must(must(scene.netns(NODES[node])).ip(&format!(
            "route replace {to} src {from} nexthop dev {UPLINK} weight 1 nexthop via {via} dev {UPLINK_2} weight 1"
        )));
    }
    let far = scene.at("test/far", FAMILIES[0], 7);
    // Each from a port of its own.
    let many = |scene: &Scene| (0..40).all(|_| scene.udp("test/near", far));
    let spreads = |scene: &Scene| {
        scene.becomes("traffic by both uplinks", || {
            let each =
                || NODES.iter().flat_map(|node| [UPLINK, UPLINK_2].map(|port| must(sent(scene, node, port))));
            let before: Vec<u64> = each().collect();
            many(scene) && each().zip(before).all(|(now, before)| now >= before + 8)
        });
    };
    spreads(&scene);
    cables(&scene, str::to_owned, "down");
    goes_by(&scene, UPLINK_2, UPLINK);
    assert!(many(&scene), "every flow goes by the one that is left");
    cables(&scene, str::to_owned, "up");
    spreads(&scene);
    cables(&scene, |node| format!("{node}-2"), "down");
    goes_by(&scene, UPLINK, UPLINK_2);
    assert!(many(&scene), "the other way round, too");
    scene.stops_whole();
}

#[test]
fn an_uplink_that_is_taken_away_comes_back() {
    let settings = Settings { two_uplinks: true, workers: workers(), queues: 2, ..Settings::default() };
    let Some(mut scene) = scene("tunplug", three_pods(), settings) else { return };
    let _servers = [scene.serve("test/far", &[7]), scene.serve("test/beside", &[7])];
    goes_by(&scene, UPLINK, UPLINK_2);
    let port = |scene: &Scene| -> Result<String> {
        let status = scene.node("node1")?.engine()?.status()?;
        let port = status.ports.into_iter().find(|port| port.name == UPLINK_2);
        Ok(port.ok_or_else(|| Error::other("not a port of it"))?.failure)
    };
    // Out of the node altogether, as a card that is moved to another namespace.
    let away = scene.underlay.name().to_owned();
    must(must(scene.netns("node1")).ip(&format!("link set {UPLINK_2} netns {away}")));
    must(wait_for("the port to be gone", SOON, || match port(&scene)?.as_str() {
        "" => Err(Error::other("it is open")),
        _ => Ok(()),
    }));
    assert!(talks(&scene), "by the other uplink");
    must(scene.underlay.ip(&format!("link set {UPLINK_2} netns {}", must(scene.netns("node1")).name())));
    must(must(scene.netns("node1")).ip(&format!("link set {UPLINK_2} up")));
    must(wait_for("the port to be back", SOON, || match port(&scene)?.as_str() {
        "" => Ok(()),
        failure => Err(Error::other(failure)),
    }));
    assert!(talks(&scene));
    scene.stops_whole();
}

/// As many as this machine can pin, two at most.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2))
}

#[test]
fn several_workers_and_queues_are_one_switch() {
    let settings = Settings { workers: workers(), queues: 4, ..Settings::default() };
    let Some(mut scene) = scene("tworkers", three_pods(), settings) else { return };
    let _servers: Vec<_> =
        ["test/far", "test/near", "test/beside"].iter().map(|pod| scene.serve(pod, &[7, 8, 9])).collect();
    for (from, to) in
        [("near", "far"), ("near", "beside"), ("beside", "near"), ("far", "near"), ("far", "beside")]
    {
        let (from, to) = (format!("test/{from}"), format!("test/{to}"));
        for family in FAMILIES {
            for port in [7, 8, 9] {
                assert!(scene.udp(&from, scene.at(&to, family, port)), "{from} to {to}, UDP {port}");
                assert!(scene.tcp(&from, scene.at(&to, family, port)), "{from} to {to}, TCP {port}");
            }
            // Larger than any MTU here: fragments find their flow as well.
            let large = Ping::to(must(scene.address(&to, family))).payload(4000);
            must(all_answered(&must(scene.pod(&from)).netns, &large));
        }
    }
    for family in FAMILIES {
        must(all_answered(must(scene.netns("node1")), &Ping::to(must(scene.address("test/near", family)))));
    }
    // One record for each flow: none has two with different workers.
    let engine = must(must(scene.node("node1")).engine());
    let mut flows: Vec<_> = must(engine.flows())
        .into_iter()
        .map(|flow| {
            let mut ends = [(flow.source, flow.source_port), (flow.destination, flow.destination_port)];
            ends.sort();
            (ends, flow.protocol)
        })
        .collect();
    let count = flows.len();
    flows.sort();
    flows.dedup();
    assert_eq!(flows.len(), count, "a flow is followed twice");
    assert!(count >= 24, "{count} flows");
    scene.no_frame_is_lost();
    scene.stops_whole();
}
