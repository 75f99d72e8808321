use std::net::UdpSocket;

use vswitch_model::limits::LARGE_PACKET_MAX;

use super::*;
use crate::io::Umem;
use crate::io::testing::{
    PATIENCE, Raw, in_namespace, ip, ip_says, namespace, packet, receive, release, udp, wait_for,
};

const PORT: PortIndex = PortIndex(5);

fn pool(frames: usize) -> FramePool {
    FramePool::new(&Umem::plain(frames).unwrap(), frames).unwrap()
}

fn open(name: &str) -> Box<TunPort> {
    let port = TunPort::open(name, 1450, None, PORT).unwrap();
    ip(&format!("addr add 10.9.0.1/32 dev {name}"));
    ip(&format!("route add 10.9.0.0/24 dev {name} src 10.9.0.1"));
    Box::new(port)
}

#[test]
fn the_kernel_and_the_port_exchange_packets() {
    in_namespace(|| {
        let mut pool = pool(64);
        let mut port = open("io-tun");
        let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"from the kernel", "10.9.0.2:8000").unwrap();
        let mut packets = receive(&mut *port, &mut pool, 1);
        assert_eq!(packets[0].port, PORT);
        let partial = packets[0].offload.checksum.expect("the kernel leaves the checksum to us");
        assert_eq!((partial.start, partial.offset), (34, 6));
        assert!(super::super::offload::settle(&mut packets[0]));
        let bytes = packets[0].buffer.bytes().to_vec();
        let bytes = bytes.as_slice();
        release(&mut pool, packets);
        assert_eq!((&bytes[..6], &bytes[6..12]), (&ENTRY_DESTINATION.0[..], &ENTRY_SOURCE.0[..]));
        let sliced = etherparse::SlicedPacket::from_ethernet(bytes).unwrap();
        let Some(etherparse::TransportSlice::Udp(datagram)) = sliced.transport else { panic!("{sliced:?}") };
        assert_eq!(datagram.payload(), b"from the kernel");
        let header = etherparse::Ipv4HeaderSlice::from_slice(&bytes[14..]).unwrap().to_header();
        let checksum = datagram.to_header().calc_checksum_ipv4(&header, datagram.payload()).unwrap();
        assert_eq!(datagram.checksum(), checksum);

        let address = |text: &str| text.parse().unwrap();
        let answer = udp((address("10.9.0.2"), 8000), (address("10.9.0.1"), 7000), b"from the port");
        let answer = packet(&mut pool, &answer, PORT);
        port.transmit(&mut pool, answer).unwrap();
        let mut bytes = [0; 64];
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..length], from.to_string()), (&b"from the port"[..], "10.9.0.2:8000".to_owned()));
        assert!(ip_says("-details link show dev io-tun").contains("gso_max_size 65000"));
        port.close(&mut pool);
        assert_eq!(pool.free(), 64);
    });
}

#[test]
fn a_partial_checksum_is_finished_by_the_kernel() {
    in_namespace(|| {
        let mut pool = pool(64);
        let mut port = open("io-tun");
        let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"there and back", "10.9.0.2:7000").unwrap();
        let mut packet = receive(&mut *port, &mut pool, 1).remove(0);
        let bytes = packet.buffer.bytes_mut();
        // Both addresses and both ports change places: the pseudo-header's sum stays.
        let (source, rest) = bytes[26..].split_at_mut(4);
        source.swap_with_slice(&mut rest[..4]);
        assert!(packet.offload.checksum.is_some());
        port.transmit(&mut pool, packet).unwrap();
        let mut bytes = [0; 64];
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!(
            (&bytes[..length], from.to_string()),
            (&b"there and back"[..], "10.9.0.2:7000".to_owned())
        );
        port.close(&mut pool);
    });
}

#[test]
fn a_name_can_be_used_once_and_again_later() {
    in_namespace(|| {
        let first = open("io-tun");
        let error = TunPort::open("io-tun", 1450, None, PORT).unwrap_err();
        assert!(matches!(error, TunError::Taken { .. }), "{error}");
        assert!(matches!(TunPort::open("lo", 1450, None, PORT), Err(TunError::Taken { .. })));
        assert!(matches!(TunPort::open("io-x", 60, None, PORT), Err(TunError::Mtu { mtu: 60, .. })));
        assert!(matches!(TunPort::open("io-x", 1800, None, PORT), Err(TunError::Mtu { mtu: 1800, .. })));
        assert!(TunPort::open("a-name-that-is-too-long", 1450, None, PORT).is_err());
        drop(first);
        open("io-tun");
    });
}

#[test]
fn a_deleted_device_ends_its_port() {
    in_namespace(|| {
        let mut pool = pool(4);
        let mut port = open("io-tun");
        ip("link del io-tun");
        wait_for("the port to notice", || {
            port.statistics();
            (port.state() == PortState::Gone).then_some(())
        });
        let address = |text: &str| text.parse().unwrap();
        let late = udp((address("10.9.0.2"), 1), (address("10.9.0.1"), 2), b"late");
        let packet = packet(&mut pool, &late, PORT);
        let refused = port.transmit(&mut pool, packet).unwrap_err();
        assert_eq!(refused.reason, DropReason::PortGone);
        pool.put(refused.packet.buffer);
        let mut none = Vec::with_capacity(4);
        assert_eq!(port.receive(&mut pool, &mut none, 4), 0);
        port.close(&mut pool);
        assert_eq!(pool.free(), 4);
    });
}

