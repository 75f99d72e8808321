//! A store that fails at random: before a change, after it, or by somebody else's change coming first.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::object::{Key, Kind};
use crate::store::{Entry, Listing, Result, Revision, Revisions, SharedStore, Store, StoreError, Watch};

/// A store around a store.
pub(crate) struct Faulty {
    inner: SharedStore,
    random: Mutex<TestRng>,
    /// One call in so many fails; 0: none.
    one_in: u32,
    away: AtomicBool,
}

enum Fault {
    None,
    Before,
    After,
}

impl Faulty {
    /// Fails one call in `one_in`, the same ones for the same `seed`; 0 fails none.
    pub(crate) fn new(inner: SharedStore, one_in: u32, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let random = Mutex::new(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        Self { inner, random, one_in, away: AtomicBool::new(false) }
    }

    /// Makes every call fail, or lets them through again.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn fault(&self) -> Fault {
        if self.away.load(Ordering::SeqCst) {
            return Fault::Before;
        }
        let random = self.random.lock().unwrap().next_u32();
        match random.checked_rem(self.one_in) {
            Some(0) if random & 0x8000_0000 == 0 => Fault::Before,
            Some(0) => Fault::After,
            _ => Fault::None,
        }
    }

    async fn through<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let lost = |when: &str| Err(StoreError::Unavailable(format!("injected {when} the call")));
        match self.fault() {
            Fault::None => call.await,
            Fault::Before => lost("before"),
            Fault::After => call.await.and_then(|_| lost("after")),
        }
    }
}

impl Store for Faulty {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>> {
        self.through(self.inner.get(key)).boxed()
    }

    fn list(&self, kind: Option<Kind>) -> BoxFuture<'_, Result<Listing>> {
        self.through(self.inner.list(kind)).boxed()
    }

    fn create<'a>(&'a self, key: &'a Key, value: Vec<u8>) -> BoxFuture<'a, Result<Revision>> {
        self.through(self.inner.create(key, value)).boxed()
    }

    fn update<'a>(&'a self, key: &'a Key, value: Vec<u8>, base: Revision) -> BoxFuture<'a, Result<Revision>> {
        self.through(self.inner.update(key, value, base)).boxed()
    }

    fn delete<'a>(&'a self, key: &'a Key, base: Option<Revision>) -> BoxFuture<'a, Result<Revision>> {
        self.through(self.inner.delete(key, base)).boxed()
    }

    fn untold(&self) -> BoxFuture<'_, Result<Revisions>> {
        self.through(self.inner.untold()).boxed()
    }

    fn watch<'a>(&'a self, kind: Option<Kind>, from: &'a Revisions) -> BoxFuture<'a, Result<Watch>> {
        self.through(self.inner.watch(kind, from)).boxed()
    }
}
