//! The follower against a real kernel, in a network namespace of its own. Needs root.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces joined by a veth; removed with everything in it at the end.
struct Net {
    ours: String,
    theirs: String,
}

impl Net {
    /// None, loudly, without the privilege. Where CI is set the privilege is promised.
    fn make(test: &str) -> Option<Self> {
        let id = std::process::id();
        let net = Self { ours: format!("vsw-{test}-a-{id}"), theirs: format!("vsw-{test}-b-{id}") };
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI promises root");
            eprintln!("SKIPPED: needs root for network namespaces");
            return None;
        }
        ip(&format!("netns add {}", net.ours));
        ip(&format!("netns add {}", net.theirs));
        ip(&format!("-n {} link add up0 type veth peer name up1 netns {}", net.ours, net.theirs));
        ip(&format!("-n {} link set lo up", net.ours));
        net.here("addr add 192.0.2.1/24 dev up0");
        net.here("addr add 2001:db8::1/64 dev up0 nodad");
        net.here("link set up0 up");
        net.there("link set up1 address 02:00:00:00:00:99");
        net.there("addr add 192.0.2.2/24 dev up1");
        net.there("addr add 2001:db8::2/64 dev up1 nodad");
        net.there("link set up1 up");
        Some(net)
    }

    fn here(&self, command: &str) {
        ip(&format!("-n {} {command}", self.ours));
    }

    fn there(&self, command: &str) {
        ip(&format!("-n {} {command}", self.theirs));
    }

    fn shows(&self, command: &str) -> String {
        let words = format!("-n {} {command}", self.ours);
        let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// A follower inside our namespace, and what it tells.
    fn follow(&self, wanted: Wanted) -> (Follower, Receiver<Facts>) {
        let path = Path::new("/run/netns").join(&self.ours);
        let (tell, told) = channel();
        let enter_and_start = move || {
            setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            Follower::start(wanted, move |facts| drop(tell.send(facts))).unwrap()
        };
        (std::thread::spawn(enter_and_start).join().unwrap(), told)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.ours, &self.theirs] {
            Command::new("ip").args(["netns", "del", name]).status().ok();
        }
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The first facts for which `fits` holds.
fn wait(told: &Receiver<Facts>, what: &str, fits: impl Fn(&Facts) -> bool) -> Facts {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(facts) if fits(&facts) => return facts,
            Ok(facts) => last = Some(facts),
            Err(_) => panic!("{what}: not within {PATIENCE:?}; last: {last:?}"),
        }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// An address that no route leads to.
const POD: [u8; 4] = [10, 1, 0, 7];
const VXLAN: TunnelKind = TunnelKind::Vxlan { port: 4789, vni: Vni::CALICO };

fn wanted(remotes: &[&str]) -> Wanted {
    Wanted {
        remotes: remotes.iter().map(|remote| remote.parse().unwrap()).collect(),
        tunnels: remotes.iter().map(|remote| (remote.parse().unwrap(), [VXLAN].into())).collect(),
        uplinks: BTreeSet::from(["up0".to_owned()]),
        ..Wanted::default()
    }
}

fn hops(facts: &Facts, remote: &str) -> Result<Vec<Hop>, Unresolved> {
    facts.hops[&remote.parse::<IpAddr>().unwrap()].clone()
}

fn one_hop(hops: &Result<Vec<Hop>, Unresolved>) -> Result<Hop, Unresolved> {
    hops.clone().map(|hops| match hops.as_slice() {
        [hop] => hop.clone(),
        _ => panic!("{hops:?} are not one"),
    })
}

#[test]
fn next_hops_are_resolved_kept_and_followed() {
    let Some(net) = Net::make("hop") else { return };
    net.here("route add 198.51.100.0/24 via 192.0.2.2 mtu 1400");
    let (follower, told) =
        net.follow(wanted(&["192.0.2.2", "2001:db8::2", "198.51.100.7", "203.0.113.1", "192.0.2.1"]));
    let hop = |facts: &Facts, remote: &str| one_hop(&hops(facts, remote));
    let their_mac = |mac: &str| mac.parse::<vswitch_model::Mac>().unwrap();

    let facts =
        wait(&told, "three hops resolve", |facts| facts.hops.values().filter(|hop| hop.is_ok()).count() == 3);
    let direct = hop(&facts, "192.0.2.2").unwrap();
    assert_eq!((direct.interface.as_str(), direct.mtu), ("up0", 1500));
    assert_eq!(direct.destination, their_mac("02:00:00:00:00:99"));
    assert_eq!(direct.source, facts.links["up0"].mac);
    assert_eq!(hop(&facts, "2001:db8::2").unwrap().destination, direct.destination);
    let routed = hop(&facts, "198.51.100.7").unwrap();
    assert_eq!((routed.mtu, routed.on_link), (1400, false));
    assert!(direct.on_link && hop(&facts, "2001:db8::2").unwrap().on_link);
    assert_eq!(hop(&facts, "203.0.113.1"), Err(Unresolved::NoRoute));
    assert_eq!(hop(&facts, "192.0.2.1"), Err(Unresolved::Local));
    let own: Vec<String> = facts.local_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(own, ["192.0.2.1", "2001:db8::1"]);
    assert!(net.shows("neigh show 192.0.2.2").contains("managed"), "{}", net.shows("neigh"));

    // The other side changes its Ethernet address and says so.
    net.there("link set up1 address 02:00:00:00:00:aa");
    net.here("neigh flush dev up0");
    wait(&told, "the new address is seen", |facts| {
        hop(facts, "192.0.2.2").is_ok_and(|hop| hop.destination == their_mac("02:00:00:00:00:aa"))
    });
    // Where another neighbour has its Ethernet address, nobody can tell who it is; of the other family it does not matter.
    let is_on_link = |facts: &Facts, remote| hop(facts, remote).is_ok_and(|hop| hop.on_link);
    net.here("neigh add 192.0.2.7 lladdr 02:00:00:00:00:aa dev up0");
    let facts = wait(&told, "it may be a router", |facts| !is_on_link(facts, "192.0.2.2"));
    assert!(hop(&facts, "192.0.2.2").is_ok());
    net.here("neigh add fe80::7 lladdr 02:00:00:00:00:aa dev up0");
    net.here("neigh del 192.0.2.7 dev up0");
    wait(&told, "it is alone again", |facts| {
        is_on_link(facts, "192.0.2.2") && is_on_link(facts, "2001:db8::2")
    });
    // A route that appears is followed; one remote less is not kept known any more.
    net.here("route add 203.0.113.0/24 via 192.0.2.2");
    wait(&told, "the new route is seen", |facts| hop(facts, "203.0.113.1").is_ok());
    follower.want(wanted(&["203.0.113.1"]));
    wait(&told, "only one remote is left", |facts| facts.hops.len() == 1);
    until("2001:db8::2 is released", || !net.shows("neigh show 2001:db8::2").contains("managed"));
    assert!(net.shows("neigh show 192.0.2.2").contains("managed"));
    drop(follower);
    assert!(!net.shows("neigh show 192.0.2.2").contains("managed"), "nothing is left behind");
    let (follower, told) = net.follow(wanted(&["203.0.113.1"]));
    wait(&told, "the hop is there again", |facts| hop(facts, "203.0.113.1").is_ok());
    // So does a cable that is pulled at the other end, until it is plugged in again.
    net.there("link set up1 down");
    wait(&told, "no hop by a link without carrier", |facts| {
        hop(facts, "203.0.113.1") == Err(Unresolved::NoCarrier("up0".into()))
    });
    net.there("link set up1 up");
    wait(&told, "the hop is there again", |facts| hop(facts, "203.0.113.1").is_ok());
    // A link that goes down takes its hops with it.
    net.here("link set up0 down");
    wait(&told, "no hop by a link that is down", |facts| hop(facts, "203.0.113.1").is_err());
    drop(follower);
}

#[test]
fn a_route_by_several_next_hops_gives_them_all() {
    let Some(net) = Net::make("ecmp") else { return };
    ip(&format!("-n {} link add two0 type veth peer name two1 netns {}", net.ours, net.theirs));
    net.here("addr add 192.0.3.1/24 dev two0");
    net.here("addr add 2001:db8:3::1/64 dev two0 nodad");
    net.here("link set two0 mtu 1400 up");
    net.there("link set two1 address 02:00:00:00:00:77");
    net.there("addr add 192.0.3.2/24 dev two1");
    net.there("addr add 2001:db8:3::2/64 dev two1 nodad");
    net.there("link set two1 up");
    net.here("route add 198.51.100.0/24 nexthop via 192.0.2.2 weight 3 nexthop via 192.0.3.2 weight 1");
    net.here("route add 198.51.101.0/24 nexthop via inet6 2001:db8::2 dev up0 nexthop via 192.0.3.2");
    net.here("route add 2001:db8:51::/48 nexthop via 2001:db8::2 nexthop via 2001:db8:3::2 weight 9");
    net.here("nexthop add id 1 via 192.0.2.2 dev up0");
    net.here("nexthop add id 2 via 192.0.3.2 dev two0");
    net.here("nexthop add id 3 group 1,5/2,4");
    net.here("route add 198.51.102.0/24 nhid 3");
    let remotes = ["198.51.100.7", "198.51.101.7", "198.51.102.7", "2001:db8:51::7"];
    let wanted = Wanted { uplinks: ["up0", "two0"].map(str::to_owned).into(), ..wanted(&remotes) };
    let (follower, told) = net.follow(wanted.clone());
    let seen = |facts: &Facts| {
        remotes.map(|remote| {
            let hops = hops(facts, remote).unwrap_or_default();
            hops.iter().map(|hop| (hop.interface.clone(), hop.mtu, hop.weight)).collect::<Vec<_>>()
        })
    };
    let both = |first, second| vec![("up0".to_owned(), 1500, first), ("two0".to_owned(), 1400, second)];
    let whole = [both(3, 1), both(1, 1), both(5, 4), both(1, 9)];
    let facts =
        wait(&told, "all next hops resolve", |facts| facts.left_out.is_empty() && seen(facts) == whole);
    let macs: Vec<String> =
        hops(&facts, remotes[0]).unwrap().iter().map(|hop| hop.destination.to_string()).collect();
    assert_eq!(macs, ["02:00:00:00:00:99", "02:00:00:00:00:77"]);
    assert_eq!(facts.hops.len(), 4);

    // One that does not answer is left out, and told of.
    net.here("route replace 198.51.100.0/24 nexthop via 192.0.2.9 nexthop via 192.0.3.2");
    let facts = wait(&told, "the silent one is left out", |facts| {
        hops(facts, remotes[0]).is_ok_and(|hops| hops.len() == 1 && hops[0].interface == "two0")
    });
    let silent = Unresolved::Silent("192.0.2.9".parse().unwrap());
    assert_eq!(facts.left_out, [(remotes[0].parse().unwrap(), vec![silent])].into());
    assert_eq!(hops(&facts, remotes[2]).unwrap().len(), 2);
    // So is one by what is no uplink.
    follower.want(Wanted { uplinks: ["up0".to_owned()].into(), ..wanted });
    let facts = wait(&told, "up0 alone is an uplink", |facts| {
        hops(facts, remotes[2]).is_ok_and(|hops| hops.len() == 1 && hops[0].interface == "up0")
    });
    let other = Unresolved::NotUplink("two0".into());
    assert_eq!(facts.left_out[&remotes[2].parse::<IpAddr>().unwrap()], [other]);
    assert!(hops(&facts, remotes[0]).is_err(), "none is left");
    drop(follower);
}

/// A tunnel packet of `length` bytes that must not be cut, sent as the engine sends it: past the kernel's sockets.
fn send_tunnel_packet(net: &Net, v6: bool, remote: &str, length: usize) {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
    };
    use std::net::{SocketAddrV4, SocketAddrV6};
    use std::os::fd::AsRawFd;
    let builder = |own: &str| match (own.parse().unwrap(), remote.parse().unwrap()) {
        (IpAddr::V4(own), IpAddr::V4(to)) => etherparse::PacketBuilder::ipv4(own.octets(), to.octets(), 64),
        (IpAddr::V6(own), IpAddr::V6(to)) => etherparse::PacketBuilder::ipv6(own.octets(), to.octets(), 64),
        _ => panic!("{own} and {remote} are of two families"),
    };
    let builder = builder(if v6 { "2001:db8::1" } else { "192.0.2.1" }).udp(50_000, 4789);
    let mut packet = Vec::new();
    let headers = if v6 { 48 } else { 28 };
    let mut carried = vec![8, 0, 0, 0, 0, 16, 0, 0];
    let inner = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(POD, [10, 9, 9, 9], 64).udp(7, 9);
    inner.write(&mut carried, &vec![0; length - headers - 8 - 42]).unwrap();
    builder.write(&mut packet, &carried).unwrap();
    let path = Path::new("/run/netns").join(&net.ours);
    let remote: IpAddr = remote.parse().unwrap();
    let send = move || {
        setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let raw = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
        let none = MsgFlags::empty();
        match remote {
            IpAddr::V4(to) => {
                sendto(raw.as_raw_fd(), &packet, &SockaddrIn::from(SocketAddrV4::new(to, 0)), none)
            }
            IpAddr::V6(to) => {
                sendto(raw.as_raw_fd(), &packet, &SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0)), none)
            }
        }
        .unwrap();
    };
    std::thread::spawn(send).join().unwrap();
}

