//! Policies of the cluster, as people write them: what is taken, what they mean, and what an error says of the rest.

use ipnet::IpNet;

use super::{AdminNetworkPolicy, ClusterAction, ClusterPeer, ClusterPolicy, ClusterPort, ClusterTier};
use crate::object::manifest::{ManifestError, parse};
use crate::object::{Object, PolicyType, Protocol};

const CNP: &str =
    "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p}";
const ANP: &str =
    "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: p}";
const BANP: &str = "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {name: default}";

fn read(text: &str) -> Result<Object, ManifestError> {
    parse("p.yaml", "default", text).map(|mut documents| documents.remove(0).object)
}

/// Field and problem of what is wrong with a policy of this head and spec, in YAML's flow style.
fn error(head: &str, spec: &str) -> (String, String) {
    match read(&format!("{head}, spec: {spec}}}")) {
        Ok(_) => panic!("{spec} was taken"),
        Err(e) => (e.field, e.problem),
    }
}

const WHOLE: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: voice, generation: 3}
spec:
  tier: Admin
  priority: 10
  subject:
    pods: {namespaceSelector: {matchLabels: {team: voice}}, podSelector: {}}
  ingress:
  - name: callers
    action: Accept
    from:
    - namespaces: {}
    - pods: {podSelector: {matchLabels: {app: sip}}}
    protocols:
    - udp: {destinationPort: {range: {start: 10000, end: 20000}}}
    - tcp: {destinationPort: {number: 5060}}
    - destinationNamedPort: sip
  egress:
  - action: Pass
    to:
    - nodes: {}
    - networks: [10.0.0.0/8, 'fd00::/8']
  - action: Accept
    to: [{domainNames: ['*.example.org', Example.org]}]
  - action: Deny
    to: [{namespaces: {matchLabels: {env: test}}}]
    protocols: [{sctp: {destinationPort: {number: 9}}}]
status: {conditions: null}
";

#[test]
fn a_whole_policy_is_read_and_kept() {
    let object = read(WHOLE).unwrap();
    let Object::ClusterNetworkPolicy(policy) = &object else { panic!("not one of the cluster") };
    assert_eq!((policy.tier(), policy.priority()), (ClusterTier::Admin, Some(10)));
    let ClusterPeer::Pods { namespaces, pods: Some(pods) } = policy.subject() else { panic!("no pods") };
    assert!(pods.is_empty() && namespaces.match_labels["team"] == "voice");

    let ingress = policy.rules(PolicyType::Ingress);
    assert_eq!((ingress.len(), ingress[0].name, ingress[0].action), (1, "callers", ClusterAction::Accept));
    assert!(matches!(ingress[0].peers[0], ClusterPeer::Pods { pods: None, .. }));
    assert!(
        matches!(ingress[0].peers[1], ClusterPeer::Pods { pods: Some(_), namespaces } if namespaces.is_empty())
    );
    let ports = [
        ClusterPort::Range(Protocol::Udp, 10000, 20000),
        ClusterPort::Range(Protocol::Tcp, 5060, 5060),
        ClusterPort::Name("sip"),
    ];
    assert_eq!(ingress[0].ports, ports);

    let egress = policy.rules(PolicyType::Egress);
    let actions: Vec<_> = egress.iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [ClusterAction::Pass, ClusterAction::Accept, ClusterAction::Deny]);
    assert!(matches!(egress[0].peers[0], ClusterPeer::Nodes(nodes) if nodes.is_empty()));
    let networks: [IpNet; 2] = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    assert_eq!(egress[0].peers[1], ClusterPeer::Networks(&networks));
    assert_eq!(egress[0].ports, []);
    let names = ["*.example.org".to_owned(), "Example.org".to_owned()];
    assert_eq!(egress[1].peers, [ClusterPeer::DomainNames(&names)]);

    assert_eq!(object.key().to_string(), "clusternetworkpolicies/voice");
    assert_eq!(Object::from_json(&object.to_json()), Ok(object.clone()));
    assert!(object.to_value().get("status").is_none(), "a server's field is not ours to keep");
}

