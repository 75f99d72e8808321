//! Desired states that tests of several modules share.

use vswitch_model::{
    Attachment, DesiredState, Dscp, Identity, IdentityId, IdentityKind, Local, Mac, NextHop, PodTunnels,
    Port, PortName, VxlanNetwork,
};

/// A port named `name` whose pod has `addresses`; its MAC is made of the first one.
pub(crate) fn port(name: &str, addresses: &[&str]) -> Port {
    let name = PortName::new(name).unwrap();
    let addresses: Vec<std::net::IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let mac = match addresses[0] {
        std::net::IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Mac([0x02, 0, a, b, c, d])
        }
        std::net::IpAddr::V6(address) => {
            let bytes = address.octets();
            Mac([0x02, 0, bytes[12], bytes[13], bytes[14], bytes[15]])
        }
    };
    let attachment = Attachment::Veth { interface: name.clone(), netns: None };
    Port { name, attachment, mac, addresses, mtu: 1450, workload: "default/pod".into() }
}

/// Node `one` with a host address and the default routes, and no pods.
pub(crate) fn empty_node() -> DesiredState {
    let mut state = DesiredState {
        local: Some(Local {
            node: "one".into(),
            underlay_v4: Some("192.0.2.1".parse().unwrap()),
            underlay_v6: None,
            networks: vec![VxlanNetwork::calico("one")],
            dscp: Dscp::Inherit,
            pod_tunnels: PodTunnels::default(),
            host_addresses: vec!["10.1.0.1".parse().unwrap()],
            host_routes: vec!["10.1.0.0/16".parse().unwrap()],
            host_mtu: 1450,
        }),
        ..DesiredState::default()
    };
    for (id, kind) in [(16, IdentityKind::Pod), (17, IdentityKind::LocalNode)] {
        let identity = Identity { id: IdentityId(id), kind, description: format!("identity {id}") };
        state.identities.insert(identity.id, identity);
    }
    state.prefixes.insert("10.1.0.1/32".parse().unwrap(), IdentityId(17));
    state.routes.insert("0.0.0.0/0".parse().unwrap(), NextHop::Host);
    state.routes.insert("::/0".parse().unwrap(), NextHop::Host);
    state
}

/// Adds a pod with identity 16 and its routes.
pub(crate) fn add_pod(state: &mut DesiredState, name: &str, addresses: &[&str]) {
    let port = port(name, addresses);
    for address in &port.addresses {
        let prefix = ipnet::IpNet::from(*address);
        state.prefixes.insert(prefix, IdentityId(16));
        state.routes.insert(prefix, NextHop::Port(port.name.clone()));
    }
    state.ports.insert(port.name.clone(), port);
}

/// A node with the pod `pod-a` at 10.1.0.10.
pub(crate) fn one_pod() -> DesiredState {
    let mut state = empty_node();
    add_pod(&mut state, "pod-a", &["10.1.0.10"]);
    state
}
