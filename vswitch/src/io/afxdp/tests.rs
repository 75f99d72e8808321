//! Ports on real veths, in network namespaces of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vswitch_datapath::{BATCH, Buffer, PortIndex};
use vswitch_model::DropReason;
use vswitch_xdp::{Mode, TunnelEndpoint};

use super::{Devices, OpenError, Options};
use crate::io::testing::{
    PATIENCE, Raw, frame, in_namespace, ip, ip_says, mark, namespace, packet, receive, release, udp, umem,
    veth, wait_for,
};
use crate::io::{AfXdpPort, FramePool, Port, PortState, Umem, UmemError};

const PORT: PortIndex = PortIndex(3);

fn open(pool: &FramePool, interface: &str) -> (Devices, Box<AfXdpPort>) {
    let mut devices = Devices::new(pool.umem());
    let port = devices.open(&Options::pod(interface), PORT).unwrap();
    (devices, Box::new(port))
}

/// Lends frames to a port that has received nothing yet.
fn prime(port: &mut dyn Port, pool: &mut FramePool) {
    let mut none = Vec::with_capacity(BATCH);
    assert_eq!(port.receive(pool, &mut none, BATCH), 0);
}

#[track_caller]
fn all_home(pool: &FramePool) {
    let account = pool.umem().account(0);
    assert_eq!((pool.free(), account.free, account.leaked), (account.total, account.total, 0));
}

#[test]
fn packets_pass_both_ways_unchanged() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let far = Raw::on("io-b");
        let mut pool = umem(512);
        let (_devices, mut port) = open(&pool, "io-a");
        assert_eq!((port.mode(), port.queues()), (Mode::Native, 1));
        prime(&mut *port, &mut pool);
        for length in [60, 61, 590, 1514] {
            assert!(far.send(&frame(7, length)));
            let mut packets = receive(&mut *port, &mut pool, 1);
            assert_eq!(packets[0].port, PORT);
            assert_eq!(packets[0].buffer.bytes(), frame(7, length));
            assert!(packets[0].buffer.headroom() >= 256, "{}", packets[0].buffer.headroom());
            port.transmit(&mut pool, packets.remove(0)).unwrap();
            assert!(port.unsent());
            port.flush();
            assert!(!port.unsent());
            assert_eq!(far.receive(), frame(7, length));
        }
        port.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn a_header_can_be_put_before_a_received_packet_or_cut_off() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let far = Raw::on("io-b");
        let mut pool = umem(256);
        let (_devices, mut port) = open(&pool, "io-a");
        prime(&mut *port, &mut pool);
        assert!(far.send(&frame(1, 100)) && far.send(&frame(2, 100)));
        let mut packets = receive(&mut *port, &mut pool, 2);
        let mut longer = packets.remove(0);
        assert!(longer.buffer.grow_front(70));
        longer.buffer.bytes_mut()[..70].copy_from_slice(&frame(9, 70));
        port.transmit(&mut pool, longer).unwrap();
        let mut shorter = packets.remove(0);
        shorter.buffer.cut_front(40);
        shorter.buffer.bytes_mut()[..18].copy_from_slice(&frame(8, 18));
        port.transmit(&mut pool, shorter).unwrap();
        port.flush();
        assert_eq!(far.receive(), [frame(9, 70), frame(1, 100)].concat());
        let cut = far.receive();
        assert_eq!((cut.len(), mark(&cut)), (60, 8));
        port.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn many_ports_share_one_umem() {
    in_namespace(|| {
        const PORTS: usize = 12;
        let mut pool = umem(4096);
        let mut devices = Devices::new(pool.umem());
        let mut far = Vec::new();
        let mut ports = Vec::new();
        for n in 0..PORTS {
            veth(&format!("io-a{n}"), &format!("io-b{n}"), 1);
            far.push(Raw::on(&format!("io-b{n}")));
            let mut port = devices.open(&Options::pod(&format!("io-a{n}")), PortIndex(n as u16)).unwrap();
            prime(&mut port, &mut pool);
            ports.push(Box::new(port));
        }
        for raw in &far {
            assert!((0..20).all(|m| raw.send(&frame(m, 80))));
        }
        for n in 0..ports.len() {
            let packets = receive(&mut *ports[n], &mut pool, 20);
            assert!(packets.iter().enumerate().all(|(m, packet)| mark(packet.buffer.bytes()) == m as u32));
            let next = &mut ports[(n + 1) % PORTS];
            for packet in packets {
                next.transmit(&mut pool, packet).unwrap();
            }
            next.flush();
        }
        for raw in &far {
            assert!((0..20).all(|m| mark(&raw.receive()) == m));
        }
        let account = pool.umem().account(0);
        assert_eq!(account.leaked, 0, "{account:?}");
        assert!(
            (PORTS * 64..=PORTS * 256).contains(&account.fill),
            "what idle ports need, and no more: {account:?}"
        );
        ports.into_iter().for_each(|port| port.close(&mut pool));
        all_home(&pool);
    });
}

