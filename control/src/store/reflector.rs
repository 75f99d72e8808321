//! A live picture of the store: list, then watch, then again when that breaks.
//!
//! The picture is consistent (of one revision) and survives the store's absence: it stays what it was and is marked
//! stale until the store is back. Before the first list has come in there is no picture, and nobody is given one.
//!
//! An object in the store that cannot be read is a problem that the picture names. A NetworkPolicy of that sort stands
//! as one that isolates its whole namespace: what is unknown means deny.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{Event, Listing, Result, Revision, SharedStore, StoreError};
use crate::calc::Inputs;
use crate::object::{Key, Object};

/// First pause before trying again, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Changes taken in before the picture is published, when that many are there already.
const COALESCED_MAX: usize = 1024;

/// The store at one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Whether the whole store has been read once. Until then nothing else here means anything.
    pub synced: bool,
    /// The objects.
    pub inputs: Arc<Inputs>,
    /// The last change that is in them.
    pub revision: Revision,
    /// Why the picture may be out of date: the store is away. None: it is current.
    pub stale: Option<StoreError>,
    /// Objects that cannot be read, and why.
    pub problems: Arc<BTreeMap<Key, String>>,
}

/// Follows a store for as long as it lives.
#[derive(Debug)]
pub struct Reflector {
    snapshots: watch::Receiver<Snapshot>,
    task: JoinHandle<()>,
}

