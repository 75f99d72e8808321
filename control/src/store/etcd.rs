//! The store of a cluster: etcd, under one prefix.
//!
//! A [`Revision`] is etcd's own, one count for all kinds. Every call has a deadline; an etcd that is away is [`StoreError::Unavailable`], never
//! a call that hangs. Watches go through a leader only, and end with an error when there is none: a member that is
//! cut off from the others must not look like a quiet cluster.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse,
    WatchOptions, WatchResponse, WatchStream,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tonic::Code;

use super::{Entry, Event, Listing, Result, Revision, Revisions, Store, StoreError, Watch};
use crate::object::{Key, Kind};

/// Keys asked for at once; lists longer than that come in several answers of one revision.
const PAGE: i64 = 500;
/// Largest answer accepted, in bytes.
const MESSAGE_MAX: usize = 64 << 20;
/// How often a connection is asked whether it is alive, and how long it may take to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// How etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// Its members, for instance `http://192.0.2.1:2379`. At least one.
    pub endpoints: Vec<String>,
    /// What all keys begin with; ends with `/`.
    pub prefix: String,
    /// How long a call may take.
    pub timeout: Duration,
}

impl EtcdOptions {
    /// These members, with the usual prefix `/vswitch/` and a deadline of 5 s.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, prefix: "/vswitch/".into(), timeout: Duration::from_secs(5) }
    }
}

/// A store in etcd.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
    prefix: String,
    timeout: Duration,
}

impl Etcd {
    /// Prepares connections; succeeds even when no member answers, as each call connects anew when it must.
    pub async fn connect(options: EtcdOptions) -> Result<Self> {
        for endpoint in &options.endpoints {
            if !endpoint.starts_with("http://") {
                let problem = format!("etcd endpoint \"{endpoint}\": only http://host:port is supported yet");
                return Err(StoreError::Failed(problem));
            }
        }
        if !options.prefix.ends_with('/') {
            let problem =
                format!("etcd prefix \"{}\" must end with '/': /vswitch/ is the usual one", options.prefix);
            return Err(StoreError::Failed(problem));
        }
        let connect = ConnectOptions::new()
            .with_connect_timeout(options.timeout)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let client = Client::connect(&options.endpoints, Some(connect)).await.map_err(failure)?;
        Ok(Self { client, prefix: options.prefix, timeout: options.timeout })
    }

    fn path(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    fn path_of_kind(&self, kind: Option<Kind>) -> String {
        kind.map_or_else(|| self.prefix.clone(), |kind| format!("{}{}/", self.prefix, kind.plural()))
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = std::result::Result<T, etcd_client::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(failure),
            Err(_) => Err(StoreError::Unavailable(format!("no answer from etcd within {:?}", self.timeout))),
        }
    }

    /// A page of keys from `first` to before `end`, as of `revision` (0: now).
    async fn page(&self, first: &[u8], end: &[u8], revision: i64) -> Result<etcd_client::GetResponse> {
        let options = GetOptions::new().with_range(end).with_limit(PAGE).with_revision(revision);
        let mut kv = self.client.kv_client().max_decoding_message_size(MESSAGE_MAX);
        self.in_time(kv.get(first, Some(options))).await
    }

    async fn list_once(&self, kind: Option<Kind>) -> Result<Listing> {
        let mut first = self.path_of_kind(kind).into_bytes();
        let end = end_of_prefix(&first);
        let (mut entries, mut revision) = (Vec::new(), Revision(0));
        loop {
            let page = self.page(&first, &end, signed(revision)).await?;
            if revision == Revision(0) {
                revision = revision_of(page.header())?;
            }
            entries.extend(page.kvs().iter().filter_map(|kv| entry(&self.prefix, kv)));
            match page.kvs().last() {
                Some(last) if page.more() => {
                    first = last.key().to_vec();
                    first.push(0);
                }
                _ => return Ok(Listing { entries, revisions: Revisions::all(revision) }),
            }
        }
    }

