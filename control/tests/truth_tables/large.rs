//! Policies that are large without being wrong: as many rules as nobody writes by hand, sets of addresses by the ten
//! thousand, selectors that match everything. Every way to a verdict takes them.

use serde_json::{Value, json};

use crate::cases::{check_alone, check_judged};
use crate::report::Report;
use crate::scene::{self, End, Expected, PodSpec, Probe, SCTP, SOURCE_PORT, Scene, TCP, UDP, Who};

const RULES: u32 = 10_000;
const NETS: u32 = 20_000;
const PODS: u32 = 10_000;
/// Those of them on the node that is asked; the others are elsewhere.
const PODS_HERE: u32 = 40;

pub(crate) fn check(report: &mut Report) {
    for scene in [one_policy(), one_set(), everything()] {
        begin(&scene, report);
        check_alone(&scene, report);
    }
    let scene = all_pods();
    begin(&scene, report);
    check_judged(&scene, report);
}

fn begin(scene: &Scene, report: &mut Report) {
    report.cases += 1;
    report.states += 1;
    report.probes += scene.probes.len();
}

/// `100.64.0.0` and on: a client each.
fn client(number: u32) -> String {
    std::net::Ipv4Addr::from_bits((100 << 24 | 64 << 16) + number).to_string()
}

/// A pod, clients of the world, and who of them may reach it where.
fn scene(name: &str, objects: Vec<Value>, asked: &[(u32, u8, u16, bool)]) -> Scene {
    let labels = json!({"app": "web"});
    let pod = PodSpec {
        namespace: "a",
        name: "web",
        labels: &labels,
        ports: &[],
        node: "n0",
        address: "10.0.0.1".parse().unwrap(),
        host_network: false,
        service_account: "",
    };
    let mut all = vec![scene::node(0, "n0", &json!({})), scene::namespace("a", &json!({}))];
    all.extend(pod.objects(0));
    all.extend(objects);
    let world =
        |number| End { who: Who::World, address: client(number).parse().unwrap(), node: String::new() };
    let ends = asked.iter().map(|(number, ..)| world(*number)).chain([pod.end()]).collect();
    let to = asked.len();
    let probe = |(from, (_, protocol, port, allowed)): (usize, &(u32, u8, u16, bool))| Probe {
        from,
        to,
        protocol: *protocol,
        port: *port,
        source_port: SOURCE_PORT,
        expected: Expected::new(*allowed),
    };
    Scene { name: name.to_owned(), objects: all, probes: asked.iter().enumerate().map(probe).collect(), ends }
}

fn port(rule: u32) -> u16 {
    u16::try_from(1000 + rule % 50_000).unwrap()
}

/// 10,000 rules in one policy, each for a client and a port of its own.
fn one_policy() -> Scene {
    let rule = |number: u32| {
        let block = json!({"ipBlock": {"cidr": format!("{}/32", client(number))}});
        json!({"from": [block], "ports": [{"protocol": "UDP", "port": port(number)}]})
    };
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "a", "name": "large"},
        "spec": {"podSelector": {}, "ingress": (0..RULES).map(rule).collect::<Vec<_>>()},
    });
    let asked = [0, 1, RULES / 2, RULES - 1, RULES].map(|number| {
        let is_client = number < RULES;
        [
            (number, UDP, port(number), is_client),
            (number, UDP, port(number + 1), false),
            (number, TCP, port(number), false),
        ]
    });
    scene("10,000 rules in one policy", vec![policy], &asked.concat())
}

/// A set of 20,000 CIDRs, every second address, which a rule allows by its label.
fn one_set() -> Scene {
    let nets: Vec<_> = (0..NETS).map(|number| format!("{}/32", client(2 * number))).collect();
    let set = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": "feed", "labels": {"kind": "feed"}}, "spec": {"nets": nets},
    });
    let policy = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "feed"},
        "spec": {"selector": "all()", "ingress": [{"action": "Allow", "source": {"selector": "kind == 'feed'"}}]},
    });
    let last = 2 * NETS - 2;
    let asked = [(0, TCP, 80, true), (1, TCP, 80, false), (last, SCTP, 9, true), (last + 1, UDP, 9, false)];
    scene("20,000 addresses in a set", vec![set, policy], &asked)
}

/// Selectors that match everything, on both sides of a rule.
fn everything() -> Scene {
    let rule = |action: &str, rest: Value| {
        let mut rule = json!({"action": action, "source": {}, "destination": {"selector": "all()"}});
        rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        rule
    };
    let deny = rule("Deny", json!({"protocol": "TCP"}));
    let allow = rule("Allow", json!({"source": {"notSelector": "!all()"}}));
    let policy = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "everything"},
        "spec": {"selector": "all()", "namespaceSelector": "all()", "ingress": [deny, allow]},
    });
    let asked = [(0, TCP, 80, false), (1, UDP, 80, true), (2, SCTP, 80, true)];
    scene("a selector that matches everything", vec![policy], &asked)
}

/// As many pods, each with a label of its own, under one policy, which selects them all and speaks of them all: one of
/// them may reach none, the others all.
fn all_pods() -> Scene {
    let outcast = 7_777;
    let mut objects = vec![
        scene::node(0, "n0", &json!({})),
        scene::namespace("a", &json!({"all": "yes"})),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"namespace": "a", "name": "all"},
            "spec": {"selector": "all()", "types": ["Ingress"], "ingress": [
                {"action": "Deny", "source": {"selector": format!("number == 'p{outcast}'")}},
                {"action": "Allow", "protocol": "UDP", "source": {"selector": "has(number)"}},
            ]},
        }),
    ];
    let names: Vec<(String, Value)> = (0..PODS)
        .map(|number| (format!("p{number}"), json!({"number": format!("p{number}"), "app": "web"})))
        .collect();
    let mut ends = Vec::new();
    for (number, (name, labels)) in (0..PODS).zip(&names) {
        let is_here = number < PODS_HERE;
        let pod = PodSpec {
            namespace: "a",
            name,
            labels,
            ports: &[],
            node: if is_here { "n0" } else { "n1" },
            address: std::net::Ipv4Addr::from_bits((10 << 24) + 256 + number).into(),
            host_network: false,
            service_account: "",
        };
        let mut made = pod.objects(number as usize % 250);
        if !is_here {
            // Attached nowhere that is known of: its address is in its status.
            made.truncate(1);
            made[0]["spec"]["nodeName"].take();
        }
        objects.extend(made);
        ends.push(pod.end());
    }
    ends.push(End { who: Who::World, address: client(0).parse().unwrap(), node: "n0".to_owned() });
    let (last, world) = (PODS - 1, PODS);
    let asked = [
        (0, 1, UDP, true),
        (0, 1, TCP, false),
        (last, PODS_HERE - 1, UDP, true),
        (outcast, 0, UDP, false),
        (outcast + 1, 0, UDP, true),
        (world, 0, UDP, false),
        (0, world, UDP, true),
    ];
    let probe = |(from, to, protocol, allowed): (u32, u32, u8, bool)| Probe {
        from: from as usize,
        to: to as usize,
        protocol,
        port: 80,
        source_port: SOURCE_PORT,
        expected: Expected::new(allowed),
    };
    let probes = asked.into_iter().map(probe).collect();
    Scene { name: "10,000 pods under one policy".to_owned(), objects, probes, ends }
}
