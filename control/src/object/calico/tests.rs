//! Calico's kinds as people write them: what is taken, and what an error says of the rest.

use super::*;
use crate::object::expression::Expr;
use crate::object::manifest::{ManifestError, parse};
use crate::object::{Kind, Object, PolicyType};

fn objects(text: &str) -> Vec<Object> {
    let parsed = parse("m.yaml", "default", text).unwrap_or_else(|e| panic!("{e}"));
    parsed.into_iter().map(|document| document.object).collect()
}

fn object(kind: &str, spec: &str) -> String {
    let name = if kind == "Profile" { "kns.p" } else { "p" };
    format!("{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}")
}

fn one(kind: &str, spec: &str) -> Object {
    objects(&object(kind, spec)).remove(0)
}

fn error(kind: &str, spec: &str) -> ManifestError {
    parse("m.yaml", "default", &object(kind, spec)).expect_err(spec)
}

const WHOLE: &str = "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: platform.relay, namespace: media, resourceVersion: '1'}
spec:
  tier: platform
  order: 100
  selector: app == 'relay'
  serviceAccountSelector: has(team)
  types: [Ingress, Egress]
  performanceHints: [AssumeNeededOnEveryNode]
  ingress:
  - action: Log
    metadata: {annotations: {why: curious}}
  - action: Allow
    ipVersion: 4
    protocol: UDP
    source:
      nets: [192.0.2.0/24]
      notNets: [192.0.2.128/25]
      selector: role == 'caller'
      notSelector: has(banned)
      namespaceSelector: all()
      serviceAccounts: {names: [a, b], selector: x == 'y'}
    destination:
      ports: [5060, '10000:20000', sip]
      notPorts: ['15000']
  - action: Allow
    protocol: ICMP
    icmp: {type: 8, code: 0}
    notICMP: {type: 3}
    source: {namespaceSelector: global()}
  - action: Pass
    notProtocol: 47
    source: {services: {name: callers}}
  egress:
  - {action: Deny, destination: {services: {name: dns, namespace: kube-system}}}
";

#[test]
fn a_whole_policy_is_read_and_kept() {
    let Object::CalicoNetworkPolicy(policy) = objects(WHOLE).remove(0) else { panic!("not Calico's") };
    let spec = &policy.spec;
    assert_eq!((spec.tier(), spec.order), ("platform", Some(100.0)));
    assert_eq!(spec.selector.expr(), &Expr::Equals("app".into(), "relay".into()));
    let rule = &spec.ingress[1];
    assert_eq!(rule.protocol, Some(RuleProtocol::UDP));
    let ports = [Port::Range(5060, 5060), Port::Range(10000, 20000), Port::Name("sip".into())];
    assert_eq!(rule.destination.ports, ports);
    assert_eq!(rule.destination.not_ports, [Port::Range(15000, 15000)]);
    assert_eq!(spec.ingress[2].icmp, Some(IcmpMatch { kind: Some(8), code: Some(0) }));
    assert_eq!(spec.ingress[3].not_protocol.map(RuleProtocol::number), Some(47));

    let object = Object::from(policy);
    assert_eq!(object.key().to_string(), "networkpolicies.projectcalico.org/media/platform.relay");
    assert_eq!(crate::object::Key::from_path(&object.key().to_string()), Some(object.key()));
    assert_eq!(Object::from_json(&object.to_json()), Ok(object.clone()));
    let value = object.to_value();
    assert_eq!(
        (&value["kind"], &value["apiVersion"]),
        (&"NetworkPolicy".into(), &"projectcalico.org/v3".into())
    );
    assert_eq!(value["spec"]["ingress"][1]["destination"]["ports"][1], "10000:20000");
}

#[test]
fn the_api_version_tells_the_two_network_policies_apart() {
    let text = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}}\n---\n\
                {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p}}\n---\n\
                {apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: q}}";
    let kinds: Vec<_> = objects(text).iter().map(Object::kind).collect();
    assert_eq!(kinds, [Kind::NetworkPolicy, Kind::CalicoNetworkPolicy, Kind::CalicoNetworkPolicy]);
    let other = "{apiVersion: projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: p}}";
    let error = parse("m.yaml", "default", other).unwrap_err();
    assert_eq!(error.field, "apiVersion");
    assert!(error.problem.contains("networking.k8s.io/v1 or projectcalico.org/v3"), "{error}");
}

