//! Store and engine: away, back, and with other ideas.

use super::*;

#[tokio::test]
async fn an_engine_that_was_away_gets_the_whole_state() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    let before = bench.engine.content();
    assert!(before.wholes == 1 && before.deltas >= 1, "{} whole, {} deltas", before.wholes, before.deltas);
    bench.engine.stop();
    bench.apply(POLICY).await;
    bench.until_progress(|p| p.engine_error.is_some()).await;
    // It comes back with nothing, as if its disk were lost.
    bench.engine.change(|content| *content = fake_engine::Content::default());
    bench.engine.start();
    let after = bench.engine.until(|content| content.wholes == 1).await;
    assert!(after.state.ports.contains_key(&port_of("a")));
    assert_eq!(after.state.policies.len(), 1);
    assert!(after.generation > before.generation, "no number ever stands for two states");
}

#[tokio::test]
async fn an_engine_that_came_back_from_disk_is_confirmed() {
    let bench = Bench::with_cluster().await;
    bench.until_progress(|p| p.engine_error.is_none()).await;
    bench.engine.stop();
    bench.engine.change(|content| content.restored = true);
    bench.engine.start();
    bench.engine.until(|content| !content.restored).await;
}

#[tokio::test]
async fn an_engine_with_another_generation_is_led_back() {
    let bench = Bench::with_cluster().await;
    bench.engine.until(|content| content.state.local.is_some()).await;
    for _ in 0..3 {
        let wholes = bench.engine.content().wholes;
        // Somebody else has spoken to it.
        bench.engine.change(|content| {
            content.generation += 1000;
            content.state = vswitch_model::DesiredState::default();
        });
        bench.apply("{apiVersion: v1, kind: Namespace, metadata: {name: other}}").await;
        let content = bench.engine.until(|content| content.wholes > wholes).await;
        assert!(content.state.local.is_some());
    }
}

