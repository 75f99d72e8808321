//! The store of a single node: a redb file, one process at a time.
//!
//! Every change is one durable transaction. Changes of this process's lifetime, the last [`HISTORY`] of them, are kept
//! in memory for watchers; a watcher that asks for older ones is told [`StoreError::Compacted`] and lists again.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::watch;

use super::{Entry, Event, Listing, Result, Revision, Revisions, Store, StoreError, Watch};
use crate::object::{Key, Kind};

/// Changes kept for watchers, who list again when they missed more. A full block of addresses is some 10 kB: all of
/// this is some 10 MB.
pub const HISTORY: usize = 1024;

/// Key text to (revision, value).
const OBJECTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("objects");
/// `revision` to the revision of the last change.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");

/// A store in a file.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    database: Database,
    history: Mutex<History>,
    /// The newest revision in `history`.
    newest: watch::Sender<Revision>,
}

/// The last changes, oldest first, without gaps.
struct History {
    events: VecDeque<Event>,
    /// Changes after this revision are all here.
    complete_after: Revision,
    capacity: usize,
}

impl Embedded {
    /// Opens the file, making it and its folder when they are not there.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| StoreError::Failed(format!("{}: {e}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        }
        Self::with(Database::create(path).map_err(|e| failed(&e))?, HISTORY)
    }

    /// A store that is gone with its last handle.
    pub fn in_memory() -> Result<Self> {
        Self::in_memory_keeping(HISTORY)
    }

    /// The same, with room for `capacity` changes in its history.
    pub(super) fn in_memory_keeping(capacity: usize) -> Result<Self> {
        let backend = redb::backends::InMemoryBackend::new();
        Self::with(Database::builder().create_with_backend(backend).map_err(failed)?, capacity)
    }

    fn with(database: Database, capacity: usize) -> Result<Self> {
        let transaction = database.begin_write().map_err(failed)?;
        transaction.open_table(OBJECTS).map_err(failed)?;
        let revision = {
            let counters = transaction.open_table(COUNTERS).map_err(failed)?;
            Revision(counters.get("revision").map_err(failed)?.map_or(0, |value| value.value()))
        };
        transaction.commit().map_err(failed)?;
        let history = Mutex::new(History { events: VecDeque::new(), complete_after: revision, capacity });
        Ok(Self(Arc::new(Inner { database, history, newest: watch::Sender::new(revision) })))
    }

    /// Runs `work`, which may wait for the disk, where that holds nobody up.
    fn off_the_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let inner = Arc::clone(&self.0);
        async move {
            let done = tokio::task::spawn_blocking(move || work(&inner)).await;
            done.unwrap_or_else(|e| Err(StoreError::Failed(e.to_string())))
        }
        .boxed()
    }
}

