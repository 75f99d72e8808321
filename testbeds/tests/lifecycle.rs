//! Pods that come and go in awkward ways, addresses that run out, and people's mistakes.

mod common;

use std::process::Stdio;

use common::{FAMILIES, SOON, V4, must, scene, three_pods};
use nix::sys::signal::Signal;
use vswitch_testbeds::bed::cni::Container;
use vswitch_testbeds::bed::{Bed, Settings, Store};
use vswitch_testbeds::command::{output, wait_until};
use vswitch_testbeds::demo;
use vswitch_testbeds::topology::Topology;
use vswitch_testbeds::traffic::ping::{Ping, all_answered};

const NEAR: &str = "test/near";

/// The agent has nothing of this container left, and neither has the node's kernel.
fn nothing_is_left(scene: &Bed, container: &Container) {
    let agent = must(must(scene.node(&container.pod.node)).agent());
    for kind in ["Endpoint", "Block"] {
        let objects = must(agent.objects(kind));
        assert!(
            !objects.iter().any(|object| object.to_string().contains(&container.id)),
            "{kind}: {objects:?}"
        );
    }
    if let Some(host) = container.host_interface() {
        let links = must(must(scene.netns(&container.pod.node)).ip("-o link show"));
        assert!(!links.contains(host), "{host} is still there: {links}");
    }
}

#[test]
fn add_check_and_delete_as_a_runtime_does() {
    let Some(mut scene) = scene("tcni", three_pods(), Settings::default()) else { return };
    let network = must(scene.node("node1")).network.clone();
    let container = must(scene.pod(NEAR)).clone();
    assert_eq!(must(network.check(&container)), Ok(()));
    // Another pod's address on it is noticed.
    must(container.netns.ip("addr add 10.99.0.1/32 dev eth0"));
    must(container.netns.ip(&format!("addr del {}/32 dev eth0", must(scene.address(NEAR, V4)))));
    let error = must(network.check(&container)).expect_err("CHECK of a pod without its address");
    assert!(error.text.contains(&must(scene.address(NEAR, V4)).to_string()), "{error:?}");

    assert_eq!(must(network.delete(&container)), Ok(()));
    nothing_is_left(&scene, &container);
    assert_eq!(must(network.delete(&container)), Ok(()), "DEL is idempotent");
    // Unknown fields are refused by name, and nothing is left of the attempt.
    let mut fresh = must(scene.container(NEAR));
    let odd = network.clone().with("mtuu", 1400.into());
    let error = must(odd.add(&mut fresh)).expect_err("a configuration with an unknown field");
    assert!(error.text.contains("mtuu"), "{error:?}");
    nothing_is_left(&scene, &fresh);
    assert_eq!(must(network.add(&mut fresh)), Ok(()));
    must(all_answered(&fresh.netns, &Ping::to(must(scene.address("test/far", V4)))));
    assert_eq!(must(network.delete(&fresh)), Ok(()));
    // A demo takes nothing away that somebody may be looking at.
    let options = demo::Options {
        id: "tcni".into(),
        kernel: false,
        calls: 1,
        calls_at_once: 1,
        stream_seconds: 1,
        keep: true,
    };
    let error = demo::run(&options).expect_err("a demo of an id that stands").to_string();
    assert!(
        error.contains("stands already; take it away with testbeds/veth/demo.sh --down --id tcni"),
        "{error}"
    );
    scene.stops_whole();
}

#[test]
fn two_containers_of_one_pod_do_not_hurt_each_other() {
    let Some(mut scene) = scene("tsame", three_pods(), Settings::default()) else { return };
    let network = must(scene.node("node1")).network.clone();
    let old = must(scene.pod(NEAR)).clone();
    // A sandbox is made anew before the old one is taken away.
    let mut new = must(scene.container(NEAR));
    assert_eq!(must(network.add(&mut new)), Ok(()));
    let [old_addresses, new_addresses] = [&old, &new].map(|container| must(container.addresses()));
    assert!(
        old_addresses.iter().all(|address| !new_addresses.contains(address)),
        "{old_addresses:?} {new_addresses:?}"
    );
    for container in [&old, &new] {
        must(all_answered(&container.netns, &Ping::to(must(scene.address("test/far", V4)))));
    }
    assert_eq!(must(network.delete(&old)), Ok(()));
    nothing_is_left(&scene, &old);
    assert_eq!(must(network.check(&new)), Ok(()));
    for address in new_addresses {
        must(all_answered(&must(scene.pod("test/far")).netns, &Ping::to(address)));
    }
}

