//! Manifests, as people write them: what is taken, and what an error says of the rest.

use super::manifest::{self, ManifestError, parse};
use super::{Key, Kind, Object, PolicyPort, PolicyType};

fn objects(text: &str) -> Vec<Object> {
    parse("m.yaml", "default", text).unwrap().into_iter().map(|document| document.object).collect()
}

fn error(text: &str) -> ManifestError {
    parse("m.yaml", "default", text).unwrap_err()
}

/// The error of a NetworkPolicy with this spec, in YAML's flow style.
fn policy_error(spec: &str) -> (String, String) {
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\n";
    let e = error(&format!("{head}spec: {spec}"));
    assert_eq!(e.object, "NetworkPolicy x/p");
    (e.field, e.problem)
}

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: relay
  namespace: media
  labels: {team: voice}
  creationTimestamp: null
  resourceVersion: '12'
  managedFields: [{manager: kubectl}]
spec:
  podSelector:
    matchExpressions: [{key: app, operator: In, values: [relay, mixer]}]
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {matchLabels: {role: caller}}
      namespaceSelector: {}
    - ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}
    ports:
    - {protocol: UDP, port: 10000, endPort: 20000}
    - {port: sip}
    - {protocol: SCTP}
  egress:
  - {}
";

#[test]
fn a_whole_network_policy_is_read_and_kept() {
    let [Object::NetworkPolicy(policy)] = &objects(POLICY)[..] else { panic!("not one policy") };
    assert!(policy.isolates(PolicyType::Ingress) && policy.isolates(PolicyType::Egress));
    let rules = policy.rules(PolicyType::Ingress);
    let wanted: Vec<_> = rules[0].ports.iter().map(super::NetworkPolicyPort::wanted).collect();
    assert_eq!(
        wanted,
        [PolicyPort::Range(10000, 20000), PolicyPort::Name("sip"), PolicyPort::Range(0, 65535)]
    );
    assert_eq!(policy.rules(PolicyType::Egress)[0].peers, []);

    let object = Object::from(policy.clone());
    assert_eq!(object.key().to_string(), "networkpolicies/media/relay");
    assert_eq!(Object::from_json(&object.to_json()), Ok(object.clone()));
    let value = object.to_value();
    assert_eq!(value["kind"], "NetworkPolicy");
    assert!(value["metadata"].get("resourceVersion").is_none(), "a server's fields are not ours to keep");
}

#[test]
fn policy_types_have_kubernetes_defaults() {
    let isolates = |spec: &str| {
        let text = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, spec: {spec}}}"
        );
        let [Object::NetworkPolicy(policy)] = &objects(&text)[..] else { panic!("not one policy") };
        assert_eq!(policy.namespace(), "default");
        PolicyType::ALL.map(|direction| policy.isolates(direction))
    };
    assert_eq!(isolates("{podSelector: {}}"), [true, false]);
    assert_eq!(isolates("{podSelector: {}, egress: [{}]}"), [true, true]);
    assert_eq!(isolates("{podSelector: {}, egress: []}"), [true, false]);
    assert_eq!(isolates("{podSelector: {}, policyTypes: [Egress]}"), [false, true]);
    assert_eq!(isolates("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}"), [false, true]);
}

#[test]
fn errors_name_the_field_and_what_would_be_right() {
    for (spec, field, problem) in [
        ("{podSelectr: {}}", "spec.podSelectr", "expected one of `podSelector`"),
        (
            "{ingress: [{from: [{podSelector: {matchLabel: {a: b}}}]}]}",
            "spec.ingress[0].from[0].podSelector.matchLabel",
            "`matchLabels`",
        ),
        ("{ingress: [{from: [{}]}]}", "spec.ingress[0].from[0]", "podSelector, namespaceSelector or ipBlock"),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}",
            "spec.ingress[0].from[0].ipBlock",
            "beside podSelector",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.1/8, except: [10.0.0.9/8]}}]}]}",
            "spec.egress[0].to[0].ipBlock.except[0]",
            "10.0.0.0/8 does not lie strictly within 10.0.0.0/8",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}]}",
            "spec.egress[0].to[0].ipBlock.except[0]",
            "within 10.0.0.0/8",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: ten}}]}]}",
            "spec.egress[0].to[0].ipBlock.cidr",
            "\"ten\" is no range",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1]}}]}]}",
            "spec.egress[0].to[0].ipBlock.except[0]",
            "\"10.0.0.1\" is no range of addresses; 10.0.0.0/8",
        ),
        ("{egress: [{ports: [{port: 0}]}]}", "spec.egress[0].ports[0].port", "1 to 65535"),
        ("{egress: [{ports: [{port: 70000}]}]}", "spec.egress[0].ports[0].port", "1 to 65535"),
        (
            "{egress: [{ports: [{port: 80, endPort: 79}]}]}",
            "spec.egress[0].ports[0].endPort",
            "below port 80",
        ),
        ("{egress: [{ports: [{endPort: 79}]}]}", "spec.egress[0].ports[0].endPort", "needs a port"),
        ("{egress: [{ports: [{port: http, endPort: 90}]}]}", "spec.egress[0].ports[0].endPort", "number"),
        ("{egress: [{ports: [{port: Http_}]}]}", "spec.egress[0].ports[0].port", "lower case"),
        ("{egress: [{ports: [{protocol: tcp}]}]}", "spec.egress[0].ports[0].protocol", "`TCP`"),
        ("{policyTypes: [In]}", "spec.policyTypes[0]", "`Ingress`"),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: in}]}}",
            "spec.podSelector.matchExpressions[0].operator",
            "`In`",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
            "spec.podSelector.matchExpressions[0].values",
            "at least one",
        ),
        ("{podSelector: {matchLabels: {app: 'a b'}}}", "spec.podSelector.matchLabels[app]", "label value"),
        ("{podSelector: {matchLabels: {app: 1}}}", "spec.podSelector.matchLabels.app", "text would be right"),
    ] {
        let found = policy_error(spec);
        assert!(found.0 == field && found.1.contains(problem), "{spec}: {found:?}");
    }
}