#[test]
fn ports_come_and_go_while_others_carry_traffic() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        veth("io-c", "io-d", 1);
        let far = Raw::on("io-b");
        let mut pool = umem(4096);
        let (mut devices, mut busy) = open(&pool, "io-a");
        prime(&mut *busy, &mut pool);
        let stop = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += u32::from(far.send(&frame(n, 200)));
                }
            });
            let mut received = 0;
            for round in 0..8 {
                let mut guest = Box::new(devices.open(&Options::pod("io-c"), PortIndex(9)).unwrap());
                prime(&mut *guest, &mut pool);
                let enough = received + 500;
                wait_for("traffic", || {
                    let mut batch = Vec::with_capacity(BATCH);
                    received += busy.receive(&mut pool, &mut batch, BATCH);
                    for packet in batch {
                        if let Err(back) = guest.transmit(&mut pool, packet) {
                            assert_eq!(back.reason, DropReason::TransmitRingFull);
                            pool.put(back.packet.buffer);
                        }
                    }
                    guest.flush();
                    guest.reap(&mut pool);
                    (received >= enough).then_some(())
                });
                guest.close(&mut pool);
                let account = pool.umem().account(0);
                assert_eq!((account.leaked, account.transmit), (0, 0), "round {round}: {account:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(busy.statistics().invalid_descriptors, 0);
        busy.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn a_deleted_device_ends_its_port_and_loses_no_frame() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        veth("io-c", "io-d", 1);
        let far = Raw::on("io-b");
        let mut pool = umem(1024);
        let (mut devices, mut port) = open(&pool, "io-a");
        prime(&mut *port, &mut pool);
        assert!((0..100).all(|n| far.send(&frame(n, 100))));
        let held = receive(&mut *port, &mut pool, 10);
        for packet in held {
            port.transmit(&mut pool, packet).unwrap();
        }
        ip("link del io-a");
        wait_for("the port to notice", || {
            port.statistics();
            (port.state() == PortState::Gone).then_some(())
        });
        port.flush();
        let late = packet(&mut pool, &frame(0, 60), PORT);
        let refused = port.transmit(&mut pool, late).unwrap_err();
        assert_eq!(refused.reason, DropReason::PortGone);
        pool.put(refused.packet.buffer);
        let mut rest = Vec::with_capacity(BATCH);
        port.receive(&mut pool, &mut rest, BATCH);
        release(&mut pool, rest);
        port.close(&mut pool);
        all_home(&pool);

        let far = Raw::on("io-d");
        let mut next = Box::new(devices.open(&Options::pod("io-c"), PORT).unwrap());
        prime(&mut *next, &mut pool);
        assert!(far.send(&frame(5, 60)));
        let packets = receive(&mut *next, &mut pool, 1);
        release(&mut pool, packets);
        next.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn a_device_that_is_down_comes_back() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let far = Raw::on("io-b");
        let mut pool = umem(512);
        let (_devices, mut port) = open(&pool, "io-a");
        prime(&mut *port, &mut pool);
        ip("link set io-a down");
        let waiting = packet(&mut pool, &frame(1, 60), PORT);
        port.transmit(&mut pool, waiting).unwrap();
        port.flush();
        assert_eq!(port.state(), PortState::Down);
        assert!(!port.unsent(), "nothing to stay awake for");
        ip("link set io-a up");
        wait_for("the port to come back", || {
            port.flush();
            (port.state() == PortState::Up).then_some(())
        });
        assert_eq!(far.receive(), frame(1, 60));
        port.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn an_exhausted_umem_is_counted_and_recovers() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let far = Raw::on("io-b");
        let mut pool = umem(16);
        let (_devices, mut port) = open(&pool, "io-a");
        prime(&mut *port, &mut pool);
        assert_eq!((pool.free(), port.statistics().frames_exhausted), (0, 1));
        for n in 0..200 {
            assert!(far.send(&frame(n, 60)));
        }
        let held = receive(&mut *port, &mut pool, 16);
        wait_for("the kernel to run out", || {
            far.send(&frame(0, 60));
            (port.statistics().fill_ring_empty > 0).then_some(())
        });
        assert_eq!(pool.umem().account(held.len()).leaked, 0);
        release(&mut pool, held);
        let deadline = Instant::now() + PATIENCE;
        loop {
            far.send(&frame(1000, 60));
            let mut batch = Vec::with_capacity(BATCH);
            port.receive(&mut pool, &mut batch, BATCH);
            let marks: Vec<u32> = batch.iter().map(|packet| mark(packet.buffer.bytes())).collect();
            release(&mut pool, batch);
            if marks.contains(&1000) {
                break;
            }
            assert!(Instant::now() < deadline, "it does not recover");
        }
        port.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn a_busy_port_is_lent_more_frames() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let far = Raw::on("io-b");
        let mut pool = umem(4096);
        let (_devices, mut port) = open(&pool, "io-a");
        prime(&mut *port, &mut pool);
        assert_eq!(pool.umem().account(0).fill, 256);
        // Bursts, each taken once it has come whole: in shares of a batch, as when other ports are busy too.
        const SHARE: usize = BATCH / 4;
        let mut burst = |count: usize| {
            assert!((0..count as u32).all(|n| far.send(&frame(n, 60))));
            wait_for("the burst", || (port.waiting() == count).then_some(()));
            for left in (0..count).step_by(SHARE).rev() {
                let mut packets = Vec::with_capacity(SHARE);
                assert_eq!(port.receive(&mut pool, &mut packets, SHARE), SHARE);
                assert_eq!(port.waiting(), left);
                release(&mut pool, packets);
            }
            pool.umem().account(0).fill
        };
        assert_eq!(burst(BATCH), 256, "what it has does");
        assert_eq!(burst(128), 512, "half of them were used up");
        assert_eq!(burst(128), 512);
        assert_eq!(burst(256), 1024);
        port.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn a_full_transmit_ring_gives_packets_back() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let mut pool = umem(4096);
        let (_devices, mut port) = open(&pool, "io-a");
        ip("link set io-a down");
        let mut refused = 0;
        for n in 0..3000 {
            let packet = packet(&mut pool, &frame(n, 60), PORT);
            if let Err(back) = port.transmit(&mut pool, packet) {
                assert_eq!(back.reason, DropReason::TransmitRingFull);
                pool.put(back.packet.buffer);
                refused += 1;
            }
        }
        assert_eq!(refused, 3000 - super::RINGS);
        assert_eq!(port.statistics().kicks, 1, "no system call for each packet");
        port.reap(&mut pool);
        let late = packet(&mut pool, &frame(0, 60), PORT);
        let back = port.transmit(&mut pool, late).unwrap_err();
        pool.put(back.packet.buffer);
        assert_eq!(port.statistics().kicks, 2, "asked again in the next turn");
        assert_eq!(pool.umem().account(0).transmit, super::RINGS as usize);
        port.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn what_cannot_be_sent_is_refused() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let mut pool = umem(64);
        let (_devices, mut port) = open(&pool, "io-a");
        let tiny = packet(&mut pool, &[0; 13], PORT);
        let refused = port.transmit(&mut pool, tiny).unwrap_err();
        assert_eq!(refused.reason, DropReason::TransmitRefused);
        pool.put(refused.packet.buffer);
        port.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn devices_of_other_namespaces_and_of_several_queues_open() {
    in_namespace(|| {
        let other = namespace(|| veth("io-a", "io-b", 4));
        veth("io-a", "io-b", 1);
        let mut pool = umem(4096);
        let mut devices = Devices::new(pool.umem());
        let there = Options::pod("io-a").in_netns(Some(other.path.clone()));
        let mut there = Box::new(devices.open(&there, PORT).unwrap());
        let mut here = Box::new(devices.open(&Options::pod("io-a"), PORT).unwrap());
        assert_eq!((there.queues(), here.queues()), (4, 1));
        prime(&mut *there, &mut pool);
        prime(&mut *here, &mut pool);
        let far = crate::io::netns::within(Some(&other.path), || Raw::on("io-b")).unwrap();
        assert!((0..64).all(|n| far.send(&frame(n, 60))));
        let fds = (0..).map_while(|number| there.fd(number));
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        assert!(fds.len() == 4 && poll(&mut fds, PollTimeout::MAX).unwrap() > 0);
        for packet in receive(&mut *there, &mut pool, 64) {
            there.transmit(&mut pool, packet).unwrap();
        }
        there.flush();
        let mut seen: Vec<u32> = (0..64).map(|_| mark(&far.receive())).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..64).collect::<Vec<u32>>());
        there.close(&mut pool);
        here.close(&mut pool);
        all_home(&pool);
    });
}

