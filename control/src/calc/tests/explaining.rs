use super::super::{End, ExplainError, Explanation, Question, explain};
use super::*;

fn cluster(policies: &str) -> Inputs {
    let base = [
        node("n0", "IPv4Address=192.0.2.1/24"),
        node("n1", "IPv4Address=192.0.2.2/24"),
        pod(
            "media/relay",
            "app: relay",
            "spec: {containers: [{name: c, ports: [{name: sip, containerPort: 5060, protocol: UDP}]}]}",
        ),
        pod(
            "media/caller",
            "role: caller",
            "spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.1.7}, {ip: 'fd00::7'}]}",
        ),
        pod("other/stranger", "", "status: {podIP: 10.0.1.8}"),
        pod("media/host", "", "spec: {hostNetwork: true, nodeName: n0}"),
        pod("media/new", "", "spec: {nodeName: n0}"),
        endpoint("v0", "n0", "media/relay", "10.0.0.5"),
    ];
    inputs(&(base.concat() + policies))
}

fn ask(inputs: &Inputs, from: &str, to: &str, port: u16) -> Result<Explanation, ExplainError> {
    let [from, to] = [from, to].map(|end| end.parse::<End>().unwrap());
    explain(inputs, &Question { from, to, protocol: 17, port, source_port: None, is_ipv4: None })
}

fn relay() -> String {
    let ports = "ports: [{protocol: UDP, port: sip}, {protocol: UDP, port: 10000, endPort: 20000}]";
    policy(
        "media/relay",
        &format!(
            "podSelector: {{matchLabels: {{app: relay}}}}, ingress: [{{from: [{{ipBlock: {{cidr: 203.0.113.0/24}}}}, {{podSelector: {{matchLabels: {{role: caller}}}}}}], {ports}}}]"
        ),
    )
}

#[test]
fn the_deciding_policy_and_rule_are_named() {
    let inputs = cluster(&relay());
    let said = ask(&inputs, "media/caller", "media/relay", 5060).unwrap();
    assert!(said.allowed && said.ingress.isolated && !said.egress.isolated);
    assert_eq!(
        (said.ingress.policy.as_str(), said.ingress.position.as_str()),
        ("NetworkPolicy media/relay", "ingress rule 1, from 2")
    );
    assert_eq!(said.ingress.hint, "without that rule it would be denied");
    assert_eq!(said.from, "pod media/caller {role=caller} (10.0.1.7)");
    assert_eq!(said.from_address, "10.0.1.7".parse::<IpAddr>().unwrap());
    assert!(said.egress.reason.contains("no policy isolates pod media/caller"), "{said}");
    assert!(
        said.to_string().starts_with("allowed: pod media/caller {role=caller} (10.0.1.7) -> pod media/relay")
    );
    assert_eq!(serde_json::from_str::<Explanation>(&serde_json::to_string(&said).unwrap()).unwrap(), said);
}

#[test]
fn a_denial_says_what_would_have_to_change() {
    let inputs = cluster(&(relay() + &policy("media/all", "podSelector: {}, policyTypes: [Ingress]")));
    let denied = |from, port| {
        let said = ask(&inputs, from, "media/relay", port).unwrap();
        assert!(!said.allowed && said.egress.allowed, "{said}");
        assert_eq!(said.ingress.policies, ["NetworkPolicy media/all", "NetworkPolicy media/relay"]);
        assert_eq!((said.ingress.policy.as_str(), said.ingress.position.as_str()), ("", ""));
        assert_eq!(
            said.ingress.reason,
            "isolated by NetworkPolicy media/all, NetworkPolicy media/relay; no rule matched (it counts with the \
             last of them)"
        );
        said.ingress.hint
    };
    assert_eq!(
        denied("media/caller", 5061),
        "NetworkPolicy media/relay, ingress rule 1, from 2 admits pod media/caller {role=caller} (10.0.1.7), but not at \
         UDP 5061: its ports would have to have that"
    );
    assert!(denied("other/stranger", 5060).contains("is open at UDP 5060, but not for pod other/stranger"));
    assert!(denied("198.51.100.1", 1).contains("would have to admit 198.51.100.1 at UDP 1"));
}

#[test]
fn nodes_reach_their_own_pods_and_pods_themselves() {
    let inputs = cluster(&policy("media/all", "podSelector: {}, policyTypes: [Ingress, Egress]"));
    let said = |from, to| ask(&inputs, from, to, 1).unwrap();
    assert_eq!(said("192.0.2.1", "media/relay").ingress.reason, "node n0 always reaches its own pods");
    assert!(said("media/host", "media/relay").allowed, "a pod on the host's network is the node");
    assert!(!said("192.0.2.2", "media/relay").allowed, "another node is not");
    assert!(said("media/relay", "media/relay").allowed);
    assert!(!said("media/relay", "192.0.2.1").allowed, "egress to the node is for policy to say");
    assert_eq!(
        said("media/relay", "192.0.2.1").ingress.reason,
        "node n0 (192.0.2.1) is no pod: no policy speaks of it"
    );
    let again = endpoint("v1", "n0", "media/relay", "10.0.0.6");
    let inputs = cluster(&(again + &policy("media/all", "podSelector: {}, policyTypes: [Ingress]")));
    assert!(
        !ask(&inputs, "10.0.0.5", "10.0.0.6", 1).unwrap().allowed,
        "another sandbox of the pod is not itself"
    );
}

#[test]
fn a_named_port_that_the_pod_does_not_have_is_said_to_be_none_of_its() {
    let rule = "podSelector: {matchLabels: {app: relay}}, ingress: [{ports: [{protocol: UDP, port: ship}]}]";
    let inputs = cluster(&policy("media/typo", rule));
    let said = ask(&inputs, "media/caller", "media/relay", 5060).unwrap();
    let says = "but port ship is none of this pod's (sip UDP 5060)";
    assert!(!said.allowed && said.ingress.hint.ends_with(says), "{said}");
}

#[test]
fn ends_must_have_addresses_of_one_family() {
    let inputs = cluster("");
    let nobody = End::Pod("default".into(), "nobody".into());
    assert_eq!(ask(&inputs, "nobody", "media/relay", 1), Err(ExplainError::NoPod(nobody, String::new())));
    let not_attached = ask(&inputs, "media/relay", "media/new", 1).unwrap_err().to_string();
    assert_eq!(
        not_attached,
        "pod media/new is there, but has no address: it is not attached, and its status names none"
    );
    assert_eq!(ask(&inputs, "node/n1", "media/relay", 1).unwrap().from, "node n1 (192.0.2.2)");
    assert!(matches!(ask(&inputs, "media/relay", "fd00::7", 1), Err(ExplainError::NoFamily(..))));
    let [from, to] = ["fd00::9", "media/caller"].map(|end| end.parse::<End>().unwrap());
    let mut question = Question { from, to, protocol: 6, port: 1, source_port: None, is_ipv4: None };
    assert_eq!(explain(&inputs, &question).unwrap().to_address, "fd00::7".parse::<IpAddr>().unwrap());
    question.is_ipv4 = Some(true);
    assert_eq!(
        explain(&inputs, &question).unwrap_err().to_string(),
        "fd00::9 and media/caller have no address of one family: IPv4 was asked for"
    );
}
