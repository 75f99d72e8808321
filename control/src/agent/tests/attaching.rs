//! Attach, detach, check, garbage: CNI's side.

use futures::FutureExt;

use vswitch_model::{Attachment, Mac};

use super::*;

#[tokio::test]
async fn attach_waits_until_the_workers_enforce_the_policy() {
    let bench = Bench::with_cluster().await;
    bench.apply(POLICY).await;
    bench.until_progress(|p| p.engine_error.is_none()).await;
    bench.engine.hold(true);
    let before = bench.engine.content().arrived;
    let mut attaching = bench.attach(request("a", "relay", 1)).boxed();
    tokio::select! {
        _ = &mut attaching => panic!("attached before the engine has acknowledged"),
        _ = bench.engine.until(|content| content.arrived > before) => {}
    }
    assert!((&mut attaching).now_or_never().is_none());
    bench.engine.hold(false);
    let generation = attaching.await.unwrap();
    let content = bench.engine.content();
    assert!(content.generation >= generation);
    let identity = content.state.prefixes[&"10.244.9.1/32".parse().unwrap()];
    assert_eq!(content.state.ports[&port_of("a")].workload, "media/relay");
    assert_eq!(content.state.subjects[&identity].ingress.len(), 1, "isolated by the policy from the start");
}

#[tokio::test]
async fn an_attach_the_engine_does_not_answer_is_undone() {
    let bench = Bench::without_engine();
    bench.apply(CLUSTER).await;
    let status =
        bench.attach(pb::AttachRequest { timeout_ms: 300, ..request("a", "relay", 1) }).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("vswitchd does not answer on"), "{status}");
    assert_eq!(bench.endpoints().await, Vec::<String>::new());
    bench.engine.start();
    bench.attach(request("a", "relay", 1)).await.unwrap();
}