#[test]
fn types_follow_from_the_rules() {
    let applies = |spec: &str| {
        let Object::GlobalNetworkPolicy(policy) = one("GlobalNetworkPolicy", spec) else { panic!("{spec}") };
        PolicyType::ALL.map(|direction| policy.spec.applies_to(direction))
    };
    assert_eq!(applies("{}"), [true, false]);
    assert_eq!(applies("{ingress: [{action: Allow}]}"), [true, false]);
    assert_eq!(applies("{egress: [{action: Allow}]}"), [false, true]);
    assert_eq!(applies("{ingress: [{action: Allow}], egress: [{action: Allow}]}"), [true, true]);
    assert_eq!(applies("{types: [Egress], ingress: [{action: Allow}]}"), [false, true]);
}

#[test]
fn what_upstream_takes_is_taken() {
    for (kind, spec) in [
        (
            "GlobalNetworkPolicy",
            "{doNotTrack: false, preDNAT: false, applyOnForward: false, namespaceSelector: x == 'y'}",
        ),
        ("GlobalNetworkPolicy", "{selector: null, tier: null, ingress: null, order: -1.5}"),
        ("GlobalNetworkPolicy", "{ingress: [{action: Allow, protocol: '6', destination: {ports: ['80']}}]}"),
        (
            "GlobalNetworkPolicy",
            "{ingress: [{action: Allow, protocol: UDPLite}, {action: Allow, destination: {ports: [http]}}]}",
        ),
        (
            "GlobalNetworkPolicy",
            "{egress: [{action: Deny, destination: {services: {name: s, namespace: n}}}]}",
        ),
        (
            "NetworkPolicy",
            "{ingress: [{action: Allow, protocol: TCP, source: {services: {name: s}}, destination: {ports: [80]}}]}",
        ),
        ("Tier", "{order: 10, defaultAction: Pass}"),
        ("NetworkSet", "{nets: [10.0.0.1/8, 'fd00::/8', 192.0.2.1/32, 192.0.2.9, 'fd00::1']}"),
        ("GlobalNetworkSet", "{}"),
        (
            "Profile",
            "{ingress: [{action: Allow}], egress: [{action: Log}, {action: Deny}], labelsToApply: {pcns.x: y}}",
        ),
        ("StagedNetworkPolicy", "{stagedAction: Set, ingress: [{action: Pass}]}"),
        ("StagedNetworkPolicy", "{stagedAction: Delete, tier: platform}"),
        ("StagedGlobalNetworkPolicy", "{namespaceSelector: has(x)}"),
        ("StagedKubernetesNetworkPolicy", "{podSelector: {}, policyTypes: [Egress], egress: [{}]}"),
        ("StagedKubernetesNetworkPolicy", "{stagedAction: Delete}"),
    ] {
        let object = one(kind, spec);
        assert_eq!(object.kind().name(), kind);
        assert_eq!(Object::from_json(&object.to_json()), Ok(object), "{kind} {spec}");
    }
}

