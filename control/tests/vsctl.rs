//! `vsctl` as a person runs it: the real binary, against servers that answer with fixed messages.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, iter};
use tonic::{Request, Response, Status};
use vswitch_model::api::agent::agent_server::{Agent, AgentServer};
use vswitch_model::api::engine::engine_server::{Engine, EngineServer};
use vswitch_model::api::{agent, engine};

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers with fixed messages, and remembers the requests, as `Debug` has them.
#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn note(&self, request: &impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{request:?}"));
    }
}

#[tonic::async_trait]
impl Agent for Fake {
    async fn apply(&self, request: Request<agent::ApplyObjectsRequest>) -> Reply<agent::ApplyObjectsReply> {
        self.note(request.get_ref());
        let documents = &request.get_ref().documents;
        if let Some(wrong) = documents.iter().find(|document| document.text.contains("podSelectr")) {
            let file = &wrong.file;
            return Err(Status::invalid_argument(format!(
                "{file}: document 1: NetworkPolicy media/relay: spec.podSelectr: unknown field; podSelector is meant?"
            )));
        }
        let results = documents.iter().map(|document| agent::ObjectResult {
            kind: "NetworkPolicy".into(),
            namespace: "media".into(),
            name: document.text.trim().to_owned(),
            outcome: "created".into(),
            ..Default::default()
        });
        Ok(Response::new(agent::ApplyObjectsReply { results: results.collect(), ..Default::default() }))
    }

    async fn list(&self, request: Request<agent::ListObjectsRequest>) -> Reply<agent::ListObjectsReply> {
        self.note(request.get_ref());
        if request.get_ref().kind != "ippool" {
            return Err(Status::invalid_argument(
                "kind: \"service\" is not supported; supported are ippools",
            ));
        }
        let pool = json!({"kind": "IPPool", "metadata": {"name": "v4"}, "spec": {"cidr": "10.244.0.0/16"}});
        Ok(Response::new(agent::ListObjectsReply {
            kind: "IPPool".into(),
            namespaced: false,
            objects: vec![pool.to_string()],
        }))
    }

    async fn delete(
        &self,
        request: Request<agent::DeleteObjectsRequest>,
    ) -> Reply<agent::DeleteObjectsReply> {
        self.note(request.get_ref());
        let objects = request.into_inner().objects;
        if objects.iter().any(|object| object.name == "relay") {
            return Err(Status::not_found("no NetworkPolicy media/relay"));
        }
        let results = objects.into_iter().map(|agent::ObjectName { kind, name }| agent::ObjectResult {
            kind,
            name,
            outcome: "deleted".to_owned(),
            ..Default::default()
        });
        Ok(Response::new(agent::DeleteObjectsReply { results: results.collect(), ..Default::default() }))
    }

