//! Policies of the whole cluster beside those of namespaces.

use super::*;
use crate::calc::{Explanation, Question, explain};
use crate::object::{Key, Kind, Object};

fn base() -> String {
    let pods = pod("media/relay", "app: relay", "spec: {}") + &pod("guest/phone", "app: phone", "spec: {}");
    let attached = endpoint("vsw1", "n1", "media/relay", "10.0.0.1")
        + &endpoint("vsw2", "n1", "guest/phone", "10.0.0.2");
    node("n1", "IPv4Address=192.0.2.1/24") + &pods + &attached
}

fn ask(inputs: &Inputs, from: &str, to: &str) -> Explanation {
    let [Ok(from), Ok(to)] = [from, to].map(str::parse);
    explain(inputs, &Question { from, to, protocol: 17, port: 5060, source_port: None, is_ipv4: None })
        .unwrap()
}

#[test]
fn one_that_cannot_be_read_closes_the_cluster() {
    let accept = "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: open},
        spec: {tier: Admin, priority: 0, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}}";
    let mut inputs = inputs(&format!("{}---\n{accept}", base()));
    for from in ["guest/phone", "203.0.113.1"] {
        assert!(ask(&inputs, from, "media/relay").allowed, "{from}");
    }
    let key = Key::cluster(Kind::AdminNetworkPolicy, "from-the-future");
    inputs.unreadable.insert(key.clone());
    for (from, to) in
        [("guest/phone", "media/relay"), ("203.0.113.1", "media/relay"), ("guest/phone", "203.0.113.1")]
    {
        let said = ask(&inputs, from, to);
        let side = if said.egress.allowed { &said.ingress } else { &said.egress };
        assert!(!said.allowed && side.policy == "AdminNetworkPolicy from-the-future", "{said}");
    }
    assert!(ask(&inputs, "192.0.2.1", "media/relay").allowed, "the node reaches its own pods");
    let denying = state(&inputs, "n1").policies.into_values().filter(|p| p.name.ends_with("from-the-future"));
    assert_eq!(denying.count(), 2, "one a direction");

    let readable =
        accept.replace("v1alpha2, kind: Cluster", "v1alpha1, kind: Admin").replace("tier: Admin, ", "");
    let readable = readable.replace("name: open", "name: from-the-future").replace("Accept", "Allow");
    let [document] = &manifest::parse("test", "default", &readable).unwrap()[..] else {
        panic!("one object")
    };
    assert_eq!(document.object.key(), key);
    inputs.set(Object::clone(&document.object));
    assert!(ask(&inputs, "guest/phone", "media/relay").allowed);
    inputs.unreadable.insert(key.clone());
    inputs.remove(&key);
    assert!(inputs.unreadable.is_empty() && inputs.admin_policies.is_empty());
}
