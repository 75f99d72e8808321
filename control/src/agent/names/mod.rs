//! Names that policies speak of: what DNS tells pods of this node is learned, and forgotten when its time is over.
//!
//! The calculation says which names it wants and for which pods; the engine tells the answers these get; what is learned
//! goes to the calculation. An address whose time is over stays while a flow needs it that was there before.
//!
//! What is known is kept in a file, so that an agent that starts anew takes nothing from flows that live.

mod file;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tonic::transport::Channel;
use tracing::{debug, info, warn};
use vswitch_model::api::agent as agent_pb;
use vswitch_model::api::engine as pb;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::{DomainName, DomainPattern};

use crate::calc::{LearnedNames, NameWanted};
use table::{IN_ALL_MAX, NameTable, OF_ONE_NAME_MAX, Told};

/// How often it is looked what is over, and what changed is kept.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before the engine is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// The names that policies in force want. None: nothing was calculated yet.
pub(super) type Wanted = Option<Arc<BTreeMap<DomainPattern, NameWanted>>>;

/// What is learned, for the calculation.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    /// Greater whenever the names are others.
    pub(super) version: u64,
    /// The names.
    pub(super) names: Arc<LearnedNames>,
}

/// The calculation's end of it.
#[derive(Debug)]
pub(super) struct Link {
    /// What is learned.
    pub(super) published: watch::Receiver<Published>,
    /// What is wanted.
    pub(super) wanted: watch::Sender<Wanted>,
}

/// What is known of names, for all parts of the agent.
#[derive(Debug, Clone)]
pub(super) struct Names {
    known: Arc<Mutex<Known>>,
    published: watch::Receiver<Published>,
    wanted: watch::Receiver<Wanted>,
}

#[derive(Debug, Default)]
struct Known {
    table: NameTable,
    /// Whether the table is other than in the file.
    is_dirty: bool,
    /// Answers of which nothing is known: too many, too long, not read in time.
    lost: u64,
    unreadable: u64,
    /// Why nothing is learned, or kept.
    engine_error: Option<String>,
    file_error: Option<String>,
}

/// What has to be known to begin.
#[derive(Debug, Clone, Default)]
pub(super) struct NameSettings {
    /// Where vswitchd listens.
    pub(super) engine_socket: PathBuf,
    /// Where what is learned is kept. None: nowhere.
    pub(super) file: Option<PathBuf>,
    /// Whose answers count. Empty: everybody's.
    pub(super) servers: Vec<IpNet>,
}

impl Names {
    /// Begins with what was kept.
    pub(super) fn start(settings: NameSettings) -> (Self, Link, impl Future<Output = ()> + Send) {
        let mut known = Known::default();
        match settings.file.as_deref().map_or(Ok(Vec::new()), file::read) {
            Ok(kept) => known.table = NameTable::of(&kept),
            Err(error) => {
                warn!(error, "what was known of names is lost; pods have to ask again");
                known.file_error = Some(error);
            }
        }
        let first = Published { version: 0, names: Arc::new(known.table.learned()) };
        let (publish, published) = watch::channel(first);
        let (want, wanted) = watch::channel(None);
        let names =
            Self { known: Arc::new(Mutex::new(known)), published: published.clone(), wanted: wanted.clone() };
        let learner = Learner { names: names.clone(), publish, settings };
        (names, Link { published, wanted: want }, learner.run(wanted))
    }

    /// What is known now.
    pub(super) fn learned(&self) -> Arc<LearnedNames> {
        Arc::clone(&self.published.borrow().names)
    }

