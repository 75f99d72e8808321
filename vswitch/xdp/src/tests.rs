//! The program judged by the kernel itself, frame by frame (BPF_PROG_TEST_RUN), and attached to real devices.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use aya::programs::{TestRun, TestRunOptions, Xdp};
use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, SocketType};

use crate::{Device, Mode, Role, Steering, SteeringError, TunnelEndpoint};

/// The loopback device's index in every network namespace: what frames of a test run come from.
const LOOPBACK: u32 = 1;
const DROP: u32 = 1;
const PASS: u32 = 2;
const REDIRECT: u32 = 4;

/// Runs `test` on a thread in a network namespace of its own. Without the privilege for it: says so, and fails only where
/// privilege is promised (`CI` set).
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let ran = std::thread::spawn(move || {
        let unshared = unshare(CloneFlags::CLONE_NEWNET);
        if unshared.is_ok() {
            test();
        }
        unshared
    });
    if let Err(error) = ran.join().expect("the test failed") {
        assert!(std::env::var_os("CI").is_none(), "no network namespace: {error}");
        eprintln!("SKIPPED: no network namespace ({error}); run as root");
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Attaches to a device that was just let go of: a test beside this one that is about to execute `ip` may hold a copy of
/// the old link's descriptor for a moment.
fn attach_again(steering: &Steering, interface: &str) -> Device {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match steering.attach(interface, Role::Pod, 1) {
            Err(SteeringError::Busy { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            result => return result.unwrap(),
        }
    }
}

fn run(steering: &Steering, frame: &[u8]) -> u32 {
    let inner = steering.lock();
    let program: &Xdp = inner.program.program("steer").unwrap().try_into().unwrap();
    program.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() }).unwrap().return_value
}

/// A steering program that takes the loopback for `role`, with a socket or without.
fn steering(role: Role, socket: bool) -> (Steering, Option<OwnedFd>) {
    let steering = Steering::load().unwrap();
    steering
        .set_local_prefixes(&["10.1.2.0/26".parse().unwrap(), "fd00:1:2::/122".parse().unwrap()])
        .unwrap();
    let tunnel =
        |address: &str| TunnelEndpoint::Vxlan { address: address.parse().unwrap(), port: 4789, vni: 4096 };
    let flannel = TunnelEndpoint::Vxlan { address: "192.0.2.1".parse().unwrap(), port: 8472, vni: 1 };
    let peer = |address: &str, remote: &str| TunnelEndpoint::IpIp {
        address: address.parse().unwrap(),
        remote: remote.parse().unwrap(),
    };
    let peers =
        [peer("192.0.2.1", "192.0.2.9"), peer("2001:db8::1", "2020:2020:2020:2020:2020:2020:2020:2020")];
    let ends = [tunnel("192.0.2.1"), tunnel("2001:db8::1"), flannel];
    let pools = ["10.8.0.0/16", "fd00:8::/32"].map(|pool| TunnelEndpoint::IpIpInner(pool.parse().unwrap()));
    steering.set_tunnels(&[&ends[..], &peers, &pools].concat()).unwrap();
    let socket = socket.then(|| rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None).unwrap());
    let mut inner = steering.lock();
    inner.devices.insert(LOOPBACK, [role.number(), 3, 1], 0).unwrap();
    if let Some(socket) = &socket {
        inner.sockets.set(3, socket.as_fd(), 0).unwrap();
    }
    drop(inner);
    (steering, socket)
}

/// An Ethernet frame with an IP packet to `destination`, and behind its header `options` and `payload`.
fn packet(destination: &str, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    match destination.parse().unwrap() {
        IpAddr::V4(address) => {
            frame.extend([
                0x08,
                0x00,
                0x45 + (options.len() / 4) as u8,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                64,
                protocol,
                0,
                0,
            ]);
            frame.extend([192, 0, 2, 9]);
            frame.extend(address.octets());
        }
        IpAddr::V6(address) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
            frame.extend([0x20; 16]);
            frame.extend(address.octets());
        }
    }
    frame.extend(options);
    frame.extend(payload);
    frame
}