#[tokio::test]
async fn an_attach_that_cannot_come_into_force_says_why() {
    let bench = Bench::with_cluster().await;
    // Somebody else's problem, which comes first in the list.
    let lost = server::endpoint(request("lost", "caller", 9), "n9").unwrap();
    crate::store::apply(&*bench.truth, &lost.into()).await.unwrap();
    bench.until_progress(|p| p.problems == ["10.244.9.9/32 is unreachable: there is no Node n9"]).await;
    let nodes_own = vec!["192.0.2.1".to_owned()];
    let request = pb::AttachRequest { timeout_ms: 500, addresses: nodes_own, ..request("a", "relay", 1) };
    let status = bench.attach(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let why = "pod media/relay goes without address 192.0.2.1: it is that of node n1";
    assert!(status.message().ends_with(why), "{status}");
}

#[tokio::test]
async fn a_port_that_will_not_open_is_an_error_and_undone() {
    let bench = Bench::with_cluster().await;
    bench.engine.change(|content| drop(content.failing.insert("vswa".into(), "no such device".into())));
    let status = bench.attach(request("a", "relay", 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("could not open port vswa: no such device"), "{status}");
    assert_eq!(bench.endpoints().await, Vec::<String>::new());
    bench.engine.until(|content| content.state.ports.is_empty()).await;
}

#[tokio::test]
async fn a_pod_nobody_knows_is_not_attached_before_it_is_known() {
    let bench = Bench::with_cluster().await;
    let short = pb::AttachRequest { timeout_ms: 200, ..request("a", "new", 1) };
    let status = bench.attach(short).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("pod media/new is not in the store"), "{status}");
    assert_eq!(bench.endpoints().await, Vec::<String>::new());
    let mut attaching = bench.attach(request("a", "new", 1)).boxed();
    assert!((&mut attaching).now_or_never().is_none());
    bench.apply("{apiVersion: v1, kind: Pod, metadata: {name: new, namespace: media, uid: u2}}").await;
    attaching.await.unwrap();
    // The runtime's pod is a later one of the same name than the one that is known.
    let later = pb::AttachRequest { timeout_ms: 200, uid: "u3".into(), ..request("b", "new", 2) };
    assert_eq!(bench.attach(later).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_container_that_is_no_pod_is_attached() {
    let bench = Bench::with_cluster().await;
    let bare = pb::AttachRequest { namespace: String::new(), pod: String::new(), ..request("a", "", 1) };
    bench.attach(bare).await.unwrap();
    assert!(bench.has_port("a"));
}

#[tokio::test]
async fn two_sandboxes_of_one_pod_live_side_by_side() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("old", "relay", 1)).await.unwrap();
    bench.attach(request("new", "relay", 2)).await.unwrap();
    assert!(bench.has_port("old") && bench.has_port("new"));
    assert!(bench.detach("old").await);
    assert!(!bench.detach("old").await, "there is nothing left to detach, and that is fine");
    assert_eq!(bench.endpoints().await, ["new.eth0"]);
    bench.engine.until(|content| content.state.ports.len() == 1).await;
    assert!(bench.has_port("new"));
}

#[tokio::test]
async fn a_repeated_attach_is_the_same_one() {
    let bench = Bench::with_cluster().await;
    let first = bench.attach(request("a", "relay", 1)).await.unwrap();
    let second = bench.attach(request("a", "relay", 1)).await.unwrap();
    assert!(second >= first);
    assert_eq!(bench.endpoints().await, ["a.eth0"]);
}

#[tokio::test]
async fn what_belongs_to_another_is_refused() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    let status = bench.attach(request("b", "caller", 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(
        status.message().starts_with("addresses: 10.244.9.1 belongs to media/relay (container a"),
        "{status}"
    );
    let same_port = pb::AttachRequest { host_interface: "vswa".into(), ..request("b", "caller", 2) };
    let status = bench.attach(same_port).await.unwrap_err();
    assert!(status.message().starts_with("host_interface: vswa belongs to media/relay"), "{status}");
    assert_eq!(bench.endpoints().await, ["a.eth0"]);
}

#[tokio::test]
async fn what_another_node_attached_is_not_touched() {
    let bench = Bench::with_cluster().await;
    let theirs = server::endpoint(request("a", "relay", 1), "n2").unwrap();
    crate::store::apply(&*bench.truth, &theirs.clone().into()).await.unwrap();
    let status = bench.attach(request("a", "caller", 2)).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().starts_with("attachment.container_id: a belongs to media/relay"), "{status}");
    // Names of endpoints are joined by a dot, which both parts may hold: a.b and c, a and b.c.
    bench.attach(request("a.b", "relay", 3)).await.unwrap();
    let one = Some(pb::Attachment { container_id: "a".into(), ifname: "b.eth0".into() });
    let alike = pb::AttachRequest { attachment: one, ..request("x", "caller", 4) };
    assert_eq!(bench.attach(alike).await.unwrap_err().code(), Code::AlreadyExists);
    assert!(!bench.detach("a").await);
    let check = pb::CheckRequest { attachment: attachment("a"), ..Default::default() };
    assert_eq!(bench.api.check(Request::new(check)).await.unwrap_err().code(), Code::NotFound);
    let found = bench.truth.get(&crate::object::Endpoint::key_of("a", "eth0")).await.unwrap().unwrap();
    assert_eq!(found.object().unwrap(), theirs.into());
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused_by_field() {
    let bench = Bench::with_cluster().await;
    let good = request("a", "relay", 1);
    for (wrong, field) in [
        (pb::AttachRequest { attachment: None, ..good.clone() }, "attachment: missing"),
        (pb::AttachRequest { attachment: attachment("a/b"), ..good.clone() }, "attachment.container_id:"),
        (pb::AttachRequest { pod: String::new(), ..good.clone() }, "pod:"),
        (pb::AttachRequest { host_interface: "a b".into(), ..good.clone() }, "host_interface:"),
        (pb::AttachRequest { mac: "ee:ee:ee:ee:ee:ee".into(), ..good.clone() }, "mac:"),
        (pb::AttachRequest { addresses: Vec::new(), ..good.clone() }, "addresses:"),
        (pb::AttachRequest { addresses: vec!["10.0.0.1/32".into()], ..good.clone() }, "addresses[0]:"),
        (
            pb::AttachRequest { addresses: vec!["10.0.0.1".into(), "10.0.0.1".into()], ..good.clone() },
            "addresses:",
        ),
        (pb::AttachRequest { mtu: 9000, ..good.clone() }, "mtu: 9000"),
        (pb::AttachRequest { network: "a/b".into(), ..good.clone() }, "network:"),
    ] {
        let status = bench.attach(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status}");
        assert!(status.message().starts_with(field), "{field}: {status}");
    }
    assert_eq!(bench.endpoints().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_pod_detached_while_it_is_attached_is_not_attached() {
    let bench = Bench::with_cluster().await;
    bench.until_progress(|p| p.engine_error.is_none()).await;
    bench.engine.hold(true);
    let attaching = bench.attach(request("a", "relay", 1));
    let detaching = async {
        bench.until(|s| !s.inputs.endpoints.is_empty()).await;
        let detaching = bench.detach("a");
        let letting_go = async {
            bench.until(|s| s.inputs.endpoints.is_empty()).await;
            bench.engine.hold(false);
        };
        tokio::join!(detaching, letting_go).0
    };
    let (attached, detached) = tokio::join!(attaching, detaching);
    // Had the engine acknowledged first, the pod was attached, and then detached.
    assert!(attached.is_ok() || attached.unwrap_err().code() == Code::Aborted);
    assert!(detached);
    assert_eq!(bench.endpoints().await, Vec::<String>::new());
    bench.engine.until(|content| content.state.ports.is_empty()).await;
}

#[tokio::test]
async fn an_attach_whose_caller_went_away_ends_all_the_same() {
    let bench = Bench::with_cluster().await;
    bench.until_progress(|p| p.engine_error.is_none()).await;
    bench.engine.hold(true);
    let before = bench.engine.content().arrived;
    tokio::select! {
        _ = bench.attach(request("a", "relay", 1)) => panic!("attached before the engine has acknowledged"),
        _ = bench.engine.until(|content| content.arrived > before) => {}
    }
    bench.engine.hold(false);
    bench.engine.until(|content| content.state.ports.contains_key(&port_of("a"))).await;
    assert!(bench.detach("a").await);
}

#[tokio::test]
async fn check_says_what_differs() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    let good = pb::CheckRequest {
        attachment: attachment("a"),
        host_interface: "vswa".into(),
        mac: "02:00:00:00:00:01".into(),
        addresses: vec!["10.244.9.1".into()],
    };
    let check = |request| bench.api.check(Request::new(request));
    check(good.clone()).await.unwrap();
    for (wrong, code, expected) in [
        (
            pb::CheckRequest { attachment: attachment("b"), ..good.clone() },
            Code::NotFound,
            "b eth0 is not attached",
        ),
        (
            pb::CheckRequest { mac: "02:00:00:00:00:02".into(), ..good.clone() },
            Code::FailedPrecondition,
            "mac: 02:00:00:00:00:01 is attached, not 02:00:00:00:00:02",
        ),
        (
            pb::CheckRequest { addresses: vec!["10.244.9.2".into()], ..good.clone() },
            Code::FailedPrecondition,
            "addresses: 10.244.9.1 is attached, not 10.244.9.2",
        ),
    ] {
        let status = check(wrong).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, expected));
    }
}

#[tokio::test]
async fn garbage_is_what_the_runtime_does_not_know() {
    let bench = Bench::with_cluster().await;
    let mut held = Vec::new();
    for (container, pod, last) in [("a", "relay", 1), ("b", "caller", 2)] {
        bench.attach(request(container, pod, last)).await.unwrap();
        held.push(bench.assign(container, "pods").await);
    }
    assert_eq!(held[0].len(), 2, "one address of each family");
    // What another network's runtime does not list here is for its own GC.
    bench.attach(pb::AttachRequest { network: "other".into(), ..request("c", "caller", 3) }).await.unwrap();
    let others = bench.assign("c", "other").await;
    let unnamed = pb::CollectGarbageRequest::default();
    let status = bench.api.collect_garbage(Request::new(unnamed)).await.unwrap_err();
    assert!(status.message().starts_with("network: missing"), "{status}");
    let request = pb::CollectGarbageRequest { valid: vec![attachment("a").unwrap()], network: "pods".into() };
    let collected = bench.api.collect_garbage(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(collected.removed, vec![attachment("b").unwrap()]);
    assert_eq!(collected.released, held[1]);
    assert_eq!(bench.endpoints().await, ["a.eth0", "c.eth0"]);
    for (container, kept) in [("a", &held[0]), ("c", &others)] {
        let check = pb::CheckAddressesRequest { attachment: attachment(container) };
        let found = bench.api.check_addresses(Request::new(check)).await.unwrap().into_inner().addresses;
        assert_eq!(found, *kept);
    }
    let check = pb::CheckAddressesRequest { attachment: attachment("b") };
    assert_eq!(bench.api.check_addresses(Request::new(check)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn addresses_are_assigned_and_released() {
    let bench = Bench::new().await;
    let assign = |requested: &[&str]| pb::AssignAddressesRequest {
        attachment: attachment("a"),
        namespace: "media".into(),
        pod: "relay".into(),
        requested: requested.iter().map(|text| (*text).to_owned()).collect(),
        network: "pods".into(),
    };
    let status = bench.api.assign_addresses(Request::new(assign(&[]))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("no IPPool serves Workload"), "{status}");
    bench.apply(CLUSTER).await;
    let status = bench.api.assign_addresses(Request::new(assign(&["10.0.0.256"]))).await.unwrap_err();
    assert_eq!(status.message(), "requested[0]: \"10.0.0.256\" is not an address");
    let first = bench.api.assign_addresses(Request::new(assign(&[]))).await.unwrap().into_inner();
    let again = bench.api.assign_addresses(Request::new(assign(&[]))).await.unwrap().into_inner();
    assert_eq!(first, again);
    let release = || Request::new(pb::ReleaseAddressesRequest { attachment: attachment("a") });
    assert_eq!(bench.api.release_addresses(release()).await.unwrap().into_inner().released, first.addresses);
    assert!(bench.api.release_addresses(release()).await.unwrap().into_inner().released.is_empty());
}

/// An agent that was killed in the middle of ADD has left an endpoint and addresses; the runtime either tries again, or
/// gives up with DEL or GC.
#[tokio::test]
async fn what_a_killed_agent_left_is_completed_or_removed() {
    for comes_back in [true, false] {
        let bench = Bench::with_cluster().await;
        let addresses = bench.assign("a", "pods").await;
        let again = pb::AttachRequest { addresses: addresses.clone(), ..request("a", "relay", 1) };
        bench.engine.change(|content| drop(content.failing.insert("vswa".into(), "no such device".into())));
        let left = server::endpoint(again.clone(), "n1").unwrap();
        crate::store::apply(&*bench.truth, &left.into()).await.unwrap();
        bench.until_progress(|p| p.in_force.as_ref().is_some_and(|f| !f.failed_ports.is_empty())).await;
        if comes_back {
            // The interface is there now; what was said of the port before does not count.
            bench.engine.change(|content| content.failing.clear());
            bench.attach(again).await.unwrap();
            assert!(bench.has_port("a"));
            continue;
        }
        let nothing =
            Request::new(pb::CollectGarbageRequest { network: "pods".into(), ..Default::default() });
        let collected = bench.api.collect_garbage(nothing).await.unwrap().into_inner();
        assert_eq!((collected.removed.len(), collected.released), (1, addresses));
        assert_eq!(bench.endpoints().await, Vec::<String>::new());
        bench.engine.until(|content| content.state.ports.is_empty()).await;
        assert_eq!(bench.agent.core.leaks(Duration::ZERO).await, []);
    }
}

#[tokio::test]
async fn the_pod_then_its_pool_then_the_node_choose_the_kind_of_port() {
    let bench = Bench::with_cluster().await;
    let choose = async |pod: &str, address: &str| {
        let request = pb::ChoosePortRequest {
            namespace: "media".into(),
            pod: pod.into(),
            addresses: vec![address.into()],
            timeout_ms: 200,
            ..Default::default()
        };
        let reply = bench.api.choose_port(Request::new(request)).await;
        reply.map(|reply| reply.into_inner().kind())
    };
    assert_eq!(choose("relay", "10.99.0.1").await.unwrap(), pb::PortKind::Veth);
    bench
        .apply(
            "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: bulk, annotations: {vswitch/port: tun}}, \
             spec: {cidr: 10.99.0.0/16}}\n---\n\
             {apiVersion: v1, kind: Pod, metadata: {name: own, namespace: media, annotations: {vswitch/port: veth}}}",
        )
        .await;
    bench.until(|s| s.inputs.pools.contains_key("bulk") && s.inputs.pods.len() == 3).await;
    assert_eq!(choose("relay", "10.99.0.1").await.unwrap(), pb::PortKind::Tun);
    assert_eq!(choose("relay", "10.98.0.1").await.unwrap(), pb::PortKind::Veth, "of another pool");
    assert_eq!(choose("own", "10.99.0.1").await.unwrap(), pb::PortKind::Veth, "the pod itself says so");
    assert_eq!(choose("unknown", "10.99.0.1").await.unwrap_err().code(), Code::Unavailable);
    let wrong = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: media, annotations: {vswitch/port: tap}}}";
    let refused = bench.refused(wrong).await;
    assert!(refused.contains("annotations[vswitch/port]: \"tap\" is no kind of port"), "{refused}");
}

#[tokio::test]
async fn a_tun_has_no_address_of_its_own_and_is_in_the_pod() {
    let bench = Bench::with_cluster().await;
    let tun =
        pb::AttachRequest { kind: pb::PortKind::Tun.into(), mac: String::new(), ..request("a", "relay", 1) };
    for (wrong, named) in [
        (pb::AttachRequest { mac: "02:00:00:00:00:01".into(), ..tun.clone() }, "mac:"),
        (pb::AttachRequest { netns: String::new(), ..tun.clone() }, "netns: missing"),
        (pb::AttachRequest { kind: 7, ..tun.clone() }, "kind: 7"),
        (pb::AttachRequest { kind: pb::PortKind::Veth.into(), ..tun.clone() }, "mac:"),
    ] {
        let status = bench.attach(wrong).await.unwrap_err();
        assert!(status.message().starts_with(named), "{status}");
    }
    bench.attach(tun).await.unwrap();
    let content = bench.engine.content();
    let port = &content.state.ports[&port_of("a")];
    let expected =
        Attachment::Tun { interface: PortName::new("eth0").unwrap(), netns: "/run/netns/a".to_owned() };
    assert_eq!((&port.attachment, port.mac), (&expected, Mac::default()));
    // Another pod's is called eth0 as well.
    let other =
        pb::AttachRequest { kind: pb::PortKind::Tun.into(), mac: String::new(), ..request("b", "caller", 2) };
    bench.attach(other).await.unwrap();
}

/// Kinds are told of one by one, and another's higher number says nothing of an endpoint.
#[tokio::test]
async fn an_attach_waits_for_its_own_endpoint_whatever_else_is_told() {
    let store = ByKind::new();
    let bench = Bench::on(store.clone(), true);
    bench.engine.start();
    bench.apply(CLUSTER).await;
    bench.until(|s| s.inputs.pods.len() == 2).await;
    bench.until_progress(|p| p.engine_error.is_none()).await;
    store.hold([Kind::Endpoint]);
    let mut attaching = bench.attach(request("a", "relay", 1)).boxed();
    let others = async {
        while bench.endpoints().await.is_empty() {
            tokio::task::yield_now().await;
        }
        // Their numbers are higher than any of an endpoint, and they come into force.
        for n in 0..3 {
            bench.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: n{n}}}}}")).await;
            let pod = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p{n}, namespace: media}}}}");
            bench.apply(&pod).await;
        }
    };
    tokio::select! {
        attached = &mut attaching => panic!("answered before the endpoint is known here: {attached:?}"),
        () = others => {}
    }
    assert!((&mut attaching).now_or_never().is_none());
    assert!(!bench.has_port("a"));
    store.hold([]);
    attaching.await.unwrap();
    assert!(bench.has_port("a"));
}

