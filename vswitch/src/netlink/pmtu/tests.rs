use super::said::Quoted;
use super::*;
use crate::netlink::TunnelKind;
use vswitch_datapath::checksum;
use vswitch_model::Vni;

const OWN: [u8; 4] = [192, 0, 2, 1];
const REMOTE: [u8; 4] = [192, 0, 2, 2];
const ROUTER: [u8; 4] = [192, 0, 2, 9];
const POD: [u8; 4] = [10, 1, 0, 7];
const POD_V6: [u8; 16] = [0xfc; 16];

/// The header of a pod's packet of `length` bytes, of either family.
fn carried(v6: bool, length: u16) -> Vec<u8> {
    if v6 {
        let [high, low] = (length - 40).to_be_bytes();
        [&[0x60, 0, 0, 0, high, low, 17, 64][..], &POD_V6, &[9; 16]].concat()
    } else {
        let [high, low] = length.to_be_bytes();
        [&[0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0][..], &POD, &[9; 4]].concat()
    }
}

/// A VXLAN header of network 4096, and what it carries.
fn vxlan(v6: bool) -> Vec<u8> {
    let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
    [&[8, 0, 0, 0, 0, 0x10, 0, 0][..], &[2; 12], &kind, &carried(v6, 1000)].concat()
}

/// An outer IPv4 header with 8 bytes of what follows it, as most routers quote. IP-in-IP has no ports.
fn quote_v4(length: u16, protocol: u8, ports: [u16; 2]) -> Vec<u8> {
    let mut quote = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 63, protocol, 0, 0];
    quote[2..4].copy_from_slice(&length.to_be_bytes());
    quote.extend([OWN, REMOTE].concat());
    if protocol == 17 {
        quote.extend(ports.into_iter().chain([length - 20, 0]).flat_map(u16::to_be_bytes));
    } else {
        quote.extend(&carried(protocol == 41, length - 20)[..8]);
    }
    quote
}

/// The error of a router about it, as a raw socket gives it: with an IPv4 header.
fn error_v4(mtu: u16, quote: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quote);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45];
    packet.resize(12, 0);
    packet.extend([ROUTER, OWN].concat());
    packet.extend(message);
    packet
}

