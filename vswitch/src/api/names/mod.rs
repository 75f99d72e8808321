//! What DNS tells pods, as far as somebody asks for the names: copies of answers come from the workers by their queues
//! ([`vswitch_datapath::dns`]), are read here, and go on to whoever watches. Workers ring when there is something to read.
//!
//! Whoever watches may have the pods wait for what is told until it says that it is in force; answers of which nobody is
//! told are released here, as soon as they are read.

mod teller;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vswitch_datapath::DnsAnswer;
use vswitch_model::api::engine as pb;
use vswitch_model::{DomainName, DomainPattern, Invalid};

use super::Streamed;
use crate::engine::Shared;
use crate::worker::{Ear, Handle};
use teller::{Holding, Teller, Untold};

/// Answers on their way to who watches.
const QUEUE: usize = 1024;

/// What is told.
#[derive(Debug, Clone)]
pub(super) struct NameQuery {
    patterns: Vec<DomainPattern>,
    servers: Vec<IpNet>,
    pods: Vec<IpAddr>,
    holds: bool,
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
        let pod = |(index, text): (usize, &String)| {
            let problem = || format!("\"{text}\" is not an address, as 10.244.1.2 is");
            text.parse().map_err(|_| Invalid::new(format!("pods[{index}]"), problem()))
        };
        Ok(Self {
            patterns: request.patterns.iter().enumerate().map(pattern).collect::<Result<_, _>>()?,
            servers: request.servers.iter().enumerate().map(server).collect::<Result<_, _>>()?,
            pods: request.pods.iter().enumerate().map(pod).collect::<Result<_, _>>()?,
            holds: request.hold,
        })
    }
}

impl NameQuery {
    fn wants(&self, name: &DomainName) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether what this server says to this pod counts.
    fn is_of(&self, answer: &DnsAnswer) -> bool {
        let trusts = self.servers.is_empty() || self.servers.iter().any(|net| net.contains(&answer.server));
        trusts && (self.pods.is_empty() || self.pods.contains(&answer.pod))
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
    /// The number of the answer that was told last.
    told: Arc<AtomicU64>,
    /// That of the last one that may go on to its pod.
    released: Arc<watch::Sender<u64>>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            watcher: Arc::new(watch::Sender::new(None)),
            told: Arc::default(),
            released: Arc::new(watch::Sender::new(0)),
        }
    }

    /// What is told from now on. Whoever was told before is told no more.
    pub(super) fn watch(&self, query: NameQuery) -> Streamed<pb::NameAnswer> {
        let (answers, receiver) = mpsc::channel(QUEUE);
        self.watcher.send_replace(Some(Watcher { query, answers }));
        Box::pin(ReceiverStream::new(receiver))
    }

    /// Lets go on what was told up to this number.
    ///
    /// # Errors
    /// There is no such number yet.
    pub(super) fn release(&self, through: u64) -> Result<(), Invalid> {
        let last = self.told.load(Ordering::Acquire);
        if through > last {
            return Err(Invalid::new("through", format!("{through} was not told yet: the last was {last}")));
        }
        self.released.send_if_modified(|released| {
            let is_more = through > *released;
            *released = through.max(*released);
            is_more
        });
        Ok(())
    }

    /// Takes what the workers tell and passes it on while somebody watches, for ever.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let mut watcher = self.watcher.subscribe();
        // What one who watches is told, the next may release.
        let (mut holding, mut untold) = (Holding::new(&shared), Untold::default());
        let mut released = self.released.subscribe();
        loop {
            let Ok(now) = watcher.wait_for(Option::is_some).await.map(|now| now.clone()) else { return };
            let Some(now) = now else { continue };
            match shared.workers.iter().map(Handle::ear).collect::<Result<Vec<_>, _>>() {
                Ok(ears) => {
                    for worker in &shared.workers {
                        worker.counters.dns.want(&now.query.pods, now.query.holds);
                    }
                    let closed = now.answers.clone();
                    let mut teller = Teller::new(&shared, now.query, now.answers, &self.told, &mut untold);
                    tokio::select! {
                        () = tell(&mut teller, &ears, &mut holding, &mut released) => {}
                        () = closed.closed() => {}
                        _ = watcher.changed() => {}
                    }
                }
                Err(error) => {
                    let status = Status::resource_exhausted(format!("no descriptor to wait with: {error}"));
                    now.answers.try_send(Err(status)).ok();
                    // Whoever watches is told no more when it is dropped here.
                    self.watcher.send_replace(None);
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
            self.watcher.send_if_modified(closed);
            if self.watcher.borrow().is_none() {
                for worker in &shared.workers {
                    worker.counters.dns.want_nothing();
                }
                holding.end();
            }
        }
    }
}

/// Tells one who watches, for ever.
async fn tell(
    teller: &mut Teller<'_>,
    ears: &[Ear],
    holding: &mut Holding<'_>,
    released: &mut watch::Receiver<u64>,
) {
    loop {
        let waits = teller.turn(holding);
        tokio::select! {
            () = hear(ears), if waits => {}
            () = tokio::task::yield_now(), if !waits => {}
            Ok(()) = released.changed() => holding.release(*released.borrow_and_update()),
        }
    }
}

/// Waits until a worker rings.
async fn hear(ears: &[Ear]) {
    futures::future::select_all(ears.iter().map(|ear| Box::pin(ear.hear()))).await;
}