#[test]
fn pools_refuse_by_name_what_is_not_done_yet() {
    let pool = |spec: &str| {
        format!("{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: p}}, spec: {{{spec}}}}}")
    };
    let whole = "cidr: 10.244.0.0/16, blockSize: 26, vxlanMode: CrossSubnet, ipipMode: Never, natOutgoing: false, \
                 disabled: false, nodeSelector: all(), allowedUses: [Workload, Tunnel]";
    let [Object::IpPool(read)] = &objects(&pool(whole))[..] else { panic!("not one pool") };
    assert_eq!(read.block_size(), 26);
    let crd = pool("cidr: fd00::/64").replace("projectcalico.org/v3", "crd.projectcalico.org/v1");
    let [Object::IpPool(read)] = &objects(&crd)[..] else { panic!("not one pool") };
    assert_eq!(read.block_size(), 122);
    for (spec, field) in [
        ("cidr: 10.0.0.0/16, natOutgoing: true", "spec.natOutgoing"),
        ("cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: CrossSubnet", "spec.ipipMode"),
        ("cidr: 10.0.0.0/16, vxlanMode: always", "spec.vxlanMode"),
        ("cidr: 10.0.0.0/16, nodeSelector: has(gpu)", "spec.nodeSelector"),
        ("cidr: 10.0.0.0/16, namespaceSelector: all()", "spec.namespaceSelector"),
        ("cidr: 10.0.0.0/16, assignmentMode: Manual", "spec.assignmentMode"),
        ("cidr: 10.0.0.0/16, disableBGPExport: true", "spec.disableBGPExport"),
        ("cidr: 10.0.0.0/16, blockSize: 33", "spec.blockSize"),
        ("cidr: 10.0.0.0/28", "spec.blockSize"),
        ("cidr: 10.0.0.1/16", "spec.cidr"),
    ] {
        assert_eq!(error(&pool(spec)).field, field, "{spec}");
    }
    // Stores may hold such from before, and pods their addresses.
    for cidr in [
        "127.0.0.0/16",
        "169.254.7.0/24",
        "0.0.0.0/0",
        "239.0.0.0/16",
        "240.0.0.0/4",
        "fe80::/64",
        "ff02::/64",
        "::/0",
    ] {
        let [object] = &objects(&pool(&format!("cidr: '{cidr}'")))[..] else { panic!("not one pool") };
        assert_eq!(object.unenforced().unwrap_err().field, "spec.cidr", "{cidr}");
    }
    for cidr in ["10.0.0.0/8", "100.64.0.0/10", "223.0.0.0/8", "fd00::/64", "2001:db8::/32"] {
        let [object] = &objects(&pool(&format!("cidr: '{cidr}'")))[..] else { panic!("not one pool") };
        assert_eq!(object.unenforced(), Ok(()), "{cidr}");
    }
}

#[test]
fn other_peoples_objects_may_say_what_they_like() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: x}, spec: {finalizers: [kubernetes]}, status: {phase: Active}}
- apiVersion: v1
  kind: Pod
  metadata: {name: p, namespace: x, ownerReferences: []}
  spec:
    nodeName: n1
    tolerations: [{operator: Exists}]
    containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}, {containerPort: 81}]}, {name: d, ports: [{name: http, containerPort: 90}]}]
    initContainers: [{name: once, ports: [{name: once, containerPort: 1}]}, {name: beside, restartPolicy: Always, ports: [{name: side, containerPort: 2, protocol: UDP}]}]
  status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], hostIP: 192.0.2.1}
