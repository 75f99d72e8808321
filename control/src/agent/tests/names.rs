//! What DNS tells of names that policies speak of, from the engine back to it.

use ipnet::IpNet;

use super::*;

/// The relay may send to a name and nowhere else.
const GUARD: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 5
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: relay}}}}
  egress:
  - {action: Accept, to: [{domainNames: ['*.example.org']}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0]}]}
";

fn net(address: &str) -> IpNet {
    address.parse().unwrap()
}

async fn list(bench: &Bench) -> pb::ListNamesReply {
    bench.api.list_names(Request::new(pb::ListNamesRequest {})).await.unwrap().into_inner()
}

async fn explained(bench: &Bench, to: &str) -> pb::ExplainFlowReply {
    let (from, to) = ("media/relay".to_owned(), to.to_owned());
    let request = pb::ExplainFlowRequest { from, to, protocol: 17, port: 5060, ..Default::default() };
    bench.api.explain(Request::new(request)).await.unwrap().into_inner()
}

/// A relay and a caller, attached, and the engine asked for the names of the policy.
async fn guarded() -> Bench {
    let bench = Bench::with_cluster().await;
    assert_eq!(bench.apply(GUARD).await, ["ClusterNetworkPolicy guard created"]);
    bench.attach(request("a", "relay", 1)).await.unwrap();
    bench.attach(request("b", "caller", 2)).await.unwrap();
    let content = bench.engine.until(|content| content.watched.is_some()).await;
    let watched = content.watched.unwrap();
    assert_eq!(watched.patterns, ["*.example.org"]);
    assert!(watched.hold && watched.pods == ["10.244.9.1"], "{watched:?}");
    bench
}

#[tokio::test]
async fn what_dns_tells_the_pod_of_a_policy_comes_into_force() {
    let bench = guarded().await;
    let unknown = list(&bench).await;
    assert_eq!((unknown.names.len(), unknown.unknown[0].pattern.as_str()), (0, "*.example.org"));
    assert!(!explained(&bench, "203.0.113.7").await.allowed);

    // Of whom the policy does not speak: what it is told opens nothing. And no name that anybody asks for.
    bench.engine.answer(1, "10.244.9.2", &[("sip.example.org", "203.0.113.66", 60)]);
    bench.engine.answer(2, "10.244.9.1", &[("example.org", "203.0.113.67", 60)]);
    bench.engine.answer(3, "10.244.9.1", &[("sip.example.org", "203.0.113.7", 60)]);
    let content =
        bench.engine.until(|content| content.state.prefixes.contains_key(&net("203.0.113.7/32"))).await;
    for other in ["203.0.113.66/32", "203.0.113.67/32"] {
        assert!(!content.state.prefixes.contains_key(&net(other)), "{other}");
    }
    // Pods get answers when what they say is in force: at once where there is nothing new.
    let last = |content: &fake_engine::Content| content.released.last().copied();
    let released = bench.engine.until(|content| last(content).is_some_and(|(through, _)| through == 3)).await;
    assert_eq!(last(&released), Some((3, content.generation)), "{:?}", released.released);
    let problems = bench.agent.core.status().await.problems;
    let late = "names: answers of DNS that pods got before what they say was in force, so that a packet may be denied: 1 (";
    assert!(problems.iter().any(|problem| problem.starts_with(late)), "{problems:?}");
    let known = list(&bench).await;
    let [sip] = &known.names[..] else { panic!("{known:?}") };
    assert_eq!((sip.name.as_str(), sip.address.as_str()), ("sip.example.org", "203.0.113.7"));
    assert_eq!(
        (sip.server.as_str(), &sip.policies[..]),
        ("10.96.0.10", &["ClusterNetworkPolicy guard".to_owned()][..])
    );
    assert!((1..=60_000).contains(&sip.ttl_left_ms) && known.unknown.is_empty());
    let egress = explained(&bench, "203.0.113.7").await.egress.unwrap();
    assert!(egress.allowed && egress.reason.contains("203.0.113.7 is sip.example.org"), "{}", egress.reason);

    // Nobody speaks of the name any more: it is forgotten.
    let request = pb::DeleteObjectsRequest { objects: vec![named("cnp", "guard")], ..Default::default() };
    bench.api.delete(Request::new(request)).await.unwrap();
    bench.engine.until(|content| !content.state.prefixes.contains_key(&net("203.0.113.7/32"))).await;
    let mut names = bench.agent.core.names.published();
    in_time(names.wait_for(|published| published.names.0.is_empty())).await.unwrap();
    assert_eq!(list(&bench).await, pb::ListNamesReply::default());
}

