//! What `vsctl` says of flows before, while and after policy meets them: explain, diff, flow-log.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::process::{Child, Stdio};

use common::{SOON, Scene, V4, must, scene};
use serde_json::Value;
use vswitch_testbeds::bed::{Settings, Store};
use vswitch_testbeds::command::{output, wait_until};
use vswitch_testbeds::topology::Topology;
use vswitch_testbeds::traffic::probe::{any, udp_socket};

/// Its answers are part of the documentation.
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../control/README.md");

const RELAY: &str = "media/relay";
const CALLER: &str = "media/caller";
const STRANGER: &str = "guest/stranger";

/// The relay takes calls of callers at one port.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: relay, namespace: media }
spec:
  podSelector: { matchLabels: { app: relay } }
  ingress:
    - from: [ { podSelector: { matchLabels: { app: caller } } } ]
      ports: [ { protocol: UDP, port: 5060 } ]
";

/// One node, so that each pod has the same address in every run.
fn media(id: &str) -> Option<Scene> {
    let topology = Topology::one_node()
        .namespace("media", &[])
        .namespace("guest", &[])
        .pod(RELAY, "node1", &[("app", "relay")])
        .pod(CALLER, "node1", &[("app", "caller")])
        .pod(STRANGER, "node1", &[("app", "stranger")]);
    scene(id, topology, Settings { store: Store::Embedded, ..Settings::default() })
}

/// What a node's `vsctl` says, whatever its exit code.
fn says(scene: &Scene, words: &[&str]) -> String {
    let said = must(output(&mut must(must(scene.node("node1")).vsctl_command(words)), ""));
    assert!(said.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn the_readme_shows_what_explain_says() {
    let Some(mut scene) = media("texplain") else { return };
    must(scene.apply(POLICY));
    scene.in_force();
    let readme = std::fs::read_to_string(README).unwrap();
    let transcripts: Vec<_> = readme.split("```\n$ vsctl explain ").skip(1).collect();
    assert_eq!(
        transcripts.len(),
        3,
        "{README} has a denied call, an allowed one, and one that something else drops"
    );
    let mut wrong = String::new();
    for transcript in transcripts {
        let (shown, _) = transcript.split_once("\n```").unwrap();
        let (words, shown) = shown.split_once('\n').unwrap_or((shown, ""));
        let line: Vec<_> = ["explain"].into_iter().chain(words.split_whitespace()).collect();
        let said = as_shown(&scene, shown, &says(&scene, &line));
        if said.trim_end() != without_numbers(shown) {
            wrong += &format!("\n$ vsctl explain {words}\n{said}");
        }
    }
    assert!(wrong.is_empty(), "{README} should show:{wrong}");
}

/// What was said, with the addresses of pods that `shown` has, and without numbers that are of one run only.
fn as_shown(scene: &Scene, shown: &str, said: &str) -> String {
    let mut text = without_numbers(said);
    for pod in [RELAY, CALLER, STRANGER] {
        let of_pod = shown.split_once(&format!("pod {pod} ")).and_then(|(_, rest)| rest.split_once('('));
        if let Some((_, address)) = of_pod {
            let (address, _) = address.split_once(')').unwrap();
            text = text.replace(&must(scene.address(pod, V4)).to_string(), address);
        }
    }
    text
}

/// Without the numbers of identities and rules: `identity 18`, `rule 16 (`. Those of rules in their policies stay.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("(identity ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += "(identity ";
        plain += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let mut parts = plain.split("by rule ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += "by rule ";
        text += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    text
}

#[test]
fn a_diff_names_the_flows_that_would_be_cut_and_cuts_none() {
    let Some(scene) = media("tdiff") else { return };
    let _servers = scene.serve(RELAY, &[5060, 6000]);
    let flow = |port| {
        let to = scene.at(RELAY, V4, port);
        let socket = must(udp_socket(&must(scene.pod(CALLER)).netns, (any(to.ip()), 0).into()));
        socket.set_read_timeout(Some(SOON)).unwrap();
        let passes = move || {
            let mut buffer = [0; 16];
            socket.send_to(b"hello", to).is_ok() && socket.recv_from(&mut buffer).is_ok()
        };
        assert!(passes(), "to {to}");
        passes
    };
    let (kept, cut) = (flow(5060), flow(6000));
    let file = scene.file("policy.yaml");
    std::fs::write(&file, POLICY).unwrap();
    let node = must(scene.node("node1"));
    let there_is = || {
        let status = must(must(node.engine()).status());
        (must(must(node.agent()).objects("NetworkPolicy")), status.generation_in_force)
    };
    let before = there_is();
    let diff: Value =
        serde_json::from_str(&says(&scene, &["diff", "-f", &file.display().to_string(), "-o", "json"]))
            .unwrap();
    let [change] = diff["changes"].as_array().unwrap().as_slice() else { panic!("{diff:#}") };
    assert_eq!((&change["service"], &change["flows"]), (&"6000/udp".into(), &1.into()), "{diff:#}");
    assert_eq!((&change["allowedNow"], &change["allowedThen"]), (&true.into(), &false.into()));
    for (end, pod) in [("from", CALLER), ("to", RELAY)] {
        assert!(change[end].as_str().unwrap().contains(pod), "{diff:#}");
    }
    assert!(change["reason"].as_str().unwrap().contains("NetworkPolicy media/relay"), "{diff:#}");
    // Nothing has changed by asking.
    assert_eq!(there_is(), before);
    assert!(kept() && cut());
    // It told the truth.
    must(scene.apply(POLICY));
    must(wait_until("the flow to be cut", SOON, || scene.udp_denied(CALLER, scene.at(RELAY, V4, 6000))));
    assert!(kept());
}

#[test]
fn who_is_denied_is_told_as_it_happens() {
    let Some(mut scene) = media("tflowlog") else { return };
    let _servers = scene.serve(RELAY, &[5060]);
    must(scene.apply(POLICY));
    scene.in_force();
    let to = scene.at(RELAY, V4, 5060);
    let address = must(scene.address(STRANGER, V4)).to_string();
    let words = ["flow-log", "--denied", "--address", &address, "--limit", "1", "-o", "json"];
    let mut command = must(must(scene.node("node1")).vsctl_command(&words));
    let mut told = Reaped(command.stdout(Stdio::piped()).spawn().unwrap());
    // It may begin to watch after the first of these; each is a flow of its own.
    must(wait_until("a denied flow to be told", SOON, || {
        assert!(scene.udp(CALLER, to), "who may call does");
        assert!(scene.udp_denied(STRANGER, to));
        told.0.try_wait().unwrap().is_some()
    }));
    let text = std::io::read_to_string(told.0.stdout.take().unwrap()).unwrap();
    let record: Value = serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((&record["source"], &record["sourceName"]), (&address.into(), &STRANGER.into()), "{record:#}");
    assert_eq!((&record["destinationName"], &record["destinationPort"]), (&RELAY.into(), &5060.into()));
    assert_eq!((&record["allowed"], &record["dropReason"]), (&false.into(), &"policy-ingress".into()));
    assert!(record["ingress"].as_str().unwrap().starts_with("denied"), "{record:#}");
}

/// A process that ends when the test does.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _code = self.0.wait();
    }
}