/// The IP packet of such a frame, to be carried by another.
fn inner(destination: &str) -> Vec<u8> {
    packet(destination, 17, &[], &[]).split_off(14)
}

fn vxlan(port: u16, vni: u32) -> Vec<u8> {
    let mut header = vec![0xc0, 0x00];
    header.extend(port.to_be_bytes());
    header.extend([0, 30, 0, 0, 8, 0, 0, 0]);
    header.extend((vni << 8 | 0x5a).to_be_bytes());
    header.extend([9; 14]);
    header
}

#[test]
fn an_uplink_keeps_what_is_ours_and_passes_the_rest() {
    in_namespace(|| {
        let (steering, _socket) = steering(Role::Uplink, true);
        let ours = vxlan(4789, 4096);
        let mut fragment = packet("192.0.2.1", 17, &[], &ours);
        fragment[14 + 7] = 1;
        let (v4, v6) = (inner("10.1.2.3"), inner("fd00:1:2::3"));
        let (pool, pool_v6) = (inner("10.8.255.3"), inner("fd00:8::3"));
        let (host, host_v6) = (inner("10.9.0.1"), inner("fd00:9::1"));
        let mut stranger = packet("192.0.2.1", 4, &[], &v4);
        stranger[14 + 15] = 8;
        let mut stranger_v6 = packet("2001:db8::1", 41, &[], &v6);
        stranger_v6[14 + 23] = 0;
        let mut later = packet("192.0.2.1", 4, &[], &v4);
        later[14 + 7] = 1;
        let mut first = packet("192.0.2.1", 4, &[], &v4);
        first[14 + 6] = 0x20;
        let cut = |kind, bytes: &[u8]| {
            let mut packet = packet("192.0.2.1", kind, &[], bytes);
            packet[14 + 6] = 0x20;
            packet
        };
        let mut cut_stranger = cut(4, &v4[..8]);
        cut_stranger[14 + 15] = 8;
        // An encapsulation limit of 4, as ip6tnl writes it, and with more padding.
        let limit = |next: u8| [next, 0, 4, 1, 4, 1, 1, 0];
        let long = [&[41, 1, 4, 1, 4, 1, 9][..], &[0; 9]].concat();
        let cases = [
            ("IPv4 in IPv4 from a node", REDIRECT, packet("192.0.2.1", 4, &[], &v4)),
            ("IPv6 in IPv4 from a node", REDIRECT, packet("192.0.2.1", 41, &[], &v6)),
            ("IPv4 in IPv6 from a node", REDIRECT, packet("2001:db8::1", 4, &[], &v4)),
            ("IPv6 in IPv6 from a node", REDIRECT, packet("2001:db8::1", 41, &[], &v6)),
            ("the same behind options", REDIRECT, packet("192.0.2.1", 41, &[1; 8], &v6)),
            ("the same behind a limit", REDIRECT, packet("2001:db8::1", 60, &limit(41), &v6)),
            ("the same behind a long header", REDIRECT, packet("2001:db8::1", 60, &long, &v6)),
            ("for nobody yet, of a pool", REDIRECT, packet("192.0.2.1", 4, &[], &pool)),
            ("for nobody yet, of a pool, IPv6", REDIRECT, packet("2001:db8::1", 41, &[], &pool_v6)),
            ("a first fragment", REDIRECT, first),
            ("one with half an inner header", REDIRECT, cut(4, &v4[..8])),
            ("one with half an inner header, IPv6", REDIRECT, cut(41, &v6[..32])),
            ("one of the host's own tunnel to a node", PASS, cut(4, &host)),
            ("one with half an inner header from elsewhere", PASS, cut_stranger),
            ("the host's own tunnel to a node", PASS, packet("192.0.2.1", 4, &[], &host)),
            ("the host's own 6in4 to a node", PASS, packet("192.0.2.1", 41, &[], &host_v6)),
            ("the host's own 4in6 to a node", PASS, packet("2001:db8::1", 4, &[], &host)),
            ("the host's own ip6tnl to a node", PASS, packet("2001:db8::1", 60, &limit(41), &host_v6)),
            ("what could be of either", PASS, later),
            ("half an inner header", PASS, packet("192.0.2.1", 4, &[], &v4[..19])),
            ("half an inner header, IPv6", PASS, packet("192.0.2.1", 41, &[], &v6[..39])),
            ("no more than the outer header", PASS, packet("2001:db8::1", 41, &[], &[])),
            ("options beyond the end", PASS, packet("2001:db8::1", 60, &[41, 255, 1, 4, 0, 0, 0, 0], &v6)),
            ("to a pool as it is", PASS, packet("10.8.255.3", 17, &[], &[])),
            ("UDP behind a limit", PASS, packet("2001:db8::1", 60, &limit(17), &ours)),
            ("the host's own tunnel", PASS, stranger),
            ("the host's own tunnel, IPv6", PASS, stranger_v6),
            ("to another address of the host", PASS, packet("192.0.2.2", 4, &[], &v4)),
            ("GRE from a node", PASS, packet("192.0.2.1", 47, &[], &[0; 20])),
            ("VXLAN of flannel's", REDIRECT, packet("192.0.2.1", 17, &[], &vxlan(8472, 1))),
            ("Calico's network at flannel's port", PASS, packet("192.0.2.1", 17, &[], &vxlan(8472, 4096))),
            ("VXLAN of ours", REDIRECT, packet("192.0.2.1", 17, &[], &ours)),
            ("VXLAN of ours behind options", REDIRECT, packet("192.0.2.1", 17, &[1; 8], &ours)),
            ("VXLAN of ours, IPv6", REDIRECT, packet("2001:db8::1", 17, &[], &ours)),
            ("another network", PASS, packet("192.0.2.1", 17, &[], &vxlan(4789, 4097))),
            ("another port", PASS, packet("192.0.2.1", 17, &[], &vxlan(4790, 4096))),
            ("another address", PASS, packet("192.0.2.2", 17, &[], &ours)),
            ("another address, IPv6", PASS, packet("2001:db8::2", 17, &[], &ours)),
            ("another protocol", PASS, packet("192.0.2.1", 6, &[], &ours)),
            ("a later fragment", PASS, fragment),
            ("half a VXLAN header", PASS, packet("192.0.2.1", 17, &[], &ours[..12])),
            ("to a pod", REDIRECT, packet("10.1.2.63", 6, &[], &[])),
            ("to a pod, IPv6", REDIRECT, packet("fd00:1:2::3f", 58, &[], &[])),
            ("just beyond the pods", PASS, packet("10.1.2.64", 6, &[], &[])),
            ("just beyond the pods, IPv6", PASS, packet("fd00:1:2::40", 58, &[], &[])),
            ("half an IP header", PASS, packet("10.1.2.3", 6, &[], &[])[..30].to_vec()),
            ("half an IPv6 header", PASS, packet("fd00:1:2::3f", 6, &[], &[])[..50].to_vec()),
            ("ARP", PASS, [vec![0xff; 12], vec![8, 6], vec![0; 28]].concat()),
            ("no more than Ethernet", PASS, [vec![2; 12], vec![8, 0]].concat()),
        ];
        for (what, verdict, frame) in cases {
            assert_eq!(run(&steering, &frame), verdict, "{what}");
        }
    });
}