---
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.0.0.0/24], taints: []}, status: {capacity: {}}}
";
    let read = objects(text);
    assert_eq!(read.iter().map(Object::kind).collect::<Vec<_>>(), [Kind::Namespace, Kind::Pod, Kind::Node]);
    let Object::Pod(pod) = &read[1] else { panic!("not a pod") };
    assert_eq!(pod.addresses().len(), 2);
    let named: Vec<_> = pod.named_ports().into_iter().map(|(name, _, port)| (name, port)).collect();
    assert_eq!(named, [("http".to_owned(), 80), ("side".to_owned(), 2)]);
    for object in read {
        assert_eq!(Object::from_json(&object.to_json()), Ok(object));
    }
}

#[test]
fn errors_say_where() {
    let e = error(
        "{apiVersion: v1, kind: Namespace, metadata: {name: x}}\n---\n{apiVersion: v2, kind: Pod, metadata: {name: a, namespace: y}}",
    );
    assert_eq!(
        e.to_string(),
        "m.yaml, document 2, Pod y/a: apiVersion: \"v2\" is not supported for Pod; v1 is"
    );
    let e = error(
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: X}}]}",
    );
    assert_eq!(e.field, "items[0].metadata.name");
    for (text, says) in [
        ("a: [", "line 2"),
        ("{a: 1, a: 2}", "duplicate"),
        ("{a: [{b: -.inf}]}", "-inf is not a number that"),
        ("[1]", "apiVersion, kind and metadata"),
        ("{apiVersion: v1, kind: Deployment, metadata: {name: x}}", "supported are AdminNetworkPolicy, Base"),
        ("{apiVersion: v1, kind: Endpoints, metadata: {name: x}}", "\"Endpoints\" is not supported"),
        ("{apiVersion: v1, kind: pod, metadata: {name: x}}", "must be written Pod"),
        ("{kind: Pod}", "apiVersion: missing"),
        ("{apiVersion: v1, kind: Pod}", "metadata"),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: x}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: x}}",
            "already in document 1",
        ),
        (
            "{apiVersion: v1, kind: Node, metadata: {name: n, annotations: {projectcalico.org/IPv4Address: here}}}",
            "192.0.2.1/24",
        ),
    ] {
        let e = error(text).to_string();
        assert!(e.starts_with("m.yaml") && e.contains(says), "{text}: {e}");
    }
}

#[test]
fn what_grows_or_never_ends_when_it_is_read_is_refused() {
    let kind = "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n";
    // Ten times as much with each line.
    let lines = (1..12).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")));
    let grows = format!("{kind}a0: &a0 [x]\n{}", lines.collect::<String>());
    let within_itself = format!("{kind}a: &a [*a]\n");
    let deep = format!("{kind}a: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    for (text, says) in
        [(grows, "repetition limit exceeded"), (within_itself, "recursion limit"), (deep, "recursion limit")]
    {
        let e = error(&text).to_string();
        assert!(e.starts_with("m.yaml, document 1") && e.contains(says), "{e}");
    }
}

#[test]
fn keys_and_their_text_lead_to_each_other() {
    for key in [
        Key::new(Kind::Pod, "x", "a.b"),
        Key::cluster(Kind::Node, "n"),
        Key::cluster(Kind::Endpoint, "c.eth0"),
    ] {
        assert_eq!(Key::from_path(&key.to_string()), Some(key));
    }
    for path in ["pods/a", "nodes", "nodes/", "nodes/a/b", "pods/x/a/b", "other/a"] {
        assert_eq!(Key::from_path(path), None, "{path}");
    }
}

#[test]
fn two_files_cannot_both_have_an_object() {
    let policy = |spec: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: x, name: p}}, spec: {spec}}}"
        )
    };
    let (one, other) = (policy("{podSelector: {}}"), policy("{podSelector: {matchLabels: {a: b}}}"));
    let files = [("a.yaml", one.as_str()), ("b.yaml", other.as_str())];
    let error = manifest::parse_all(files, "default", |_| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "b.yaml, document 1, NetworkPolicy x/p: is already in a.yaml");
    // Calico's of that name is another object.
    let calicos =
        one.replace("networking.k8s.io/v1", "projectcalico.org/v3").replace("{podSelector: {}}", "{}");
    let files = [("a.yaml", one.as_str()), ("b.yaml", calicos.as_str())];
    assert_eq!(manifest::parse_all(files, "default", |_| Ok(())).unwrap().len(), 2);
}

