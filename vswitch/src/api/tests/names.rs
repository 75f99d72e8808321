//! What DNS tells pods, for whoever watches; and which addresses flows lead to.

use vswitch_datapath::PortIndex;
use vswitch_datapath::testing::dns::{Record, answer, query};
use vswitch_model::DropReason;

use super::*;
use crate::io::MemoryPeer;

fn datagram(from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let [a, b, c, d] = from.0;
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([0x02, 0, a, b, c, d], Mac::GATEWAY.0).ipv4(from.0, to.0, 64);
    builder.udp(from.1, to.1).write(&mut bytes, payload).unwrap();
    bytes
}

async fn received(peer: &MemoryPeer) -> Vec<u8> {
    until("a packet", async || peer.receive()).await
}

impl Served {
    /// Watches, and waits until the workers tell.
    async fn watch(&mut self, patterns: &[&str], servers: &[&str]) -> tonic::Streaming<pb::NameAnswer> {
        let text = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let request =
            pb::WatchNamesRequest { patterns: text(patterns), servers: text(servers), ..Default::default() };
        let stream = self.client.watch_names(request).await.unwrap().into_inner();
        let dns = || &self.shared.workers[0].counters.dns;
        until("the worker is told", async || dns().is_wanted().then_some(())).await;
        stream
    }

    /// Pod a asks pod b, which answers; gives pod a, which has read nothing.
    async fn answers(&self, port: u16, message: &[u8]) -> MemoryPeer {
        let [a, b] = ["pod-a", "pod-b"].map(|name| self.world.peer(name).unwrap());
        assert!(a.send(&datagram((A, port), (B, 53), &query("www.example.org"))));
        received(&b).await;
        assert!(b.send(&datagram((B, 53), (A, port), message)));
        a
    }

    /// The same, and pod a gets it.
    async fn asks(&self, port: u16, message: &[u8]) {
        let a = self.answers(port, message).await;
        assert!(received(&a).await.ends_with(message), "the pod gets what it gets");
    }
}

#[tokio::test]
async fn names_are_told_to_who_watches() {
    let mut served = Served::start().await;
    let mut state = one_pod();
    add_pod(&mut state, "pod-b", &["10.1.0.11"]);
    served.apply(1, &state).await;
    let message = answer(
        "www.example.org",
        &[
            Record::alias("www.example.org", 30, "edge.example.net"),
            Record::address("edge.example.net", 60, "203.0.113.7"),
        ],
    );
    served.asks(4000, &message).await;
    assert_eq!(served.shared.workers[0].counters.dns.told.get(), 0, "nobody watches");

    let mut first = served.watch(&["*.example.org"], &[]).await;
    served.asks(4001, b"no message").await;
    served.asks(4002, &answer("www.example.net", &[])).await;
    served.asks(4003, &message).await;
    let told = first.message().await.unwrap().unwrap();
    let address =
        pb::NamedAddress { name: "www.example.org".into(), address: "203.0.113.7".into(), ttl_s: 30 };
    let expected = pb::NameAnswer {
        server: "10.1.0.11".into(),
        pod: "10.1.0.10".into(),
        addresses: vec![address],
        lost: 0,
        unreadable: 1,
        number: 1,
        unreleased: 0,
    };
    assert_eq!(told, expected);

    let mut second = served.watch(&["www.example.org"], &["10.1.0.12/32"]).await;
    assert_eq!(first.message().await.unwrap(), None, "who asks last is told");
    served.asks(4004, &message).await;
    let mut third = served.watch(&["edge.example.net"], &["10.1.0.0/24"]).await;
    assert_eq!(second.message().await.unwrap(), None, "nothing by other servers");
    served.asks(4005, &message).await;
    let told = third.message().await.unwrap().unwrap();
    assert_eq!((told.addresses[0].name.as_str(), told.addresses[0].ttl_s), ("edge.example.net", 60));

    drop((second, third));
    let dns = || &served.shared.workers[0].counters.dns;
    until("the worker tells no more", async || (!dns().is_wanted()).then_some(())).await;
    let wrong =
        [("*.org", "", "", "patterns[0]"), ("a.b", "dns", "", "servers[0]"), ("a.b", "", "pod-a", "pods[0]")];
    for (patterns, servers, pods, field) in wrong {
        let text = |one: &str| Some(one.to_owned()).filter(|one| !one.is_empty()).into_iter().collect();
        let request = pb::WatchNamesRequest {
            patterns: text(patterns),
            servers: text(servers),
            pods: text(pods),
            hold: false,
        };
        let status = served.client.watch_names(request).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().starts_with(field), "{status}");
    }
    served.stop().await;
}

