//! Names that policies speak of: what DNS tells pods of this node is learned, and forgotten when its time is over.
//!
//! The calculation says which names it wants and for which pods; the engine tells the answers these get; what is learned
//! goes to the calculation. An address whose time is over stays while a flow needs it that was there before.
//!
//! A pod gets an answer that says something new when that is in force: the engine holds it until it is told so, for a
//! short while.
//!
//! What is known is kept in a file, so that an agent that starts anew takes nothing from flows that live.

mod file;
mod learner;
mod recent;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tokio::sync::watch;
use tracing::warn;
use vswitch_model::api::agent as agent_pb;
use vswitch_model::{DomainName, DomainPattern};

use crate::calc::{LearnedNames, NameWanted};
use learner::Learner;
use recent::Recent;
use table::{IN_ALL_MAX, NameTable, OF_ONE_NAME_MAX};

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
    /// The version of what is learned that the engine's workers run.
    pub(super) in_force: watch::Sender<u64>,
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
    lost: Recent,
    unreadable: Recent,
    /// Answers that pods got although what they say was not in force yet.
    unreleased: Recent,
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
            Ok(kept) => known.table = NameTable::of(&kept, now_ms()),
            Err(error) => {
                warn!(error, "what was known of names is lost; pods have to ask again");
                known.file_error = Some(error);
            }
        }
        let first = Published { version: 0, names: Arc::new(known.table.learned()) };
        let (publish, published) = watch::channel(first);
        let (want, wanted) = watch::channel(None);
        let (force, in_force) = watch::channel(0);
        let names =
            Self { known: Arc::new(Mutex::new(known)), published: published.clone(), wanted: wanted.clone() };
        let learner = Learner { names: names.clone(), publish, settings, in_force };
        (names, Link { published, wanted: want, in_force: force }, learner.run(wanted))
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

    /// What is not as it should be, for people; what went wrong is told for ten minutes.
    pub(super) fn problems(&self) -> Vec<String> {
        let (known, now_ms) = (self.known(), now_ms());
        let limit = |recent: &Recent, limit: String| {
            let told = recent.told(now_ms)?;
            Some(format!("names: {limit}; others were not learned, and are denied: {told}"))
        };
        let answers = |recent: &Recent, what: &str| {
            Some(format!("names: answers of DNS that {what}: {}", recent.told(now_ms)?))
        };
        let table = &known.table;
        let recent = [
            limit(&table.over_name_limit, format!("a name has {OF_ONE_NAME_MAX} addresses, the most")),
            limit(&table.over_limit, format!("{IN_ALL_MAX} addresses of names are known, the most")),
            answers(&known.lost, "were not looked at, since they were too many at once, or too long"),
            answers(&known.unreadable, "could not be read"),
            answers(
                &known.unreleased,
                "pods got before what they say was in force, so that a packet may be denied",
            ),
        ];
        let mut problems: Vec<_> = recent.into_iter().flatten().collect();
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
