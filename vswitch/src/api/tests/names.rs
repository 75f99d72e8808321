//! What DNS tells pods, for whoever watches; and which addresses flows lead to.

use vswitch_datapath::testing::dns::{Record, answer, query};

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
        let request = pb::WatchNamesRequest { patterns: text(patterns), servers: text(servers) };
        let stream = self.client.watch_names(request).await.unwrap().into_inner();
        let dns = || &self.shared.workers[0].counters.dns;
        until("the worker is told", async || dns().is_wanted().then_some(())).await;
        stream
    }

    /// Pod a asks pod b, which answers.
    async fn asks(&self, port: u16, message: &[u8]) {
        let [a, b] = ["pod-a", "pod-b"].map(|name| self.world.peer(name).unwrap());
        assert!(a.send(&datagram((A, port), (B, 53), &query("www.example.org"))));
        received(&b).await;
        assert!(b.send(&datagram((B, 53), (A, port), message)));
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
    for (patterns, servers, field) in [("*.org", "", "patterns[0]"), ("a.b", "dns", "servers[0]")] {
        let servers = Some(servers.to_owned()).filter(|server| !server.is_empty()).into_iter().collect();
        let request = pb::WatchNamesRequest { patterns: vec![patterns.into()], servers };
        let status = served.client.watch_names(request).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().starts_with(field), "{status}");
    }
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