#[test]
fn with_no_socket_an_uplink_passes_and_a_pod_is_closed() {
    in_namespace(|| {
        let frame = packet("10.1.2.3", 17, &[], &[0; 20]);
        assert_eq!(run(&steering(Role::Uplink, false).0, &frame), PASS);
        assert_eq!(run(&steering(Role::Pod, false).0, &frame), DROP);
        let (pod, socket) = steering(Role::Pod, true);
        assert_eq!(run(&pod, &frame), REDIRECT);
        assert_eq!(run(&pod, &[7; 14]), REDIRECT, "whatever it is, it is the pod's");
        drop(socket);
        assert_eq!(run(&pod, &frame), DROP, "a closed socket leaves the map");
        pod.lock().devices.remove(&LOOPBACK).unwrap();
        assert_eq!(run(&pod, &frame), PASS, "a device that is none of ours");
    });
}

#[test]
fn what_is_named_again_replaces_what_was_named() {
    in_namespace(|| {
        let (steering, _socket) = steering(Role::Uplink, true);
        let (old, new) = (packet("10.1.2.3", 6, &[], &[]), packet("10.9.9.9", 6, &[], &[]));
        steering.set_local_prefixes(&["10.9.9.9/24".parse().unwrap()]).unwrap();
        assert_eq!((run(&steering, &old), run(&steering, &new)), (PASS, REDIRECT));
        steering.set_local_prefixes(&[]).unwrap();
        assert_eq!(run(&steering, &new), PASS);
        let tunnelled = packet("192.0.2.1", 17, &[], &vxlan(4789, 4096));
        assert_eq!(run(&steering, &tunnelled), REDIRECT);
        let in_ip = packet("192.0.2.1", 4, &[], &inner("10.8.0.3"));
        assert_eq!(run(&steering, &in_ip), REDIRECT);
        let (address, remote) = ("192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap());
        let other = TunnelEndpoint::IpIpInner("10.9.0.0/16".parse().unwrap());
        steering.set_tunnels(&[TunnelEndpoint::IpIp { address, remote }, other]).unwrap();
        let other = packet("192.0.2.1", 4, &[], &inner("10.9.0.3"));
        assert_eq!((run(&steering, &in_ip), run(&steering, &other)), (PASS, REDIRECT));
        steering.set_tunnels(&[]).unwrap();
        assert_eq!((run(&steering, &tunnelled), run(&steering, &other)), (PASS, PASS));
    });
}

#[test]
fn a_device_is_attached_once_and_freed_when_dropped() {
    in_namespace(|| {
        ip("link add io-a type veth peer name io-b");
        let steering = Steering::load().unwrap();
        let device = steering.attach("io-a", Role::Pod, 1).unwrap();
        assert_eq!(device.mode(), Mode::Native);
        let again = steering.attach("io-a", Role::Uplink, 1);
        assert!(matches!(again, Err(SteeringError::Busy { .. })), "{again:?}");
        let stranger = Steering::load().unwrap().attach("io-a", Role::Uplink, 1);
        assert!(matches!(stranger, Err(SteeringError::Busy { .. })), "{stranger:?}");
        let socket = rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
        assert!(matches!(device.set_socket(1, socket.as_fd()), Err(SteeringError::NoQueue { queue: 1, .. })));
        device.set_socket(0, socket.as_fd()).unwrap();
        drop(device);
        drop(attach_again(&steering, "io-a"));
        let missing = steering.attach("io-c", Role::Pod, 1).unwrap_err();
        assert!(missing.to_string().contains("io-c"), "{missing}");
        let many = steering.attach("io-b", Role::Pod, 4097);
        assert!(matches!(many, Err(SteeringError::Slots { queues: 4097, .. })), "{many:?}");
    });
}

#[test]
fn deleting_a_device_leaves_the_others_attached() {
    in_namespace(|| {
        ip("link add io-a type veth peer name io-b");
        ip("link add io-c type veth peer name io-d");
        let steering = Steering::load().unwrap();
        let (a, c) =
            (steering.attach("io-a", Role::Pod, 1).unwrap(), steering.attach("io-c", Role::Pod, 1).unwrap());
        ip("link del io-a");
        drop(a);
        assert!(steering.attach("io-c", Role::Pod, 1).is_err());
        drop(c);
        attach_again(&steering, "io-c");
    });
}