#[tokio::test]
async fn an_engine_that_lost_its_state_is_noticed_however_busy_the_store_is() {
    let bench = Bench::with_cluster().await;
    bench.engine.until(|content| content.state.local.is_some()).await;
    bench.engine.change(|content| *content = fake_engine::Content::default());
    let busy = async {
        // Nothing of this is for the engine.
        let mut often = tokio::time::interval(Duration::from_millis(100));
        for n in 0.. {
            often.tick().await;
            let namespace = crate::object::Namespace { metadata: ObjectMeta::named(format!("n{n}")) };
            crate::store::apply(&*bench.truth, &namespace.into()).await.unwrap();
        }
    };
    tokio::select! {
        content = bench.engine.until(|content| content.wholes > 0) => assert!(content.state.local.is_some()),
        () = busy => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn a_new_agent_takes_over_an_engine_as_it_is() {
    let truth: SharedStore = Arc::new(Embedded::in_memory().unwrap());
    let bench = Bench::on(Arc::clone(&truth), true);
    bench.engine.change(|content| content.generation = 41);
    bench.engine.start();
    bench.apply(CLUSTER).await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    let generation = bench.engine.content().generation;
    assert!(generation > 41);
    let Bench { agent, engine, folder, .. } = bench;
    drop(agent);
    let again = Agent::start(settings("n1", engine.socket()), truth, "embedded", wall_clock());
    let content = engine.until(|content| content.generation > generation).await;
    assert!(content.state.ports.contains_key(&port_of("a")));
    drop((again, folder));
}

#[tokio::test]
async fn nothing_is_sent_before_the_store_was_read() {
    let bench = Bench::on(Arc::new(Embedded::in_memory().unwrap()), false);
    bench.engine.change(|content| content.generation = 7);
    bench.engine.start();
    bench.until(|s| s.stale.is_some()).await;
    let short = pb::AttachRequest { timeout_ms: 200, ..request("a", "relay", 1) };
    let status = bench.attach(short).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the store is unavailable"), "{status}");
    let ready = bench.api.ready(Request::new(pb::ReadyRequest {})).await.unwrap().into_inner();
    assert!(!ready.ready && ready.reason.contains("the store is unavailable"), "{ready:?}");
    assert_eq!((bench.engine.content().arrived, bench.engine.content().generation), (0, 7));
    bench.store.set_away(false);
    bench.engine.until(|content| content.generation > 7).await;
}

#[tokio::test]
async fn with_the_store_away_pods_wait_and_what_is_attached_stays() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    bench.store.set_away(true);
    let status = bench.attach(request("b", "caller", 2)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let detach = pb::DetachRequest { attachment: attachment("a") };
    assert_eq!(bench.api.detach(Request::new(detach)).await.unwrap_err().code(), Code::Unavailable);
    assert!(bench.has_port("a"));
    bench.store.set_away(false);
    bench.attach(request("b", "caller", 2)).await.unwrap();
    assert!(bench.detach("a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_now_and_then_leaves_nothing_half_done() {
    let truth: SharedStore = Arc::new(Embedded::in_memory().unwrap());
    let mut bench = Bench::on(Arc::clone(&truth), true);
    bench.engine.start();
    bench.apply(CLUSTER).await;
    let faulty = Arc::new(Faulty::new(truth, 6, 1));
    bench.agent = Agent::start(settings("n1", bench.engine.socket()), faulty, "embedded", wall_clock());
    bench.api = bench.agent.service();
    let mut attached = Vec::new();
    for last in 1..30 {
        let container = format!("c{last}");
        match bench.attach(request(&container, "relay", last)).await {
            Ok(_) => attached.push(format!("{container}.eth0")),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    }
    attached.sort();
    assert!(!attached.is_empty());
    assert_eq!(bench.endpoints().await, attached);
}

#[tokio::test]
async fn a_port_that_opens_later_is_no_problem_any_more() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    bench.engine.change(|content| drop(content.failing.insert("vswa".into(), "gone".into())));
    bench.until_progress(|p| p.in_force.as_ref().is_some_and(|f| !f.failed_ports.is_empty())).await;
    let status = bench.api.get_status(Request::new(pb::GetAgentStatusRequest {})).await.unwrap().into_inner();
    assert_eq!(status.problems, ["port vswa: gone"]);
    bench.engine.change(|content| content.failing.clear());
    bench.until_progress(|p| p.in_force.as_ref().is_some_and(|f| f.failed_ports.is_empty())).await;
}

#[tokio::test]
async fn the_node_announces_itself_to_nodes_that_run_flannel_while_there_are_any() {
    const FLANNEL: &str = "
{apiVersion: v1, kind: Node, metadata: {name: far, annotations: {
  flannel.alpha.coreos.com/kube-subnet-manager: 'true', flannel.alpha.coreos.com/backend-type: vxlan,
  flannel.alpha.coreos.com/backend-data: '{\"VNI\":5,\"VtepMAC\":\"7e:42:00:00:00:01\"}',
  flannel.alpha.coreos.com/public-ip: 192.0.2.7}}, spec: {podCIDRs: [10.7.0.0/24]}}";
    let bench = Bench::new().await;
    let own = |s: &Snapshot| s.inputs.nodes.get("n1").and_then(|node| Flannel::of(node));
    bench.apply(FLANNEL).await;
    let snapshot = bench.until(|s| own(s).is_some()).await;
    let flannel = own(&snapshot).unwrap();
    let (v4, v6) = (flannel.v4.unwrap(), flannel.v6.unwrap());
    assert_eq!((v4.address.to_string(), v4.vni.get(), v4.mac), ("192.0.2.1".into(), 5, Mac::vtep_v4("n1")));
    assert_eq!((v6.address.to_string(), v6.vni.get(), v6.mac), ("2001:db8::1".into(), 5, Mac::vtep_v6("n1")));
    let content = bench.engine.until(|c| !c.state.tunnels.is_empty()).await;
    assert_eq!(content.state.local.unwrap().networks.len(), 2);
    // Who applies the node anew says nothing of what the agent has written.
    bench.apply("{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {a: b}}}").await;
    let snapshot = bench.until(|s| s.inputs.nodes["n1"].metadata.labels.contains_key("a")).await;
    assert_eq!(own(&snapshot), Some(flannel));
    bench.truth.delete(&Key::cluster(Kind::Node, "far"), None).await.unwrap();
    bench.until(|s| own(s).is_none()).await;
}

#[tokio::test]
async fn the_node_tells_the_others_how_to_reach_it() {
    let bench = Bench::new().await;
    let node = |s: &Snapshot| s.inputs.nodes.get("n1").map(|node| node.metadata.annotations.clone());
    let snapshot = bench.until(|s| node(s).is_some()).await;
    let alone = node(&snapshot).unwrap();
    assert_eq!(alone["projectcalico.org/IPv4Address"], "192.0.2.1/24");
    assert_eq!(alone["projectcalico.org/IPv6Address"], "2001:db8::1/64");
    assert_eq!(alone["projectcalico.org/VXLANTunnelMACAddr"], Mac::vtep_v4("n1").to_string());
    assert_eq!(alone["vswitch/vxlan"], "4096:4789");
    assert!(!alone.contains_key("projectcalico.org/IPv4VXLANTunnelAddr"), "there is no pool yet");
    bench.apply(CLUSTER).await;
    let tunnels = ["projectcalico.org/IPv4VXLANTunnelAddr", "projectcalico.org/IPv6VXLANTunnelAddr"];
    let snapshot =
        bench.until(|s| tunnels.iter().all(|name| node(s).is_some_and(|a| a.contains_key(*name)))).await;
    let first = node(&snapshot).unwrap();
    let content =
        bench.engine.until(|c| c.state.local.as_ref().is_some_and(|l| l.host_addresses.len() == 2)).await;
    let local = content.state.local.unwrap();
    assert_eq!((local.node.as_str(), local.host_mtu), ("n1", 1430));
    // Somebody applies the node anew, and takes one annotation away.
    bench.truth.delete(&Key::cluster(Kind::Node, "n1"), None).await.unwrap();
    let snapshot = bench.until(|s| node(s).is_some_and(|a| a.len() == first.len())).await;
    assert_eq!(node(&snapshot).unwrap(), first, "and the addresses are those of before");
    // A family whose pool is gone has no address.
    bench.truth.delete(&Key::cluster(Kind::IpPool, "v6"), None).await.unwrap();
    let alone = |a: &std::collections::BTreeMap<String, String>| !a.contains_key(tunnels[1]);
    let snapshot = bench.until(|s| node(s).is_some_and(|a| alone(&a))).await;
    assert_eq!(node(&snapshot).unwrap()[tunnels[0]], first[tunnels[0]], "the other family's stays");
}