/// The policy is there before the attach begins, and is told after the endpoint.
#[tokio::test]
async fn an_attach_waits_for_policies_older_than_it_in_whatever_order_kinds_are_told() {
    let store = ByKind::new();
    let bench = Bench::on(store.clone(), true);
    bench.engine.start();
    bench.apply(CLUSTER).await;
    bench.until(|s| s.inputs.pods.len() == 2).await;
    bench.until_progress(|p| p.engine_error.is_none()).await;
    store.hold([Kind::NetworkPolicy]);
    let policy = crate::object::manifest::parse("test", "default", POLICY).unwrap().remove(0).object;
    crate::store::apply(&*bench.truth, &policy).await.unwrap();
    let mut attaching = bench.attach(request("a", "relay", 1)).boxed();
    tokio::select! {
        attached = &mut attaching => panic!("answered before the policy is known here: {attached:?}"),
        _ = bench.until_progress(|p| p.in_force.as_ref().is_some_and(|f| f.ports.contains_key(&port_of("a")))) => {}
    }
    assert!((&mut attaching).now_or_never().is_none());
    store.hold([]);
    attaching.await.unwrap();
    let state = bench.engine.content().state;
    let identity = state.prefixes[&"10.244.9.1/32".parse().unwrap()];
    assert_eq!(state.subjects[&identity].ingress.len(), 1, "isolated by the policy from the start");
}

