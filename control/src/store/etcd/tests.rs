//! Against a real etcd: Debian's `etcd`, started on a free port of the loopback. Where it is not installed these tests
//! say so and pass, unless `CI` is set.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::super::reflector::Snapshot;
use super::super::{At, Reflector, apply, conformance};
use super::*;
use crate::object::{Namespace, ObjectMeta};

struct Server {
    folder: tempfile::TempDir,
    ports: [u16; 2],
    process: Option<Child>,
}

impl Server {
    /// None where there is no etcd.
    fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            assert!(std::env::var_os("CI").is_none(), "etcd is not installed (Debian: etcd-server)");
            eprintln!("SKIPPED: etcd is not installed (Debian: etcd-server)");
            return None;
        }
        // Held until both are known, so that they differ; given up just before etcd takes them.
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(listeners);
        let mut server = Self { folder: tempfile::tempdir().unwrap(), ports, process: None };
        server.run();
        Some(server)
    }

    fn run(&mut self) {
        let [client, peer] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let data: &Path = &self.folder.path().join("data");
        let process = Command::new("etcd")
            .args(["--name", "test", "--unsafe-no-fsync", "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    async fn store(&self) -> Etcd {
        let endpoint = format!("http://127.0.0.1:{}", self.ports[0]);
        let mut options = EtcdOptions::new(vec![endpoint]);
        options.timeout = Duration::from_secs(2);
        let store = Etcd::connect(options).await.unwrap();
        let mut attempts = tokio::time::interval(Duration::from_millis(50));
        let answers = async {
            while store.list(Some(Kind::Node)).await.is_err() {
                attempts.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), answers).await.expect("etcd answers");
        store
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn namespace(name: &str) -> crate::object::Object {
    Namespace { metadata: ObjectMeta::named(name) }.into()
}

async fn until(reflector: &Reflector, what: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let mut snapshots = reflector.snapshots();
    let waited = tokio::time::timeout(Duration::from_secs(60), snapshots.wait_for(|s| what(s))).await;
    waited.expect("in time").unwrap().clone()
}

#[tokio::test]
async fn conforms() {
    let Some(server) = Server::start() else { return };
    conformance::run(Arc::new(server.store().await)).await;
}

#[tokio::test]
async fn kinds_are_told_in_one_order() {
    let Some(server) = Server::start() else { return };
    assert!(super::super::in_order::is_kept(Arc::new(server.store().await)).await);
}

#[tokio::test]
async fn keys_of_others_are_neither_listed_nor_told() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let start = store.list(None).await.unwrap().revisions;
    let mut watch = store.watch(None, &start).await.unwrap();
    for key in ["/vswitch/other/a", "/vswitch/nodes/a/b", "/vswitcha", "/other", "/vswitch/nodes/\u{e4}"] {
        store.client.kv_client().put(key, "x", None).await.unwrap();
    }
    let key = Key::cluster(Kind::Node, "a");
    store.create(&key, Vec::new()).await.unwrap();
    let listed: Vec<_> = store.list(None).await.unwrap().entries.into_iter().map(|e| e.key).collect();
    assert_eq!(listed, [key.clone(), Key::cluster(Kind::Node, "\u{e4}")]);
    assert_eq!(watch.next().await.unwrap().unwrap().key().unwrap().name, "\u{e4}");
    assert_eq!(watch.next().await.unwrap().unwrap().key(), Some(&key));
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_is_told_so() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let first = store.create(&Key::cluster(Kind::Node, "a"), Vec::new()).await.unwrap();
    let mut last = first;
    for n in 0..5 {
        last = store.create(&Key::cluster(Kind::Node, format!("b{n}")), Vec::new()).await.unwrap();
    }
    store.client.kv_client().compact(signed(last), None).await.unwrap();
    let mut watch = store.watch(None, &Revisions::all(first)).await.unwrap();
    assert_eq!(watch.next().await, Some(Err(StoreError::Compacted { kind: None, revision: first })));
    let ahead = Revision(last.0 + 1000);
    let mut watch = store.watch(None, &Revisions::all(ahead)).await.unwrap();
    assert_eq!(
        watch.next().await,
        Some(Err(StoreError::Compacted { kind: None, revision: ahead })),
        "an etcd restored from a backup"
    );
}

#[tokio::test]
async fn the_picture_survives_an_etcd_that_goes_and_comes_back() {
    let Some(mut server) = Server::start() else { return };
    let store = server.store().await;
    apply(&store, &namespace("a")).await.unwrap();
    let reflector = Reflector::start(Arc::new(store.clone()));
    until(&reflector, |s| s.synced && s.stale.is_none()).await;

    server.stop();
    let stale = until(&reflector, |s| s.stale.is_some()).await;
    assert!(stale.inputs.namespaces.contains_key("a"));
    let refused = store.create(&namespace("b").key(), Vec::new()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");

    server.run();
    let again = server.store().await;
    let applied = apply(&again, &namespace("c")).await.unwrap();
    let super::super::Applied::Created(revision) = applied else { panic!("{applied:?}") };
    let caught_up =
        until(&reflector, |s| s.stale.is_none() && s.revisions.have(At::new(Kind::Namespace, revision)))
            .await;
    assert_eq!(caught_up.inputs.namespaces.keys().collect::<Vec<_>>(), ["a", "c"]);
}

#[tokio::test]
async fn what_is_not_supported_is_refused_at_once() {
    let mut no_slash = EtcdOptions::new(vec!["http://127.0.0.1:1".into()]);
    no_slash.prefix = "/vswitch".into();
    let tls = EtcdOptions::new(vec!["https://192.0.2.1:2379".into()]);
    for options in [tls, EtcdOptions::new(Vec::new()), no_slash] {
        let refused = Etcd::connect(options).await.err();
        assert!(matches!(refused, Some(StoreError::Failed(_))), "{refused:?}");
    }
}