/// Asks to hold what a pod is told of these names.
async fn hold(served: &mut Served, pod: &str) -> tonic::Streaming<pb::NameAnswer> {
    let request = pb::WatchNamesRequest {
        patterns: vec!["*.example.org".to_owned()],
        pods: vec![pod.to_owned()],
        hold: true,
        ..Default::default()
    };
    let told = served.client.watch_names(request).await.unwrap().into_inner();
    let shared = Arc::clone(&served.shared);
    until("the worker is told", async || shared.workers[0].counters.dns.is_wanted().then_some(())).await;
    told
}

#[tokio::test]
async fn an_answer_is_held_until_it_is_released_or_too_long() {
    let mut served = Served::start().await;
    let mut state = one_pod();
    add_pod(&mut state, "pod-b", &["10.1.0.11"]);
    served.apply(1, &state).await;
    let mut told = hold(&mut served, "10.1.0.10").await;
    let shared = Arc::clone(&served.shared);
    let dns = || &shared.workers[0].counters.dns;
    let message = answer("www.example.org", &[Record::address("www.example.org", 60, "203.0.113.7")]);
    // Of no name that is asked for: it goes on without anybody's word.
    served.asks(4000, &answer("www.example.net", &[])).await;
    assert_eq!((dns().told.get(), dns().unreleased.get()), (1, 0));

    let a = served.answers(4001, &message).await;
    let number = told.message().await.unwrap().unwrap().number;
    assert_eq!((number, a.receive()), (1, None), "the pod waits");
    let mut client = served.client.clone();
    let mut release = async |through| client.release_answers(pb::ReleaseAnswersRequest { through }).await;
    let status = release(2).await.unwrap_err();
    assert_eq!(status.message(), "through: 2 was not told yet: the last was 1");
    release(1).await.unwrap();
    assert!(received(&a).await.ends_with(&message));

    // Nobody releases the next one.
    served.answers(4002, &message).await;
    assert_eq!(told.message().await.unwrap().unwrap().number, 2);
    assert!(received(&a).await.ends_with(&message));
    until("that is counted", async || (dns().unreleased.get() > 0).then_some(())).await;
    release(2).await.unwrap();

    // Another watches, and releases what the first was told.
    served.answers(4003, &message).await;
    assert_eq!(told.message().await.unwrap().unwrap().unreleased, 1);
    let mut second = hold(&mut served, "10.1.0.10").await;
    assert_eq!(told.message().await.unwrap(), None);
    release(3).await.unwrap();
    assert!(received(&a).await.ends_with(&message));
    served.answers(4004, &message).await;
    assert_eq!(second.message().await.unwrap().unwrap().number, 4);
    // Nobody watches any more.
    drop(second);
    assert!(received(&a).await.ends_with(&message));
    until("the worker tells no more", async || (!dns().is_wanted()).then_some(())).await;
    served.asks(4005, &message).await;
    assert_eq!(dns().told.get(), 5);
    let text = crate::metrics::text(Arc::clone(&served.shared));
    let line = "vswitch_dns_answers_total{worker=\"0\",outcome=\"told\"} 5";
    assert!(text.lines().any(|other| other == line), "{text}");
    served.stop().await;
}

