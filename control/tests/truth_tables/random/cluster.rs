//! Random nodes, namespaces and pods, who else there is, and random flows between them all.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::dice::Dice;
use crate::scene::{self, End, Expected, ICMP, ICMPV6, PodSpec, Probe, SCTP, TCP, UDP, Who};

pub(super) const NAMESPACES: [&str; 3] = ["a", "b", "c"];
pub(super) const ACCOUNTS: [&str; 3] = ["default", "web", "batch"];
const NODES: [&str; 3] = ["n0", "n1", "n2"];
const PODS: usize = 9;
/// Generic routing encapsulation, which has no ports.
pub(super) const GRE: u8 = 47;
/// And UDP-Lite, whose ports are not compared.
const NO_PORTS: [u8; 2] = [GRE, 136];
/// Queries of ICMP, as `type << 8 | code`: echo, timestamp, information, address mask.
pub(super) const MESSAGES_V4: [u16; 6] = [8 << 8, 8 << 8 | 1, 13 << 8, 13 << 8 | 1, 15 << 8, 17 << 8];
/// Of ICMPv6: echo, extended echo.
pub(super) const MESSAGES_V6: [u16; 6] =
    [128 << 8, 128 << 8 | 1, 128 << 8 | 2, 160 << 8, 160 << 8 | 1, 160 << 8 | 2];

/// Where rules about source ports begin and end, and what has names.
const SOURCE_PORTS: [u16; 10] = [53, 80, 81, 1023, 1024, 3868, 8080, 9000, 9001, 65_535];

/// What a cluster has besides its policies.
pub(super) struct Cluster {
    pub(super) objects: Vec<Value>,
    pub(super) ends: Vec<End>,
    pub(super) is_ipv4: bool,
}

impl Cluster {
    pub(super) fn roll(dice: &mut Dice, is_ipv4: bool) -> Self {
        let mut objects: Vec<Value> = Vec::new();
        for (number, name) in NODES.iter().enumerate() {
            let labels = labels(dice, &[("zone", "east"), ("zone", "west"), ("gpu", "yes")]);
            objects.push(scene::node(number, name, &labels));
        }
        for namespace in NAMESPACES {
            let labels = labels(dice, &[("env", "prod"), ("env", "dev"), ("team", "red")]);
            objects.push(scene::namespace(namespace, &labels));
            for account in ACCOUNTS {
                let labels = super::cluster::labels(dice, &[("level", "high"), ("level", "low")]);
                objects.push(json!({
                    "apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"namespace": namespace, "name": account, "labels": labels},
                }));
            }
        }
        let mut cluster = Self { objects, ends: Vec::new(), is_ipv4 };
        (0..PODS).for_each(|number| cluster.add_pod(dice, number));
        let others: &[&str] = if is_ipv4 {
            &["198.51.100.7", "198.51.100.200", "203.0.113.1", "10.0.0.99"]
        } else {
            &["2001:db8::7", "2001:db8:0:1::7", "fd10::99"]
        };
        for address in others {
            let end = End { who: Who::World, address: address.parse().unwrap(), node: String::new() };
            cluster.ends.push(end);
        }
        if is_ipv4 {
            for (number, name) in NODES.iter().enumerate() {
                let end =
                    End { who: Who::Node, address: scene::node_address(number), node: (*name).to_owned() };
                cluster.ends.push(end);
            }
        }
        cluster
    }

    fn add_pod(&mut self, dice: &mut Dice, number: usize) {
        let address =
            if self.is_ipv4 { format!("10.0.0.{}", number + 1) } else { format!("fd10::{}", number + 1) };
        let address: IpAddr = address.parse().unwrap();
        let ports = [
            json!({"name": "http", "port": dice.one_of(&[80, 8080]), "protocol": "TCP"}),
            json!({"name": "dns", "port": 53, "protocol": dice.one_of(&["UDP", "TCP"])}),
            json!({"name": "sig", "port": dice.one_of(&[3868, 80]), "protocol": "SCTP"}),
        ];
        let labels =
            labels(dice, &[("app", "web"), ("app", "db"), ("app", "webdb"), ("tier", "1"), ("tier", "2")]);
        let pod = PodSpec {
            namespace: dice.one_of(&NAMESPACES),
            name: &format!("p{number}"),
            labels: &labels,
            ports: &dice.some_of(&ports, 0, 3),
            node: dice.one_of(&NODES),
            address,
            host_network: false,
            service_account: dice.one_of(&["", "web", "batch"]),
        };
        self.ends.push(pod.end());
        self.objects.extend(pod.objects(number));
    }

    /// A flow that crosses the switch: from a pod to anybody, or from anybody outside, or a pod's own node, to it. Most
    /// are of `traffic`, if that is given.
    pub(super) fn probe(&self, dice: &mut Dice, traffic: &[(u8, u16)]) -> Probe {
        let other = dice.roll(self.ends.len());
        let pod = loop {
            let pod = dice.roll(PODS);
            if pod != other {
                break pod;
            }
        };
        let (from, to) =
            if self.comes_in(other, pod) && dice.chance(50) { (other, pod) } else { (pod, other) };
        let is_any = traffic.is_empty() || dice.chance(20);
        let (mut protocol, mut port) = if is_any { packet(dice, self.is_ipv4) } else { dice.one_of(traffic) };
        if NO_PORTS.contains(&protocol) && from > to {
            // All that two addresses say to each other is one flow then: the other way would be an answer.
            (protocol, port) = (TCP, 80);
        }
        // One way only, or what one says from such a port were an answer to what the other said to it.
        let count = self.ends.len();
        let is_that_way = (count + to - from) % count * 2 < count;
        let source_port =
            if is_that_way && dice.chance(60) { dice.one_of(&SOURCE_PORTS) } else { scene::SOURCE_PORT };
        // To be said by the reference.
        let expected = Expected::new(false);
        Probe { from, to, protocol, port, source_port, expected }
    }

    /// Whether what an end sends to a pod reaches the pod's node as it was sent: other nodes' kernels have ways of
    /// their own.
    fn comes_in(&self, from: usize, to: usize) -> bool {
        self.ends[from].who != Who::Node || self.ends[from].node == self.ends[to].node
    }
}

/// Labels, of each key the last that was chosen.
fn labels(dice: &mut Dice, pairs: &[(&str, &str)]) -> Value {
    let chosen = dice.some_of(pairs, 0, 2);
    chosen
        .into_iter()
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn packet(dice: &mut Dice, is_ipv4: bool) -> (u8, u16) {
    let ports = [53, 80, 443, 3868, 5060, 8080, 40_001];
    match dice.roll(20) {
        0..=6 => (TCP, dice.one_of(&ports)),
        7..=11 => (UDP, dice.one_of(&ports)),
        12..=14 => (SCTP, dice.one_of(&ports)),
        15..=18 if is_ipv4 => (ICMP, dice.one_of(&MESSAGES_V4)),
        15..=18 => (ICMPV6, dice.one_of(&MESSAGES_V6)),
        _ => (dice.one_of(&NO_PORTS), 0),
    }
}
