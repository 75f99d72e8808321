//! A live picture of the store: list, then watch, then again when that breaks.
//!
//! The picture is consistent within each kind of object (of one revision) and survives the store's absence: it stays what it
//! was and is marked stale until the store is back. Before the first list of every kind has come in there is no picture, and
//! nobody is given one. A kind whose changes the store no longer has is listed again alone.
//!
//! An object in the store that cannot be read is a problem that the picture names. Of a policy, and of what policies
//! consist of besides (tiers, sets, profiles), the last version that could be read stays in the picture for as long as
//! the agent remembers it. Where there was none, a policy stands as one that denies all it may be for, and of a namespace or
//! service account no label is known: what is unknown
//! means deny.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{At, Event, Listing, Result, Revisions, SharedStore, StoreError};
use crate::calc::Inputs;
use crate::object::{Key, Kind, Object};

/// First pause before trying again, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Changes taken in before the picture is published, when that many are there already.
const COALESCED_MAX: usize = 1024;

/// The store, each kind of object at one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Whether the whole store has been read once. Until then nothing else here means anything.
    pub synced: bool,
    /// The objects.
    pub inputs: Arc<Inputs>,
    /// The last changes that are in them.
    pub revisions: Revisions,
    /// Why the picture may be out of date: the store is away. None: it is current.
    pub stale: Option<StoreError>,
    /// Objects that cannot be read, and why.
    pub problems: Arc<BTreeMap<Key, String>>,
}