impl Reflector {
    /// Begins to follow `store`. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(store: SharedStore) -> Self {
        let (publish, snapshots) = watch::channel(Snapshot::default());
        let task = tokio::spawn(Follower { store, publish, picture: Snapshot::default() }.run());
        Self { snapshots, task }
    }

    /// The picture, and a way to wait for the next.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// The picture as it is now.
    #[must_use]
    pub fn current(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// Waits until the picture holds the change `revision`. Never ends while the store is away: use a deadline.
    pub async fn reached(&self, revision: Revision) -> Snapshot {
        let mut snapshots = self.snapshots.clone();
        let reached = |snapshot: &Snapshot| snapshot.synced && snapshot.revision >= revision;
        let found = snapshots.wait_for(reached).await.map(|snapshot| snapshot.clone());
        match found {
            Ok(snapshot) => snapshot,
            // The follower ends only with the reflector, which is borrowed here.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Follower {
    store: SharedStore,
    publish: watch::Sender<Snapshot>,
    picture: Snapshot,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let mut list = true;
        loop {
            let Err(error) = self.follow(list, &mut pause).await;
            list = !self.picture.synced || matches!(error, StoreError::Compacted(_));
            if matches!(error, StoreError::Compacted(_)) {
                info!(%error, "reading the whole store again");
            } else {
                if self.picture.stale.as_ref() != Some(&error) {
                    warn!(%error, "the store is away; what is known of it stays in force");
                }
                self.picture.stale = Some(error);
                self.publish();
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Lists if asked to, then watches until that breaks. `pause` is reset when the store has answered.
    async fn follow(&mut self, list: bool, pause: &mut Duration) -> Result<std::convert::Infallible> {
        if list {
            let listing = self.store.list(None).await?;
            self.replace(listing);
        }
        let mut watch = self.store.watch(None, self.picture.revision).await?;
        if self.picture.stale.take().is_some() {
            info!("the store is back");
        }
        self.publish();
        loop {
            let ended = || StoreError::Unavailable("the watch ended".into());
            self.take(watch.next().await.ok_or_else(ended)??);
            *pause = PAUSE_MIN;
            let mut broken = None;
            for _ in 1..COALESCED_MAX {
                match watch.next().now_or_never() {
                    Some(Some(Ok(event))) => self.take(event),
                    Some(Some(Err(error))) => broken = Some(error),
                    Some(None) | None => break,
                }
            }
            self.publish();
            if let Some(error) = broken {
                return Err(error);
            }
        }
    }

    fn publish(&self) {
        self.publish.send_replace(self.picture.clone());
    }

    fn replace(&mut self, listing: Listing) {
        self.picture = Snapshot {
            synced: true,
            revision: listing.revision,
            stale: self.picture.stale.take(),
            ..Snapshot::default()
        };
        for entry in listing.entries {
            self.put(entry.key.clone(), entry.object().map_err(|e| e.to_string()));
        }
    }

    fn take(&mut self, event: Event) {
        self.picture.revision = self.picture.revision.max(event.revision());
        match event {
            Event::Put(entry) => {
                let object = entry.object().map_err(|e| e.to_string());
                self.put(entry.key, object);
            }
            Event::Delete { key, .. } => self.forget(&key),
        }
    }

    fn put(&mut self, key: Key, object: std::result::Result<Object, String>) {
        let in_its_place = |object: Object| {
            let found = object.key();
            if found == key { Ok(object) } else { Err(format!("{key} holds {found}")) }
        };
        match object.and_then(in_its_place) {
            Ok(object) => {
                if self.picture.problems.contains_key(&key) {
                    Arc::make_mut(&mut self.picture.problems).remove(&key);
                }
                Arc::make_mut(&mut self.picture.inputs).set(object);
            }
            Err(problem) => {
                warn!(%key, problem, "an object in the store cannot be read");
                self.forget(&key);
                if let Some(closed) = Object::closed(&key) {
                    Arc::make_mut(&mut self.picture.inputs).set(closed);
                } else if key.kind.is_cluster_policy() {
                    Arc::make_mut(&mut self.picture.inputs).unreadable.insert(key.clone());
                }
                Arc::make_mut(&mut self.picture.problems).insert(key, problem);
            }
        }
    }

    fn forget(&mut self, key: &Key) {
        Arc::make_mut(&mut self.picture.inputs).remove(key);
        if self.picture.problems.contains_key(key) {
            Arc::make_mut(&mut self.picture.problems).remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::future::BoxFuture;
    use futures::stream;

    use super::*;
    use crate::object::{Kind, Namespace, NetworkPolicy, ObjectMeta};
    use crate::store::{Embedded, Entry, Store, Watch, apply};

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

    /// A store that can be away: calls fail and watches break.
    struct Flaky {
        inner: Embedded,
        away: Arc<AtomicBool>,
        /// Raised to break the watches there are.
        broken: watch::Sender<u32>,
    }

    impl Flaky {
        fn new(history: usize) -> Arc<Self> {
            let inner = Embedded::in_memory_keeping(history).unwrap();
            Arc::new(Self { inner, away: Arc::default(), broken: watch::Sender::new(0) })
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
            async move { self.here().map(|()| self.inner.list(kind))?.await }.boxed()
        }

        fn create<'a>(&'a self, key: &'a Key, value: Vec<u8>) -> BoxFuture<'a, Result<Revision>> {
            self.inner.create(key, value)
        }

        fn update<'a>(
            &'a self,
            key: &'a Key,
            value: Vec<u8>,
            base: Revision,
        ) -> BoxFuture<'a, Result<Revision>> {
            self.inner.update(key, value, base)
        }

        fn delete<'a>(&'a self, key: &'a Key, base: Option<Revision>) -> BoxFuture<'a, Result<Revision>> {
            self.inner.delete(key, base)
        }

        fn watch(&self, kind: Option<Kind>, from: Revision) -> BoxFuture<'_, Result<Watch>> {
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
        let snapshot = reflector.reached(revision).await;
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
            let back =
                until(&reflector, |s| s.stale.is_none() && s.inputs.namespaces.contains_key("b")).await;
            let last = store.inner.list(None).await.unwrap().revision;
            let last = if back.revision < last { reflector.reached(last).await } else { back };
            assert_eq!(last.inputs.namespaces.keys().collect::<Vec<_>>(), ["b"]);
            assert_eq!(last.inputs.namespaces["b"].metadata.labels["l"], (changes - 1).to_string());
        }
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
        let closed = &snapshot.inputs.policies[&("x".to_owned(), "p".to_owned())];
        assert_eq!(**closed, NetworkPolicy::closed("x", "p"));

        assert_eq!(snapshot.inputs.unreadable.iter().collect::<Vec<_>>(), [&of_cluster]);

        store.delete(&policy, None).await.unwrap();
        store.delete(&of_cluster, None).await.unwrap();
        let revision = store.delete(&misplaced, None).await.unwrap();
        let snapshot = reflector.reached(revision).await;
        assert!(snapshot.problems.is_empty() && *snapshot.inputs == Inputs::default());
    }
}