impl Inner {
    fn history(&self) -> MutexGuard<'_, History> {
        // Nothing panics while it is held, and were it so, the history is whole between any two statements.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let objects = transaction.open_table(OBJECTS).map_err(failed)?;
        let found = objects.get(key.to_string().as_str()).map_err(failed)?;
        Ok(found.map(|value| entry(key.clone(), value.value())))
    }

    fn list(&self, kind: Option<Kind>) -> Result<Listing> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let objects = transaction.open_table(OBJECTS).map_err(failed)?;
        let counters = transaction.open_table(COUNTERS).map_err(failed)?;
        let revision = Revision(counters.get("revision").map_err(failed)?.map_or(0, |value| value.value()));
        let first = kind.map_or_else(String::new, |kind| format!("{}/", kind.plural()));
        let mut entries = Vec::new();
        for item in objects.range(first.as_str()..).map_err(failed)? {
            let (path, value) = item.map_err(failed)?;
            if !path.value().starts_with(&first) {
                break;
            }
            if let Some(key) = Key::from_path(path.value()) {
                entries.push(entry(key, value.value()));
            }
        }
        Ok(Listing { entries, revisions: Revisions::all(revision) })
    }

    /// One change: `check` judges what is there now; then the key gets `value`, or is removed.
    fn change(
        &self,
        key: Key,
        value: Option<Vec<u8>>,
        check: impl FnOnce(Option<Revision>) -> Result<()>,
    ) -> Result<Revision> {
        // Held from before the transaction to after its publication, so that history is in the order of commits.
        let mut history = self.history();
        let transaction = self.database.begin_write().map_err(failed)?;
        let revision = Self::write(&transaction, &key, value.as_deref(), check)?;
        transaction.commit().map_err(failed)?;
        history.push(match value {
            Some(value) => Event::Put(Entry { key, value, revision }),
            None => Event::Delete { key, revision },
        });
        self.newest.send_replace(revision);
        Ok(revision)
    }

    fn write(
        transaction: &WriteTransaction,
        key: &Key,
        value: Option<&[u8]>,
        check: impl FnOnce(Option<Revision>) -> Result<()>,
    ) -> Result<Revision> {
        let path = key.to_string();
        let mut objects = transaction.open_table(OBJECTS).map_err(failed)?;
        let mut counters = transaction.open_table(COUNTERS).map_err(failed)?;
        let current = objects.get(path.as_str()).map_err(failed)?.map(|found| Revision(found.value().0));
        check(current)?;
        let revision = counters.get("revision").map_err(failed)?.map_or(0, |value| value.value()) + 1;
        match value {
            Some(value) => drop(objects.insert(path.as_str(), (revision, value)).map_err(failed)?),
            None => drop(objects.remove(path.as_str()).map_err(failed)?),
        }
        counters.insert("revision", revision).map_err(failed)?;
        Ok(Revision(revision))
    }

    /// Changes after `from`, and the revision they lead to.
    fn changes_after(&self, from: Revision) -> Result<(Vec<Event>, Revision)> {
        let history = self.history();
        if from < history.complete_after {
            return Err(StoreError::Compacted { kind: None, revision: from });
        }
        let first = history.events.partition_point(|event| event.at().revision <= from);
        let events: Vec<_> = history.events.range(first..).cloned().collect();
        let newest = events.last().map_or(from, |event| event.at().revision);
        Ok((events, newest))
    }
}

impl History {
    fn push(&mut self, event: Event) {
        if self.events.len() == self.capacity
            && let Some(oldest) = self.events.pop_front()
        {
            self.complete_after = oldest.at().revision;
        }
        self.events.push_back(event);
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>> {
        let key = key.clone();
        self.off_the_runtime(move |inner| inner.get(&key))
    }

    fn list(&self, kind: Option<Kind>) -> BoxFuture<'_, Result<Listing>> {
        self.off_the_runtime(move |inner| inner.list(kind))
    }

    fn create<'a>(&'a self, key: &'a Key, value: Vec<u8>) -> BoxFuture<'a, Result<Revision>> {
        let key = key.clone();
        self.off_the_runtime(move |inner| {
            let exists = StoreError::Exists(key.clone());
            inner.change(key, Some(value), |current| current.map_or(Ok(()), |_| Err(exists)))
        })
    }

    fn update<'a>(&'a self, key: &'a Key, value: Vec<u8>, base: Revision) -> BoxFuture<'a, Result<Revision>> {
        let key = key.clone();
        self.off_the_runtime(move |inner| {
            let checked = key.clone();
            inner.change(key, Some(value), move |current| check_base(checked, current, Some(base)))
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, base: Option<Revision>) -> BoxFuture<'a, Result<Revision>> {
        let key = key.clone();
        self.off_the_runtime(move |inner| {
            let checked = key.clone();
            inner.change(key, None, move |current| check_base(checked, current, base))
        })
    }

    fn untold(&self) -> BoxFuture<'_, Result<Revisions>> {
        // One count, one history, one watch.
        async { Ok(Revisions::default()) }.boxed()
    }