impl Snapshot {
    /// Whether it is how the store is, as far as that tells.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.synced && self.stale.is_none()
    }
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
        let follower = Follower { store, publish, picture: Snapshot::default(), good: BTreeSet::new() };
        let task = tokio::spawn(follower.run());
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

    /// Waits until the picture holds the change. Never ends while the store is away: use a deadline.
    pub async fn reached(&self, change: At) -> Snapshot {
        self.reached_all(&Revisions::from_iter([change])).await
    }

    /// The same for several.
    pub async fn reached_all(&self, changes: &Revisions) -> Snapshot {
        let mut snapshots = self.snapshots.clone();
        let reached = |snapshot: &Snapshot| snapshot.synced && snapshot.revisions.have_all(changes);
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

/// The pause after one of `last` and a watch that `held` for so long in between, if there was one. A watch that held for as
/// long as the pause was a good one, whether it told of anything or not.
fn pause_after(last: Duration, held: Option<Duration>) -> Duration {
    match held {
        Some(held) if held >= last => PAUSE_MIN,
        _ => (last * 2).clamp(PAUSE_MIN, PAUSE_MAX),
    }
}

/// What has to be listed before the watch can go on.
#[derive(Debug, Clone, Copy)]
enum Missing {
    All,
    One(Kind),
    Nothing,
}

impl Missing {
    /// The same and that kind, or all where that is None. What was to be listed before is not forgotten.
    fn and(self, kind: Option<Kind>) -> Self {
        match (self, kind) {
            (Self::Nothing, Some(kind)) => Self::One(kind),
            (Self::One(before), Some(kind)) if before == kind => self,
            _ => Self::All,
        }
    }
}

struct Follower {
    store: SharedStore,
    publish: watch::Sender<Snapshot>,
    picture: Snapshot,
    /// Of what cannot be read, that of which the last good version is in the picture.
    good: BTreeSet<Key>,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        let mut missing = Missing::All;
        loop {
            let mut watching = None;
            let Err(error) = self.follow(&mut missing, &mut watching).await;
            pause = pause_after(pause, watching.map(|since: Instant| since.elapsed()));
            if let StoreError::Compacted { kind, .. } = error {
                missing = missing.and(kind);
                info!(%error, "reading the store again");
            } else {
                if self.picture.stale.as_ref() != Some(&error) {
                    warn!(%error, "the store is away; what is known of it stays in force");
                }
                self.picture.stale = Some(error);
                self.publish();
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Lists what is missing, then watches until that breaks; since when is `watching`.
    async fn follow(
        &mut self,
        missing: &mut Missing,
        watching: &mut Option<Instant>,
    ) -> Result<std::convert::Infallible> {
        match *missing {
            Missing::All => self.replace(self.store.list(None).await?, None),
            Missing::One(kind) => self.replace(self.store.list(Some(kind)).await?, Some(kind)),
            Missing::Nothing => {}
        }
        *missing = Missing::Nothing;
        let mut watch = self.store.watch(None, &self.picture.revisions).await?;
        *watching = Some(Instant::now());
        if self.picture.stale.take().is_some() {
            info!("the store is back");
        }
        self.publish();
        loop {
            let ended = || StoreError::Unavailable("the watch ended".into());
            self.take(watch.next().await.ok_or_else(ended)??);
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

    /// Makes a kind, or all, what the listing has.
    fn replace(&mut self, listing: Listing, only: Option<Kind>) {
        let before = self.picture.clone();
        let good_before = self.good.clone();
        match only {
            None => {
                self.picture.inputs = Arc::default();
                self.picture.problems = Arc::default();
                self.picture.revisions = listing.revisions;
                self.good.clear();
            }
            Some(kind) => {
                Arc::make_mut(&mut self.picture.inputs).clear(kind);
                Arc::make_mut(&mut self.picture.problems).retain(|key, _| key.kind != kind);
                self.picture.revisions.set(At::new(kind, listing.revisions.of(kind)));
                self.good.retain(|key| key.kind != kind);
            }
        }
        self.picture.synced = true;
        for entry in listing.entries {
            let key = entry.key.clone();
            let object = entry.object().map_err(|e| e.to_string());
            // What stood in for it was no version of it.
            let was_good = !before.problems.contains_key(&key) || good_before.contains(&key);
            if let Some(last) = before.inputs.policy_or_part(&key).filter(|_| was_good) {
                Arc::make_mut(&mut self.picture.inputs).set(last);
            }
            self.put(key, object);
        }
    }

    fn take(&mut self, event: Event) {
        self.picture.revisions.raise(event.at());
        match event {
            Event::Put(entry) => {
                let object = entry.object().map_err(|e| e.to_string());
                self.put(entry.key, object);
            }
            Event::Delete { key, .. } => self.forget(&key),
            Event::Progress(_) => {}
        }
    }

    fn put(&mut self, key: Key, object: std::result::Result<Object, String>) {
        let in_its_place = |object: Object| {
            let found = object.key();
            if found == key { Ok(object) } else { Err(format!("{key} holds {found}")) }
        };
        match object.and_then(in_its_place) {
            Ok(object) => {
                self.is_read(&key);
                Arc::make_mut(&mut self.picture.inputs).set(object);
            }
            Err(problem) => {
                warn!(%key, problem, "an object in the store cannot be read");
                self.cannot_be_read(key, &problem);
            }
        }
    }

    fn cannot_be_read(&mut self, key: Key, problem: &str) {
        let inputs = Arc::make_mut(&mut self.picture.inputs);
        let is_stand_in = self.picture.problems.contains_key(&key) && !self.good.contains(&key);
        let problem = if !is_stand_in && inputs.policy_or_part(&key).is_some() {
            self.good.insert(key.clone());
            format!("{problem}; the last version that could be read stays in force")
        } else {
            inputs.remove(&key);
            if let Some(closed) = Object::closed(&key) {
                inputs.set(closed);
            } else if key.kind.is_cluster_policy() {
                inputs.unreadable.insert(key.clone());
            }
            if matches!(key.kind, Kind::Namespace | Kind::ServiceAccount) {
                inputs.unlabelled.insert(key.clone());
                format!(
                    "{problem}; its labels are not known, so no rule that asks for them allows its pods anything"
                )
            } else {
                problem.to_owned()
            }
        };
        Arc::make_mut(&mut self.picture.problems).insert(key, problem);
    }

    fn forget(&mut self, key: &Key) {
        Arc::make_mut(&mut self.picture.inputs).remove(key);
        self.is_read(key);
    }

    /// Notes that there is nothing at this key that cannot be read.
    fn is_read(&mut self, key: &Key) {
        self.good.remove(key);
        if self.picture.problems.contains_key(key) {
            Arc::make_mut(&mut self.picture.problems).remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
