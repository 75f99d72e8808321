//! `domainNames`: a pod may send to the addresses that DNS told it of, and to no other.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{FAMILIES, Scene, V4, V6, must, scene};
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::topology::Topology;
use vswitch_testbeds::traffic::dns::{DnsServer, look_up};

const NAMES: &str = "app/names";
const SERVER: &str = "app/server";
const CLIENT: &str = "app/client";
const OTHER: &str = "app/other";

/// The client on another node than those it speaks to.
fn topology() -> Topology {
    Topology::two_nodes()
        .namespace("app", &[])
        .pod(NAMES, "node1", &[("role", "names")])
        .pod(SERVER, "node1", &[("role", "server")])
        .pod(CLIENT, "node2", &[("role", "client")])
        .pod(OTHER, "node2", &[("role", "client")])
}

const GUARD: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: { name: guard }
spec:
  tier: Admin
  priority: 5
  subject: { pods: { namespaceSelector: {}, podSelector: { matchLabels: { role: client } } } }
  egress:
    - action: Accept
      to: [ { pods: { namespaceSelector: {}, podSelector: { matchLabels: { role: names } } } } ]
      protocols: [ { udp: { destinationPort: { number: 53 } } } ]
    - action: Accept
      to: [ { domainNames: [ sip.example.org, '*.media.example.org' ] } ]
    - { action: Deny, to: [ { networks: [ 0.0.0.0/0, '::/0' ] } ] }
";

/// Asks for a name that gives an address not known yet, and sends to it at once: no packet is denied. On a machine so busy
/// that the address was not in force in time, people are told.
fn first_packet_passes(scene: &Scene, ask: impl Fn() -> Vec<IpAddr>, to: SocketAddr) {
    let engine = must(must(scene.node("node2")).engine());
    let before = must(engine.drops("policy-egress"));
    assert_eq!(ask(), [to.ip()]);
    scene.becomes("what was learned to be in force", || scene.udp(CLIENT, to));
    if must(engine.drops("policy-egress")) > before {
        assert_eq!(ask(), [to.ip()]);
        let late = "answers of DNS that pods got before what they say was in force";
        scene.becomes("the late answer to be told", || vsctl(scene, &["status"]).contains(late));
    }
}

fn vsctl(scene: &Scene, arguments: &[&str]) -> String {
    must(must(scene.node("node2")).vsctl(arguments))
}

#[test]
fn a_pod_reaches_what_dns_told_it_of() {
    let Some(mut scene) = scene("tnames", topology(), Settings::default()) else { return };
    let _echo = scene.serve(SERVER, &[5060]);
    let of = |family: IpAddr| must(scene.address(SERVER, family));
    let known = [
        ("sip.example.org", of(V4), 300),
        ("a.media.example.org", of(V6), 300),
        ("www.example.org", of(V6), 300),
    ];
    let names = &must(scene.pod(NAMES)).netns;
    let _servers =
        FAMILIES.map(|family| must(DnsServer::serve(names, must(scene.address(NAMES, family)), &known)));
    must(scene.apply(GUARD));
    let at = FAMILIES.map(|family| scene.at(SERVER, family, 5060));
    scene.becomes("the policy to be in force", || scene.udp_denied(CLIENT, at[0]));
    scene.in_force();
    let ask = |family: IpAddr, name: &str| {
        must(look_up(&must(scene.pod(CLIENT)).netns, must(scene.address(NAMES, family)), name))
    };
    assert!(vsctl(&scene, &["get", "domains"]).contains("never learned"));

    // A name that no rule has opens nothing, whatever is asked for.
    assert_eq!(ask(V6, "www.example.org"), [at[1].ip()]);
    assert_eq!(ask(V4, "none.example.org"), [] as [IpAddr; 0]);
    assert!(at.iter().all(|to| scene.udp_denied(CLIENT, *to)));

    first_packet_passes(&scene, || ask(V4, "sip.example.org"), at[0]);
    assert!(scene.tcp(CLIENT, at[0]) && scene.udp_denied(CLIENT, at[1]));
    assert!(scene.udp(OTHER, at[0]), "another pod of the node that the policy selects");
    first_packet_passes(&scene, || ask(V6, "a.media.example.org"), at[1]);

    let listed = vsctl(&scene, &["get", "domains"]);
    for (name, to) in [("sip.example.org", at[0]), ("a.media.example.org", at[1])] {
        let line = listed.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{listed}"));
        assert!(line.contains(&to.ip().to_string()) && line.contains("ClusterNetworkPolicy guard"), "{line}");
    }
    let said = vsctl(&scene, &["explain", CLIENT, &at[0].ip().to_string(), "5060/udp"]);
    assert!(said.contains("is sip.example.org, as DNS told"), "{said}");

    // The agent starts anew; what the pod knows it may still use.
    let node = must(scene.node_mut("node2"));
    must(node.stop_agent());
    must(node.start_agent());
    must(node.wait_agent());
    scene.in_force();
    assert!(at.iter().all(|to| scene.udp(CLIENT, *to)));
    scene.no_frame_is_lost();
    scene.stops_whole();
}