#[test]
fn a_router_of_the_underlay_says_how_wide_the_path_is() {
    let Some(net) = Net::make("pmtu") else { return };
    let routers = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
    for setting in routers {
        let words = ["netns", "exec", &net.theirs, "sysctl", "-qw", setting];
        assert!(Command::new("ip").args(words).status().unwrap().success(), "{setting}");
    }
    net.there("link add narrow type veth peer name wide");
    net.there("link set wide up");
    net.there("link set narrow mtu 1300 up");
    net.there("route add 198.51.100.0/24 dev narrow");
    net.there("route add 2001:db8:51::/48 dev narrow");
    net.here("route add 198.51.100.0/24 via 192.0.2.2");
    net.here("route add 2001:db8:51::/48 via 2001:db8::2");
    let remotes = ["198.51.100.7", "2001:db8:51::7"];
    let (follower, told) = net.follow(wanted(&remotes));
    let mtus =
        |facts: &Facts| -> Vec<u32> { facts.hops.values().flatten().flatten().map(|hop| hop.mtu).collect() };
    let is_wide = |facts: &Facts| mtus(facts) == [1500, 1500];
    wait(&told, "both ways are as wide as the uplink", is_wide);
    for (v6, remote) in [(false, remotes[0]), (true, remotes[1])] {
        send_tunnel_packet(&net, v6, remote, 1400);
    }
    let facts = wait(&told, "a router says how narrow both paths are", |facts| facts.paths.len() == 2);
    let said: Vec<_> = facts.paths.values().map(|path| (path.mtu, path.by.to_string())).collect();
    assert_eq!(said, [(1300, "192.0.2.2".to_owned()), (1300, "2001:db8::2".to_owned())]);
    // The kernel's own ways are as they were: so are those of packets in no tunnel.
    assert!(is_wide(&facts));
    // The kernel itself has learned nothing: what was sent was none of its own.
    assert!(!net.shows("route get 198.51.100.7").contains("mtu 1300"));
    drop(follower);
}