#[test]
fn the_older_spellings_mean_the_same() {
    let spec = "subject: {namespaces: {}}, ingress: [{name: n, action: Allow, from: [{namespaces: {}}], ports: [
        {portNumber: {port: 80}}, {portNumber: {protocol: UDP, port: 53}}, {namedPort: http},
        {portRange: {protocol: SCTP, start: 7, end: 7}}]}], egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]";
    let admin = read(&format!("{ANP}, spec: {{priority: 1000, {spec}}}}}")).unwrap();
    let baseline = read(&format!("{BANP}, spec: {{{spec}}}, status: {{}}}}")).unwrap();
    let policies: [(&Object, &dyn ClusterPolicy); 2] = match (&admin, &baseline) {
        (Object::AdminNetworkPolicy(a), Object::BaselineAdminNetworkPolicy(b)) => {
            [(&admin, a), (&baseline, b)]
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(policies.map(|(_, p)| p.tier()), [ClusterTier::Admin, ClusterTier::Baseline]);
    assert_eq!(policies.map(|(_, p)| p.priority()), [Some(1000), None]);
    for (object, policy) in policies {
        let [rule] = &policy.rules(PolicyType::Ingress)[..] else { panic!("one rule") };
        assert_eq!(rule.action, ClusterAction::Accept);
        let ports = [
            ClusterPort::Range(Protocol::Tcp, 80, 80),
            ClusterPort::Range(Protocol::Udp, 53, 53),
            ClusterPort::Name("http"),
            ClusterPort::Range(Protocol::Sctp, 7, 7),
        ];
        assert_eq!(rule.ports, ports);
        assert_eq!(policy.rules(PolicyType::Egress)[0].action, ClusterAction::Deny);
        assert_eq!(Object::from_json(&object.to_json()).as_ref(), Ok(object));
    }
}

/// A spec of a ClusterNetworkPolicy whose only egress rule is this.
fn egress(rule: &str) -> String {
    format!("{{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{rule}]}}")
}

#[test]
fn errors_name_the_field_and_what_would_be_right() {
    let rule = |inner: &str| egress(&format!("{{action: Accept, {inner}}}"));
    let many = |count: usize, one: &str| vec![one; count].join(", ");
    let e = "spec.egress[0]";
    for (spec, field, problem) in [
        ("{priority: 1, subject: {namespaces: {}}}".to_owned(), "spec", "`tier`"),
        ("{tier: admin, priority: 1, subject: {namespaces: {}}}".into(), "spec.tier", "`Admin`"),
        ("{tier: Admin, subject: {namespaces: {}}}".into(), "spec", "`priority`"),
        ("{tier: Admin, priority: 1001, subject: {namespaces: {}}}".into(), "spec.priority", "to 1000"),
        ("{tier: Admin, priority: -1, subject: {namespaces: {}}}".into(), "spec.priority", "0 (asked first)"),
        ("{tier: Admin, priority: 1}".into(), "spec", "`subject`"),
        ("{tier: Admin, priority: 1, subject: {}}".into(), "spec.subject", "one of namespaces, pods"),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}".into(),
            "spec.subject.pods",
            "beside namespaces",
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{networks: ['::/0']}]}]}".into(),
            "spec.ingress[0].from[0].networks",
            "`namespaces` or `pods`",
        ),
        (egress("{action: Allow, to: [{nodes: {}}]}"), &format!("{e}.action"), "`Accept`"),
        (egress("{to: [{nodes: {}}]}"), e, "`action`"),
        (egress("{action: Deny}"), e, "`to`"),
        (egress("{action: Deny, to: []}"), &format!("{e}.to"), "1 to 25"),
        (rule("to: [{}]"), &format!("{e}.to[0]"), "namespaces, pods, nodes, networks, domainNames"),
        (rule("to: [{pods: {namespaceSelector: {}}}]"), &format!("{e}.to[0].pods"), "`podSelector`"),
        (rule("to: [{nodes: {matchLabels: {-a: b}}}]"), &format!("{e}.to[0].nodes.matchLabels"), "label key"),
        (rule("to: [{networks: []}]"), &format!("{e}.to[0]"), "says nothing"),
        (rule("to: [{networks: [ten]}]"), &format!("{e}.to[0].networks[0]"), "\"ten\" is no range"),
        (
            rule("to: [{networks: ['::ffff:10.0.0.0/104']}]"),
            &format!("{e}.to[0].networks[0]"),
            "10.0.0.0/8 would be right",
        ),
        (rule("to: [{networks: ['::/0', '::/0']}]"), &format!("{e}.to[0].networks[1]"), "already"),
        (rule(&format!("to: [{{networks: [{}]}}]", many(26, "'::/0'"))), &format!("{e}.to[0].networks"), "at most 25"),
        (rule("to: [{domainNames: ['a.*.org']}]"), &format!("{e}.to[0].domainNames[0]"), "*.example.org"),
        (egress("{action: Deny, to: [{domainNames: [a.org]}]}"), &format!("{e}.to[0].domainNames"), "Accept"),
        (
            rule(&format!("name: {}, to: [{{nodes: {{}}}}]", "n".repeat(101))),
            &format!("{e}.name"),
            "101 characters long; at most 100",
        ),
        (rule("to: [{nodes: {}}], protocols: []"), &format!("{e}.protocols"), "1 to 25"),
        (rule("to: [{nodes: {}}], protocols: [{}]"), &format!("{e}.protocols[0]"), "destinationNamedPort"),
        (
            rule("to: [{nodes: {}}], protocols: [{icmp: {}}]"),
            &format!("{e}.protocols[0].icmp"),
            "expected one of `tcp`",
        ),
        (rule("to: [{nodes: {}}], protocols: [{tcp: {}}]"), &format!("{e}.protocols[0].tcp"), "`destinationPort`"),
        (
            rule("to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {number: 65536}}}]"),
            &format!("{e}.protocols[0].tcp.destinationPort.number"),
            "1 to 65535",
        ),
        (
            rule("to: [{nodes: {}}], protocols: [{udp: {destinationPort: {range: {start: 9, end: 9}}}}]"),
            &format!("{e}.protocols[0].udp.destinationPort.range.end"),
            "not above start 9",
        ),
        (
            rule("to: [{nodes: {}}], protocols: [{destinationNamedPort: HTTP}]"),
            &format!("{e}.protocols[0].destinationNamedPort"),
            "lower case",
        ),
        (
            rule("to: [{namespaces: {}}, {nodes: {}}], protocols: [{destinationNamedPort: http}]"),
            &format!("{e}.to[1]"),
            "no named ports",
        ),
        (
            format!(
                "{{tier: Baseline, priority: 1, subject: {{namespaces: {{}}}}, egress: [{}]}}",
                many(26, "{action: Deny, to: [{nodes: {}}]}")
            ),
            "spec.egress",
            "26 entries; at most 25",
        ),
        (rule(&format!("to: [{}]", many(26, "{nodes: {}}"))), &format!("{e}.to"), "1 to 25"),
    ] {
        let found = error(CNP, &spec);
        assert!(found.0 == field && found.1.contains(problem), "{spec}: {found:?}");
    }
}