    /// A change under a condition; when it does not hold, the error says what was found instead.
    async fn change(
        &self,
        key: &Key,
        condition: Compare,
        operation: TxnOp,
        base: Option<Revision>,
    ) -> Result<Revision> {
        let path = self.path(key);
        let transaction =
            Txn::new().when([condition]).and_then([operation]).or_else([TxnOp::get(path, None)]);
        let mut client = self.client.kv_client();
        let answer = self.in_time(client.txn(transaction)).await?;
        if answer.succeeded() {
            return revision_of(answer.header());
        }
        let found = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| unsigned(kv.mod_revision())),
            _ => None,
        });
        Err(match (found, base) {
            (None, _) => StoreError::NotFound(key.clone()),
            (Some(_), None) => StoreError::Exists(key.clone()),
            (Some(found), Some(expected)) => StoreError::Conflict { key: key.clone(), expected, found },
        })
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>> {
        async move {
            let mut client = self.client.kv_client();
            let answer = self.in_time(client.get(self.path(key), None)).await?;
            Ok(answer.kvs().first().and_then(|kv| entry(&self.prefix, kv)))
        }
        .boxed()
    }

    fn list(&self, kind: Option<Kind>) -> BoxFuture<'_, Result<Listing>> {
        async move {
            // A compaction between two pages of one revision: begin again, and not for ever.
            match self.list_once(kind).await {
                Err(StoreError::Compacted { .. }) => self.list_once(kind).await,
                done => done,
            }
            .map_err(|e| match e {
                StoreError::Compacted { .. } => {
                    StoreError::Unavailable("etcd compacts faster than it answers".into())
                }
                e => e,
            })
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a Key, value: Vec<u8>) -> BoxFuture<'a, Result<Revision>> {
        let path = self.path(key);
        let absent = Compare::create_revision(path.as_str(), CompareOp::Equal, 0);
        self.change(key, absent, TxnOp::put(path, value, None), None).boxed()
    }

    fn update<'a>(&'a self, key: &'a Key, value: Vec<u8>, base: Revision) -> BoxFuture<'a, Result<Revision>> {
        let path = self.path(key);
        let same = Compare::mod_revision(path.as_str(), CompareOp::Equal, signed(base));
        self.change(key, same, TxnOp::put(path, value, None), Some(base)).boxed()
    }

    fn delete<'a>(&'a self, key: &'a Key, base: Option<Revision>) -> BoxFuture<'a, Result<Revision>> {
        let path = self.path(key);
        let condition = match base {
            Some(base) => Compare::mod_revision(path.as_str(), CompareOp::Equal, signed(base)),
            None => Compare::create_revision(path.as_str(), CompareOp::Greater, 0),
        };
        self.change(key, condition, TxnOp::delete(path, None), base).boxed()
    }

    fn untold(&self) -> BoxFuture<'_, Result<Revisions>> {
        // One count, one history, one watch.
        async { Ok(Revisions::default()) }.boxed()
    }

    fn watch<'a>(&'a self, kind: Option<Kind>, from: &'a Revisions) -> BoxFuture<'a, Result<Watch>> {
        let from = kind.map_or_else(|| from.newest(), |kind| from.of(kind));
        async move {
            let options =
                WatchOptions::new().with_prefix().with_start_revision(signed(from).saturating_add(1));
            let mut client = self.client.watch_client().max_decoding_message_size(MESSAGE_MAX);
            let stream = self.in_time(client.watch(self.path_of_kind(kind), Some(options))).await?;
            let state = Some((stream, self.prefix.clone(), from));
            let batches = stream::unfold(state, |state| async move {
                let (mut stream, prefix, from) = state?;
                match next_events(&mut stream, &prefix, from).await {
                    Ok(events) => {
                        let from = events.last().map_or(from, |event| event.at().revision);
                        Some((events.into_iter().map(Ok).collect(), Some((stream, prefix, from))))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            });
            Ok(batches.flat_map(stream::iter).boxed())
        }
        .boxed()
    }
}

async fn next_events(stream: &mut WatchStream, prefix: &str, from: Revision) -> Result<Vec<Event>> {
    let answer = stream.message().await.map_err(failure)?;
    let answer = answer.ok_or_else(|| StoreError::Unavailable("etcd ended the watch".into()))?;
    if answer.compact_revision() > 0 || is_younger(&answer, from) {
        return Err(StoreError::Compacted { kind: None, revision: from });
    }
    if answer.canceled() {
        return Err(StoreError::Unavailable(format!("etcd ended the watch: {}", answer.cancel_reason())));
    }
    Ok(answer.events().iter().filter_map(|found| event(prefix, found)).collect())
}

/// Whether this is an etcd that has not come as far as we have seen: one restored from a backup. What we know of it
/// is as good as compacted.
fn is_younger(answer: &WatchResponse, from: Revision) -> bool {
    answer.created() && answer.header().is_some_and(|header| unsigned(header.revision()) < from)
}

fn event(prefix: &str, found: &etcd_client::Event) -> Option<Event> {
    let kv = found.kv()?;
    match found.event_type() {
        EventType::Put => entry(prefix, kv).map(Event::Put),
        EventType::Delete => {
            key(prefix, kv).map(|key| Event::Delete { key, revision: unsigned(kv.mod_revision()) })
        }
    }
}

fn entry(prefix: &str, kv: &KeyValue) -> Option<Entry> {
    let key = key(prefix, kv)?;
    Some(Entry { key, value: kv.value().to_vec(), revision: unsigned(kv.mod_revision()) })
}

fn key(prefix: &str, kv: &KeyValue) -> Option<Key> {
    kv.key_str().ok()?.strip_prefix(prefix).and_then(Key::from_path)
}

fn revision_of(header: Option<&etcd_client::ResponseHeader>) -> Result<Revision> {
    let missing = || StoreError::Failed("etcd's answer has no header".into());
    header.map(|header| unsigned(header.revision())).ok_or_else(missing)
}

/// etcd counts from 1 in a signed number.
fn unsigned(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or(0))
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// The first key after all that begin with `prefix`, whose last byte is never 0xff as it is text.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn failure(error: etcd_client::Error) -> StoreError {
    use etcd_client::Error;
    match error {
        Error::GRpcStatus(status) => match status.code() {
            Code::OutOfRange if status.message().contains("compacted") => {
                StoreError::Compacted { kind: None, revision: Revision(0) }
            }
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::OutOfRange => StoreError::Failed(format!("etcd: {}", status.message())),
            code => StoreError::Unavailable(format!("etcd: {code:?}: {}", status.message())),
        },
        e
        @ (Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::EndpointError(_) | Error::Utf8Error(_)) => {
            StoreError::Failed(format!("etcd: {e}"))
        }
        e => StoreError::Unavailable(format!("etcd: {e}")),
    }
}

#[cfg(test)]
mod tests;