    async fn describe(&self, request: Request<agent::DescribeRequest>) -> Reply<agent::DescribeReply> {
        self.note(request.get_ref());
        let facts = vec![agent::Fact { name: "selected pods".into(), values: vec!["media/relay-0".into()] }];
        Ok(Response::new(agent::DescribeReply { object: r#"{"kind":"NetworkPolicy"}"#.into(), facts }))
    }

    async fn get_status(&self, _: Request<agent::GetAgentStatusRequest>) -> Reply<agent::AgentStatus> {
        Ok(Response::new(agent::AgentStatus {
            node: "n1".into(),
            store: "etcd".into(),
            store_connected: true,
            store_synced: true,
            engine_connected: true,
            settings: vec![agent::Setting { name: "node".into(), value: "\"n1\"".into() }],
            ..Default::default()
        }))
    }

    async fn explain(&self, request: Request<agent::ExplainFlowRequest>) -> Reply<agent::ExplainFlowReply> {
        self.note(request.get_ref());
        let request = request.into_inner();
        let side = agent::SideVerdict { policy: "NetworkPolicy media/relay".into(), ..Default::default() };
        Ok(Response::new(agent::ExplainFlowReply {
            allowed: request.from == "media/caller",
            from: request.from,
            to: request.to,
            ingress: Some(side),
            ..Default::default()
        }))
    }

    async fn list_names(&self, _: Request<agent::ListNamesRequest>) -> Reply<agent::ListNamesReply> {
        let policies = vec!["ClusterNetworkPolicy guard".to_owned()];
        let known = agent::LearnedName {
            name: "sip.example.org".into(),
            address: "203.0.113.7".into(),
            ttl_left_ms: 61_000,
            server: "10.96.0.10".into(),
            policies: policies.clone(),
        };
        let unknown = agent::UnknownName { pattern: "*.example.net".into(), policies };
        Ok(Response::new(agent::ListNamesReply { names: vec![known], unknown: vec![unknown] }))
    }

    // vsctl has no business with the rest.

    async fn attach(&self, _: Request<agent::AttachRequest>) -> Reply<agent::AttachReply> {
        Err(Status::unimplemented("attach"))
    }

    async fn choose_port(&self, _: Request<agent::ChoosePortRequest>) -> Reply<agent::ChoosePortReply> {
        Err(Status::unimplemented("choose_port"))
    }

    async fn detach(&self, _: Request<agent::DetachRequest>) -> Reply<agent::DetachReply> {
        Err(Status::unimplemented("detach"))
    }

    async fn check(&self, _: Request<agent::CheckRequest>) -> Reply<agent::CheckReply> {
        Err(Status::unimplemented("check"))
    }

    async fn collect_garbage(
        &self,
        _: Request<agent::CollectGarbageRequest>,
    ) -> Reply<agent::CollectGarbageReply> {
        Err(Status::unimplemented("collect_garbage"))
    }

    async fn ready(&self, _: Request<agent::ReadyRequest>) -> Reply<agent::ReadyReply> {
        Err(Status::unimplemented("ready"))
    }

    async fn assign_addresses(
        &self,
        _: Request<agent::AssignAddressesRequest>,
    ) -> Reply<agent::AssignAddressesReply> {
        Err(Status::unimplemented("assign_addresses"))
    }

    async fn release_addresses(
        &self,
        _: Request<agent::ReleaseAddressesRequest>,
    ) -> Reply<agent::ReleaseAddressesReply> {
        Err(Status::unimplemented("release_addresses"))
    }

    async fn check_addresses(
        &self,
        _: Request<agent::CheckAddressesRequest>,
    ) -> Reply<agent::AssignAddressesReply> {
        Err(Status::unimplemented("check_addresses"))
    }
}

#[tonic::async_trait]
impl Engine for Fake {
    type ListFlowsStream = Streamed<engine::Flow>;
    type ListRoutesStream = Streamed<engine::RouteStatus>;
    type ListRulesStream = Streamed<engine::RuleCounters>;
    type WatchFlowLogStream = Streamed<engine::FlowLogRecord>;
    type WatchNamesStream = Streamed<engine::NameAnswer>;
    type TraceStream = Streamed<engine::TraceRecord>;

    async fn get_status(&self, _: Request<engine::GetStatusRequest>) -> Reply<engine::EngineStatus> {
        let port = engine::PortStatus { name: "vsw1".into(), kind: "af_xdp".into(), ..Default::default() };
        let settings = vec![engine::Setting { name: "flows".into(), value: "1024".into() }];
        Ok(Response::new(engine::EngineStatus { ports: vec![port], settings, ..Default::default() }))
    }

    async fn get_counters(&self, _: Request<engine::GetCountersRequest>) -> Reply<engine::Counters> {
        let drops = vec![engine::DropCounter { reason: "policy-denied".into(), packets: 3 }];
        Ok(Response::new(engine::Counters { drops, ..Default::default() }))
    }

    async fn list_flows(&self, request: Request<engine::ListFlowsRequest>) -> Reply<Self::ListFlowsStream> {
        self.note(request.get_ref());
        let flow = |port| engine::Flow { source: "10.0.0.1".into(), source_port: port, ..Default::default() };
        Ok(Response::new(Box::pin(iter([Ok(flow(1)), Ok(flow(2))]))))
    }

    async fn list_routes(
        &self,
        request: Request<engine::ListRoutesRequest>,
    ) -> Reply<Self::ListRoutesStream> {
        self.note(request.get_ref());
        let route = engine::RouteStatus { prefix: "10.0.0.0/26".into(), ..Default::default() };
        Ok(Response::new(Box::pin(iter([Ok(route)]))))
    }

    async fn list_rules(&self, request: Request<engine::ListRulesRequest>) -> Reply<Self::ListRulesStream> {
        self.note(request.get_ref());
        let rule = engine::RuleCounters {
            policy: "NetworkPolicy media/relay".into(),
            packets: 7,
            ..Default::default()
        };
        let known = ["", "NetworkPolicy media/relay"].contains(&request.get_ref().policy.as_str());
        Ok(Response::new(Box::pin(iter(known.then_some(Ok(rule))))))
    }

    async fn watch_flow_log(
        &self,
        request: Request<engine::WatchFlowLogRequest>,
    ) -> Reply<Self::WatchFlowLogStream> {
        self.note(request.get_ref());
        let record = |port| engine::FlowLogRecord {
            source: "10.0.0.1".into(),
            source_port: port,
            ..Default::default()
        };
        Ok(Response::new(Box::pin(iter([Ok(record(1)), Ok(record(2))]))))
    }

    async fn trace(&self, request: Request<engine::TraceRequest>) -> Reply<Self::TraceStream> {
        self.note(request.get_ref());
        let record = |time_ns| engine::TraceRecord { time_ns, in_port: "vsw1".into(), ..Default::default() };
        let two = iter([Ok(record(1)), Ok(record(2))]);
        if request.get_ref().limit == 2 {
            return Ok(Response::new(Box::pin(two)));
        }
        // Goes on for ever, as a trace on a quiet node does.
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::chain(two, tokio_stream::pending()))))
    }