#[test]
fn parts_of_a_port_share_its_queues_and_the_program_stays_until_the_last_goes() {
    in_namespace(|| {
        veth("io-a", "io-b", 4);
        let far = Raw::on("io-b");
        let mut pool = umem(8192);
        let mut devices = Devices::new(pool.umem());
        let mut parts = devices.open_parts(&Options::pod("io-a"), PORT, 3).unwrap();
        assert_eq!(parts.iter().map(AfXdpPort::queues).collect::<Vec<_>>(), [2, 1, 1]);
        parts.iter_mut().for_each(|part| prime(part, &mut pool));
        let to = ("10.0.0.1".parse().unwrap(), 5000);
        for flow in 0..64 {
            assert!(far.send(&udp(("10.0.0.2".parse().unwrap(), 1000 + flow), to, b"x")));
        }
        // Each packet by one part; the kernel spreads them by flow.
        let mut came = [0; 3];
        wait_for("all packets", || {
            for (part, came) in parts.iter_mut().zip(&mut came) {
                let mut batch = Vec::with_capacity(BATCH);
                *came += part.receive(&mut pool, &mut batch, BATCH);
                release(&mut pool, batch);
            }
            (came.iter().sum::<usize>() >= 64).then_some(())
        });
        assert_eq!(came.iter().sum::<usize>(), 64);
        assert!(came.iter().filter(|came| **came > 0).count() >= 2, "{came:?}");
        // Each sends, and with two of them closed the third goes on.
        for n in (0..3).rev() {
            for (part, mark) in parts.iter_mut().zip(1..) {
                let leaving = packet(&mut pool, &frame(mark, 60), PORT);
                part.transmit(&mut pool, leaving).unwrap();
                part.flush();
                assert_eq!(far.receive(), frame(mark, 60));
            }
            let program = ip_says("link show io-a").contains("prog/xdp");
            assert!(program, "the program went with {n} parts left");
            Box::new(parts.pop().unwrap()).close(&mut pool);
        }
        assert!(!ip_says("link show io-a").contains("prog/xdp"));
        all_home(&pool);
    });
}