#[tokio::test]
async fn who_watches_next_is_told_what_nobody_was() {
    let mut served = Served::start().await;
    let mut state = one_pod();
    add_pod(&mut state, "pod-b", &["10.1.0.11"]);
    served.apply(1, &state).await;
    let message = answer("www.example.org", &[Record::address("www.example.org", 60, "203.0.113.7")]);
    let mut first = hold(&mut served, "10.1.0.10").await;
    served.asks(4000, &message).await;
    served.asks(4001, b"no message").await;
    assert_eq!(first.message().await.unwrap().unwrap().number, 1);
    let shared = Arc::clone(&served.shared);
    let dns = || &shared.workers[0].counters.dns;
    let missed = dns().unreleased.get();
    assert!(missed >= 1, "nobody released the first");

    let mut second = hold(&mut served, "10.1.0.10").await;
    assert_eq!(first.message().await.unwrap(), None);
    let a = served.answers(4002, &message).await;
    let told = second.message().await.unwrap().unwrap();
    assert!((told.number, told.unreadable) == (2, 1) && told.unreleased >= missed, "{told:?}");
    // What is under way when another watches is not lost, and the pod waits as before.
    let mut third = hold(&mut served, "10.1.0.10").await;
    served.client.release_answers(pb::ReleaseAnswersRequest { through: 2 }).await.unwrap();
    assert!(received(&a).await.ends_with(&message));
    assert_eq!(second.message().await.unwrap(), None);
    let a = served.answers(4003, &message).await;
    assert_eq!(third.message().await.unwrap().unwrap().number, 3);
    drop(third);
    assert!(received(&a).await.ends_with(&message));
    served.stop().await;
}

#[tokio::test]
async fn a_held_answer_ends_with_its_pod_or_its_engine() {
    let mut served = Served::start().await;
    let mut state = one_pod();
    add_pod(&mut state, "pod-b", &["10.1.0.11"]);
    served.apply(1, &state).await;
    let mut told = hold(&mut served, "10.1.0.11").await;
    let [a, b] = ["pod-a", "pod-b"].map(|name| served.world.peer(name).unwrap());
    let message = answer("www.example.org", &[Record::address("www.example.org", 60, "203.0.113.7")]);
    for port in [4000, 4001] {
        assert!(b.send(&datagram((B, port), (A, 53), &query("www.example.org"))));
        received(&a).await;
        assert!(a.send(&datagram((A, 53), (B, port), &message)));
        told.message().await.unwrap().unwrap();
    }
    served.apply(2, &one_pod()).await;
    // Whether they still left or ended with the port, each is counted once.
    let counters = &served.shared.workers[0].counters;
    let ports = || (0..8).map(|port| counters.port(PortIndex(port)));
    let received: u64 = ports().map(|port| port.rx_packets.get()).sum();
    let sent: u64 = ports().map(|port| port.tx_packets.get()).sum();
    let dropped: u64 = DropReason::ALL.iter().map(|reason| counters.drops(*reason)).sum();
    assert_eq!((received, sent + dropped), (4, 4), "{sent} sent, {dropped} dropped");
    // Every frame came home, or the server's task panics.
    served.stop().await;
}

#[tokio::test]
async fn flows_are_found_by_address_and_age() {
    let mut served = Served::start().await;
    let mut state = one_pod();
    add_pod(&mut state, "pod-b", &["10.1.0.11"]);
    served.apply(1, &state).await;
    served.asks(4000, b"!").await;
    let mut find = async |ends: &[(&str, u64)]| {
        let end =
            |(address, age_ms): &(&str, u64)| pb::FlowEnd { address: (*address).to_owned(), age_ms: *age_ms };
        let request = pb::FindFlowsRequest { ends: ends.iter().map(end).collect() };
        served.client.find_flows(request).await.map(|reply| reply.into_inner().addresses)
    };
    assert_eq!(
        find(&[("10.1.0.10", 0), ("10.1.0.11", 0), ("10.1.0.12", 0)]).await.unwrap(),
        ["10.1.0.10", "10.1.0.11"]
    );
    assert_eq!(find(&[("10.1.0.10", 3_600_000), ("10.1.0.11", 0)]).await.unwrap(), ["10.1.0.11"]);
    assert!(find(&[("x", 0)]).await.unwrap_err().message().starts_with("ends[0].address: "));
    served.stop().await;
}
