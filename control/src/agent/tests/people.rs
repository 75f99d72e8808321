//! Objects, status, explanations: vsctl's side; and the socket.

use vswitch_model::api::{CannotListen, Socket};

use super::*;

async fn list(bench: &Bench, kind: &str, all: bool, name: &str) -> Result<Vec<String>, Status> {
    let request = pb::ListObjectsRequest {
        kind: kind.into(),
        namespace: String::new(),
        all_namespaces: all,
        name: name.into(),
    };
    bench.api.list(Request::new(request)).await.map(|reply| reply.into_inner().objects)
}

async fn describe(bench: &Bench, kind: &str, namespace: &str, name: &str) -> Vec<String> {
    let request = pb::DescribeRequest { kind: kind.into(), namespace: namespace.into(), name: name.into() };
    let reply = bench.api.describe(Request::new(request)).await.unwrap().into_inner();
    reply.facts.into_iter().map(|fact| format!("{}: {}", fact.name, fact.values.join(", "))).collect()
}

#[tokio::test]
async fn objects_are_applied_listed_and_deleted() {
    let bench = Bench::new().await;
    let results = bench.apply(CLUSTER).await;
    assert_eq!(results[0], "Namespace media created", "what others refer to comes first");
    assert!(bench.apply(CLUSTER).await.iter().all(|result| result.ends_with("unchanged")));
    let changed = "{apiVersion: v1, kind: Pod, metadata: {name: relay, namespace: media, labels: {a: b}}}";
    assert_eq!(bench.apply(changed).await, ["Pod relay configured"]);

    assert_eq!(list(&bench, "po", true, "").await.unwrap().len(), 2);
    assert_eq!(list(&bench, "pods", false, "").await.unwrap().len(), 0, "none in namespace default");
    let pool = list(&bench, "IPPool", false, "v4").await.unwrap();
    assert!(pool[0].contains("10.244.0.0/16"), "{pool:?}");
    assert_eq!(list(&bench, "ippool", false, "none").await.unwrap_err().code(), Code::NotFound);
    let status = list(&bench, "deployments", false, "").await.unwrap_err();
    assert!(status.message().starts_with("kind: \"deployments\" is not supported"), "{status}");

    let delete = |kind: &str, name: &str| pb::DeleteObjectsRequest {
        namespace: "media".into(),
        objects: vec![named(kind, name)],
        ..Default::default()
    };
    let results = bench.api.delete(Request::new(delete("pod", "relay"))).await.unwrap().into_inner().results;
    assert_eq!(results[0].outcome, "deleted");
    let status = bench.api.delete(Request::new(delete("pod", "relay"))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "pods/media/relay does not exist"));
    let documents = vec![pb::Document { file: "c.yaml".into(), text: CLUSTER.into() }];
    let request = pb::DeleteObjectsRequest { documents, ..Default::default() };
    let results = bench.api.delete(Request::new(request)).await.unwrap().into_inner().results;
    let outcomes: Vec<_> = results.iter().map(|r| format!("{} {}", r.name, r.outcome)).collect();
    assert_eq!(outcomes, ["relay absent", "caller deleted", "v4 deleted", "v6 deleted", "media deleted"]);
}

#[tokio::test]
async fn what_is_deleted_together_does_not_keep_each_other() {
    let bench = Bench::with_cluster().await;
    let delete = |objects: &[(&str, &str)], dry_run| {
        let objects = objects.iter().map(|(kind, name)| named(kind, name)).collect();
        let namespace = "media".to_owned();
        bench.api.delete(Request::new(pb::DeleteObjectsRequest {
            namespace,
            objects,
            dry_run,
            ..Default::default()
        }))
    };
    let both = [("namespace", "media"), ("pod", "relay"), ("pod", "caller")];
    let status = delete(&both[..2], false).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with("namespaces/media is in use by pod media/caller; "), "{status}");
    let nobody = [("pod", "relay"), ("pod", "nobody")];
    let status = delete(&nobody, false).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "pods/media/nobody does not exist"));
    assert_eq!(delete(&[], false).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(list(&bench, "pods", true, "").await.unwrap().len(), 2, "nothing was deleted");

    for dry_run in [true, false] {
        let twice = [&both[..], &[("po", "relay")]].concat();
        let results = delete(&twice, dry_run).await.unwrap().into_inner().results;
        let outcomes: Vec<_> =
            results.iter().map(|r| format!("{} {} {}", r.kind, r.name, r.outcome)).collect();
        assert_eq!(outcomes, ["Pod caller deleted", "Pod relay deleted", "Namespace media deleted"]);
    }
    assert_eq!(list(&bench, "ns", false, "").await.unwrap().len(), 0);
}

