//! Tables that follow changes of everything that is no policy: the same way to every address, and the same identity.

use proptest::prelude::*;
use vswitch_model::{
    Attachment, Dscp, Encapsulation, Identity, IdentityId, IdentityKind, Local, NextHop, PodTunnels, Port,
    Tunnel, TunnelId, Vni, VxlanNetwork,
};

use super::*;

const PODS: u8 = 4;

/// One thing that may change, whether of the desired state or of what is around it.
#[derive(Debug, Clone)]
enum Edit {
    /// Last byte of the address, length, identity; None: removed.
    Prefix(u8, u8, Option<u32>),
    /// The same with a next hop.
    Route(u8, u8, Option<u8>),
    /// Set or removed, with its routes.
    Pod(u8, bool),
    Tunnel(u8),
    Local(u16),
    Open(u8, bool),
    /// This many next hops to the tunnel's end.
    Hops(u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let length = || prop_oneof![Just(0u8), Just(8), Just(24), Just(30), Just(32)];
    prop_oneof![
        8 => (0u8..16, length(), proptest::option::of(16u32..20)).prop_map(|(a, b, c)| Edit::Prefix(a, b, c)),
        3 => (0u8..16, length(), proptest::option::of(0u8..4)).prop_map(|(a, b, c)| Edit::Route(a, b, c)),
        1 => (0..PODS, any::<bool>()).prop_map(|(pod, is_there)| Edit::Pod(pod, is_there)),
        1 => (0u8..2).prop_map(Edit::Tunnel),
        1 => (1400u16..1402).prop_map(Edit::Local),
        1 => (0..PODS, any::<bool>()).prop_map(|(pod, open)| Edit::Open(pod, open)),
        1 => (0u8..4).prop_map(Edit::Hops),
    ]
}

fn name(pod: u8) -> PortName {
    PortName::new(format!("pod{pod}")).unwrap()
}

/// The same place in both families.
fn nets(last: u8, length: u8) -> [ipnet::IpNet; 2] {
    let v4 = ipnet::Ipv4Net::new([10, 0, 0, last].into(), length).unwrap();
    let v6 = ipnet::Ipv6Net::new([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(), length * 4).unwrap();
    [v4.trunc().into(), v6.trunc().into()]
}

struct World {
    desired: DesiredState,
    ports: PortMap,
    underlay: Underlay,
}

impl World {
    fn new() -> Self {
        let mut desired = DesiredState::default();
        for id in (16..20).map(IdentityId) {
            let identity = Identity { id, kind: IdentityKind::Pod, description: String::new() };
            desired.identities.insert(id, identity);
        }
        let mut world = Self { desired, ports: PortMap::new(), underlay: Underlay::default() };
        for edit in
            [Edit::Tunnel(0), Edit::Pod(0, true), Edit::Pod(1, true), Edit::Open(0, true), Edit::Hops(1)]
        {
            world.make(&edit);
        }
        world
    }

    fn make(&mut self, edit: &Edit) {
        match edit {
            Edit::Prefix(last, length, identity) => {
                // One family more often than both.
                for net in nets(*last, *length).into_iter().take(1 + usize::from(last % 2)) {
                    match identity {
                        Some(id) => drop(self.desired.prefixes.insert(net, IdentityId(*id))),
                        None => drop(self.desired.prefixes.remove(&net)),
                    }
                }
            }
            Edit::Route(last, length, hop) => {
                for net in nets(*last, *length) {
                    let next_hop = match hop {
                        Some(0) => NextHop::Tunnel(TunnelId(0)),
                        Some(1) => NextHop::Host,
                        Some(2) => NextHop::Direct("192.0.2.7".parse().unwrap()),
                        Some(_) => NextHop::Unreachable,
                        None => {
                            self.desired.routes.remove(&net);
                            continue;
                        }
                    };
                    self.desired.routes.insert(net, next_hop);
                }
            }
            Edit::Pod(pod, is_there) => self.set_pod(*pod, *is_there),
            Edit::Tunnel(mac) => {
                let (id, remote) = (TunnelId(0), "192.0.2.9".parse().unwrap());
                let remote_mac = Mac([2, 0, 0, 0, 0, *mac]);
                let encapsulation = match mac % 2 {
                    0 => Encapsulation::IpIp,
                    _ => Encapsulation::Vxlan { vni: Vni::CALICO, port: 4789, remote_mac },
                };
                self.desired.tunnels.insert(id, Tunnel { id, node: "two".into(), remote, encapsulation });
            }
            Edit::Local(host_mtu) => {
                self.desired.local = Some(Local {
                    node: "one".into(),
                    underlay_v4: Some("192.0.2.1".parse().unwrap()),
                    underlay_v6: None,
                    networks: vec![VxlanNetwork::calico("one")],
                    dscp: Dscp::Inherit,
                    pod_tunnels: PodTunnels::default(),
                    host_addresses: vec![IpAddr::from([10, 0, 0, (host_mtu % 2) as u8])],
                    host_routes: Vec::new(),
                    host_mtu: *host_mtu,
                });
            }
            Edit::Open(pod, true) => {
                let (index, role) = (PortIndex(u16::from(*pod)), Role::Pod);
                let facts = PortFacts {
                    index,
                    role,
                    mac: Mac::default(),
                    mtu: 0,
                    finishes_checksums: false,
                    takes_large: false,
                };
                self.ports.insert(name(*pod), facts);
            }
            Edit::Open(pod, false) => drop(self.ports.remove(&name(*pod))),
            Edit::Hops(count) => {
                let hop = |number| {
                    let (dst_mac, src_mac) = (Mac([2, 0, 0, 0, 9, number]), Mac([2, 0, 0, 0, 0, 8]));
                    Hop { port: PortIndex(9), dst_mac, src_mac, mtu: 1500, weight: 1, on_link: number == 0 }
                };
                let hops = (0..*count).map(hop).collect();
                self.underlay.hops.insert("192.0.2.9".parse().unwrap(), hops);
            }
        }
    }

    fn set_pod(&mut self, pod: u8, is_there: bool) {
        let nets = nets(pod, 32);
        if !is_there {
            self.desired.ports.remove(&name(pod));
            self.desired.routes.retain(|_, hop| *hop != NextHop::Port(name(pod)));
            return;
        }
        let port = Port {
            name: name(pod),
            attachment: Attachment::Veth { interface: name(pod), netns: None },
            mac: Mac([2, 0, 0, 0, 1, pod]),
            addresses: nets.iter().map(ipnet::IpNet::addr).collect(),
            mtu: 1400,
            workload: String::new(),
        };
        for net in nets {
            self.desired.routes.insert(net, NextHop::Port(port.name.clone()));
        }
        self.desired.ports.insert(port.name.clone(), port);
    }

    fn inputs(&self, revision: u64) -> CompileInputs<'_> {
        CompileInputs {
            generation: Generation(revision),
            revision: Revision(revision),
            desired: &self.desired,
            ports: &self.ports,
            underlay: &self.underlay,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn ways_that_follow_are_those_made_anew(
        steps in proptest::collection::vec(proptest::collection::vec(edit(), 0..3), 1..8),
    ) {
        let (mut compiler, mut world) = (Compiler::new(), World::new());
        compiler.compile(&world.inputs(1), None).unwrap();
        for (revision, edits) in (2u64..).zip(steps) {
            let before = world.desired.clone();
            edits.iter().for_each(|edit| world.make(edit));
            world.desired.check().unwrap();
            let touched = Touched::of(&before.changes_to(&world.desired));
            let followed = compiler.compile(&world.inputs(revision), Some((&before, &touched))).unwrap();
            let fresh = compile(&world.inputs(revision)).unwrap();
            let found = |tables: &Tables, address: IpAddr| {
                let leaf = tables.lookup(address);
                (tables.members(leaf.adjacency).cloned().collect::<Vec<_>>(), leaf.identity)
            };
            let addresses = (0u8..17).flat_map(|last| nets(last, 32)).map(|net| net.addr());
            for address in addresses.chain(["11.0.0.1", "0.0.0.1", "fe00::", "::1"].map(|a| a.parse().unwrap())) {
                prop_assert_eq!(found(&followed, address), found(&fresh, address), "{}", address);
                prop_assert_eq!(followed.is_own(address), fresh.is_own(address));
            }
            prop_assert_eq!(followed.local(), fresh.local());
            prop_assert!(followed.ports().eq(fresh.ports()));
            let remote = "192.0.2.9".parse().unwrap();
            prop_assert_eq!(followed.tunnel_from(remote), fresh.tunnel_from(remote));
        }
    }
}