#[tokio::test]
async fn what_is_under_way_when_other_pods_or_names_are_wanted_is_learned() {
    let bench = guarded().await;
    bench.engine.answer_last(1, "10.244.9.1", &[("sip.example.org", "203.0.113.7", 60)]);
    let of_all = GUARD.replace("{matchLabels: {app: relay}}", "{}");
    bench.apply(&of_all).await;
    let has =
        |content: &fake_engine::Content, address: &str| content.state.prefixes.contains_key(&net(address));
    let pods = |content: &fake_engine::Content| content.watched.as_ref().map(|watched| watched.pods.len());
    bench.engine.until(|content| pods(content) == Some(2)).await;
    bench.engine.until(|content| has(content, "203.0.113.7/32")).await;
    bench.engine.until(|content| content.released.last().is_some_and(|(through, _)| *through == 1)).await;
    bench.engine.answer(2, "10.244.9.2", &[("rtp.example.org", "203.0.113.8", 60)]);
    bench.engine.until(|content| has(content, "203.0.113.8/32")).await;

    // The policy has another name besides, and then that alone.
    bench.engine.answer_last(4, "10.244.9.1", &[("sip.example.org", "203.0.113.9", 60)]);
    bench.apply(&of_all.replace("['*.example.org']", "['*.example.org', '*.example.net']")).await;
    bench.engine.until(|content| has(content, "203.0.113.9/32")).await;
    bench.engine.answer(5, "10.244.9.1", &[("sip.example.net", "203.0.113.10", 60)]);
    bench.engine.until(|content| has(content, "203.0.113.10/32")).await;
    bench.apply(&of_all.replace("example.org", "example.net")).await;
    let forgotten = |content: &fake_engine::Content| !has(content, "203.0.113.7/32");
    let content = bench.engine.until(forgotten).await;
    assert!(has(&content, "203.0.113.10/32"), "what is still wanted stays");
}

#[tokio::test]
async fn an_agent_that_starts_anew_knows_what_the_one_before_knew() {
    let Bench { store, truth, engine, agent, api, folder } = guarded().await;
    engine.answer(1, "10.244.9.1", &[("sip.example.org", "203.0.113.7", 60)]);
    engine.until(|content| content.state.prefixes.contains_key(&net("203.0.113.7/32"))).await;
    let file = folder.path().join("names.json");
    let written = async {
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("203.0.113.7")) {
            tokio::task::yield_now().await;
        }
    };
    in_time(written).await;
    drop((agent, api, store));
    let wholes = engine.content().wholes;
    let agent = Agent::start(settings("n1", engine.socket()), Arc::clone(&truth), "embedded", wall_clock());
    let whole = engine.until(|content| content.wholes > wholes).await;
    assert!(whole.state.prefixes.contains_key(&net("203.0.113.7/32")), "not for a moment was it away");
    drop(agent);

    // A file that is no such file is told, and keeps nothing from working.
    std::fs::write(&file, "{").unwrap();
    let agent = Agent::start(settings("n1", engine.socket()), truth, "embedded", wall_clock());
    let problems = agent.core.status().await.problems;
    assert!(problems.iter().any(|problem| problem.starts_with("names: ") && problem.contains("names.json")));
    engine.until(|content| !content.state.prefixes.contains_key(&net("203.0.113.7/32"))).await;
}