#[tokio::test]
async fn what_nobody_enforces_is_refused_by_name() {
    let bench = Bench::new().await;
    let refusal = async |text: String| {
        let documents = vec![pb::Document { file: "c.yaml".into(), text }];
        let request = pb::ApplyObjectsRequest { documents, ..Default::default() };
        let status = bench.api.apply(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        status.message().to_owned()
    };
    let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}";
    let says = "c.yaml, document 1, Service default/s: kind: services are not implemented yet; policies refer to them by \
                EndpointSlices";
    assert_eq!(refusal(service.to_owned()).await, says);
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted_by_mistake() {
    let bench = Bench::with_cluster().await;
    let id = attachment("a");
    let assign = pb::AssignAddressesRequest {
        attachment: id.clone(),
        namespace: "media".into(),
        pod: "relay".into(),
        ..Default::default()
    };
    let addresses = bench.api.assign_addresses(Request::new(assign)).await.unwrap().into_inner().addresses;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    let delete = |kind: &str, name: &str, force| {
        let objects = vec![named(kind, name)];
        bench.api.delete(Request::new(pb::DeleteObjectsRequest { objects, force, ..Default::default() }))
    };
    let status = delete("ippool", "v4", false).await.unwrap_err();
    let user = format!("ippools/v4 is in use by {} (media/relay); ", addresses[0]);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with(&user) && status.message().contains("--force"), "{status}");
    let status = delete("namespace", "media", false).await.unwrap_err();
    let users = "namespaces/media is in use by pod media/caller, pod media/relay on n1; ";
    assert!(status.message().starts_with(users), "{status}");
    // With its pods' objects, too: one of them is attached.
    let documents = vec![pb::Document { file: "c.yaml".into(), text: CLUSTER.into() }];
    let all = pb::DeleteObjectsRequest { documents, ..Default::default() };
    let status = bench.api.delete(Request::new(all)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(list(&bench, "pods", true, "").await.unwrap().len(), 2, "nothing was deleted");
    delete("namespace", "media", true).await.unwrap();
    delete("ippool", "v4", true).await.unwrap();
    delete("ippool", "v6", false).await.unwrap_err();
    let release = pb::ReleaseAddressesRequest { attachment: id };
    bench.api.release_addresses(Request::new(release)).await.unwrap();
    delete("ippool", "v6", false).await.unwrap();
}

#[tokio::test]
async fn what_is_applied_is_in_force_when_it_is_said() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    for _ in 0..5 {
        bench.apply(POLICY).await;
        assert_eq!(bench.engine.content().state.policies.len(), 1);
        let documents = vec![pb::Document { file: "p.yaml".into(), text: POLICY.into() }];
        let request = pb::DeleteObjectsRequest { documents, ..Default::default() };
        bench.api.delete(Request::new(request)).await.unwrap();
        assert_eq!(bench.engine.content().state.policies.len(), 0);
    }
}