#[tokio::test]
async fn an_attach_waits_for_a_store_that_is_away_for_a_moment() {
    let store = ByKind::new();
    let bench = Bench::on(store.clone(), true);
    bench.engine.start();
    bench.apply(CLUSTER).await;
    bench.until(|s| s.inputs.pods.len() == 2).await;
    bench.store.set_away(true);
    store.compact(Kind::Namespace);
    bench.until(|s| s.stale.is_some()).await;
    let short = pb::AttachRequest { timeout_ms: 200, ..request("a", "relay", 1) };
    let status = bench.attach(short).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the store is unavailable"), "{status}");
    let mut attaching = bench.attach(request("a", "relay", 1)).boxed();
    assert!((&mut attaching).now_or_never().is_none());
    bench.store.set_away(false);
    attaching.await.unwrap();
    assert!(bench.has_port("a"));
}

/// The picture of the store is behind what was recorded here, and behind what others have removed.
#[tokio::test]
async fn what_was_recorded_a_moment_ago_is_known_and_what_is_gone_is_free() {
    let store = ByKind::new();
    let bench = Bench::on(store.clone(), true);
    bench.engine.start();
    bench.apply(CLUSTER).await;
    bench.until(|s| s.inputs.pods.len() == 2).await;
    bench.until_progress(|p| p.engine_error.is_none()).await;
    store.hold([Kind::Endpoint]);
    let mut attaching = bench.attach(request("a", "relay", 1)).boxed();
    let refused = async {
        while bench.endpoints().await.is_empty() {
            tokio::task::yield_now().await;
        }
        bench.attach(request("b", "caller", 1)).await.unwrap_err()
    };
    let status = tokio::select! {
        attached = &mut attaching => panic!("answered before the endpoint is known here: {attached:?}"),
        status = refused => status,
    };
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().starts_with("addresses: 10.244.9.1 belongs to media/relay"), "{status}");
    store.hold([]);
    attaching.await.unwrap();

    store.hold([Kind::Endpoint]);
    let key = crate::object::Endpoint::key_of("a", "eth0");
    bench.truth.delete(&key, None).await.unwrap();
    let mut attaching = bench.attach(request("b", "caller", 1)).boxed();
    let recorded = async {
        while bench.endpoints().await != ["b.eth0"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        attached = &mut attaching => panic!("answered before the endpoint is known here: {attached:?}"),
        () = recorded => {}
    }
    assert!(bench.has_port("a"), "its end is not known here");
    store.hold([]);
    attaching.await.unwrap();
}
