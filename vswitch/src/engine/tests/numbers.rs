//! Ports that are opened again: each has its number again, and its flows are still its own.

use vswitch_model::Attachment;

use super::*;

/// Three workers, so that another number is another worker's.
fn start() -> Node {
    let directory = directory();
    let (devices, world) = MemoryDevices::new(FRAMES).unwrap();
    let core = core_affinity::get_core_ids().unwrap()[0].id;
    let config = Config { cores: vec![core; 3], ..config(&directory, Poll::Adaptive) };
    let engine = Engine::start(config, Box::new(devices), false).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    Node { engine, world, runtime, directory }
}

fn number(node: &Node, port: &str) -> u16 {
    node.engine.shared().snapshot.load().ports.open[&PortName::new(port).unwrap()].index.0
}

fn created(node: &Node) -> u64 {
    node.engine.shared().workers.iter().map(|worker| worker.counters.flows_created.get()).sum()
}

/// A says something, B answers, by the flow that is there.
fn talk(node: &Node) {
    let (a, b) = (node.peer("pod-a"), node.peer("pod-b"));
    assert!(a.send(&udp(A, B, b"there")));
    assert!(receive(&b).ends_with(b"there"));
    let mut back = udp(B, A, b"back");
    back[34..38].copy_from_slice(&[0x13, 0x88, 0x0f, 0xa0]);
    assert!(b.send(&back));
    assert!(receive(&a).ends_with(b"back"));
}

#[test]
fn a_port_that_is_opened_again_keeps_its_flows() {
    let node = start();
    let mut state = two_pods();
    node.full(1, &state).unwrap();
    talk(&node);
    let numbers = ["pod-a", "pod-b"].map(|port| number(&node, port));
    // Each in turn is attached anew, while the other stays.
    for (generation, port) in [(2, "pod-b"), (3, "pod-a")] {
        let attached = state.ports.get_mut(&PortName::new(port).unwrap()).unwrap();
        let Attachment::Veth { netns, .. } = &mut attached.attachment else { panic!("a veth") };
        *netns = Some(format!("/run/netns/{generation}"));
        node.full(generation, &state).unwrap();
        talk(&node);
    }
    // It goes, others come, and it comes back.
    let mut others = state.clone();
    others.ports.remove(&PortName::new("pod-b").unwrap());
    others.routes.remove(&"10.1.0.11/32".parse::<ipnet::IpNet>().unwrap());
    node.full(4, &others).unwrap();
    for pod in 2..6 {
        add_pod(&mut others, &format!("pod-{pod}"), &[&format!("10.1.0.{}", 10 + pod)]);
    }
    node.full(5, &others).unwrap();
    node.full(6, &state).unwrap();
    talk(&node);
    assert_eq!(["pod-a", "pod-b"].map(|port| number(&node, port)), numbers);
    assert_eq!(created(&node), 1);
    node.stop();
}