#[tokio::test]
async fn whoever_applies_what_the_engine_does_not_run_is_told() {
    let bench = Bench::with_cluster().await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    bench.engine.stop();
    let documents = vec![pb::Document { file: "p.yaml".into(), text: POLICY.into() }];
    let apply =
        |dry_run| pb::ApplyObjectsRequest { documents: documents.clone(), dry_run, ..Default::default() };
    let reply = bench.api.apply(Request::new(apply(true))).await.unwrap().into_inner();
    assert_eq!(reply.not_in_force, "", "nothing was written");
    let reply = bench.api.apply(Request::new(apply(false))).await.unwrap().into_inner();
    assert_eq!(reply.results[0].outcome, "created");
    assert!(!reply.not_in_force.is_empty(), "{reply:?}");
    bench.engine.start();
    let reply = async || bench.api.apply(Request::new(apply(false))).await.unwrap().into_inner();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !reply().await.not_in_force.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "in force at last");
    }
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let bench = Bench::new().await;
    let documents = vec![pb::Document { file: "-".into(), text: CLUSTER.into() }];
    let request = pb::ApplyObjectsRequest { documents, dry_run: true, ..Default::default() };
    let results = bench.api.apply(Request::new(request)).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| result.outcome == "created"), "{results:?}");
    assert_eq!(list(&bench, "pods", true, "").await.unwrap().len(), 0);
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_written() {
    let bench = Bench::new().await;
    bench.apply(CLUSTER).await;
    let pool = |name: &str, rest: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: {name}}}, spec: {{{rest}}}}}"
        )
    };
    let good = "{apiVersion: v1, kind: Namespace, metadata: {name: good}}";
    for (text, expected) in [
        (
            POLICY.replace("ingress:", "ingres:"),
            "test.yaml, document 2, NetworkPolicy media/relay: spec.ingres: unknown field `ingres`",
        ),
        (
            pool("new", "cidr: 10.244.3.0/24"),
            "IPPool new: spec.cidr: 10.244.3.0/24 overlaps 10.244.0.0/16 of IPPool v4",
        ),
        (pool("v4", "cidr: 10.0.0.0/16"), "IPPool v4: spec.cidr: cannot be changed from 10.244.0.0/16"),
        (
            pool("v4", "cidr: 10.244.0.0/16, blockSize: 24"),
            "IPPool v4: spec.blockSize: cannot be changed from 26",
        ),
        (good.to_owned(), "test.yaml: document 2: namespaces/good is already in document 1"),
    ] {
        let error = bench.refused(&format!("{good}\n---\n{text}")).await;
        let same = |text: &str| text.replace([':', ','], "");
        assert!(same(&error).starts_with(&same(expected)), "{error}\nnot\n{expected}");
    }
    let block =
        r#"{apiVersion: vswitch/v1, kind: Block, metadata: {name: 10.0.0.0-26}, spec: {cidr: 10.0.0.0/26}}"#;
    let error = bench.refused(block).await;
    assert!(error.contains("Block objects are the agents' own"), "{error}");
    assert_eq!(list(&bench, "ns", false, "").await.unwrap().len(), 1, "namespace good was not written");
}

#[tokio::test]
async fn a_nodes_manifest_keeps_what_its_agent_wrote() {
    let bench = Bench::new().await;
    bench.until(|s| s.inputs.nodes.contains_key("n1")).await;
    bench.apply("{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: a}}}").await;
    let node = bench.until(|s| s.inputs.nodes.get("n1").is_some_and(|n| !n.metadata.labels.is_empty())).await;
    let annotations = &node.inputs.nodes["n1"].metadata.annotations;
    assert_eq!(annotations["projectcalico.org/IPv4Address"], "192.0.2.1/24");
}

