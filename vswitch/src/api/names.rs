//! What DNS tells pods, as far as somebody asks for the names: copies of answers come from the workers by their queues
//! ([`vswitch_datapath::dns`]), are read here, and go on to whoever watches.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vswitch_datapath::DnsAnswer;
use vswitch_datapath::dns::{NamedAddress, named_addresses};
use vswitch_model::api::engine as pb;
use vswitch_model::{DomainName, DomainPattern, Invalid};

use super::Streamed;
use crate::engine::Shared;

/// How often answers are taken from the workers while somebody watches.
const TAKE: Duration = Duration::from_millis(1);
/// Answers on their way to who watches.
const QUEUE: usize = 1024;

/// What is told.
#[derive(Debug, Clone)]
pub(super) struct NameQuery {
    patterns: Vec<DomainPattern>,
    servers: Vec<IpNet>,
}

impl TryFrom<pb::WatchNamesRequest> for NameQuery {
    type Error = Invalid;

    fn try_from(request: pb::WatchNamesRequest) -> Result<Self, Invalid> {
        let pattern = |(index, text): (usize, &String)| {
            DomainPattern::new(text).map_err(|error| error.within(&format!("patterns[{index}]")))
        };
        let server = |(index, text): (usize, &String)| {
            let problem = || format!("\"{text}\" is not a prefix, as 10.96.0.10/32 is");
            text.parse().map_err(|_| Invalid::new(format!("servers[{index}]"), problem()))
        };
        Ok(Self {
            patterns: request.patterns.iter().enumerate().map(pattern).collect::<Result<_, _>>()?,
            servers: request.servers.iter().enumerate().map(server).collect::<Result<_, _>>()?,
        })
    }
}

impl NameQuery {
    fn wants(&self, name: &DomainName) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    fn trusts(&self, answer: &DnsAnswer) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|server| server.contains(&answer.server))
    }
}

/// Who is told, and what.
#[derive(Debug, Clone)]
struct Watcher {
    query: NameQuery,
    answers: mpsc::Sender<Result<pb::NameAnswer, Status>>,
}

/// Where the answers go.
#[derive(Debug, Clone)]
pub(super) struct Names {
    watcher: Arc<watch::Sender<Option<Watcher>>>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { watcher: Arc::new(watch::Sender::new(None)) }
    }

    /// What is told from now on. Whoever was told before is told no more.
    pub(super) fn watch(&self, query: NameQuery) -> Streamed<pb::NameAnswer> {
        let (answers, receiver) = mpsc::channel(QUEUE);
        self.watcher.send_replace(Some(Watcher { query, answers }));
        Box::pin(ReceiverStream::new(receiver))
    }

    /// Takes what the workers tell and passes it on while somebody watches, for ever.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let mut watcher = self.watcher.subscribe();
        loop {
            let Ok(now) = watcher.wait_for(Option::is_some).await.map(|now| now.clone()) else { return };
            let Some(Watcher { query, answers }) = now else { continue };
            shared.workers.iter().for_each(|worker| worker.counters.dns.want(true));
            let mut teller =
                Teller { lost_before: lost(&shared), shared: &shared, query, answers, pending: (0, 0) };
            let mut take = tokio::time::interval(TAKE);
            take.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = take.tick() => teller.turn(),
                    () = teller.answers.closed() => break,
                    _ = watcher.changed() => break,
                }
            }
            // Unless somebody else watches by now.
            let closed = |now: &mut Option<Watcher>| {
                let gone = now.as_ref().is_some_and(|watcher| watcher.answers.is_closed());
                if gone {
                    *now = None;
                }
                gone
            };
            if self.watcher.send_if_modified(closed) {
                for worker in &shared.workers {
                    worker.counters.dns.want(false);
                    while worker.counters.dns.take().is_some() {}
                }
            }
            watcher.mark_unchanged();
        }
    }
}

/// Answers of which nothing is known.
fn lost(shared: &Shared) -> u64 {
    let all = shared.workers.iter().map(|worker| &worker.counters.dns);
    all.map(|dns| dns.lost.get() + dns.too_long.get()).sum()
}

struct Teller<'a> {
    shared: &'a Shared,
    query: NameQuery,
    answers: mpsc::Sender<Result<pb::NameAnswer, Status>>,
    lost_before: u64,
    /// Answers that were lost here, and that could not be read, and nobody was told so.
    pending: (u64, u64),
}

impl Teller<'_> {
    fn turn(&mut self) {
        for worker in &self.shared.workers {
            while let Some(answer) = worker.counters.dns.take() {
                self.tell(&answer);
            }
        }
    }

    fn tell(&mut self, answer: &DnsAnswer) {
        if !self.query.trusts(answer) {
            return;
        }
        let found = named_addresses(answer.message(), |name| self.query.wants(name));
        let addresses = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(?answer, %error, "an answer of DNS cannot be read");
                self.pending.1 += 1;
                return;
            }
        };
        if addresses.is_empty() {
            return;
        }
        let lost = lost(self.shared);
        let (here, unreadable) = self.pending;
        let message = pb::NameAnswer {
            server: answer.server.to_string(),
            pod: answer.pod.to_string(),
            addresses: addresses.into_iter().map(address).collect(),
            lost: here + (lost - self.lost_before),
            unreadable,
        };
        match self.answers.try_send(Ok(message)) {
            Ok(()) => (self.pending, self.lost_before) = ((0, 0), lost),
            Err(_) => self.pending.0 += 1,
        }
    }
}

fn address(found: NamedAddress) -> pb::NamedAddress {
    let NamedAddress { name, address, ttl_s } = found;
    pb::NamedAddress { name: name.to_string(), address: address.to_string(), ttl_s }
}
