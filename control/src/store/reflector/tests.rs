//! The picture, with stores that are away at times and hold what cannot be read.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use futures::stream;

use super::*;
use crate::object::{Kind, Namespace, NetworkPolicy, ObjectMeta};
use crate::store::{Applied, ByKind, Embedded, Entry, Revision, Store, Watch, apply};

fn namespace(name: &str, label: &str) -> Object {
    let mut metadata = ObjectMeta::named(name);
    metadata.labels.insert("l".into(), label.into());
    Namespace { metadata }.into()
}

async fn until(reflector: &Reflector, what: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let mut snapshots = reflector.snapshots();
    let waited = tokio::time::timeout(Duration::from_secs(20), snapshots.wait_for(|s| what(s))).await;
    waited.expect("in time").unwrap().clone()
}

/// Waits for the last change of a store with one count for all kinds.
async fn reached(reflector: &Reflector, last: &Revisions) -> Snapshot {
    until(reflector, |s| s.synced && s.revisions.newest() >= last.newest()).await
}

/// A store that can be away: calls fail and watches break.
struct Flaky {
    inner: Embedded,
    away: Arc<AtomicBool>,
    /// Raised to break the watches there are.
    broken: watch::Sender<u32>,
    /// What the next lists say in place of an answer.
    unlisted: Mutex<VecDeque<StoreError>>,
}

impl Flaky {
    fn new(history: usize) -> Arc<Self> {
        let inner = Embedded::in_memory_keeping(history).unwrap();
        let (away, broken, unlisted) = (Arc::default(), watch::Sender::new(0), Mutex::default());
        Arc::new(Self { inner, away, broken, unlisted })
    }

    fn go(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        self.broken.send_modify(|n| *n += 1);
    }

    fn here(&self) -> Result<()> {
        let away = self.away.load(Ordering::SeqCst);
        if away { Err(StoreError::Unavailable("away".into())) } else { Ok(()) }
    }
}

impl Store for Flaky {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>> {
        async { self.here().map(|()| self.inner.get(key))?.await }.boxed()
    }

    fn list(&self, kind: Option<Kind>) -> BoxFuture<'_, Result<Listing>> {
        async move {
            self.here()?;
            let unlisted = self.unlisted.lock().unwrap().pop_front();
            unlisted.map_or(Ok(()), Err)?;
            self.inner.list(kind).await
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a Key, value: Vec<u8>) -> BoxFuture<'a, Result<Revision>> {
        self.inner.create(key, value)
    }

    fn update<'a>(&'a self, key: &'a Key, value: Vec<u8>, base: Revision) -> BoxFuture<'a, Result<Revision>> {
        self.inner.update(key, value, base)
    }

    fn delete<'a>(&'a self, key: &'a Key, base: Option<Revision>) -> BoxFuture<'a, Result<Revision>> {
        self.inner.delete(key, base)
    }

    fn untold(&self) -> BoxFuture<'_, Result<Revisions>> {
        self.inner.untold()
    }

    fn watch<'a>(&'a self, kind: Option<Kind>, from: &'a Revisions) -> BoxFuture<'a, Result<Watch>> {
        async move {
            self.here()?;
            let events = self.inner.watch(kind, from).await?;
            let mut broken = self.broken.subscribe();
            let breaks = async move {
                let _ = broken.changed().await;
                Err(StoreError::Unavailable("broken".into()))
            };
            Ok(stream::select(events, stream::once(breaks)).boxed())
        }
        .boxed()
    }
}