#[tokio::test]
async fn objects_are_described_by_what_they_mean() {
    let bench = Bench::with_cluster().await;
    bench.apply(POLICY).await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    bench.until(|s| s.inputs.policies.len() == 1).await;
    assert_eq!(
        describe(&bench, "netpol", "media", "relay").await,
        ["isolates: ingress", "selected pods: media/relay"]
    );
    assert_eq!(
        describe(&bench, "pod", "media", "relay").await,
        ["attached: 10.244.9.1 on node n1, port vswa, container a", "policies: NetworkPolicy media/relay"]
    );
    assert_eq!(
        describe(&bench, "ns", "", "media").await,
        [
            "pods: caller, relay",
            "policies: NetworkPolicy media/relay",
            "policies of the cluster that select pods of it: "
        ]
    );
    let endpoint = describe(&bench, "endpoint", "", "a.eth0").await;
    assert!(endpoint[0].starts_with("in force: yes, in generation "), "{endpoint:?}");
    let pool = describe(&bench, "pool", "", "v4").await;
    assert!(
        pool[0].starts_with("use: pool v4 (10.244.0.0/16): 1 of 65536 addresses in use, 1 of 1024 blocks"),
        "{pool:?}"
    );
    let node = describe(&bench, "node", "", "n1").await;
    assert!(node[0].starts_with("blocks: 10.244."), "{node:?}");
    assert_eq!(node[1], "attached pods: media/relay");
    let block = bench.agent.core.reflector.current().inputs.blocks.keys().next().unwrap().clone();
    let block = describe(&bench, "block", "", &block).await;
    assert!(block[0].contains("by node:n1:tunnel"), "{block:?}");
}

/// Waits until the engine has the node's own addresses, which is the last thing a new agent does by itself.
async fn until_registered(bench: &Bench) {
    let registered = |local: &vswitch_model::Local| local.host_addresses.len() == 2;
    bench.engine.until(|content| content.state.local.as_ref().is_some_and(registered)).await;
}

/// Whether the engine runs the newest state, as far as that is calculated.
fn is_newest(progress: &engine::Progress) -> bool {
    progress.in_force.as_ref().is_some_and(|in_force| in_force.generation == progress.calculated)
}

/// What a store holds from when less was asked of it stays, and is told of; people's is refused.
#[tokio::test]
async fn what_would_be_refused_today_stays_in_force_and_is_told() {
    let bench = Bench::with_cluster().await;
    until_registered(&bench).await;
    let node = r#"{apiVersion: v1, kind: Node, metadata: {name: far, annotations: {
        flannel.alpha.coreos.com/kube-subnet-manager: 'true', flannel.alpha.coreos.com/backend-type: vxlan,
        flannel.alpha.coreos.com/backend-data: '{"VNI":1,"VtepMAC":"7e:42:00:00:00:01"}',
        flannel.alpha.coreos.com/backend-v6-data: '{"VNI":1,"VtepMAC":"7e:42:00:00:00:02"}',
        flannel.alpha.coreos.com/public-ip: 192.0.2.7}}, spec: {podCIDRs: [10.7.0.0/24]}}"#;
    let pool =
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: old}, spec: {cidr: 240.0.0.0/8}}";
    for (text, field) in [(node, "public-ipv6]: is missing"), (pool, "spec.cidr: 240.0.0.0/8 overlaps")] {
        assert!(bench.refused(text).await.contains(field));
        let stored = crate::object::manifest::parse("stored", "default", text).unwrap().remove(0).object;
        crate::store::apply(&*bench.truth, &stored).await.unwrap();
    }
    let snapshot =
        bench.until(|s| s.inputs.nodes.contains_key("far") && s.inputs.pools.contains_key("old")).await;
    assert!(snapshot.problems.is_empty() && snapshot.inputs.nodes["far"].is_flannels());
    let problems = bench.agent.core.status().await.problems;
    for starts in ["nodes/far: metadata.annotations[flannel", "ippools/old: spec.cidr: 240.0.0.0/8"] {
        assert!(problems.iter().any(|problem| problem.starts_with(starts)), "{problems:?}");
    }
}