/// An error that quotes the outer header, ports and `rest`; IP-in-IP has no ports.
fn error_v6(mtu: u32, payload: u16, next: u8, ports: [u16; 2], rest: &[u8]) -> Vec<u8> {
    let mut message = vec![2, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend([0x60, 0, 0, 0]);
    message.extend(payload.to_be_bytes());
    message.extend([next, 64]);
    message.extend([[0xfd; 16], [0xfe; 16]].concat());
    if next == 17 {
        message.extend(ports.into_iter().chain([payload, 0]).flat_map(u16::to_be_bytes));
    }
    message.extend(rest);
    message
}

const PORTS: [u16; 2] = [50_000, 4789];

#[test]
fn a_router_says_what_passes() {
    let said = |mtu, quote: &[u8]| said::read_v4(&error_v4(mtu, quote));
    let tunnel = quote_v4(1500, 17, PORTS);
    let quoted = Quoted::Vxlan { port: 4789, vni: None };
    let expected =
        Said { source: OWN.into(), remote: REMOTE.into(), quoted, inner: None, mtu: 1400, by: ROUTER.into() };
    assert_eq!(said(1400, &tunnel), Some(expected));
    let in_ip = Said { quoted: Quoted::IpIp, ..expected };
    assert_eq!(said(1400, &quote_v4(1500, 4, [0, 0])), Some(in_ip));
    // Routers that quote more.
    let whole = Quoted::Vxlan { port: 4789, vni: Some(4096) };
    for (v6, pod) in [(false, IpAddr::from(POD)), (true, POD_V6.into())] {
        let quote = [&tunnel[..], &vxlan(v6)].concat();
        assert_eq!(said(1400, &quote), Some(Said { quoted: whole, inner: Some(pod), ..expected }));
        let quote = [&quote_v4(1500, if v6 { 41 } else { 4 }, [0, 0])[..20], &carried(v6, 1480)].concat();
        assert_eq!(said(1400, &quote), Some(Said { inner: Some(pod), ..in_ip }));
    }
    let quote = [&tunnel[..], &vxlan(false)[..8]].concat();
    assert_eq!(said(1400, &quote), Some(Said { quoted: whole, ..expected }));
    // A router of before RFC 1191, and one that says less than there is.
    assert_eq!(said(0, &tunnel), Some(Said { mtu: 1492, ..expected }));
    // Where the pod is not quoted, nothing below 1280 is believed.
    assert_eq!(said(0, &quote_v4(1492, 17, PORTS)), Some(Said { mtu: 1280, ..expected }));
    assert_eq!(said(68, &tunnel), Some(Said { mtu: 1280, ..expected }));
    assert_eq!(said(68, &quote_v4(1280, 17, PORTS)), None);
    let whole_quote = |length| [&quote_v4(length, 17, PORTS)[..], &vxlan(false)].concat();
    let whole_said = Said { quoted: whole, inner: Some(POD.into()), ..expected };
    assert_eq!(said(0, &whole_quote(1492)), Some(Said { mtu: 1006, ..whole_said }));
    assert_eq!(said(68, &whole_quote(1500)), Some(Said { mtu: 576, ..whole_said }));
    // IP options before the quoted header's end.
    let mut options = tunnel.clone();
    options[0] = 0x46;
    options.splice(20..20, [1, 1, 1, 1]);
    options[3] += 4;
    assert_eq!(said(1400, &options), Some(expected));
    let said = |mtu, next| {
        let rest = if next == 17 { vxlan(true) } else { carried(true, 1460) };
        said::read_v6(&error_v6(mtu, 1460, next, PORTS, &rest), [0xfe; 16].into())
    };
    let (source, remote) = ([0xfd; 16].into(), [0xfe; 16].into());
    let expected =
        Said { source, remote, quoted: whole, inner: Some(POD_V6.into()), mtu: 1400, by: [0xfe; 16].into() };
    assert_eq!(said(1400, 17), Some(expected));
    assert_eq!(said(1400, 41), Some(Said { quoted: Quoted::IpIp, ..expected }));
    assert_eq!(said(1280, 17), Some(Said { mtu: 1280, ..expected }));
    assert_eq!((said(1279, 17), said(1500, 17), said(1 << 20, 17), said(1400, 6)), (None, None, None, None));
}

#[test]
fn what_is_no_word_of_a_router_about_a_tunnel_packet_says_nothing() {
    let good = error_v4(1400, &quote_v4(1500, 17, PORTS));
    let changed = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet[22..24].fill(0);
        let sum = checksum::of(&packet[20..]);
        packet[22..24].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    assert!(said::read_v4(&changed(27, 0x79)).is_some(), "another MTU");
    // Another type, another code, a later fragment, one that has more, TCP, no IPv4.
    for (at, value) in [(20, 11), (21, 1), (35, 1), (34, 0x20), (37, 6), (28, 0x65)] {
        assert_eq!(said::read_v4(&changed(at, value)), None, "{at}");
    }
    // A UDP length that is not the packet's.
    assert_eq!(said::read_v4(&changed(28 + 25, 1)), None);
    // IP-in-IP of another length, or whose inner version is the other.
    for (protocol, other) in [(4, 41), (41, 4)] {
        let quote = quote_v4(1500, protocol, [0, 0]);
        assert!(said::read_v4(&error_v4(1400, &quote)).is_some());
        let long = [&quote[..20], &quote_v4(1501, protocol, [0, 0])[20..]].concat();
        let mixed = [&quote[..20], &quote_v4(1500, other, [0, 0])[20..]].concat();
        for quote in [&long, &mixed, &quote[..20], &quote[..27]] {
            assert_eq!(said::read_v4(&error_v4(1400, quote)), None, "{protocol}");
        }
    }
    let mut broken = good.clone();
    broken[27] ^= 1;
    assert_eq!(said::read_v4(&broken), None, "its checksum is wrong");
    for (mtu, ports) in [(1500, PORTS), (1400, [40_000, 4789])] {
        assert_eq!(said::read_v4(&error_v4(mtu, &quote_v4(1500, 17, ports))), None);
    }
    for length in 0..56 {
        assert_eq!(said::read_v4(&good[..length]), None, "cut to {length}");
    }
    // Over IPv6 everything is quoted.
    let good = error_v6(1400, 1460, 17, PORTS, &vxlan(false));
    let headers = 8 + 40 + 8 + 8 + 14 + 16;
    assert!(said::read_v6(&good[..headers], [0xfe; 16].into()).is_some());
    for length in 0..headers {
        assert_eq!(said::read_v6(&good[..length], [0xfe; 16].into()), None, "cut to {length}");
    }
}

#[test]
fn only_what_we_could_have_sent_counts_and_for_ten_minutes() {
    let start = Instant::now();
    let remote = IpAddr::from(REMOTE);
    let wanted = Wanted {
        remotes: BTreeSet::from([remote]),
        tunnels: [(remote, [TunnelKind::Vxlan { port: 4789, vni: Vni::CALICO }].into())].into(),
        elsewhere: [("10.1.0.0/16".parse().unwrap(), true), ("10.1.0.7/32".parse().unwrap(), false)].into(),
        ..Wanted::default()
    };
    let own = BTreeSet::from([IpAddr::from(OWN)]);
    let quoted = Quoted::Vxlan { port: 4789, vni: None };
    let good = Said { source: OWN.into(), remote, quoted, inner: None, mtu: 1400, by: ROUTER.into() };
    let in_ip = Said { quoted: Quoted::IpIp, ..good };
    let mut paths = PathMtus::default();
    for other in [
        Said { source: [9; 4].into(), ..good },
        Said { remote: [9; 4].into(), ..good },
        Said { quoted: Quoted::Vxlan { port: 4790, vni: None }, ..good },
        Said { quoted: Quoted::Vxlan { port: 4789, vni: Some(1) }, ..good },
        Said { inner: Some([10, 1, 0, 8].into()), ..good },
        in_ip,
    ] {
        assert!(!paths.take(&other, &wanted, &own, start), "{other:?}");
        assert_eq!(paths.of(remote, start), None);
    }
    for whole in [
        Said { quoted: Quoted::Vxlan { port: 4789, vni: Some(4096) }, inner: Some(POD.into()), ..good },
        Said { inner: Some(OWN.into()), ..good },
    ] {
        assert!(PathMtus::default().take(&whole, &wanted, &own, start), "{whole:?}");
    }
    // The node's kernel may pass on what others send it; what is on another node comes from there.
    let inner = |inner: [u8; 4]| Said { inner: Some(inner.into()), ..good };
    assert!(PathMtus::default().take(&inner([198, 51, 100, 1]), &wanted, &own, start));
    let by_ip = Wanted { tunnels: [(remote, [TunnelKind::IpIp].into())].into(), ..wanted.clone() };
    assert!(PathMtus::default().take(&in_ip, &by_ip, &own, start));
    assert!(!PathMtus::default().take(&good, &by_ip, &own, start));
    assert!(paths.take(&good, &wanted, &own, start));
    assert_eq!(paths.of(remote, start), Some(1400));
    let known = PathMtu { mtu: 1400, by: ROUTER.into(), until: start + KEPT };
    assert_eq!(paths.all(), &BTreeMap::from([(remote, known)]));
    // A narrower place further on; what is wider says nothing new.
    let later = start + Duration::from_secs(100);
    assert!(paths.take(&Said { mtu: 1300, ..good }, &wanted, &own, later));
    assert!(!paths.take(&good, &wanted, &own, later));
    assert_eq!((paths.of(remote, later), paths.next()), (Some(1300), Some(later + KEPT)));
    // Said again, it counts for longer.
    let again = later + Duration::from_secs(100);
    assert!(!paths.take(&Said { mtu: 1300, ..good }, &wanted, &own, again));
    assert_eq!(paths.of(remote, later + KEPT), Some(1300));
    assert_eq!(paths.of(remote, again + KEPT), None);
    paths.expire(&wanted, again);
    assert_eq!(paths.of(remote, again), Some(1300));
    paths.expire(&Wanted::default(), again);
    assert_eq!((paths.of(remote, again), paths.next()), (None, None));
}

#[tokio::test]
async fn a_path_that_narrows_again_and_again_is_looked_at_when_it_is_time() {
    use tokio::time::timeout;
    let remote = IpAddr::from(REMOTE);
    let wanted = Wanted {
        remotes: BTreeSet::from([remote]),
        tunnels: [(remote, [TunnelKind::Vxlan { port: 4789, vni: Vni::CALICO }].into())].into(),
        ..Wanted::default()
    };
    let own = BTreeSet::from([IpAddr::from(OWN)]);
    let (theirs, ours) = std::os::unix::net::UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let errors = Errors { sockets: vec![(false, icmp::readable(ours.into()).unwrap())] };
    let (_sender, wanted) = watch::channel(wanted);
    let mut paths = PathMtus::default();
    let quote = [&quote_v4(1500, 17, PORTS)[..], &vxlan(false)].concat();
    let says = |mtu| theirs.send(&error_v4(mtu, &quote)).unwrap();
    let (soon, never) = (Duration::from_millis(20), Instant::now() + Duration::from_secs(86_400));
    // Long before its time it waits, reads all the same, and keeps the narrowest.
    for mtu in [1400, 1300, 1200] {
        says(mtu);
        while paths.of(remote, Instant::now()) != Some(mtu) {
            let narrowed = timeout(soon, errors.narrow(&mut paths, &wanted, Some(&own), never)).await;
            assert!(narrowed.is_err(), "{mtu}");
        }
    }
    // Nothing more comes, and it ends when its time comes; the first is told at once.
    for (mtu, not_before) in [(1100, Instant::now() + soon), (1000, Instant::now())] {
        says(mtu);
        errors.narrow(&mut paths, &wanted, Some(&own), not_before).await;
        assert!(Instant::now() >= not_before);
        assert_eq!(paths.of(remote, Instant::now()), Some(mtu));
    }
}
