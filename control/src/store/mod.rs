//! Where objects are kept: a seam with two sides.
//!
//! A [`Store`] is a map from [`Key`] to bytes. Every change of a kind of object raises that kind's revision. A change of one
//! key is compare-and-swap: it says which revision of the key it is based on, and is refused when there is another. There is
//! nothing across keys; whoever needs that writes so that every intermediate state is a good one.
//!
//! What is promised of order and of moments is promised within one kind: a list holds each kind as it was at one moment, and
//! a watch tells of a kind's changes in their order. Between kinds there is neither, as in Kubernetes: a node may come to
//! know of a pod before it knows of a policy that is older, and [`Revisions`] of different kinds say nothing of each other.
//!
//! [`Embedded`] is a file, for one node; [`Etcd`] is shared by many. Both pass the same tests (`conformance`). Both keep one
//! count for all kinds and tell of all in its order (`in_order`).
//!
//! An attach must not be answered before the policies that are older than it are in force. It writes an endpoint, waits
//! until the watch has told that, and what [`Store::untold`] names besides: of a store that tells of all kinds in one order
//! that is nothing, since the endpoint comes after all that is older.
//!
//! Life of a follower ([`Reflector`] is one):
//!
//! | step | call | then |
//! |---|---|---|
//! | 1 | [`Store::list`] | the state of each kind at a revision |
//! | 2 | [`Store::watch`] from these revisions | every change after them, each kind's in order, none twice |
//! | 3a | the stream says [`StoreError::Compacted`] | 1, for the kind it names or for all |
//! | 3b | the stream ends, or with another error | 2, from the last revisions seen, after a pause |

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::object::{Key, Kind, ManifestError, Object};

pub mod embedded;
pub mod etcd;
pub mod reflector;
pub mod revisions;

#[cfg(test)]
mod by_kind;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod in_order;

#[cfg(test)]
pub(crate) use by_kind::ByKind;
pub use embedded::Embedded;
pub use etcd::{Etcd, EtcdOptions};
pub use reflector::{Reflector, Snapshot};
pub use revisions::{At, Revision, Revisions};

/// A key, what it holds, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// What it holds.
    pub value: Vec<u8>,
    /// When it was last changed.
    pub revision: Revision,
}

impl Entry {
    /// The object it holds.
    pub fn object(&self) -> std::result::Result<Object, ManifestError> {
        Object::from_json(&self.value)
    }
}

/// What a range of keys held, each kind's at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The keys, ascending by their text.
    pub entries: Vec<Entry>,
    /// The moments: watch from here. Of kinds that were not asked for, they say nothing.
    pub revisions: Revisions,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A key holds something new.
    Put(Entry),
    /// A key is gone.
    Delete {
        /// The key.
        key: Key,
        /// The change that removed it.
        revision: Revision,
    },
    /// Nothing has changed that would be told, up to here.
    Progress(At),
}

impl Event {
    /// The key it is about; None when it is about none.
    #[must_use]
    pub const fn key(&self) -> Option<&Key> {
        match self {
            Self::Put(entry) => Some(&entry.key),
            Self::Delete { key, .. } => Some(key),
            Self::Progress(_) => None,
        }
    }

    /// The change up to which its kind is known with it.
    #[must_use]
    pub const fn at(&self) -> At {
        match self {
            Self::Put(entry) => At::new(entry.key.kind, entry.revision),
            Self::Delete { key, revision } => At::new(key.kind, *revision),
            Self::Progress(at) => *at,
        }
    }
}

/// Why a store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is one already.
    #[error("{0} already exists")]
    Exists(Key),
    /// There is none.
    #[error("{0} does not exist")]
    NotFound(Key),
    /// Somebody else changed it meanwhile: read it again and decide anew.
    #[error("{key} was changed meanwhile: it is at revision {found}, not {expected}")]
    Conflict {
        /// The key.
        key: Key,
        /// The revision the change was based on.
        expected: Revision,
        /// The revision it has.
        found: Revision,
    },
    /// The changes since that revision are no longer known: list again.
    #[error("changes{} since revision {revision} are no longer kept", of_kind(*kind))]
    Compacted {
        /// Of which kind. None: of any.
        kind: Option<Kind>,
        /// The revision.
        revision: Revision,
    },
    /// The store cannot be reached or did not answer in time. A change may or may not have been made.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store holds something that cannot be there, or refuses for good: trying again does not help.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the same call may succeed later, or after reading again.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict { .. })
    }
}