#[tokio::test]
async fn status_tells_how_it_is() {
    let bench = Bench::with_cluster().await;
    bench.apply(POLICY).await;
    until_registered(&bench).await;
    let generation = bench.attach(request("a", "relay", 1)).await.unwrap();
    let ready = bench.api.ready(Request::new(pb::ReadyRequest {})).await.unwrap().into_inner();
    assert_eq!((ready.ready, ready.reason.as_str(), ready.pod_mtu), (true, "", 1430));
    let status = bench.api.get_status(Request::new(pb::GetAgentStatusRequest {})).await.unwrap().into_inner();
    assert_eq!((status.node.as_str(), status.store.as_str()), ("n1", "embedded"));
    assert!(status.store_connected && status.store_synced && status.engine_connected);
    assert_eq!((status.pods_local, status.nodes, status.policies), (1, 1, 1));
    assert!(status.generation_acknowledged >= generation, "{status:?}");
    let pools: Vec<_> = status.pools.iter().map(|p| (p.name.as_str(), p.addresses_used_local)).collect();
    assert_eq!(pools, [("v4", 1), ("v6", 1)], "the node's own addresses");
    assert_eq!((status.problems, status.policies_staged), (Vec::<String>::new(), 0));
    let settings: Vec<_> = status.settings.into_iter().map(|it| (it.name, it.value)).collect();
    assert_eq!(settings, [("store.embedded".to_owned(), "\"/x\"".to_owned())]);
    let delete = |kind: &str, name: &str| {
        let (namespace, objects) = ("media".to_owned(), vec![named(kind, name)]);
        let request = pb::DeleteObjectsRequest { namespace, objects, ..Default::default() };
        bench.api.delete(Request::new(request))
    };
    let refused = delete("pod", "relay").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("pods/media/relay is attached on n1, "), "{refused}");
    let forced = pb::DeleteObjectsRequest {
        namespace: "media".into(),
        objects: vec![named("pod", "relay")],
        force: true,
        ..Default::default()
    };
    let dry = pb::DeleteObjectsRequest { dry_run: true, ..forced.clone() };
    let would = bench.api.delete(Request::new(dry)).await.unwrap().into_inner();
    assert_eq!(would.results[0].outcome, "deleted");
    let nobody =
        pb::DeleteObjectsRequest { dry_run: true, objects: vec![named("pod", "nobody")], ..forced.clone() };
    assert_eq!(bench.api.delete(Request::new(nobody)).await.unwrap_err().code(), Code::NotFound);
    bench.api.delete(Request::new(forced)).await.unwrap();
    let status =
        async || bench.api.get_status(Request::new(pb::GetAgentStatusRequest {})).await.unwrap().into_inner();
    let problems = status().await.problems;
    assert!(
        matches!(&problems[..], [one] if one.starts_with("attached without a Pod object: media/relay; ")),
        "{problems:?}"
    );
    delete("netpol", "relay").await.unwrap();
    assert_eq!(status().await.problems, Vec::<String>::new(), "where there is no policy nobody minds");

    bench.engine.stop();
    bench.until_progress(|p| p.engine_error.is_some()).await;
    let ready = bench.api.ready(Request::new(pb::ReadyRequest {})).await.unwrap().into_inner();
    assert!(!ready.ready && ready.reason.contains("vswitchd"), "{ready:?}");
}