#[test]
fn it_can_be_in_another_namespace() {
    in_namespace(|| {
        let other = namespace(|| ());
        let mut port = TunPort::open("io-tun", 1300, Some(&other.path), PORT).unwrap();
        let shown = netns::within(Some(&other.path), || {
            let output = std::process::Command::new("ip").args(["link", "show", "io-tun"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        assert!(shown.unwrap().contains("mtu 1300"));
        assert_eq!(port.statistics().frames_exhausted, 0);
        assert_eq!(port.state(), PortState::Up);
    });
}

#[test]
fn a_persistent_device_outlives_its_port_with_its_address() {
    in_namespace(|| {
        let other = namespace(|| ());
        let mut pool = pool(16);
        let first = TunPort::open_persistent("io-tun", 1300, &other.path, PORT).unwrap();
        let inside = |work: &(dyn Fn() + Sync)| netns::within(Some(&other.path), work).unwrap();
        inside(&|| {
            let shown = ip_says("-details link show dev io-tun");
            for part in ["user 4294967294", "gso_max_size 65000", "gso_max_segs 128"] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
        });
        inside(&|| ip("addr add 10.9.0.1/32 dev io-tun"));
        inside(&|| ip("route add default dev io-tun"));
        drop(first);
        let mut second = TunPort::open_persistent("io-tun", 1300, &other.path, PORT).unwrap();
        inside(&|| {
            let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
            socket.send_to(b"still here", "10.8.0.2:8000").unwrap();
        });
        let packets = receive(&mut second, &mut pool, 1);
        assert_eq!(packets[0].buffer.bytes()[6..12], [0; 6], "it has no Ethernet address");
        release(&mut pool, packets);
        inside(&|| ip("link del io-tun"));
        wait_for("the port to notice", || {
            second.statistics();
            (second.state() == PortState::Gone).then_some(())
        });
    });
}

#[test]
fn a_large_packet_goes_from_one_kernel_to_another_as_it_is() {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    in_namespace(|| {
        assert!(LARGE_PACKET_MAX < LENGTH_MAX as u32);
        let other = namespace(|| ());
        let mut pool = pool(1024);
        let mut near = open("io-tun");
        let mut far = Box::new(TunPort::open("io-tun", 1450, Some(&other.path), PORT).unwrap());
        let listener = netns::within(Some(&other.path), || {
            ip("addr add 10.9.0.2/32 dev io-tun");
            ip("route add default dev io-tun");
            TcpListener::bind("10.9.0.2:80").unwrap()
        });
        let listener = listener.unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|at| (at / 3) as u8).collect();
        let arrived = std::thread::scope(|scope| {
            let client = scope.spawn(|| TcpStream::connect("10.9.0.2:80").unwrap().write_all(&sent).unwrap());
            let server = scope.spawn(|| {
                let mut arrived = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut arrived).unwrap();
                arrived
            });
            let (mut packets, mut large) = (Vec::with_capacity(64), 0);
            while !(client.is_finished() && server.is_finished()) {
                near.receive(&mut pool, &mut packets, 64);
                large += packets.iter().filter(|packet| packet.offload.segment.is_some()).count();
                packets.drain(..).for_each(|packet| far.transmit(&mut pool, packet).unwrap());
                far.receive(&mut pool, &mut packets, 64);
                packets.drain(..).for_each(|packet| near.transmit(&mut pool, packet).unwrap());
            }
            assert!(large > 10, "{large} large packets");
            server.join().unwrap()
        });
        assert!(arrived == sent, "{} bytes", arrived.len());
        near.close(&mut pool);
        far.close(&mut pool);
        assert_eq!((pool.free(), pool.umem().account(0).leaked), (1024, 0));
    });
}

#[test]
fn what_a_port_refuses_counts_as_what_it_takes() {
    in_namespace(|| {
        let mut pool = pool(64);
        let mut port = open("io-tun");
        let raw = Raw::on("io-tun");
        assert!((0..20).all(|_| raw.send(&[0x20; 60])), "neither IPv4 nor IPv6");
        let mut none = Vec::with_capacity(64);
        assert_eq!((port.receive(&mut pool, &mut none, 16), none.len()), (16, 0));
        assert_eq!((port.receive(&mut pool, &mut none, 16), none.len()), (4, 0));
        assert_eq!((port.statistics().receive_dropped, pool.free()), (20, 64));
    });
}

#[test]
fn without_large_frames_ordinary_packets_are_received_still() {
    in_namespace(|| {
        let mut pool = pool(64);
        let mut port = TunPort::open("io-tun", MTU_MAX, None, PORT).unwrap();
        ip("addr add 10.9.0.1/32 dev io-tun");
        ip("route add 10.9.0.0/24 dev io-tun src 10.9.0.1");
        let held: Vec<Frame> = std::iter::from_fn(|| pool.take_large()).collect();
        assert!(held.len() >= 64, "however few frames there are");
        let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
        socket.send_to(&[7; SMALL - 28], "10.9.0.2:8000").unwrap();
        let packets = receive(&mut port, &mut pool, 1);
        assert_eq!(packets[0].buffer.bytes().len(), ETHERNET + SMALL);
        release(&mut pool, packets);
        pool.put_all(held);
    });
}

#[test]
fn what_is_not_ip_is_refused() {
    in_namespace(|| {
        let mut pool = pool(4);
        let mut port = open("io-tun");
        for bytes in [&[0; 10][..], &[2; 60][..]] {
            let packet = packet(&mut pool, bytes, PORT);
            let refused = port.transmit(&mut pool, packet).unwrap_err();
            assert_eq!(refused.reason, DropReason::TransmitRefused);
            pool.put(refused.packet.buffer);
        }
        assert_eq!(pool.free(), 4);
    });
}