#[test]
fn all_that_is_wrong_in_all_files_is_told_at_once() {
    let one = "{apiVersion: v1, kind: Namespace, metadata: {name: x}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: x, name: p}, spec: {podSelectr: {}, ingres: []}}
---
{apiVersion: v1, kind: Gadget, metadata: {name: g}}";
    let list =
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: A_}}, 7]}";
    let files = [("a.yaml", one), ("b.yaml", list), ("c.yaml", "{")];
    let errors = manifest::parse_all(files, "default", |object| match object.kind() {
        Kind::Namespace => Err(vswitch_model::Invalid::new("kind", "not today")),
        _ => Ok(()),
    });
    let text = errors.unwrap_err().to_string();
    let starts: Vec<_> = text.lines().filter(|line| line.contains(".yaml")).collect();
    for (line, start) in starts.iter().zip([
        "a.yaml, document 2, NetworkPolicy x/p: spec.",
        "a.yaml, document 2, NetworkPolicy x/p: spec.",
        "a.yaml, document 3, Gadget g: kind: ",
        "a.yaml, document 1, Namespace x: kind: not today",
        "b.yaml, document 1, Namespace A_: items[0].metadata.name: ",
        "b.yaml, document 1: items[1]: an object with",
        "c.yaml, document 1: ",
    ]) {
        assert!(line.starts_with(start), "{line}: should be {start}");
    }
    assert_eq!(starts.len(), 7, "{text}");
}

#[test]
fn no_range_is_of_ipv4_as_ipv6_writes_it() {
    let mapped = "'::ffff:10.0.0.0/104'";
    let calicos = |kind: &str, spec: &str| {
        format!("{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: p}}, spec: {spec}}}")
    };
    let kubernetes = |rule: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, spec: {{podSelector: {{}}, egress: [{rule}]}}}}"
        )
    };
    for (text, field) in [
        (
            kubernetes(&format!("{{to: [{{ipBlock: {{cidr: {mapped}}}}}]}}")),
            "spec.egress[0].to[0].ipBlock.cidr",
        ),
        (
            kubernetes(&format!("{{to: [{{ipBlock: {{cidr: '::/0', except: [{mapped}]}}}}]}}")),
            "spec.egress[0].to[0].ipBlock.except[0]",
        ),
        (
            calicos(
                "GlobalNetworkPolicy",
                &format!("{{egress: [{{action: Allow, destination: {{nets: [{mapped}]}}}}]}}"),
            ),
            "spec.egress[0].destination.nets[0]",
        ),
        (
            calicos(
                "GlobalNetworkPolicy",
                &format!("{{ingress: [{{action: Deny, source: {{notNets: [{mapped}]}}}}]}}"),
            ),
            "spec.ingress[0].source.notNets[0]",
        ),
        (calicos("GlobalNetworkSet", &format!("{{nets: [10.0.0.0/8, {mapped}]}}")), "spec.nets[1]"),
        (calicos("NetworkSet", &format!("{{nets: [{mapped}]}}")), "spec.nets[0]"),
        (calicos("IPPool", &format!("{{cidr: {mapped}}}")), "spec.cidr"),
    ] {
        let error = error(&text);
        assert_eq!(error.field, field, "{text}: {error}");
        assert!(error.problem.contains("10.0.0.0/8 would be right"), "{text}: {error}");
    }
}

/// Agents of before read one group alone, and share an etcd with newer ones while they are replaced; an API server's
/// objects have the other.
#[test]
fn our_own_objects_are_read_by_either_group_and_written_as_agents_of_before_read_them() {
    for (kind, name, spec) in [
        (Kind::Block, "10.0.0.0-26", serde_json::json!({"cidr": "10.0.0.0/26", "node": "n"})),
        (
            Kind::Endpoint,
            "c.eth0",
            serde_json::json!({"node": "n", "containerId": "c", "interface": "eth0", "port": "p", "mac": "0a:00:00:00:00:01",
                "attachment": {"veth": {"interface": "p", "netns": null}}, "addresses": ["10.0.0.1"], "mtu": 1400}),
        ),
    ] {
        let stored = |version: &str| {
            let value = serde_json::json!(
                {"apiVersion": version, "kind": kind.name(), "metadata": {"name": name}, "spec": spec});
            Object::from_json(value.to_string().as_bytes()).unwrap()
        };
        let (own, served) = (stored("vswitch/v1"), stored("vswitch.internal/v1"));
        assert_eq!(own, served);
        assert!(String::from_utf8(served.to_json()).unwrap().contains(r#""apiVersion":"vswitch/v1""#));
    }
}
