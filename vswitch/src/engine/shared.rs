//! What other threads see of the engine: it changes only as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use vswitch_datapath::tables::Revision;
use vswitch_datapath::{PortIndex, Tables};
use vswitch_model::{DesiredState, Generation, PortName, RuleId};

use super::devices::Device;
use super::full::Full;
use super::ports::Ports;
use crate::config::Config;
use crate::io::Umem;
use crate::netlink::Facts;
use crate::worker::Handle;

/// What the API and the metrics read.
#[derive(Debug)]
pub struct Shared {
    /// How the engine was configured.
    pub config: Config,
    /// When it started.
    pub started: Instant,
    /// Its workers.
    pub workers: Vec<Handle>,
    /// The memory of all frames.
    pub umem: Arc<Umem>,
    /// The state of now.
    pub snapshot: ArcSwap<Snapshot>,
}

impl Shared {
    /// Frames the workers hold.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        // They are read one after the other: what moves meanwhile may be counted twice, or not at all.
        let held: i64 = self.workers.iter().map(|worker| worker.status.held()).sum();
        usize::try_from(held).unwrap_or_default()
    }

    /// The generation every worker runs.
    #[must_use]
    pub fn generation_in_force(&self, snapshot: &Snapshot) -> Generation {
        let all = self.workers.iter().all(|worker| worker.status.revision() >= snapshot.tables.revision);
        if all { snapshot.tables.generation } else { snapshot.generation_before }
    }
}

/// The engine's state at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The version of what control wants.
    pub generation: Generation,
    /// The version that was in force before `tables`.
    pub generation_before: Generation,
    /// What control wants.
    pub desired: Arc<DesiredState>,
    /// The tables that were published last.
    pub tables: Arc<Tables>,
    /// The ports.
    pub ports: Ports,
    /// The underlay.
    pub facts: Arc<Facts>,
    /// Why the state is not on disk; None: it is.
    pub save_error: Option<String>,
    /// Why the uplinks are not steered as they should be; None: they are.
    pub steer_error: Option<String>,
    /// Whether the state came from disk and nobody has confirmed it since.
    pub restored: bool,
    /// Tables that refused newcomers within the last minute.
    pub full: Vec<Full>,
    /// The generations of the tables that were published last, the newest last.
    pub(super) history: VecDeque<(Revision, Generation)>,
    pub(super) rules: OnceLock<BTreeMap<RuleId, RuleSource>>,
}

/// Where a rule was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSource {
    /// Its policy: `NetworkPolicy media/relay`.
    pub policy: String,
    /// Its place in it.
    pub position: String,
}

impl Snapshot {
    /// What an engine starts with.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            generation: Generation(0),
            generation_before: Generation(0),
            desired: Arc::default(),
            tables: Arc::new(Tables::empty()),
            ports: Ports::default(),
            facts: Arc::default(),
            save_error: None,
            steer_error: None,
            restored: false,
            full: Vec::new(),
            history: VecDeque::new(),
            rules: OnceLock::new(),
        }
    }

    /// The generation of the tables `revision`; None when that is too long ago.
    #[must_use]
    pub fn generation_of(&self, revision: Revision) -> Option<Generation> {
        self.history.iter().rev().find(|(known, _)| *known == revision).map(|(_, generation)| *generation)
    }

    /// The name of the port of this number, for people.
    #[must_use]
    pub fn port_name(&self, index: PortIndex) -> String {
        let open = self.ports.open.iter().find(|(_, open)| open.index == index);
        open.map_or_else(|| format!("number {}", index.0), |(name, _)| name.to_string())
    }

    /// What keeps open uplinks from carrying anything.
    pub fn hindered_uplinks(&self) -> impl Iterator<Item = (&PortName, &'static str)> {
        self.ports.open.iter().filter_map(|(name, open)| match &open.device {
            Device::Uplink { interface } => {
                Some((name, self.facts.links.get(interface.as_str())?.hindrance()?))
            }
            _ => None,
        })
    }

    /// Where a rule was written; None for those the engine has built in.
    #[must_use]
    pub fn rule(&self, rule: RuleId) -> Option<&RuleSource> {
        let index = || {
            let rules = self.desired.policies.values().flat_map(|policy| {
                policy.places().map(|(rule, position)| {
                    let source = RuleSource { policy: policy.name.clone(), position: position.to_owned() };
                    (rule, source)
                })
            });
            rules.collect()
        };
        self.rules.get_or_init(index).get(&rule)
    }
}