#[tokio::test]
async fn a_flow_is_explained_by_policy_and_walk() {
    let bench = Bench::with_cluster().await;
    bench.apply(POLICY).await;
    bench.attach(request("a", "relay", 1)).await.unwrap();
    bench.attach(request("b", "caller", 2)).await.unwrap();
    bench.until(|s| s.inputs.policies.len() == 1).await;
    // The agent registers its node meanwhile. Once both of the node's addresses are in force nothing else is on its way.
    until_registered(&bench).await;
    bench.until_progress(is_newest).await;
    let ask = |from: &str, port| pb::ExplainFlowRequest {
        from: from.into(),
        to: "media/relay".into(),
        protocol: 17,
        port,
        ..Default::default()
    };
    let reply = bench.api.explain(Request::new(ask("media/caller", 5060))).await.unwrap().into_inner();
    assert!(!reply.allowed);
    let ingress = reply.ingress.unwrap();
    assert_eq!(ingress.policies, ["NetworkPolicy media/relay"]);
    assert_eq!(reply.walk, ["route: to 10.244.9.1", "sent by port p"]);
    assert_eq!(reply.walk_error, "");
    let tunnel = bench.api.explain(Request::new(ask("media/caller", 4789))).await.unwrap().into_inner();
    let egress = tunnel.egress.unwrap();
    assert!(!tunnel.allowed && !egress.allowed && egress.reason.contains("tunnel packets"), "{egress:?}");
    bench
        .apply(
            "{apiVersion: v1, kind: Pod, metadata: {namespace: far, name: away}, spec: {nodeName: n9}, status: {podIP: \
             192.0.2.77}}",
        )
        .await;
    let away = pb::ExplainFlowRequest { to: "far/away".into(), ..ask("far/away", 5060) };
    let reply = bench.api.explain(Request::new(away.clone())).await.unwrap().into_inner();
    assert_eq!(reply.walk, Vec::<String>::new());
    assert_eq!(reply.walk_error, "neither end is on this node (n1): ask on n9");
    let reply = bench.api.explain(Request::new(ask("far/away", 5060))).await.unwrap().into_inner();
    assert!(!reply.walk.is_empty(), "the pod that it goes to is here: {reply:?}");
    bench.engine.change(|content| content.refusal = "too many routes".into());
    bench
        .apply("{apiVersion: v1, kind: Pod, metadata: {namespace: media, name: relay, labels: {a: b}}}")
        .await;
    bench.until_progress(|p| p.engine_refuses).await;
    let reply = bench.api.explain(Request::new(ask("media/caller", 5060))).await.unwrap().into_inner();
    assert!(!reply.walk.is_empty() && reply.walk_error.contains("of older objects"), "{reply:?}");
    assert!(reply.walk_error.ends_with("keeps the one before: too many routes"), "{reply:?}");
    let status = bench.api.get_status(Request::new(pb::GetAgentStatusRequest {})).await.unwrap().into_inner();
    assert!(status.engine_connected && status.engine_error.ends_with("too many routes"), "{status:?}");
    bench.engine.stop();
    let reply = bench.api.explain(Request::new(ask("media/caller", 5060))).await.unwrap().into_inner();
    assert!(reply.walk.is_empty() && reply.walk_error.contains("vswitchd does not answer"), "{reply:?}");
    let status = bench.api.explain(Request::new(ask("media/nobody", 5060))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "pod media/nobody is not there"));
    let status = bench.api.explain(Request::new(ask("caller", 5060))).await.unwrap_err();
    assert_eq!(status.message(), "pod default/caller is not there; media/caller is");
    let within = pb::ExplainFlowRequest { namespace: "media".into(), ..ask("caller", 5060) };
    let reply = bench.api.explain(Request::new(within)).await.unwrap().into_inner();
    assert!(reply.from.starts_with("pod media/caller "), "{reply:?}");
    let status = bench.api.explain(Request::new(ask("media/caller", 70_000))).await.unwrap_err();
    assert_eq!(status.message(), "port: 70000 is not a port: 0 to 65535");
}

#[tokio::test]
async fn the_socket_is_one_agents() {
    let bench = Bench::new().await;
    let path = bench.folder.path().join("run/agent.sock");
    let stop = watch::Sender::new(false);
    let start = || {
        let (service, path, mut stopped) = (bench.api.clone(), path.clone(), stop.subscribe());
        tokio::spawn(async move {
            let socket = Socket::bind("vswitch-agent", &path)?;
            let ended =
                serve(service, socket, async move { drop(stopped.wait_for(|stop| *stop).await) }).await;
            ended.unwrap();
            Ok::<(), CannotListen>(())
        })
    };
    // A socket that nobody serves any more is in nobody's way.
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = start();
    let channel = in_time(async {
        loop {
            match vswitch_model::api::connect("vswitch-agent", &path).await {
                Ok(channel) => break channel,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let mut client = pb::agent_client::AgentClient::new(channel);
    client.get_status(pb::GetAgentStatusRequest {}).await.unwrap();
    let error = in_time(start()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("another vswitch-agent is serving there"), "{error}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Not even when nobody answers there yet, or any more: the first may be about to.
    std::fs::remove_file(&path).unwrap();
    let error = in_time(start()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("another vswitch-agent is serving there"), "{error}");
    drop(client);
    stop.send_replace(true);
    in_time(first).await.unwrap().unwrap();
    assert!(!path.exists());
    std::fs::write(&path, "").unwrap();
    let error = in_time(start()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("is not a socket"), "{error}");
}
