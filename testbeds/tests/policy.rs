//! NetworkPolicy as packets feel it: selectors, ports and ranges, ipBlock with except, replies, both families, on one
//! node and across two, and changes while flows live.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{FAMILIES, SOON, Scene, V4, must, scene};
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::command::wait_until;
use vswitch_testbeds::topology::Topology;
use vswitch_testbeds::traffic::ping::{Ping, all_answered};
use vswitch_testbeds::traffic::probe::{any, udp_socket};

const SERVER: &str = "app/server";
const PORTS: [u16; 5] = [80, 4999, 5000, 5100, 5101];

fn topology() -> Topology {
    Topology::two_nodes()
        .namespace("app", &[("team", "a")])
        .namespace("other", &[("team", "b")])
        .pod(SERVER, "node1", &[("role", "server")])
        .pod("app/client", "node1", &[("role", "client")])
        .pod("app/remote", "node2", &[("role", "client")])
        .pod("app/plain", "node2", &[("role", "plain")])
        .pod("other/foreign", "node2", &[("role", "client")])
}

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: server, namespace: app }
spec:
  podSelector: { matchLabels: { role: server } }
  ingress:
    - from: [ { podSelector: { matchLabels: { role: client } } } ]
      ports:
        - { protocol: TCP, port: 80 }
        - { protocol: UDP, port: 5000, endPort: 5100 }
    - from: [ { namespaceSelector: { matchLabels: { team: b } } } ]
      ports: [ { protocol: TCP, port: 4999 } ]
";

/// Whether a client may reach the server, by protocol and port.
fn expected(client: &str, tcp: bool, port: u16) -> bool {
    match client {
        "app/client" | "app/remote" => (tcp && port == 80) || (!tcp && (5000..=5100).contains(&port)),
        "other/foreign" => tcp && port == 4999,
        _ => false,
    }
}

fn matrix(scene: &Scene, expected: impl Fn(&str, bool, u16) -> bool) {
    for client in ["app/client", "app/remote", "app/plain", "other/foreign"] {
        for family in FAMILIES {
            for port in PORTS {
                let to = scene.at(SERVER, family, port);
                for tcp in [true, false] {
                    let seen = match (expected(client, tcp, port), tcp) {
                        (true, true) => scene.tcp(client, to),
                        (true, false) => scene.udp(client, to),
                        (false, true) => !scene.tcp_denied(client, to),
                        (false, false) => !scene.udp_denied(client, to),
                    };
                    assert_eq!(seen, expected(client, tcp, port), "{client} to {to}, tcp: {tcp}");
                }
            }
        }
    }
}

#[test]
fn who_may_reach_whom() {
    let Some(mut scene) = scene("tpolicy", topology(), Settings::default()) else { return };
    let _servers = scene.serve(SERVER, &PORTS);
    let _clients = scene.serve("app/client", &[9]);
    matrix(&scene, |_, _, _| true);

    must(scene.apply(INGRESS));
    scene.becomes("the policy to be in force", || scene.udp_denied("app/plain", scene.at(SERVER, V4, 80)));
    scene.in_force();
    matrix(&scene, expected);
    // Replies come back although nothing admits them at the client's end, where egress alone is restricted; and the
    // server, isolated for ingress only, may begin flows of its own.
    assert!(scene.udp(SERVER, scene.at("app/client", V4, 9)));
    // The node reaches its own pods, whatever their policies: probes.
    for family in FAMILIES {
        must(all_answered(must(scene.netns("node1")), &Ping::to(must(scene.address(SERVER, family)))));
    }
    assert!(
        vswitch_testbeds::traffic::ping::ping(
            &must(scene.pod("app/plain")).netns,
            &Ping::to(must(scene.address(SERVER, V4)))
        )
        .is_ok_and(|pinged| pinged.received == 0)
    );
}

#[test]
fn an_ip_block_lets_out_all_but_what_it_excepts() {
    let Some(mut scene) = scene("tblock", topology(), Settings::default()) else { return };
    let _servers = scene.serve(SERVER, &[80]);
    let _others = scene.serve("app/client", &[80]);
    let [server, client] = [SERVER, "app/client"].map(|pod| must(scene.address(pod, V4)));
    must(scene.apply(&format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ name: plain, namespace: app }}
spec:
  podSelector: {{ matchLabels: {{ role: plain }} }}
  policyTypes: [Egress]
  egress:
    - to: [ {{ ipBlock: {{ cidr: 10.44.0.0/16, except: [ {server}/32 ] }} }} ]
"
    )));
    scene.becomes("the policy to be in force", || scene.udp_denied("app/plain", (server, 80).into()));
    scene.in_force();
    assert!(scene.udp("app/plain", (client, 80).into()));
    assert!(scene.tcp("app/plain", (client, 80).into()));
    assert!(scene.tcp_denied("app/plain", (server, 80).into()));
    // A block of one family admits nothing of the other.
    assert!(scene.udp_denied("app/plain", scene.at("app/client", common::V6, 80)));
    // Others are not touched.
    assert!(scene.udp("app/remote", (server, 80).into()));
}

#[test]
fn a_change_of_labels_reaches_flows_that_live() {
    let Some(mut scene) = scene("tlabels", topology(), Settings::default()) else { return };
    let _servers = scene.serve(SERVER, &[5000]);
    must(scene.apply(INGRESS));
    let target = scene.at(SERVER, V4, 5000);
    scene.becomes("the policy to be in force", || scene.udp_denied("app/plain", target));
    scene.in_force();
    assert!(scene.udp("app/remote", target));

    // One socket, one flow, through two changes of its pod's labels.
    let socket = must(udp_socket(&must(scene.pod("app/remote")).netns, SocketAddr::new(any(target.ip()), 0)));
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let passes = || {
        let mut buffer = [0; 16];
        // Late answers of earlier attempts say nothing about now.
        socket.set_nonblocking(true).unwrap();
        while socket.recv_from(&mut buffer).is_ok() {}
        socket.set_nonblocking(false).unwrap();
        socket.send_to(b"hello", target).is_ok() && socket.recv_from(&mut buffer).is_ok()
    };
    must(wait_until("the flow to pass", SOON, passes));
    let pod = |role: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: remote\n  namespace: app\n  labels:\n    role: {role}\nspec:\n  nodeName: node2\n"
        )
    };
    must(scene.apply(&pod("plain")));
    must(wait_until("the flow to be cut", SOON, || !passes()));
    must(scene.apply(&pod("client")));
    must(wait_until("the flow to pass again", SOON, passes));
}