fn of_kind(kind: Option<Kind>) -> String {
    kind.map(|kind| format!(" of {}", kind.plural())).unwrap_or_default()
}

/// What a call to a store comes to.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Changes, each kind's in order. Ends after its first error.
pub type Watch = BoxStream<'static, Result<Event>>;

/// A place where objects are kept. See the module for what it promises.
pub trait Store: Send + Sync + 'static {
    /// What the key holds; None when nothing.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>>;

    /// Everything of a kind, or of all kinds, each at one moment. Keys that are no [`Key`] are left out.
    fn list(&self, kind: Option<Kind>) -> BoxFuture<'_, Result<Listing>>;

    /// Sets a key that holds nothing. Fails with [`StoreError::Exists`] when it does.
    fn create<'a>(&'a self, key: &'a Key, value: Vec<u8>) -> BoxFuture<'a, Result<Revision>>;

    /// Sets a key whose revision is `base`. Fails with [`StoreError::Conflict`] when it has another, with
    /// [`StoreError::NotFound`] when it holds nothing.
    fn update<'a>(&'a self, key: &'a Key, value: Vec<u8>, base: Revision) -> BoxFuture<'a, Result<Revision>>;

    /// Removes a key, whatever its revision when `base` is None. Fails as [`Store::update`] does.
    fn delete<'a>(&'a self, key: &'a Key, base: Option<Revision>) -> BoxFuture<'a, Result<Revision>>;

    /// What a watch of all kinds may not have told when it tells of a change that was made before this call: for each kind
    /// that decides about traffic the last change there is by now. Nothing (0 of every kind) of a store that tells of all
    /// kinds in one order.
    ///
    /// Each change named must be one that a watch tells as soon as it can. Of an API server that is the greatest resource
    /// version among the objects that a consistent list of the kind has (their metadata is enough), not the version of the
    /// list: a watch comes to that by a bookmark only, a minute later. An object deleted just then is not waited for.
    fn untold(&self) -> BoxFuture<'_, Result<Revisions>>;

    /// Changes after `from` of a kind, or of all kinds, as they happen. `from` is what a list gave, raised by what a watch
    /// has told since: a store with one count for all kinds goes on from the greatest of them.
    fn watch<'a>(&'a self, kind: Option<Kind>, from: &'a Revisions) -> BoxFuture<'a, Result<Watch>>;
}

/// A store, shared.
pub type SharedStore = Arc<dyn Store>;

/// What applying an object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was not there.
    Created(Revision),
    /// It was different.
    Updated(Revision),
    /// It was the same; nothing was written.
    Unchanged(Revision),
}

/// Makes the store hold `object`, whatever it held before. Tries again when others change it meanwhile, 16 times.
pub async fn apply(store: &dyn Store, object: &Object) -> Result<Applied> {
    const ATTEMPTS: usize = 16;
    let (key, value) = (object.key(), object.to_json());
    let mut last = StoreError::NotFound(key.clone());
    for _ in 0..ATTEMPTS {
        let attempt = match store.get(&key).await? {
            None => store.create(&key, value.clone()).await.map(Applied::Created),
            Some(entry) if entry.value == value => return Ok(Applied::Unchanged(entry.revision)),
            Some(entry) => store.update(&key, value.clone(), entry.revision).await.map(Applied::Updated),
        };
        match attempt {
            Err(e @ (StoreError::Exists(_) | StoreError::NotFound(_) | StoreError::Conflict { .. })) => {
                last = e;
            }
            done => return done,
        }
    }
    Err(last)
}
