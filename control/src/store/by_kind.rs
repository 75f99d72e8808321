//! A store that counts each kind of object by itself and tells of each on a watch of its own, as Kubernetes does: for tests.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::watch;

use super::{At, Embedded, Entry, Event, Listing, Result, Revision, Revisions, Store, StoreError, Watch};
use crate::object::{Key, Kind};

/// What a kind's count is ahead of the one after it: numbers of two kinds never mean the same.
const AHEAD: u64 = 100_000;

/// Such a store, in memory.
pub(crate) struct ByKind {
    inner: Embedded,
    /// Kinds whose changes are not told for now.
    held: watch::Sender<BTreeSet<Kind>>,
    /// Raised to make the watches there are say that this kind's changes are no longer kept.
    compacted: watch::Sender<Option<Kind>>,
    /// What has been listed.
    listed: Mutex<Vec<Option<Kind>>>,
}

impl ByKind {
    pub(crate) fn new() -> Arc<Self> {
        let inner = Embedded::in_memory().unwrap();
        let (held, compacted) = (watch::Sender::default(), watch::Sender::default());
        Arc::new(Self { inner, held, compacted, listed: Mutex::default() })
    }

    /// From now on, changes of these kinds are kept back; those of the others are told.
    pub(crate) fn hold(&self, kinds: impl IntoIterator<Item = Kind>) {
        self.held.send_replace(kinds.into_iter().collect());
    }

    /// Breaks the watches: changes of `kind` are no longer kept.
    pub(crate) fn compact(&self, kind: Kind) {
        self.compacted.send_replace(Some(kind));
    }

    /// What has been listed since this was asked last.
    pub(crate) fn take_listed(&self) -> Vec<Option<Kind>> {
        std::mem::take(&mut self.listed.lock().unwrap())
    }

    fn watch_one(&self, kind: Kind, from: Revision) -> impl Future<Output = Result<Watch>> + use<> {
        let (inner, held) = (self.inner.clone(), self.held.subscribe());
        async move {
            let from = Revisions::all(inner_of(kind, from));
            let events = inner.watch(Some(kind), &from).await?;
            let told = events.then(move |event| {
                let mut held = held.clone();
                async move {
                    drop(held.wait_for(|held| !held.contains(&kind)).await);
                    event.map(outer_event)
                }
            });
            Ok(told.boxed())
        }
    }
}

/// How far ahead a kind's numbers are of those of the store within: namespaces' the furthest, then those of nodes and so on.
fn ahead(kind: Kind) -> u64 {
    AHEAD * (Kind::ALL.iter().rev().position(|one| *one == kind).unwrap() as u64)
}

fn outer(kind: Kind, inner: Revision) -> Revision {
    Revision(inner.0 + ahead(kind))
}

fn inner_of(kind: Kind, outer: Revision) -> Revision {
    Revision(outer.0.saturating_sub(ahead(kind)))
}

fn outer_entry(entry: Entry) -> Entry {
    Entry { revision: outer(entry.key.kind, entry.revision), ..entry }
}

fn outer_event(event: Event) -> Event {
    match event {
        Event::Put(entry) => Event::Put(outer_entry(entry)),
        Event::Delete { key, revision } => Event::Delete { revision: outer(key.kind, revision), key },
        Event::Progress(At { kind, revision }) => Event::Progress(At::new(kind, outer(kind, revision))),
    }
}

fn outer_error(kind: Kind, error: StoreError) -> StoreError {
    match error {
        StoreError::Conflict { key, expected, found } => {
            StoreError::Conflict { key, expected: outer(kind, expected), found: outer(kind, found) }
        }
        other => other,
    }
}

impl Store for ByKind {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>> {
        async { Ok(self.inner.get(key).await?.map(outer_entry)) }.boxed()
    }

    fn list(&self, kind: Option<Kind>) -> BoxFuture<'_, Result<Listing>> {
        self.listed.lock().unwrap().push(kind);
        async move {
            let Listing { entries, revisions } = self.inner.list(kind).await?;
            let entries = entries.into_iter().map(outer_entry).collect();
            let asked = Kind::ALL.iter().filter(|one| kind.is_none_or(|kind| kind == **one));
            let revisions = asked.map(|kind| At::new(*kind, outer(*kind, revisions.of(*kind)))).collect();
            Ok(Listing { entries, revisions })
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a Key, value: Vec<u8>) -> BoxFuture<'a, Result<Revision>> {
        self.inner.create(key, value).map(|done| done.map(|revision| outer(key.kind, revision))).boxed()
    }

    fn update<'a>(&'a self, key: &'a Key, value: Vec<u8>, base: Revision) -> BoxFuture<'a, Result<Revision>> {
        let done = self.inner.update(key, value, inner_of(key.kind, base));
        done.map(|done| done.map(|r| outer(key.kind, r)).map_err(|e| outer_error(key.kind, e))).boxed()
    }

    fn delete<'a>(&'a self, key: &'a Key, base: Option<Revision>) -> BoxFuture<'a, Result<Revision>> {
        let done = self.inner.delete(key, base.map(|base| inner_of(key.kind, base)));
        done.map(|done| done.map(|r| outer(key.kind, r)).map_err(|e| outer_error(key.kind, e))).boxed()
    }

    fn untold(&self) -> BoxFuture<'_, Result<Revisions>> {
        async {
            let listing = self.inner.list(None).await?;
            Ok(listing.entries.into_iter().map(|entry| Event::Put(outer_entry(entry)).at()).collect())
        }
        .boxed()
    }

    fn watch<'a>(&'a self, kind: Option<Kind>, from: &'a Revisions) -> BoxFuture<'a, Result<Watch>> {
        async move {
            let mut compacted = self.compacted.subscribe();
            let mut watches = Vec::new();
            for one in Kind::ALL.iter().filter(|one| kind.is_none_or(|kind| kind == **one)) {
                watches.push(self.watch_one(*one, from.of(*one)).await?);
            }
            let breaks = async move {
                drop(compacted.changed().await);
                let kind = *compacted.borrow();
                Err(StoreError::Compacted { kind, revision: Revision::default() })
            };
            let broken = stream::once(breaks).boxed();
            Ok(stream::select(broken, stream::select_all(watches)).boxed())
        }
        .boxed()
    }
}

#[tokio::test]
async fn conforms() {
    super::conformance::run(ByKind::new()).await;
}