#[test]
fn an_uplink_takes_only_what_is_ours_and_drops_out_cleanly() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let (kernel, far) = (Raw::on("io-a"), Raw::on("io-b"));
        let mut pool = umem(2048);
        let mut devices = Devices::new(pool.umem());
        devices.set_local_prefixes(&["10.1.2.0/24".parse().unwrap()]).unwrap();
        let mut port = Box::new(devices.open(&Options::uplink("io-a"), PORT).unwrap());
        let tunnel = TunnelEndpoint::Vxlan { address: "192.0.2.1".parse().unwrap(), port: 4789, vni: 4096 };
        devices.set_tunnels(&[tunnel]).unwrap();
        prime(&mut *port, &mut pool);
        let to = |address: &str, port: u16| (address.parse().unwrap(), port);
        let from = to("192.0.2.9", 50_000);
        let vxlan = [&[8, 0, 0, 0, 0, 16, 0, 0][..], &frame(1, 80)].concat();
        let tunnelled = udp(from, to("192.0.2.1", 4789), &vxlan);
        let routed = udp(from, to("10.1.2.3", 5), b"to a pod");
        let stranger = udp(from, to("192.0.2.1", 5), b"to the node");
        assert!(far.send(&stranger) && far.send(&tunnelled) && far.send(&routed));
        let packets = receive(&mut *port, &mut pool, 2);
        assert_eq!(packets[0].buffer.bytes(), tunnelled);
        assert_eq!(packets[1].buffer.bytes(), routed);
        release(&mut pool, packets);
        assert_eq!(kernel.receive(), stranger);
        assert_eq!(kernel.receive_within(Duration::from_millis(1)), None, "the rest was ours");
        port.close(&mut pool);
        assert!(far.send(&routed));
        assert_eq!(kernel.receive(), routed, "with the port gone everything is the kernel's");
        all_home(&pool);
    });
}