#[test]
fn an_agent_killed_in_the_middle_of_an_add_leaves_nothing_for_ever() {
    let Some(mut scene) = scene("tmiddle", three_pods(), Settings::default()) else { return };
    must(scene.add_pod("test/late", "node1", &[]));
    let mut container = must(scene.container("test/late"));
    let network = must(scene.node("node1")).network.clone();

    // An engine that stands still keeps the ADD waiting, with the endpoint written.
    must(scene.node_mut("node1")).signal_engine(Signal::SIGSTOP);
    let (mut command, config) = network.command("ADD", &container);
    let mut add = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut add.stdin.take().unwrap(), config.as_bytes()).unwrap();
    let other = must(must(scene.node("node2")).agent());
    must(wait_until("the endpoint to be in the store", SOON, || {
        must(other.objects("Endpoint")).iter().any(|object| object.to_string().contains(&container.id))
    }));
    must(scene.node_mut("node1")).kill_agent();
    let answer = add.wait_with_output().unwrap();
    must(scene.node_mut("node1")).signal_engine(Signal::SIGCONT);
    assert!(!answer.status.success(), "ADD succeeded without an agent");
    let said = String::from_utf8_lossy(&answer.stdout);
    assert!(said.contains("\"code\""), "{said}");

    // The runtime tries again with the same container, and it works.
    must(must(scene.node_mut("node1")).start_agent());
    must(must(scene.node_mut("node1")).wait_ready());
    must(scene.note());
    assert_eq!(must(network.add(&mut container)), Ok(()));
    must(all_answered(&container.netns, &Ping::to(must(scene.address("test/far", V4)))));
    assert_eq!(must(network.delete(&container)), Ok(()));
    nothing_is_left(&scene, &container);
    scene.stops_whole();
}

#[test]
fn a_pool_that_is_empty_says_so_and_recovers() {
    let mut topology = Topology::one_node().namespace("test", &[]);
    topology.pools = vec!["10.44.0.0/29".parse().unwrap()];
    let settings = Settings { store: Store::Embedded, ..Settings::default() };
    let Some(mut scene) = scene("tpool", topology, settings) else { return };
    let network = must(scene.node("node1")).network.clone();
    let mut attached = Vec::new();
    let error = loop {
        let name = format!("test/p{}", attached.len());
        must(scene.add_pod(&name, "node1", &[]));
        let mut container = must(scene.container(&name));
        match must(network.add(&mut container)) {
            Ok(()) => attached.push(container),
            Err(error) => {
                nothing_is_left(&scene, &container);
                break error;
            }
        }
        assert!(attached.len() <= 8, "more pods than addresses");
    };
    println!("the pool of 8 gave {} pods, then: {}", attached.len(), error.text);
    assert!(attached.len() >= 5, "{} pods of 8 addresses, then {error:?}", attached.len());
    assert!(error.text.contains("pods-v4") || error.text.contains("10.44.0.0/29"), "{error:?}");
    let first = attached.remove(0);
    assert_eq!(must(network.delete(&first)), Ok(()));
    for container in &attached {
        must(all_answered(must(scene.netns("node1")), &Ping::to(must(container.addresses())[0])));
    }
}

#[test]
fn mistakes_are_answered_by_name() {
    let Some(mut scene) = scene("tmistakes", three_pods(), Settings::default()) else { return };
    let node1 = must(scene.node("node1"));
    let wrong = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: p, namespace: test }\nspec:\n  podSelector: {}\n  ingres: []\n";
    let file = scene.file("wrong.yaml");
    std::fs::write(&file, wrong).unwrap();
    let answer = must(output(&mut must(node1.vsctl_command(&["apply", "-f", &file.to_string_lossy()])), ""));
    let said = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(said.contains("ingres") && said.contains("wrong.yaml") && said.contains("test/p"), "{said}");
    assert!(must(must(node1.agent()).objects("NetworkPolicy")).is_empty());

    // An engine whose configuration names a port that does not exist.
    let config = std::fs::read_to_string(node1.file("vswitchd.toml")).unwrap();
    let file = scene.file("wrong.toml");
    std::fs::write(&file, config.replace("\"eth0\"", "\"eth7\"")).unwrap();
    let mut check = node1.netns.command(must(vswitch_testbeds::bed::binaries()).join("vswitchd"));
    let answer = must(output(check.args(["check-config", "--config"]).arg(&file), ""));
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(!answer.status.success(), "{said}");
    assert!(said.contains("wrong.toml:1: uplink: no interface eth7"), "{said}");

    for family in FAMILIES {
        must(all_answered(&must(scene.pod(NEAR)).netns, &Ping::to(must(scene.address("test/far", family)))));
    }
    scene.stops_whole();
}