#[tokio::test]
async fn the_picture_follows_the_store() {
    let store = Arc::new(Embedded::in_memory().unwrap());
    apply(store.as_ref(), &namespace("a", "1")).await.unwrap();
    let reflector = Reflector::start(store.clone());
    assert!(!reflector.current().synced, "nothing is known before the first list");
    let first = until(&reflector, |s| s.synced).await;
    assert_eq!(first.inputs.namespaces.len(), 1);

    apply(store.as_ref(), &namespace("b", "1")).await.unwrap();
    apply(store.as_ref(), &namespace("a", "2")).await.unwrap();
    let revision = store.delete(&namespace("b", "").key(), None).await.unwrap();
    let snapshot = reflector.reached(At::new(Kind::Namespace, revision)).await;
    assert_eq!(snapshot.inputs.namespaces.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(snapshot.inputs.namespaces["a"].metadata.labels["l"], "2");
    assert_eq!(first.inputs.namespaces["a"].metadata.labels["l"], "1", "a picture once taken stays");
}

#[tokio::test]
async fn the_picture_stays_while_the_store_is_away_and_catches_up_after() {
    // With a short history the changes made meanwhile are compacted, and it must list again.
    for (history, changes) in [(1000, 3), (4, 20)] {
        let store = Flaky::new(history);
        apply(&store.inner, &namespace("a", "0")).await.unwrap();
        let reflector = Reflector::start(store.clone());
        until(&reflector, |s| s.synced && s.stale.is_none()).await;
        store.go(true);
        let stale = until(&reflector, |s| s.stale.is_some()).await;
        assert!(stale.synced && stale.inputs.namespaces.contains_key("a"));
        store.inner.delete(&namespace("a", "").key(), None).await.unwrap();
        for n in 0..changes {
            apply(&store.inner, &namespace("b", &n.to_string())).await.unwrap();
        }
        assert!(reflector.current().inputs.namespaces.contains_key("a"));
        store.go(false);
        let back = until(&reflector, |s| s.stale.is_none() && s.inputs.namespaces.contains_key("b")).await;
        let last = store.inner.list(None).await.unwrap().revisions;
        let last = if back.revisions.have_all(&last) { back } else { reached(&reflector, &last).await };
        assert_eq!(last.inputs.namespaces.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(last.inputs.namespaces["b"].metadata.labels["l"], (changes - 1).to_string());
    }
}

/// Of all that was to be listed again, one kind could not be: the others' changes are lost all the same.
#[tokio::test]
async fn a_list_of_everything_stays_one_when_it_fails_for_one_kind() {
    let store = Flaky::new(4);
    apply(&store.inner, &namespace("a", "0")).await.unwrap();
    let reflector = Reflector::start(store.clone());
    until(&reflector, |s| s.synced && s.stale.is_none()).await;
    store.go(true);
    until(&reflector, |s| s.stale.is_some()).await;
    for n in 0..20 {
        apply(&store.inner, &namespace("b", &n.to_string())).await.unwrap();
    }
    for kind in [Kind::Pod, Kind::Node] {
        let lost = StoreError::Compacted { kind: Some(kind), revision: Revision::default() };
        store.unlisted.lock().unwrap().push_back(lost);
    }
    store.go(false);
    until(&reflector, |s| s.inputs.namespaces.contains_key("b")).await;
    assert!(store.unlisted.lock().unwrap().is_empty());
}

/// The pauses of one absence are not those of the next, though nothing was told in between.
#[test]
fn a_watch_that_held_ends_the_long_pauses() {
    let mut pauses = vec![Duration::ZERO];
    for _ in 0..10 {
        pauses.push(pause_after(*pauses.last().unwrap(), None));
    }
    assert_eq!((pauses[1], pauses[2], pauses[10]), (PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MAX));
    assert_eq!(pause_after(PAUSE_MAX, Some(PAUSE_MAX)), PAUSE_MIN);
    assert_eq!(pause_after(PAUSE_MAX, Some(PAUSE_MAX / 2)), PAUSE_MAX, "one that breaks soon is none");
}

#[tokio::test]
async fn nothing_is_synced_while_the_store_has_never_answered() {
    let store = Flaky::new(10);
    store.go(true);
    let reflector = Reflector::start(store.clone());
    assert!(!until(&reflector, |s| s.stale.is_some()).await.synced);
    store.go(false);
    until(&reflector, |s| s.synced && s.stale.is_none()).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_a_policy_closes() {
    let store = Arc::new(Embedded::in_memory().unwrap());
    let policy = Key::new(Kind::NetworkPolicy, "x", "p");
    let of_cluster = Key::cluster(Kind::ClusterNetworkPolicy, "p");
    let misplaced = Key::cluster(Kind::Namespace, "other");
    store.create(&policy, b"{\"from\":\"the future\"}".to_vec()).await.unwrap();
    store.create(&of_cluster, b"{}".to_vec()).await.unwrap();
    store.create(&misplaced, namespace("a", "1").to_json()).await.unwrap();
    let reflector = Reflector::start(store.clone());
    let snapshot = until(&reflector, |s| s.synced).await;
    assert_eq!(snapshot.problems.keys().collect::<Vec<_>>(), [&misplaced, &policy, &of_cluster]);
    assert!(snapshot.inputs.namespaces.is_empty());
    assert_eq!(snapshot.inputs.unlabelled.iter().collect::<Vec<_>>(), [&misplaced]);
    let says = "its labels are not known, so no rule that asks for them allows its pods anything";
    assert!(snapshot.problems[&misplaced].ends_with(says), "{:?}", snapshot.problems);
    let closed = &snapshot.inputs.policies[&("x".to_owned(), "p".to_owned())];
    assert_eq!(**closed, NetworkPolicy::closed("x", "p"));

    assert_eq!(snapshot.inputs.unreadable.iter().collect::<Vec<_>>(), [&of_cluster]);

    store.delete(&policy, None).await.unwrap();
    store.delete(&of_cluster, None).await.unwrap();
    let revision = store.delete(&misplaced, None).await.unwrap();
    let snapshot = reflector.reached(At::new(Kind::Namespace, revision)).await;
    assert!(snapshot.problems.is_empty() && *snapshot.inputs == Inputs::default());
}

#[tokio::test]
async fn what_policy_goes_by_and_can_no_longer_be_read_stays_as_it_was() {
    let store = Flaky::new(4);
    let of_pods = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: x, name: p}, \
                   spec: {podSelector: {}, ingress: [{}]}}";
    let set = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: s}, spec: {nets: [192.0.2.0/24]}}";
    let read = |text| crate::object::manifest::parse("test", "default", text).unwrap().remove(0).object;
    let labelled = "{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {purpose: other}}}";
    let account =
        "{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: x, name: a, labels: {role: other}}}";
    let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
                 metadata: {namespace: x, name: e, labels: {kubernetes.io/service-name: s}}, \
                 endpoints: [{addresses: [192.0.2.1]}]}";
    let texts = [labelled, of_pods, account, slice, set];
    let mut keys = texts.map(|text| read(text).key());
    keys.sort();
    for text in texts {
        apply(&store.inner, &read(text)).await.unwrap();
    }
    let reflector = Reflector::start(store.clone());
    let good = until(&reflector, |s| s.stale.is_none() && s.inputs.policies.len() == 1).await.inputs;
    for text in ["{}", "{\"from\": \"the future\"}"] {
        for key in &keys {
            let base = store.inner.get(key).await.unwrap().unwrap().revision;
            store.inner.update(key, text.into(), base).await.unwrap();
        }
        let last = store.inner.list(None).await.unwrap().revisions;
        let snapshot = reached(&reflector, &last).await;
        assert_eq!(snapshot.problems.keys().collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
        assert!(snapshot.problems.values().all(|problem| problem.ends_with("stays in force")));
        assert_eq!(snapshot.inputs, good);
    }
    // It is read as a whole again, since what changed meanwhile is told no more.
    store.go(true);
    until(&reflector, |s| s.stale.is_some()).await;
    for n in 0..20 {
        apply(&store.inner, &namespace("b", &n.to_string())).await.unwrap();
    }
    store.go(false);
    let snapshot = until(&reflector, |s| s.inputs.namespaces.contains_key("b")).await;
    assert!(snapshot.problems.values().all(|problem| problem.ends_with("stays in force")));
    assert_eq!((&snapshot.inputs.policies, snapshot.problems.len()), (&good.policies, keys.len()));
    assert_eq!(snapshot.inputs.namespaces["x"], good.namespaces["x"]);
    assert_eq!(snapshot.inputs.global_network_sets, good.global_network_sets);

    // What was deleted is not remembered.
    for key in &keys {
        store.inner.delete(key, None).await.unwrap();
        store.inner.create(key, b"{}".to_vec()).await.unwrap();
    }
    let last = store.inner.list(None).await.unwrap().revisions;
    let snapshot = reached(&reflector, &last).await;
    assert_eq!(*snapshot.inputs.policies.values().next().unwrap().as_ref(), NetworkPolicy::closed("x", "p"));
    assert!(snapshot.inputs.global_network_sets.is_empty());
}