#[test]
fn the_rest_is_refused_by_the_name_of_its_field() {
    let in_policy = [
        ("{selectr: all()}", "spec.selectr", "unknown field"),
        ("{selector: a = 'b'}", "spec.selector", "\"==\" would be right\n  a = 'b'\n    ^"),
        ("{selector: global()}", "spec.selector", "only for the namespaceSelector"),
        ("{serviceAccountSelector: '!global()'}", "spec.serviceAccountSelector", "only for"),
        ("{tier: A}", "spec.tier", "lower case"),
        ("{order: high}", "spec.order", "a number would be right"),
        ("{types: [Ingress, Ingress]}", "spec.types", "each once"),
        ("{types: [In]}", "spec.types[0]", "`Ingress`"),
        ("{doNotTrack: true}", "spec.doNotTrack", "host endpoints"),
        ("{preDNAT: true}", "spec.preDNAT", "host endpoints"),
        ("{applyOnForward: true}", "spec.applyOnForward", "host endpoints"),
        ("{stagedAction: Set}", "spec.stagedAction", "unknown field of a GlobalNetworkPolicy"),
        ("{performanceHints: [Faster]}", "spec.performanceHints[0]", "AssumeNeededOnEveryNode"),
    ];
    let in_rule = [
        ("action: allow", "action", "`Allow`"),
        ("source: {}", "", "missing field `action`"),
        ("action: Allow, http: {methods: [GET]}", "http", "layer 7"),
        ("action: Allow, ipVersion: 5", "ipVersion", "4 or 6"),
        ("action: Allow, protocol: tcp", "protocol", "TCP, UDP, ICMP"),
        ("action: Allow, protocol: 0", "protocol", "1 to 255"),
        ("action: Allow, protocol: 256", "protocol", "1 to 255"),
        ("action: Allow, protocol: ICMP, ipVersion: 6", "protocol", "is of IPv4"),
        ("action: Allow, notProtocol: ICMPv6, ipVersion: 4", "notProtocol", "is of IPv6"),
        ("action: Allow, icmp: {type: 8}", "icmp", "ICMP or ICMPv6"),
        ("action: Allow, protocol: ICMP, icmp: {code: 8}", "icmp.code", "needs a type"),
        ("action: Allow, protocol: ICMP, notICMP: {type: 255}", "notICMP.type", "0 to 254"),
        ("action: Allow, protocol: ICMP, icmp: {type: 256}", "icmp.type", "256"),
        ("action: Allow, destination: {ports: [80]}", "destination.ports", "needs a protocol"),
        (
            "action: Allow, protocol: ICMP, destination: {notPorts: [x]}",
            "destination.notPorts",
            "ICMP has no ports",
        ),
        ("action: Allow, protocol: TCP, destination: {ports: [0]}", "destination.ports[0]", "1 to 65535"),
        ("action: Allow, protocol: TCP, destination: {ports: [-1]}", "destination.ports[0]", "-1"),
        (
            "action: Allow, protocol: TCP, destination: {ports: ['80:70']}",
            "destination.ports[0]",
            "70:80 would be right",
        ),
        ("action: Allow, protocol: TCP, destination: {ports: ['1-2:3']}", "destination.ports[0]", "no port"),
        (
            "action: Allow, protocol: TCP, destination: {ports: ['80-90']}",
            "destination.ports[0]",
            "the range is \"80:90\"",
        ),
        ("action: Allow, source: {ports: [80]}", "source.ports", "needs a protocol: TCP, UDP or SCTP"),
        ("action: Allow, protocol: ICMP, source: {notPorts: [sip]}", "source.notPorts", "has no ports"),
        (
            "action: Allow, protocol: UDP, source: {notPorts: ['9:3']}",
            "source.notPorts[0]",
            "3:9 would be right",
        ),
        ("action: Allow, source: {net: 10.0.0.0/8}", "source.net", "`nets`"),
        ("action: Allow, source: {nets: [10.0.0.1/8]}", "source.nets[0]", "10.0.0.0/8 would be right"),
        ("action: Allow, source: {nets: [10.0.0.1, 10.0.0]}", "source.nets[1]", "\"10.0.0\" is no range"),
        (
            "action: Allow, source: {nets: ['::ffff:10.0.0.1']}",
            "source.nets[0]",
            "; 10.0.0.1/32 would be right",
        ),
        ("action: Allow, source: {notNets: [0.0.0.0/0]}", "source.notNets[0]", "every address"),
        (
            "action: Allow, source: {nets: [10.0.0.0/8, 'fd00::/8']}",
            "source.nets[1]",
            "family of 10.0.0.0/8 in source.nets",
        ),
        (
            "action: Allow, source: {nets: [10.0.0.0/8]}, destination: {notNets: ['fd00::/8']}",
            "destination.notNets[0]",
            "two rules",
        ),
        (
            "action: Allow, ipVersion: 6, destination: {nets: [10.0.0.0/8]}",
            "destination.nets[0]",
            "family of ipVersion",
        ),
        ("action: Allow, source: {selector: b}", "source.selector", "==, !=, in"),
        ("action: Allow, source: {notSelector: global()}", "source.notSelector", "only for"),
        (
            "action: Allow, source: {namespaceSelector: global() || has(x)}",
            "source.namespaceSelector",
            "must be all",
        ),
        (
            "action: Allow, source: {serviceAccounts: {selector: '('}}",
            "source.serviceAccounts.selector",
            "stands where",
        ),
        ("action: Allow, source: {services: {name: s}}", "source.services.namespace", "missing"),
        ("action: Allow, source: {services: {namespace: s}}", "source.services.name", "missing"),
        (
            "action: Allow, source: {services: {name: s, namespace: n}, nets: [10.0.0.0/8]}",
            "source.nets",
            "beside services",
        ),
        (
            "action: Allow, source: {services: {name: s, namespace: n}, serviceAccounts: {}}",
            "source.serviceAccounts",
            "beside services",
        ),
        (
            "action: Allow, destination: {services: {name: s, namespace: n}}",
            "destination.services",
            "own end",
        ),
    ];
    let in_rule = in_rule.map(|(rule, field, problem)| {
        let field = if field.is_empty() { String::new() } else { format!(".{field}") };
        (format!("{{ingress: [{{{rule}}}]}}"), format!("spec.ingress[0]{field}"), problem)
    });
    let in_policy = in_policy.map(|(spec, field, problem)| (spec.to_owned(), field.to_owned(), problem));
    for (spec, field, problem) in in_policy.into_iter().chain(in_rule) {
        let found = error("GlobalNetworkPolicy", &spec);
        assert!(found.field == field && found.problem.contains(problem), "{spec}: {found}");
    }
}