    fn watch<'a>(&'a self, kind: Option<Kind>, from: &'a Revisions) -> BoxFuture<'a, Result<Watch>> {
        let inner = Arc::clone(&self.0);
        let from = kind.map_or_else(|| from.newest(), |kind| from.of(kind));
        let newest = inner.newest.subscribe();
        // A batch at a time: all that is known by now; when that is nothing, wait for more.
        let batches = stream::unfold(Some((inner, newest, from)), |state| async move {
            let (inner, mut newest, from) = state?;
            loop {
                newest.mark_unchanged();
                match inner.changes_after(from) {
                    Err(e) => return Some((vec![Err(e)], None)),
                    Ok((events, reached)) if !events.is_empty() => {
                        return Some((events.into_iter().map(Ok).collect(), Some((inner, newest, reached))));
                    }
                    // The sender lives in `inner`, so this cannot fail while we wait.
                    Ok(_) => newest.changed().await.ok()?,
                }
            }
        });
        let wanted = move |event: &Result<Event>| {
            event.as_ref().map_or(true, |event| kind.is_none_or(|kind| event.at().kind == kind))
        };
        let watch = batches.flat_map(stream::iter).filter(move |event| futures::future::ready(wanted(event)));
        async move { Ok(watch.boxed()) }.boxed()
    }
}

fn check_base(key: Key, current: Option<Revision>, base: Option<Revision>) -> Result<()> {
    match (current, base) {
        (None, _) => Err(StoreError::NotFound(key)),
        (Some(found), Some(expected)) if found != expected => {
            Err(StoreError::Conflict { key, expected, found })
        }
        _ => Ok(()),
    }
}

fn entry(key: Key, (revision, value): (u64, &[u8])) -> Entry {
    Entry { key, value: value.to_vec(), revision: Revision(revision) }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::{conformance, in_order};
    use super::*;

    #[tokio::test]
    async fn conforms() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(&folder.path().join("made/on/demand/store.redb")).unwrap();
        conformance::run(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn kinds_are_told_in_one_order() {
        assert!(in_order::is_kept(Arc::new(Embedded::in_memory().unwrap())).await);
    }

    #[tokio::test]
    async fn a_file_keeps_objects_and_revisions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let key = Key::cluster(Kind::Node, "a");
        let store = Embedded::open(&path).unwrap();
        let first = store.create(&key, b"1".to_vec()).await.unwrap();
        let last = store.update(&key, b"2".to_vec(), first).await.unwrap();
        assert!(matches!(Embedded::open(&path), Err(StoreError::Failed(_))), "two at once");
        drop(store);

        let store = Embedded::open(&path).unwrap();
        let listing = store.list(None).await.unwrap();
        assert_eq!(listing.revisions, Revisions::all(last));
        assert_eq!(listing.entries, [Entry { key: key.clone(), value: b"2".to_vec(), revision: last }]);
        let mut old = store.watch(None, &Revisions::all(first)).await.unwrap();
        assert_eq!(old.next().await, Some(Err(StoreError::Compacted { kind: None, revision: first })));
        assert_eq!(old.next().await, None);
        let mut new = store.watch(None, &Revisions::all(last)).await.unwrap();
        let removed = store.delete(&key, None).await.unwrap();
        assert_eq!(new.next().await, Some(Ok(Event::Delete { key, revision: removed })));
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_that_it_missed_something() {
        let store = Embedded::in_memory_keeping(4).unwrap();
        let key = |n: u32| Key::cluster(Kind::Node, format!("n{n}"));
        let start = store.create(&key(0), Vec::new()).await.unwrap();
        let mut within = store.watch(None, &Revisions::all(start)).await.unwrap();
        for n in 1..=4 {
            store.create(&key(n), Vec::new()).await.unwrap();
        }
        for n in 1..=4 {
            assert_eq!(within.next().await.unwrap().unwrap().key(), Some(&key(n)));
        }
        let mut slow = store.watch(None, &Revisions::all(start)).await.unwrap();
        store.create(&key(5), Vec::new()).await.unwrap();
        assert_eq!(slow.next().await, Some(Err(StoreError::Compacted { kind: None, revision: start })));
    }
}