#[test]
fn with_the_engine_dead_the_kernel_takes_nothing_from_a_pod() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        ip("addr add 192.0.2.1/32 dev lo");
        ip("link set io-a address 02:00:00:00:00:aa");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let socket = std::net::UdpSocket::bind("192.0.2.1:9000").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (kernel, far) = (Raw::on("io-a"), Raw::on("io-b"));
        let to_node = udp(("10.1.0.5".parse().unwrap(), 1), ("192.0.2.1".parse().unwrap(), 9000), b"hello");
        let mut bytes = [0; 16];

        // To be sure that the packet would arrive: it does, as long as the pod's route is its host end.
        ip("route add 10.1.0.5/32 dev io-a");
        assert!(far.send(&to_node));
        assert_eq!(socket.recv(&mut bytes).unwrap(), 5);
        ip("route del 10.1.0.5/32 dev io-a");

        // Dropping the port takes the program off the device, as the kernel does when the engine dies.
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut pool = umem(64);
        let (_devices, mut port) = open(&pool, "io-a");
        prime(&mut *port, &mut pool);
        drop(port);
        let arp = [
            &[0xff; 6][..],
            &[0x02, 0, 0, 0, 0, 0xbb, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0xbb, 10, 1, 0, 5],
            &[0, 0, 0, 0, 0, 0, 192, 0, 2, 1],
        ]
        .concat();
        // A test beside this one that is about to execute `ip` may hold a copy of the program's link for a moment.
        wait_for("the program to leave the device", || {
            assert!(far.send(&arp));
            (kernel.receive_within(Duration::from_millis(10))? == arp).then_some(())
        });
        assert!(far.send(&to_node));
        wait_for("the packet to reach the kernel", || (kernel.receive() == to_node).then_some(()));
        assert_eq!(socket.recv(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(far.receive_within(Duration::from_millis(1)), None, "nobody answers");
        let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/conf/io-a/forwarding").unwrap();
        assert_eq!(forwarding.trim(), "0");
    });
}

#[test]
fn what_cannot_be_opened_is_explained_and_leaves_nothing() {
    in_namespace(|| {
        veth("io-a", "io-b", 1);
        let pool = umem(64);
        let (mut devices, port) = open(&pool, "io-a");
        let error = |result: Result<AfXdpPort, OpenError>| result.unwrap_err().to_string();
        let twice = error(devices.open(&Options::pod("io-a"), PORT));
        assert!(twice.contains("io-a") && twice.contains("another XDP program"), "{twice}");
        let missing = error(devices.open(&Options::pod("io-z"), PORT));
        assert!(missing.contains("io-z"), "{missing}");
        let nowhere = Options::pod("io-a").in_netns(Some("/run/no-such-namespace".into()));
        let nowhere = error(devices.open(&nowhere, PORT));
        assert!(nowhere.contains("/run/no-such-namespace"), "{nowhere}");
        drop(port);
        drop(devices.open(&Options::pod("io-a"), PORT).unwrap());
        let plain = Umem::plain(64).unwrap();
        let plain = Devices::new(&plain).open(&Options::pod("io-a"), PORT);
        assert!(matches!(plain, Err(OpenError::Umem(UmemError::NotRegistered))), "{plain:?}");
        drop(devices.open(&Options::pod("io-a"), PORT).unwrap());
    });
}