#[test]
fn each_kind_refuses_what_is_not_its_own() {
    for (kind, spec, field, problem) in [
        (
            "NetworkPolicy",
            "{namespaceSelector: all()}",
            "spec.namespaceSelector",
            "GlobalNetworkPolicy has it",
        ),
        ("NetworkPolicy", "{doNotTrack: false}", "spec.doNotTrack", "unknown field"),
        (
            "NetworkPolicy",
            "{egress: [{action: Allow, source: {services: {name: x}}}]}",
            "spec.egress[0].source.services",
            "own end",
        ),
        ("StagedNetworkPolicy", "{stagedAction: Learn}", "spec.stagedAction", "only Set and Delete"),
        (
            "StagedNetworkPolicy",
            "{stagedAction: Delete, order: 1}",
            "spec.stagedAction",
            "leave out all but the tier",
        ),
        ("StagedGlobalNetworkPolicy", "{stagedAction: Set, preDNAT: true}", "spec.preDNAT", "host endpoints"),
        (
            "StagedKubernetesNetworkPolicy",
            "{stagedAction: Ignore}",
            "spec.stagedAction",
            "only Set and Delete",
        ),
        (
            "StagedKubernetesNetworkPolicy",
            "{stagedAction: Delete, egress: [{}]}",
            "spec.stagedAction",
            "leave out everything",
        ),
        (
            "StagedKubernetesNetworkPolicy",
            "{ingress: [{from: [{}]}]}",
            "spec.ingress[0].from[0]",
            "names no peer",
        ),
        ("Tier", "{defaultAction: Allow}", "spec.defaultAction", "`Deny`"),
        ("Tier", "{order: 1, action: Deny}", "spec.action", "unknown field"),
        ("NetworkSet", "{nets: [ten]}", "spec.nets[0]", "is no range"),
        ("NetworkSet", "{allowedEgressDomains: [a.b]}", "spec.allowedEgressDomains", "unknown field"),
        ("Profile", "{ingress: [{action: Pass}]}", "spec.ingress[0].action", "after profiles there is none"),
        ("Profile", "{labelsToApply: {a: 'b c'}}", "spec.labelsToApply[a]", "label value"),
    ] {
        let found = error(kind, spec);
        assert!(found.field == field && found.problem.contains(problem), "{kind} {spec}: {found}");
    }
    let problem = parse("m.yaml", "default", &object("Profile", "{}").replace("kns.p", "mine")).unwrap_err();
    assert!(problem.field == "metadata.name" && problem.problem.contains("ksa.NAMESPACE.NAME"), "{problem}");
    let labelled =
        object("NetworkSet", "{}").replace("name: p", "name: a, labels: {projectcalico.org/namespace: x}");
    assert!(parse("m.yaml", "default", &labelled).unwrap_err().problem.contains("by itself"));
    let host = parse("m.yaml", "default", &object("HostEndpoint", "{}")).unwrap_err();
    assert!(host.field == "kind" && host.problem.contains("only pods have policies"), "{host}");
}