#[test]
fn the_host_port_is_kept_as_desired_and_all_else_left_alone() {
    let Some(net) = Net::make("host") else { return };
    net.here("tuntap add vswitch0 mode tun");
    net.here("route add 10.9.0.0/16 dev up0");
    let device = |addresses: &[&str], routes: &[&str]| Wanted {
        host: Some(HostDevice {
            name: "vswitch0".into(),
            mtu: 1430,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            routes: routes.iter().map(|route| route.parse().unwrap()).collect(),
        }),
        ..wanted(&[])
    };
    let addresses = ["10.1.0.1", "fd00:1::1"];
    let (follower, told) = net.follow(device(&addresses, &["10.1.0.0/16", "10.2.0.0/16", "fd00::/16"]));
    let facts = wait(&told, "it is configured", |facts| {
        facts.local_addresses.contains(&addresses[1].parse().unwrap())
    });
    assert_eq!(facts.host_problem, None);
    assert!(net.shows("link show vswitch0").contains("mtu 1430"));
    assert!(net.shows("addr show vswitch0").contains("inet 10.1.0.1/32"));
    let route = net.shows("route show 10.1.0.0/16");
    assert!(route.contains("dev vswitch0 proto 118 scope link src 10.1.0.1"), "{route}");
    let route = net.shows("-6 route show fd00::/16");
    assert!(route.contains("dev vswitch0 proto 118 src fd00:1::1"), "{route}");

    net.here("route add 10.3.0.0/16 dev vswitch0");
    follower.want(device(&["10.1.0.2"], &["10.1.0.0/16"]));
    until("the source moves", || net.shows("route show 10.1.0.0/16").contains("src 10.1.0.2"));
    until("what is not desired goes", || {
        net.shows("route show 10.2.0.0/16").is_empty()
            && !net.shows("addr show vswitch0").contains("fd00:1::1")
    });
    assert!(net.shows("route show 10.3.0.0/16").contains("vswitch0"), "a route of other origin stays");
    assert!(net.shows("route show 10.9.0.0/16").contains("up0"));
    // Somebody takes a route away: it comes back.
    net.here("route del 10.1.0.0/16");
    until("it comes back", || net.shows("route show 10.1.0.0/16").contains("src 10.1.0.2"));
    // A prefix that somebody else routes is reported, not taken.
    follower.want(device(&["10.1.0.2"], &["10.1.0.0/16", "10.9.0.0/16"]));
    let facts = wait(&told, "the conflict is told", |facts| facts.host_problem.is_some());
    assert!(facts.host_problem.unwrap().starts_with("10.9.0.0/16: "));
}