    async fn watch_names(&self, _: Request<engine::WatchNamesRequest>) -> Reply<Self::WatchNamesStream> {
        Err(Status::unimplemented("watch_names"))
    }

    async fn release_answers(
        &self,
        _: Request<engine::ReleaseAnswersRequest>,
    ) -> Reply<engine::ReleaseAnswersReply> {
        Err(Status::unimplemented("release_answers"))
    }

    async fn find_flows(&self, _: Request<engine::FindFlowsRequest>) -> Reply<engine::FindFlowsReply> {
        Err(Status::unimplemented("find_flows"))
    }

    async fn apply(&self, _: Request<engine::ApplyRequest>) -> Reply<engine::ApplyReply> {
        Err(Status::unimplemented("apply"))
    }

    async fn get_state(&self, _: Request<engine::GetStateRequest>) -> Reply<engine::GetStateReply> {
        Err(Status::unimplemented("get_state"))
    }

    async fn explain(&self, _: Request<engine::ExplainRequest>) -> Reply<engine::ExplainReply> {
        Err(Status::unimplemented("explain"))
    }
}

/// Both servers, in one folder; stopped when dropped.
struct Node {
    fake: Fake,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::default();
        let served = fake.clone();
        let sockets = [folder.path().join("agent.sock"), folder.path().join("engine.sock")];
        let (stop, stopped) = oneshot::channel();
        let (ready_in, ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let [agent, engine] =
                    sockets.map(|path| UnixListenerStream::new(UnixListener::bind(path).unwrap()));
                ready_in.send(()).unwrap();
                let builder = tonic::transport::Server::builder;
                let agent =
                    builder().add_service(AgentServer::new(served.clone())).serve_with_incoming(agent);
                let engine = builder().add_service(EngineServer::new(served)).serve_with_incoming(engine);
                tokio::select! {
                    done = agent => done.unwrap(),
                    done = engine => done.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        ready.recv_timeout(Duration::from_secs(10)).unwrap();
        Self { fake, folder, stop: Some(stop), thread: Some(thread) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsctl"));
        command
            .args(line.split_whitespace())
            .env("VSWITCH_AGENT_SOCKET", self.path("agent.sock"))
            .env("VSWITCH_ENGINE_SOCKET", self.path("engine.sock"))
            .current_dir(self.folder.path());
        command
    }

    fn vsctl(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// What it printed, for a command that has to succeed.
    fn text(&self, line: &str) -> String {
        let output = self.vsctl(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.text(&format!("{line} -o json"))).unwrap()
    }

    /// Exit code and standard error, for one that has to fail.
    fn failure(&self, line: &str) -> (i32, String) {
        let output = self.vsctl(line);
        assert_eq!(output.stdout, b"", "{line}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn last_request(&self) -> String {
        self.fake.asked.lock().unwrap().last().unwrap().clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_folder_is_asked_without_agent_and_engine() {
    let folder = tempfile::tempdir().unwrap();
    let vsctl = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsctl"));
        let nowhere = folder.path().join("nowhere.sock");
        command.env("VSWITCH_AGENT_SOCKET", &nowhere).env("VSWITCH_ENGINE_SOCKET", &nowhere);
        command.args(line.split_whitespace()).current_dir(folder.path()).output().unwrap()
    };
    let pods = "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {role: caller}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: media}}";
    let policy = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: media}
spec: {podSelector: {}, ingress: [{ports: [{port: 443}]}]}";
    std::fs::write(folder.path().join("pods.yaml"), pods).unwrap();
    std::fs::write(folder.path().join("policy.yaml"), policy).unwrap();
    let said = vsctl("explain -f . a media/b 443/tcp -o json");
    assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(
        (&said["allowed"], &said["ingress"]["policy"]),
        (&json!(true), &json!("NetworkPolicy media/closed"))
    );
    assert_eq!(said["tables"][1], "arriving: allowed by NetworkPolicy media/closed, ingress rule 1");
    let denied = vsctl("explain -f . a media/b 80");
    assert_eq!(denied.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&denied.stdout)
            .contains("\n\nthe engine's tables\n  leaving: allowed: no policy")
    );
    let missing = vsctl("explain -f pods.yaml a media/c 80");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("pod media/c is not there"));
}

#[test]
fn objects_are_applied_listed_described_and_deleted() {
    let node = Node::start();
    std::fs::write(node.path("a.yaml"), "relay").unwrap();
    std::fs::create_dir(node.path("more")).unwrap();
    std::fs::write(node.path("more/b.yml"), "caller").unwrap();
    let text = node.text("apply -f a.yaml -f more -n media");
    assert_eq!(text, "networkpolicy media/relay created\nnetworkpolicy media/caller created\n");
    assert!(node.last_request().contains(r#"namespace: "media", dry_run: false"#), "{}", node.last_request());

    let mut child =
        node.command("apply -f - --dry-run").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"piped").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "networkpolicy media/piped created (dry run)\n");
    assert!(node.last_request().contains(r#"file: "-""#));

    assert_eq!(node.json("get ippool")["items"][0]["metadata"]["name"], "v4");
    assert!(node.text("get ippool").starts_with("NAME  CIDR "));
    assert!(node.text("get ippool -o yaml").contains("- kind: IPPool\n"));
    node.text("get ippool -A");
    assert!(node.last_request().contains("all_namespaces: true"));

    assert_eq!(node.text("describe netpol relay"), "kind: NetworkPolicy\nselected pods:\n  media/relay-0\n");
    assert_eq!(node.json("describe netpol relay")["facts"]["selected pods"][0], "media/relay-0");
    let (code, words) = node.failure("delete netpol relay -n media");
    assert_eq!((code, &*words), (1, "vsctl: no NetworkPolicy media/relay\n"));
}

#[test]
fn habits_of_kubectl_are_met() {
    let node = Node::start();
    assert_eq!(node.text("get ippool/v4 -o name"), "ippool/v4\n");
    assert_eq!(node.json("get ippool v4")["kind"], "IPPool");
    assert_eq!(node.json("get ippool v4 v4")["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(node.text("get ippool -o wide"), node.text("get ippool"));
    assert_eq!(node.text("get ippool -l a=b"), "no IPPool with such labels\n");
    assert_eq!(node.text("describe netpol/relay"), node.text("describe netpol relay"));
    // All are one request: what goes with another does not keep it.
    let before = node.fake.asked.lock().unwrap().len();
    assert_eq!(node.text("delete pod/a namespace/b"), "pod a deleted\nnamespace b deleted\n");
    let asked = node.fake.asked.lock().unwrap()[before..].to_vec();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].contains("dry_run: false"), "{asked:?}");
    assert_eq!(node.text("delete pod/a --dry-run=client"), "pod a deleted (dry run)\n");
    assert!(node.last_request().contains("dry_run: true"));
    assert!(node.text("version").starts_with(concat!("vsctl:   ", env!("CARGO_PKG_VERSION"), "\n")));
    for (line, code, says) in [
        ("get ippool -w", 2, "--watch is not supported"),
        ("get flows -o name", 2, "--output name is for objects"),
        ("get flows -l a=b", 2, "have no labels"),
        ("get ippool,netpol", 1, "one kind at a time"),
        ("get netpol media/relay", 1, "relay --namespace media"),
        ("delete netpol", 1, "name what to delete"),
        ("describe netpol", 1, "name the object"),
    ] {
        let (found, words) = node.failure(line);
        assert!(found == code && words.contains(says), "{line}: {found}, {words}");
    }
}

#[test]
fn errors_name_the_field() {
    let node = Node::start();
    std::fs::write(node.path("bad.yaml"), "podSelectr").unwrap();
    let (code, words) = node.failure("apply -f bad.yaml");
    let expected = "vsctl: bad.yaml: document 1: NetworkPolicy media/relay: spec.podSelectr: unknown field; \
                    podSelector is meant?\n";
    assert_eq!((code, &*words), (1, expected));
    let (code, words) = node.failure("get service");
    assert_eq!(code, 1);
    assert!(words.contains("\"service\" is not supported"), "{words}");
    let (code, words) = node.failure("apply -f missing.yaml");
    assert_eq!(code, 1);
    assert!(words.starts_with("vsctl: missing.yaml: "), "{words}");
}

#[test]
fn explain_tells_by_its_exit_code() {
    let node = Node::start();
    let denied = node.vsctl("explain guest/phone media/relay 5060/udp");
    assert_eq!(denied.status.code(), Some(3));
    let text = String::from_utf8(denied.stdout).unwrap();
    assert!(text.starts_with("guest/phone -> media/relay, 5060/udp: DENIED\n"), "{text}");
    assert!(text.contains("decided by:   NetworkPolicy media/relay"), "{text}");
    let request = node.last_request();
    assert!(request.contains("protocol: 17, port: 5060, family: 0"), "{request}");
    assert_eq!(node.json("explain media/caller media/relay 5060/udp")["allowed"], true);
}

#[test]
fn the_engine_shows_what_it_has() {
    let node = Node::start();
    assert_eq!(node.json("get flows --address 10.0.0.1 --limit 5").as_array().unwrap().len(), 2);
    assert!(node.last_request().contains(r#"limit: 5, address: "10.0.0.1""#));
    assert_eq!(node.json("get routes --address 10.0.0.1 --limit 7")[0]["prefix"], "10.0.0.0/26");
    assert!(node.last_request().contains(r#"address: "10.0.0.1", limit: 7"#));
    let settings = node.json("get settings");
    assert_eq!(
        (&settings["engine"]["flows"], &settings["agent"]["node"]),
        (&json!("1024"), &json!("\"n1\""))
    );
    assert_eq!(node.json("get drops")["reasons"], json!({"policy-denied": 3}));
    assert_eq!(node.json("get counters")["drops"], json!({"policy-denied": 3}));
    assert_eq!(node.json("get ports vsw1")["kind"], "af_xdp");
    assert_eq!(node.failure("get ports eth9").0, 1);
    for line in [
        "get flows -n media",
        "get drops -A",
        "get ports --limit 5",
        "get tunnels n2",
        "get pods --limit 5",
        "get routes -l a=b",
        "get settings flows",
    ] {
        assert_eq!(node.failure(line).0, 2, "{line}");
    }
}

#[test]
fn names_are_shown_with_what_is_known_of_them() {
    let node = Node::start();
    assert_eq!(
        node.text("get domains").lines().map(str::trim_end).collect::<Vec<_>>(),
        [
            "NAME             ADDRESS                 LEFT  TOLD BY     POLICIES",
            "sip.example.org  203.0.113.7             1m1s  10.96.0.10  ClusterNetworkPolicy guard",
            "*.example.net    never learned, or over  -     -           ClusterNetworkPolicy guard",
        ]
    );
    let policies = json!(["ClusterNetworkPolicy guard"]);
    let sip = json!({
        "name": "sip.example.org", "address": "203.0.113.7", "ttlLeftMs": 61_000, "server": "10.96.0.10",
        "policies": policies,
    });
    let unknown = json!({"pattern": "*.example.net", "policies": policies});
    let all = json!({"names": [sip], "unknown": [unknown]});
    assert_eq!(node.json("get domains"), all);
    let yaml: Value = serde_yaml_ng::from_str(&node.text("get domains -o yaml")).unwrap();
    assert_eq!(yaml, all);
    assert_eq!(node.json("get domain SIP.example.org."), json!({"names": [sip], "unknown": []}));
    assert_eq!(node.json("get domainNames *.example.net"), json!({"names": [], "unknown": [unknown]}));
    let (code, words) = node.failure("get domains www.example.org");
    assert_eq!(code, 1);
    assert!(
        words.contains("nothing is known of www.example.org, and no policy of this node names it"),
        "{words}"
    );
    for line in
        ["get domains -n media", "get domains -A", "get domains --limit 5", "get domains --address ::1"]
    {
        assert_eq!(node.failure(line).0, 2, "{line}");
    }
}

#[test]
fn rules_and_denied_flows_are_shown() {
    let node = Node::start();
    assert_eq!(node.json("get policies")[0]["packets"], 7);
    let (code, words) = node.failure("get policies relay");
    assert_eq!(code, 1);
    assert!(words.contains("no policy called \"relay\""), "{words}");
    let told = node.text("flow-log --denied --address 10.0.0.1 --limit 5 -o json");
    let records: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((records.len(), &records[1]["sourcePort"]), (2, &json!(2)));
    assert!(node.last_request().contains("denied_only: true, limit: 5"), "{}", node.last_request());
}

#[test]
fn traces_are_a_line_each_until_the_limit_or_the_time() {
    let node = Node::start();
    let lines = node.text("trace --limit 2 --protocol udp --port 5060 --drops -o json");
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((records.len(), &records[1]["timeNs"]), (2, &json!(2)));
    let request = node.last_request();
    assert!(request.contains("protocol: 17, port: 5060"), "{request}");
    assert!(request.contains("drops_only: true, limit: 2"), "{request}");
    assert_eq!(node.text("trace --for 1 -o yaml").matches("---\n").count(), 2, "and then the time was up");
}

#[test]
fn a_server_that_is_away_is_named_with_its_socket() {
    let node = Node::start();
    let status = node.json("status");
    assert_eq!((&status["agent"]["node"], &status["engine"]["ports"]), (&json!("n1"), &json!(1)));

    let away = node.path("away.sock").display().to_string();
    let (code, words) = node.failure(&format!("get ippool --agent-socket {away}"));
    assert_eq!(code, 1);
    assert!(words.starts_with(&format!("vsctl: vswitch-agent does not answer on {away}: ")), "{words}");
    let (code, words) = node.failure(&format!("get flows --engine-socket {away}"));
    assert_eq!(code, 1);
    assert!(words.starts_with(&format!("vsctl: vswitchd does not answer on {away}: ")), "{words}");

    let half = node.vsctl(&format!("status --engine-socket {away} -o json"));
    assert_eq!(half.status.code(), Some(1));
    let status: Value = serde_json::from_slice(&half.stdout).unwrap();
    assert_eq!(status["agent"]["node"], "n1");
    assert!(status["engine"]["error"].as_str().unwrap().contains("does not answer"));
}

#[test]
fn what_makes_no_sense_is_code_2_and_completions_need_no_server() {
    let node = Node::start();
    for line in ["", "frobnicate", "get", "explain a b udp", "explain a b 99999/udp"] {
        assert_eq!(node.failure(line).0, 2, "{line}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(node.text(&format!("completions {shell}")).contains("vsctl"), "{shell}");
    }
}