#[test]
fn the_tiers_that_are_always_there_cannot_be_changed() {
    let tier = |name: &str, spec: &str| {
        parse("m.yaml", "", &object("Tier", spec).replace("name: p", &format!("name: {name}")))
    };
    for (name, spec, field) in [
        ("default", "{order: 1000000}", None),
        ("default", "{order: 5}", Some("spec.order")),
        ("default", "{order: 1000000, defaultAction: Pass}", Some("spec.defaultAction")),
        ("kube-admin", "{order: 1000, defaultAction: Pass}", None),
        ("kube-admin", "{order: 1000}", Some("spec.defaultAction")),
        ("kube-baseline", "{defaultAction: Pass}", Some("spec.order")),
        ("a.b", "{}", Some("metadata.name")),
    ] {
        assert_eq!(tier(name, spec).err().map(|e| e.field).as_deref(), field, "{name} {spec}");
    }
}

#[test]
fn profiles_are_of_a_namespace_or_an_account() {
    let of = |name: &str| {
        let metadata = crate::object::ObjectMeta::named(name);
        Profile { metadata, spec: ProfileSpec::default() }
    };
    assert_eq!(of("kns.media").of(), Some(ProfileOf::Namespace("media")));
    assert_eq!(of("ksa.media.robot.one").of(), Some(ProfileOf::ServiceAccount("media", "robot.one")));
    for name in ["kns.", "kns.a.b", "ksa.media", "ksa.media.", "other"] {
        assert_eq!(of(name).of(), None, "{name}");
    }
}

#[test]
fn limits_are_upstreams() {
    let rules = |count: usize| format!("{{egress: [{}]}}", vec!["{action: Deny}"; count].join(", "));
    one("GlobalNetworkPolicy", &rules(MAX_RULES));
    let found = error("GlobalNetworkPolicy", &rules(MAX_RULES + 1));
    assert!(found.field == "spec.egress" && found.problem.contains("these are 1025"), "{found}");
    let list = |what: &str, entry: &str, count: usize| {
        let entries = vec![entry; count].join(", ");
        format!("{{egress: [{{action: Allow, protocol: TCP, destination: {{{what}: [{entries}]}}}}]}}")
    };
    one("GlobalNetworkPolicy", &list("nets", "10.0.0.0/8", MAX_NETS));
    let found = error("GlobalNetworkPolicy", &list("nets", "10.0.0.0/8", MAX_NETS + 1));
    assert_eq!(found.field, "spec.egress[0].destination.nets");
    let found = error("GlobalNetworkPolicy", &list("notPorts", "80", MAX_PORTS + 1));
    assert_eq!(found.field, "spec.egress[0].destination.notPorts");
    let found = error("GlobalNetworkPolicy", &format!("{{selector: has({})}}", "a".repeat(MAX_SELECTOR)));
    assert_eq!(found.field, "spec.selector");
}

#[test]
fn one_that_cannot_be_read_is_closed() {
    let closed = NetworkPolicy::closed("x", "p").spec;
    assert!(PolicyType::ALL.iter().all(|direction| {
        closed.rules(*direction).is_some_and(|rules| rules == [Rule::all(RuleAction::Deny)])
    }));
    assert_eq!(closed.tier(), Tier::DEFAULT);
}
