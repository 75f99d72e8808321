//! The simulated network: two worlds joined at their uplinks, and hosts at their ports.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr,
    Ipv6Address,
};
use vswitch_datapath::tables::GATEWAY_V6;
use vswitch_datapath::testing::World;
use vswitch_datapath::testing::world::{HOST, KERNEL_MAC, UPLINK, pod_mac, v4, v6};
use vswitch_datapath::{Now, PortIndex};
use vswitch_model::Mac;

use crate::way::{Moving, Way};

/// A place: node and port.
pub(crate) type At = (u8, PortIndex);

/// The IPv6 tunnel's inner MTU: small enough for every way, since smoltcp does not search for the path's.
const MTU: usize = 1430;

/// A wire's end: frames to and from a host.
struct Wire {
    medium: Medium,
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Received(frame), Sending(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = if self.medium == Medium::Ethernet { MTU + 14 } else { MTU };
        capabilities
    }
}

/// A network stack at a port: a pod on a veth, or the node's kernel behind the tun, which has no Ethernet header.
struct Host {
    at: At,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl Host {
    /// A pod.
    fn pod(node: u8, port: PortIndex) -> Self {
        Self::new(
            (node, port),
            Medium::Ethernet,
            HardwareAddress::Ethernet(EthernetAddress(pod_mac(node, port).0)),
        )
    }

    /// The node's kernel.
    fn kernel(node: u8) -> Self {
        Self::new((node, HOST), Medium::Ip, HardwareAddress::Ip)
    }

    fn new(at: At, medium: Medium, address: HardwareAddress) -> Self {
        let mut wire = Wire { medium, incoming: VecDeque::new(), outgoing: VecDeque::new() };
        let mut interface = Interface::new(Config::new(address), &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // smoltcp believes ARP replies from its own network only; so all of IPv4 is on its link, as the engine's
            // proxy ARP has it. IPv6 goes by the gateway.
            for (address, length) in [(v4(at.0, at.1), 0), (v6(at.0, at.1), 128)] {
                addresses.push(IpCidr::new(address.into(), length)).unwrap();
            }
        });
        interface.routes_mut().add_default_ipv6_route(GATEWAY_V6).unwrap();
        Self { at, wire, interface, sockets: SocketSet::new(Vec::new()) }
    }

    /// A frame from the engine.
    fn deliver(&mut self, mut frame: Vec<u8>) {
        if self.wire.medium == Medium::Ip {
            frame.drain(..14);
        }
        self.wire.incoming.push_back(frame);
    }

    /// A frame to the engine.
    fn take(&mut self) -> Option<Vec<u8>> {
        let packet = self.wire.outgoing.pop_front()?;
        if self.wire.medium == Medium::Ethernet {
            return Some(packet);
        }
        let mut frame = [Mac::GATEWAY.0, KERNEL_MAC.0].concat();
        frame.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
        frame.extend(packet);
        Some(frame)
    }
}

/// Two nodes and the hosts of a test.
pub(crate) struct Net {
    /// From hosts to the engine, and back.
    ways: [Way; 2],
    /// Bytes of a TCP socket's buffers.
    buffer: usize,
    worlds: BTreeMap<u8, World>,
    hosts: BTreeMap<At, Host>,
    now: Duration,
    next_port: u16,
}

impl Net {
    pub(crate) fn new(places: &[At]) -> Self {
        let host = |(node, port)| if port == HOST { Host::kernel(node) } else { Host::pod(node, port) };
        Self {
            ways: <[Way; 2]>::default(),
            buffer: 32_768,
            worlds: [1, 2].into_iter().map(|node| (node, World::node(node))).collect(),
            hosts: places.iter().map(|at| (*at, host(*at))).collect(),
            now: Duration::from_secs(1),
            next_port: 40_000,
        }
    }

    /// The same with ways that lose frames, double them and mix them up, as the seed (not 0) has it; TCP sockets have buffers
    /// of `buffer` bytes, and who receives is slow to take bytes out of them.
    pub(crate) fn troubled(places: &[At], seed: u64, buffer: usize) -> Self {
        let way = |state| Way { state, late: Vec::new() };
        Self { ways: [way(seed), way(seed << 1 | 1)], buffer, ..Self::new(places) }
    }