#[test]
fn errors_in_the_older_spellings_do_as_well() {
    let with = |rule: &str| format!("{{priority: 1, subject: {{namespaces: {{}}}}, egress: [{rule}]}}");
    let port = |port: &str| with(&format!("{{action: Deny, to: [{{namespaces: {{}}}}], ports: [{port}]}}"));
    let p = "spec.egress[0].ports[0]";
    for (spec, field, problem) in [
        (with("{action: Accept, to: [{nodes: {}}]}"), "spec.egress[0].action", "`Allow`"),
        (port("{}"), p, "one of portNumber, namedPort, portRange"),
        (port("{portNumber: {port: 0}}"), &format!("{p}.portNumber.port"), "1 to 65535"),
        (port("{portNumber: {port: 1, protocol: ICMP}}"), &format!("{p}.portNumber.protocol"), "`SCTP`"),
        (port("{portRange: {start: 9, end: 8}}"), &format!("{p}.portRange.end"), "below start 9"),
        (
            port("{portRange: {start: 9, end: 10}, namedPort: a}"),
            &format!("{p}.portRange"),
            "beside namedPort",
        ),
        (with("{action: Deny, to: [{domainNames: [a.b]}]}"), "spec.egress[0].to[0].domainNames", "Allow"),
        (
            with("{action: Deny, to: [{networks: ['::/0']}], ports: [{namedPort: http}]}"),
            "spec.egress[0].to[0]",
            "no named ports",
        ),
    ] {
        let found = error(ANP, &spec);
        assert!(found.0 == field && found.1.contains(problem), "{spec}: {found:?}");
    }
    let baseline = |rule: &str| error(BANP, &format!("{{subject: {{namespaces: {{}}}}, egress: [{rule}]}}"));
    assert_eq!(baseline("{action: Pass, to: [{nodes: {}}]}").0, "spec.egress[0].action");
    let domains = baseline("{action: Allow, to: [{domainNames: [a.b]}]}");
    assert_eq!(domains.0, "spec.egress[0].to[0].domainNames");
    assert_eq!(error(BANP, "{priority: 1, subject: {namespaces: {}}}").0, "spec.priority");
    let elsewhere = BANP.replace("name: default", "name: other");
    assert_eq!(error(&elsewhere, "{subject: {namespaces: {}}}").0, "metadata.name");
    let newer = CNP.replace("v1alpha2", "v1alpha1");
    assert_eq!(error(&newer, "{}").0, "apiVersion");
}

#[test]
fn an_older_policy_may_have_a_hundred_rules() {
    let rules = |count: usize| {
        let rules = vec!["{action: Deny, to: [{nodes: {}}]}"; count].join(", ");
        read(&format!("{ANP}, spec: {{priority: 1, subject: {{namespaces: {{}}}}, egress: [{rules}]}}}}"))
    };
    let Ok(Object::AdminNetworkPolicy(AdminNetworkPolicy { spec, .. })) = rules(100) else {
        panic!("not taken")
    };
    assert_eq!(spec.egress.len(), 100);
    assert_eq!(rules(101).unwrap_err().field, "spec.egress");
}
