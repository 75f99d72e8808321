//! Objects that are large without being wrong.

use super::*;

const RULES: usize = 10_000;

/// A policy of many rules, each for an address and a port of its own.
fn policy(first_port: usize) -> String {
    let rule = |number: usize| {
        let address = std::net::Ipv4Addr::from_bits((100 << 24 | 64 << 16) + u32::try_from(number).unwrap());
        let port = first_port + number;
        format!(
            "  - {{from: [{{ipBlock: {{cidr: {address}/32}}}}], ports: [{{protocol: UDP, port: {port}}}]}}\n"
        )
    };
    let rules: String = (0..RULES).map(rule).collect();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: large, namespace: media}}\n\
         spec:\n  podSelector: {{}}\n  ingress:\n{rules}"
    )
}

#[tokio::test]
async fn ten_thousand_rules_in_one_policy_come_into_force() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    for (first_port, outcome) in [(1000, "created"), (1001, "configured")] {
        assert_eq!(bench.apply(&policy(first_port)).await, [format!("NetworkPolicy large {outcome}")]);
        let newest = bench.truth.list(Some(Kind::NetworkPolicy)).await.unwrap().revisions.newest();
        bench
            .until_progress(|progress| {
                progress.in_force.as_ref().is_some_and(|in_force| in_force.revisions.newest() >= newest)
            })
            .await;
        let state = bench.engine.content().state;
        let [policy] = state.policies.values().collect::<Vec<_>>()[..] else { panic!("one policy") };
        let last = policy.rules.last().unwrap();
        assert_eq!((policy.rules.len(), last.position.as_str()), (RULES, "ingress rule 10000, from 1"));
        assert_eq!(usize::from(last.ports[0].first), first_port + RULES - 1);
    }
}