    pub(crate) fn world(&mut self, node: u8) -> &mut World {
        self.worlds.get_mut(&node).unwrap()
    }

    pub(crate) fn flows(&self, node: u8) -> usize {
        self.worlds[&node].walk.flows().count()
    }

    /// What was dropped since this was asked last, on both nodes.
    pub(crate) fn drops(&mut self) -> Vec<String> {
        let moved = self.worlds.values_mut().flat_map(World::moved);
        moved.filter(|line| line.contains(" drop ")).collect()
    }

    /// Lets time pass with nobody talking, and flows be forgotten.
    pub(crate) fn wait_s(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.settle();
        }
    }

    fn host(&mut self, at: At) -> &mut Host {
        self.hosts.get_mut(&at).unwrap()
    }

    /// Moves frames until no host has anything to say at this moment.
    fn settle(&mut self) {
        let instant = Instant::from_micros(self.now.total_micros() as i64);
        for world in self.worlds.values_mut() {
            world.now = Now(self.now.total_micros() * 1000);
            world.walk.tick(world.now, 2048);
        }
        let mut entering = self.ways[0].arrive();
        let mut late = self.ways[1].arrive();
        let mut moving = true;
        while moving {
            for (at, frame) in late.drain(..) {
                if let Some(host) = self.hosts.get_mut(&at) {
                    host.deliver(frame);
                }
            }
            let mut leaves = Vec::new();
            for host in self.hosts.values_mut() {
                host.interface.poll(instant, &mut host.wire, &mut host.sockets);
                let at = host.at;
                leaves.extend(std::iter::from_fn(|| host.take()).map(|frame| (at, frame)));
            }
            moving = !leaves.is_empty();
            entering.extend(self.ways[0].befall(leaves));
            // Half of a batch comes from the hosts of each node, then what crosses the underlay.
            while !entering.is_empty() {
                let mut leaving: Vec<Moving> = Vec::new();
                for (node, world) in &mut self.worlds {
                    let batch = entering.iter().filter(|((at, _), _)| at == node);
                    let sent = world.send_all(batch.map(|((_, port), frame)| (*port, frame.clone())));
                    leaving.extend(sent.into_iter().map(|(port, frame)| ((*node, port), frame)));
                }
                entering.clear();
                let (crossing, leaving): (Vec<Moving>, _) =
                    leaving.into_iter().partition(|((_, port), _)| *port == UPLINK);
                entering.extend(crossing.into_iter().map(|((node, port), frame)| ((3 - node, port), frame)));
                for (at, frame) in self.ways[1].befall(leaving) {
                    if let Some(host) = self.hosts.get_mut(&at) {
                        host.deliver(frame);
                    }
                }
            }
        }
    }

    /// Runs until `done`, for at most 20 simulated seconds, or 200 where ways are bad.
    fn run(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        for _ in 0..if self.ways[0].state == 0 { 2000 } else { 20_000 } {
            self.settle();
            if done(self) {
                return true;
            }
            self.now += Duration::from_millis(10);
        }
        false
    }

    fn next_port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// Sends an echo request, and another a second later: smoltcp loses its reply to the first while it asks for the
    /// gateway's Ethernet address. Whether a reply bears the same payload.
    pub(crate) fn ping(&mut self, from: At, to: IpAddr, payload: &[u8]) -> bool {
        let identifier = self.next_port();
        let host = self.host(from);
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 8192]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(identifier)).unwrap();
        let source = host.interface.get_source_address(&to.into()).unwrap();
        let request = echo_request(source, to.into(), identifier, payload);
        let handle = host.sockets.add(socket);
        let (mut reply, mut next, deadline) = (None, self.now, self.now + Duration::from_millis(1500));
        self.run(|net| {
            let now = net.now;
            let socket = net.host(from).sockets.get_mut::<icmp::Socket<'_>>(handle);
            if now >= next {
                socket.send_slice(&request, to.into()).unwrap();
                next = now + Duration::from_secs(1);
            }
            reply = socket.recv().ok().map(|(reply, _)| reply.to_vec());
            reply.is_some() || net.now > deadline
        });
        reply.is_some_and(|reply| matches!(reply[0], 0 | 129) && &reply[8..] == payload)
    }

    /// Sends `data` over a TCP connection and closes it; what arrived.
    pub(crate) fn transfer(&mut self, from: At, to: At, server: (IpAddr, u16), data: &[u8]) -> Vec<u8> {
        let (port, buffer) = (self.next_port(), self.buffer);
        let listening = self.host(to).sockets.add(tcp_socket(buffer));
        let connecting = self.host(from).sockets.add(tcp_socket(buffer));
        fn socket(net: &mut Net, at: At, handle: SocketHandle) -> &mut tcp::Socket<'static> {
            net.host(at).sockets.get_mut(handle)
        }
        socket(self, to, listening).listen(server.1).unwrap();
        let host = self.host(from);
        let client = host.sockets.get_mut::<tcp::Socket<'_>>(connecting);
        client.connect(host.interface.context(), (IpAddress::from(server.0), server.1), port).unwrap();
        let (mut sent, mut received) = (0, Vec::new());
        self.run(|net| {
            let client = socket(net, from, connecting);
            if client.may_send() && sent < data.len() {
                sent += client.send_slice(&data[sent..]).unwrap();
            } else if client.may_send() && client.send_queue() == 0 {
                client.close();
            }
            let slow = net.ways[0].state != 0 && net.ways[0].below(64) != 0;
            let server = socket(net, to, listening);
            while !slow && server.can_recv() {
                server.recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
            }
            if server.state() == tcp::State::CloseWait && !server.can_recv() {
                server.close();
            }
            server.state() == tcp::State::Closed && sent == data.len()
        });
        self.host(from).sockets.remove(connecting);
        self.host(to).sockets.remove(listening);
        received
    }

    /// Sends one datagram; what arrived within a second.
    pub(crate) fn datagram(
        &mut self,
        from: At,
        to: At,
        server: (IpAddr, u16),
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let port = self.next_port();
        let bound = |port| {
            let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 8192]);
            let mut socket = udp::Socket::new(buffer(), buffer());
            socket.bind(port).unwrap();
            socket
        };
        let listening = self.host(to).sockets.add(bound(server.1));
        let mut client = bound(port);
        client.send_slice(payload, (IpAddress::from(server.0), server.1)).unwrap();
        self.host(from).sockets.add(client);
        let deadline = self.now + Duration::from_secs(1);
        let mut arrived = None;
        self.run(|net| {
            let socket = net.host(to).sockets.get_mut::<udp::Socket<'_>>(listening);
            arrived = socket.recv().ok().map(|(payload, _)| payload.to_vec());
            arrived.is_some() || net.now > deadline
        });
        arrived
    }
}

fn tcp_socket(size: usize) -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; size]);
    tcp::Socket::new(buffer(), buffer())
}

fn echo_request(source: IpAddress, destination: IpAddress, identifier: u16, payload: &[u8]) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    match (source, destination) {
        (IpAddress::Ipv4(_), _) => {
            let request = Icmpv4Repr::EchoRequest { ident: identifier, seq_no: 1, data: payload };
            let mut bytes = vec![0; request.buffer_len()];
            request.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &checksums);
            bytes
        }
        (IpAddress::Ipv6(source), IpAddress::Ipv6(destination)) => {
            let request = Icmpv6Repr::EchoRequest { ident: identifier, seq_no: 1, data: payload };
            let mut bytes = vec![0; request.buffer_len()];
            emit_v6(&request, source, destination, &mut bytes, &checksums);
            bytes
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
}

fn emit_v6(
    request: &Icmpv6Repr<'_>,
    source: Ipv6Address,
    destination: Ipv6Address,
    bytes: &mut [u8],
    checksums: &ChecksumCapabilities,
) {
    request.emit(&source, &destination, &mut Icmpv6Packet::new_unchecked(bytes), checksums);
}
