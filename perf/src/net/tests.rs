//! On the kernel: generators send what they say, sinks count what comes, and the engine stands between them.

use std::net::IpAddr;
use std::ops::ControlFlow;

use vswitch_model::{
    Attachment, DesiredState, Dscp, Encapsulation, Identity, IdentityId, IdentityKind, Local, Mac, NextHop,
    PodTunnels, Port, PortName, Tunnel, TunnelId, Vni, VxlanNetwork,
};

use super::topology::{Layout, WIRE};
use super::*;

/// Whether tests that need root can run. Skipped loudly without; under CI that is a failure.
fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "these tests need root");
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two pods, and a tunnel to 10.0.2.0/24.
fn desired() -> DesiredState {
    let name = |name: &str| PortName::new(name).unwrap();
    let mut state = DesiredState {
        local: Some(Local {
            node: "one".into(),
            underlay_v4: Some("192.168.0.1".parse().unwrap()),
            underlay_v6: None,
            networks: vec![VxlanNetwork::calico("one")],
            dscp: Dscp::Inherit,
            pod_tunnels: PodTunnels::default(),
            host_addresses: vec![address("10.0.1.1")],
            host_routes: Vec::new(),
            host_mtu: 1450,
        }),
        ..DesiredState::default()
    };
    let id = IdentityId(16);
    state.identities.insert(id, Identity { id, kind: IdentityKind::Pod, description: "pods".into() });
    for (host, last) in [("near", 10), ("far", 11)] {
        let addresses = vec![address(&format!("10.0.1.{last}")), address(&format!("fd10::{last}"))];
        for address in &addresses {
            state.prefixes.insert((*address).into(), id);
            state.routes.insert((*address).into(), NextHop::Port(name(host)));
        }
        let attachment = Attachment::Veth { interface: name(host), netns: None };
        let mac = Mac([2, 0, 0, 0, 1, last]);
        let port = Port { name: name(host), attachment, mac, addresses, mtu: 1450, workload: host.into() };
        state.ports.insert(name(host), port);
    }
    let encapsulation =
        Encapsulation::Vxlan { vni: Vni::CALICO, port: 4789, remote_mac: Mac::vtep_v4("two") };
    let tunnel =
        Tunnel { id: TunnelId(1), node: "two".into(), remote: address("192.168.0.2"), encapsulation };
    state.tunnels.insert(tunnel.id, tunnel);
    state.routes.insert("10.0.2.0/24".parse().unwrap(), NextHop::Tunnel(TunnelId(1)));
    state.prefixes.insert("10.0.2.0/24".parse().unwrap(), id);
    state
}

fn ends(source: &str, destination: &str) -> Ends {
    Ends {
        source_mac: Mac([2, 0, 0, 0, 1, 10]),
        destination_mac: Mac::GATEWAY,
        source: address(source),
        destination: address(destination),
        source_port: 1000,
        destination_port: 5000,
    }
}

fn pattern(flows: u32) -> Pattern {
    Pattern::new(&[ends("10.0.1.10", "10.0.1.11")], flows, 60)
}

fn pair() -> (Namespace, Namespace) {
    let (near, far) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let mac = |last| Mac([2, 0, 0, 0, 9, last]);
    let veth = Veth { near: (&near, "near", mac(1)), far: (&far, "far", mac(2)), mtu: 1500, queues: 1 };
    veth.make().unwrap();
    (near, far)
}

#[test]
fn batches_arrive_counted_and_in_order() {
    if !root() {
        return;
    }
    let (near, far) = pair();
    let mut sink = Sink::new(&SinkOptions { payload_at: 42, flows: 10, timed: false }).unwrap();
    sink.attach(&far, "far").unwrap();
    let mut batches = Batches::new(&near, "near", &pattern(10)).unwrap();
    for count in [64, 64, 7] {
        batches.prepare(count, 0);
        assert_eq!(batches.send().unwrap(), count);
    }
    let counted = sink.counted().unwrap();
    assert_eq!((counted.packets, counted.bytes), (135, 135 * 60));
    let flows = sink.flows().unwrap();
    assert_eq!(flows.iter().map(|flow| flow.received).sum::<u64>(), 135);
    assert!(flows.iter().all(|flow| (flow.gaps, flow.late) == (0, 0) && flow.next == flow.received));
    sink.reset().unwrap();
    assert_eq!(sink.counted().unwrap(), Counted::default());
}

#[test]
fn a_frame_that_is_missing_or_late_is_seen() {
    if !root() {
        return;
    }
    let (near, far) = pair();
    let mut sink = Sink::new(&SinkOptions { payload_at: 42, flows: 1, timed: false }).unwrap();
    sink.attach(&far, "far").unwrap();
    let mut batches = Batches::new(&near, "near", &pattern(1)).unwrap();
    for number in 0..10 {
        batches.prepare(1, 0);
        if number != 4 {
            batches.send().unwrap();
        }
    }
    let mut again = Batches::new(&near, "near", &pattern(1)).unwrap();
    again.prepare(1, 0);
    again.send().unwrap();
    let flow = sink.flows().unwrap()[0];
    assert_eq!((flow.received, flow.next, flow.gaps, flow.late), (10, 10, 1, 1));
    assert_eq!(flow.lost(11), 1);
}