    /// What is known, and a way to wait for more.
    #[cfg(test)]
    pub(super) fn published(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not as it should be, for people.
    pub(super) fn problems(&self) -> Vec<String> {
        let known = self.known();
        let mut problems = Vec::new();
        let limits = [
            (known.table.over_name_limit, format!("a name has {OF_ONE_NAME_MAX} addresses, the most")),
            (known.table.over_limit, format!("{IN_ALL_MAX} addresses of names are known, the most")),
        ];
        for (refused, limit) in limits.iter().filter(|(refused, _)| *refused > 0) {
            problems.push(format!("names: {limit}; {refused} times another was not learned, and is denied"));
        }
        if known.lost > 0 {
            problems.push(format!(
                "names: {} answers of DNS were not looked at: too many at once, or too long",
                known.lost
            ));
        }
        if known.unreadable > 0 {
            problems.push(format!("names: {} answers of DNS could not be read", known.unreadable));
        }
        problems.extend(known.engine_error.iter().map(|error| format!("names: nothing is learned: {error}")));
        problems.extend(known.file_error.iter().map(|error| format!("names: {error}")));
        problems
    }

    /// Everything, for people: what is known, and patterns of which nothing is.
    pub(super) fn list(&self) -> agent_pb::ListNamesReply {
        let wanted = self.wanted.borrow().clone().unwrap_or_default();
        let policies_of = |name: &DomainName| {
            let meant = wanted.iter().filter(|(pattern, _)| pattern.matches(name));
            let policies: BTreeSet<_> = meant.flat_map(|(_, wanted)| &wanted.policies).cloned().collect();
            policies.into_iter().collect()
        };
        let now_ms = now_ms();
        let kept = self.known().table.keep();
        let names: Vec<_> = kept.iter().filter_map(|kept| DomainName::parse(&kept.name)).collect();
        let addresses = kept.iter().zip(&names).map(|(kept, name)| agent_pb::LearnedName {
            name: kept.name.clone(),
            address: kept.address.to_string(),
            ttl_left_ms: kept.expires_ms.saturating_sub(now_ms),
            server: kept.server.to_string(),
            policies: policies_of(name),
        });
        let unknown = wanted.iter().filter(|(pattern, _)| !names.iter().any(|name| pattern.matches(name)));
        agent_pb::ListNamesReply {
            names: addresses.collect(),
            unknown: unknown
                .map(|(pattern, wanted)| agent_pb::UnknownName {
                    pattern: pattern.to_string(),
                    policies: wanted.policies.iter().cloned().collect(),
                })
                .collect(),
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

struct Learner {
    names: Names,
    publish: watch::Sender<Published>,
    settings: NameSettings,
}

type Patterns = BTreeMap<DomainPattern, NameWanted>;

impl Learner {
    async fn run(self, mut wanted: watch::Receiver<Wanted>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = wanted.borrow_and_update().clone();
            if let Some(now) = &now {
                self.change(|table| {
                    table.forget_unless(|name| now.keys().any(|pattern| pattern.matches(name)))
                });
            }
            let Some(now) = now.filter(|now| !now.is_empty()) else {
                self.names.known().engine_error = None;
                self.keep();
                match wanted.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            match self.follow(&mut wanted, now, &mut looks).await {
                Ok(()) if wanted.has_changed().is_err() => return,
                Ok(()) => {}
                Err(error) => {
                    debug!(error, "vswitchd tells nothing of names");
                    self.names.known().engine_error = Some(error);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Learns until other names are wanted, or the engine goes away, which is an error.
    async fn follow(
        &self,
        wanted: &mut watch::Receiver<Wanted>,
        mut now: Arc<Patterns>,
        looks: &mut Interval,
    ) -> Result<(), String> {
        let mut client = super::engine::client(&self.settings.engine_socket).await?;
        let request = pb::WatchNamesRequest {
            patterns: now.keys().map(ToString::to_string).collect(),
            servers: self.settings.servers.iter().map(ToString::to_string).collect(),
        };
        let of = |status: tonic::Status| format!("vswitchd: {}", status.message());
        let mut answers = client.watch_names(request).await.map_err(of)?.into_inner();
        info!(names = now.len(), "learning from DNS which addresses names have");
        self.names.known().engine_error = None;
        loop {
            tokio::select! {
                answer = answers.message() => match answer.map_err(of)? {
                    Some(answer) => self.learn(&answer, &now),
                    None => return Err("vswitchd tells another agent".to_owned()),
                },
                changed = wanted.changed() => {
                    let next = wanted.borrow_and_update().clone().unwrap_or_default();
                    if changed.is_err() || !next.keys().eq(now.keys()) {
                        wanted.mark_changed();
                        return Ok(());
                    }
                    now = next;
                }
                _ = looks.tick() => {
                    self.look(&mut client).await?;
                    self.keep();
                }
            }
        }
    }

    fn learn(&self, answer: &pb::NameAnswer, wanted: &Patterns) {
        let (Ok(server), Ok(pod)) = (answer.server.parse(), answer.pod.parse::<IpAddr>()) else { return };
        let now_ms = now_ms();
        let mut is_new = false;
        self.change(|table| {
            for found in &answer.addresses {
                let (Some(name), Ok(address)) = (DomainName::parse(&found.name), found.address.parse())
                else {
                    continue;
                };
                // What other pods are told must not open anything for these.
                let counts =
                    wanted.iter().any(|(pattern, it)| pattern.matches(&name) && it.pods.contains(&pod));
                if counts {
                    let told = table.learn(&name, address, found.ttl_s, server, now_ms);
                    debug!(%name, %address, ttl_s = found.ttl_s, ?told, "DNS tells of a name");
                    is_new |= told == Told::New;
                }
            }
            is_new
        });
        {
            let mut known = self.names.known();
            known.is_dirty = true;
            known.lost += answer.lost;
            known.unreadable += answer.unreadable;
        }
        // Nobody tells again of what a pod knows. That it was told anew may wait.
        if is_new {
            self.keep();
        }
    }

    /// Changes the table, and publishes it when the names are others afterwards.
    fn change(&self, change: impl FnOnce(&mut NameTable) -> bool) {
        let mut known = self.names.known();
        if change(&mut known.table) {
            known.is_dirty = true;
            let names = Arc::new(known.table.learned());
            self.publish.send_modify(|published| {
                *published = Published { version: published.version + 1, names };
            });
        }
    }

    /// Forgets what is over, but what flows need that were there before.
    async fn look(&self, client: &mut EngineClient<Channel>) -> Result<(), String> {
        let now_ms = now_ms();
        let over = self.names.known().table.over(now_ms);
        if over.is_empty() {
            return Ok(());
        }
        let end = |(address, age_ms): (&IpAddr, &u64)| pb::FlowEnd {
            address: address.to_string(),
            age_ms: *age_ms,
        };
        let request = pb::FindFlowsRequest { ends: over.iter().map(end).collect() };
        let found =
            client.find_flows(request).await.map_err(|status| format!("vswitchd: {}", status.message()))?;
        let in_use = found.into_inner().addresses.iter().filter_map(|address| address.parse().ok()).collect();
        self.change(|table| table.settle(&over, &in_use, now_ms));
        Ok(())
    }

    /// Writes the file, when there is something new to write.
    fn keep(&self) {
        let Some(file) = &self.settings.file else { return };
        let kept = {
            let mut known = self.names.known();
            if !std::mem::take(&mut known.is_dirty) {
                return;
            }
            known.table.keep()
        };
        let written = file::write(file, &kept);
        let mut known = self.names.known();
        known.is_dirty |= written.is_err();
        known.file_error = written.err();
    }
}