#[tokio::test]
async fn a_kind_whose_changes_are_lost_is_read_again_alone() {
    let store = ByKind::new();
    let policy = |name: &str| Object::from(NetworkPolicy::closed("x", name));
    apply(store.as_ref(), &namespace("a", "1")).await.unwrap();
    apply(store.as_ref(), &policy("gone")).await.unwrap();
    apply(store.as_ref(), &policy("stays")).await.unwrap();
    let broken = Key::new(Kind::NetworkPolicy, "x", "broken");
    store.create(&broken, b"{}".to_vec()).await.unwrap();
    let unread = Key::cluster(Kind::Namespace, "unread");
    store.create(&unread, b"{}".to_vec()).await.unwrap();
    let reflector = Reflector::start(store.clone());
    let first = until(&reflector, |s| s.synced && s.stale.is_none()).await;
    assert_eq!((first.inputs.policies.len(), first.problems.len()), (3, 2));
    assert_eq!(store.take_listed(), [None]);

    // What happens to policies is not told; it is found when they are listed. Namespaces go on as they were.
    store.hold([Kind::NetworkPolicy]);
    store.delete(&policy("gone").key(), None).await.unwrap();
    store.delete(&broken, None).await.unwrap();
    apply(store.as_ref(), &policy("new")).await.unwrap();
    let labelled = apply(store.as_ref(), &namespace("a", "2")).await.unwrap();
    let Applied::Updated(revision) = labelled else { panic!("{labelled:?}") };
    let before = reflector.reached(At::new(Kind::Namespace, revision)).await;
    assert_eq!(before.inputs.policies, first.inputs.policies);
    store.compact(Kind::NetworkPolicy);
    let after = until(&reflector, |s| s.inputs.policies != before.inputs.policies).await;
    assert_eq!(store.take_listed(), [Some(Kind::NetworkPolicy)]);
    let names = after.inputs.policies.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["new", "stays"]);
    assert_eq!(after.inputs.namespaces["a"].metadata.labels["l"], "2");
    assert_eq!(after.problems.keys().collect::<Vec<_>>(), [&unread], "the other kind's stays known");
    assert!(after.inputs.unlabelled.contains(&unread) && after.stale.is_none());
    assert!(after.revisions.have_all(&before.revisions));

    store.hold([]);
    let created = store.delete(&policy("new").key(), None).await.unwrap();
    let last = reflector.reached(At::new(Kind::NetworkPolicy, created)).await;
    assert_eq!(last.inputs.policies.len(), 1, "its changes are told again");
}