#[test]
fn live_frames_are_what_the_pattern_says() {
    if !root() {
        return;
    }
    for v6 in [false, true] {
        let ends = if v6 { ends("fd10::10", "fd10::11") } else { ends("10.0.1.10", "10.0.1.11") };
        let other = Ends { destination_port: 6000, ..ends };
        let length = if v6 { 81 } else { 60 };
        let pattern = Pattern::new(&[ends, other], 40_000, length);
        let (near, far) = pair();
        link::gro(&far, "far").unwrap();
        let capture = far.enter(|| raw("far")).unwrap();
        // By a schedule, so that a capture that is slow misses none.
        let pace = Pace::Open { rate: 20_000.0, burst: 1, busy: false };
        let mut generator = Generator::new(&near, "near", &pattern, pace).unwrap();
        assert_eq!(generator.send(0, 200).unwrap().frames, 200);
        let mut expected = pattern.templates()[0].clone();
        for number in 0..200 {
            let got = receive(&capture);
            let at = frames::payload_at(v6);
            let due = u64::from_le_bytes(got[at + 8..at + 16].try_into().unwrap());
            pattern.write(number, due, &mut expected);
            assert_eq!(got, expected, "frame {number}");
        }
    }
}

fn raw(interface: &str) -> std::os::fd::OwnedFd {
    use nix::sys::socket::*;
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    assert!(index > 0);
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(10, 0)).unwrap();
    socket
}

/// The next of our frames.
fn receive(socket: &std::os::fd::OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    loop {
        let length = nix::unistd::read(socket, &mut buffer).unwrap();
        if length < 90 && buffer[..6] == Mac::GATEWAY.0 {
            return buffer[..length].to_vec();
        }
    }
}

#[test]
fn a_schedule_is_kept_and_delays_are_taken() {
    if !root() {
        return;
    }
    let (near, far) = pair();
    let mut sink = Sink::new(&SinkOptions { payload_at: 42, flows: 5, timed: true }).unwrap();
    sink.attach(&far, "far").unwrap();
    let pace = Pace::Open { rate: 10_000.0, burst: 50, busy: false };
    let mut generator = Generator::new(&near, "near", &pattern(5), pace).unwrap();
    let sent = generator.send(0, 2000).unwrap();
    // 40 bursts, 5 ms apart: no burst leaves before it is due.
    assert!(sent.frames == 2000 && sent.rate > 0.0 && sent.rate <= 10_001.0, "{sent:?}");
    let late = generator.late().unwrap();
    assert_eq!(late.len(), 40);
    let longest = sent.behind_max.as_nanos() as f64;
    assert!((late.max() as f64 - longest).abs() <= longest * 0.02 + 1.0, "{} {longest}", late.max());
    let delays = sink.delays().unwrap();
    assert_eq!(delays.len(), 2000);
    assert!(delays.min() > 0 && delays.max() < 10_000_000_000, "{} {}", delays.min(), delays.max());
    let flows = sink.flows().unwrap();
    assert!(flows.iter().all(|flow| flow.received == 400 && flow.delay_max_ns > 0), "{flows:?}");
    let most = flows.iter().map(|flow| flow.delay_max_ns).max().unwrap();
    assert!(delays.max().abs_diff(most) as f64 <= most as f64 * 0.02, "{} {most}", delays.max());
}

#[test]
fn a_generator_is_stopped_early() {
    if !root() {
        return;
    }
    let (near, far) = pair();
    link::gro(&far, "far").unwrap();
    let pace = Pace::Open { rate: 1000.0, burst: 1, busy: false };
    let mut generator = Generator::new(&near, "near", &pattern(1), pace).unwrap();
    let stop = generator.stopper();
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(move || generator.send(0, 1_000_000).unwrap());
        stop.stop().unwrap();
        sending.join().unwrap()
    });
    assert!(sent.frames < 100_000, "{sent:?}");
}

#[test]
fn the_engine_forwards_to_the_packet() {
    if !root() {
        return;
    }
    let topology = Topology::build(&desired(), Layout { uplink: true, ..Layout::default() }).unwrap();
    let (mut switch, mut hand) =
        Switch::by_hand(&topology, &desired(), SwitchOptions { flows: 4096, ..SwitchOptions::default() })
            .unwrap();
    let (near, far) = (topology.pod("near").unwrap(), topology.pod("far").unwrap());
    let wire = &topology.remote.as_ref().unwrap().namespace;
    let cases = [
        (
            Pattern::new(&[ends("10.0.1.10", "10.0.1.11")], 100, 60),
            42,
            &far.namespace,
            far.interface.as_str(),
        ),
        (Pattern::new(&[ends("fd10::10", "fd10::11")], 100, 80), 62, &far.namespace, &far.interface),
        (Pattern::new(&[ends("10.0.1.10", "10.0.2.7")], 100, 60), 42 + frames::VXLAN_V4, wire, WIRE),
    ];
    let before = switch.counts();
    for (pattern, payload_at, namespace, interface) in cases {
        let options = SinkOptions { payload_at, flows: pattern.all_flows(), timed: false };
        let mut sink = Sink::new(&options).unwrap();
        sink.attach(namespace, interface).unwrap();
        let mut batches = Batches::new(&near.namespace, &near.interface, &pattern).unwrap();
        let worker = hand.take().unwrap();
        for _ in 0..100 {
            batches.prepare(BATCH, 0);
            batches.send().unwrap();
            while let ControlFlow::Continue(true) = worker.step() {}
        }
        hand.release();
        assert_eq!(
            sink.counted().unwrap().packets,
            6400,
            "{:?} {:?}",
            switch.counts(),
            switch.engine().shared().snapshot.load().facts
        );
        assert!(sink.flows().unwrap().iter().all(|flow| (flow.received, flow.gaps, flow.late) == (64, 0, 0)));
    }
    let counts = switch.counts();
    assert_eq!(counts.received - before.received, 3 * 6400, "{counts:?}");
    assert_eq!((counts.dropped() - before.dropped(), switch.statistics().receive_ring_full), (0, 0));
    let report = switch.stop().unwrap();
    assert_eq!(report.frames_leaked, 0);
}
