//! Learns from what the engine tells, and lets answers go on to their pods.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tracing::{debug, info};
use vswitch_model::api::engine as pb;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::{DomainName, DomainPattern};

use super::super::engine;
use super::table::{NameTable, Told};
use super::{NameSettings, Names, Published, Wanted, file, now_ms};
use crate::calc::NameWanted;

/// How often it is looked what is over, and what changed is kept.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before the engine is asked again.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Learner {
    pub(super) names: Names,
    pub(super) publish: watch::Sender<Published>,
    pub(super) settings: NameSettings,
    /// The version of what was published that is in force.
    pub(super) in_force: watch::Receiver<u64>,
}

type Patterns = BTreeMap<DomainPattern, NameWanted>;

/// The pods that are told of names that count.
fn pods(wanted: &Patterns) -> BTreeSet<IpAddr> {
    wanted.values().flat_map(|wanted| &wanted.pods).copied().collect()
}

/// Answers that the engine holds: each version of what is learned, and the last answer that was told when it was the newest.
#[derive(Debug, Default)]
struct Waiting(VecDeque<(u64, u64)>);

impl Waiting {
    /// The pod of this answer waits until this version is in force.
    fn add(&mut self, version: u64, number: u64) {
        match self.0.back_mut() {
            Some((last, through)) if *last == version => *through = number,
            _ => self.0.push_back((version, number)),
        }
    }

    /// The last answer that need not wait any more. None: there is no other than before.
    fn take(&mut self, in_force: u64) -> Option<u64> {
        let mut through = None;
        while let Some((_, number)) = self.0.pop_front_if(|(version, _)| *version <= in_force) {
            through = Some(number);
        }
        through
    }
}

impl Learner {
    pub(super) async fn run(self, mut wanted: watch::Receiver<Wanted>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = wanted.borrow_and_update().clone();
            if let Some(now) = &now {
                self.forget_unless(now);
            }
            let has_pods = now.as_ref().map(|now| !pods(now).is_empty());
            let Some(now) = now.filter(|_| has_pods == Some(true)) else {
                self.names.known().engine_error = None;
                self.keep();
                let is_empty = self.publish.borrow().names.0.is_empty();
                tokio::select! {
                    changed = wanted.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                    _ = looks.tick(), if has_pods == Some(false) && !is_empty => {
                        // No pod has a flow that needs them.
                        let now_ms = now_ms();
                        self.change(|table| table.settle(&table.over(now_ms), &BTreeSet::new(), now_ms));
                        continue;
                    }
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

    /// Learns until nothing is wanted any more, or the engine goes away, which is an error.
    ///
    /// When other names are wanted, or for other pods, it watches anew before it stops watching as before: the engine
    /// tells whoever asks last, and ends what it told before. So every answer is told by one or the other, and none that
    /// is held goes on for want of somebody who is told.
    async fn follow(
        &self,
        wanted: &mut watch::Receiver<Wanted>,
        mut now: Arc<Patterns>,
        looks: &mut Interval,
    ) -> Result<(), String> {
        let mut client = engine::client(&self.settings.engine_socket).await?;
        // The last one is told; those before are read to their end.
        let mut streams = VecDeque::from([self.watch(&mut client, &now).await?]);
        info!(names = now.len(), "learning from DNS which addresses names have");
        self.names.known().engine_error = None;
        // An engine counts its answers, whoever is told.
        let (mut waiting, mut in_force) = (Waiting::default(), self.in_force.clone());
        loop {
            let Some(answers) = streams.front_mut() else {
                return Err("vswitchd tells another agent".to_owned());
            };
            let version = *in_force.borrow_and_update();
            if let Some(through) = waiting.take(version) {
                client.release_answers(pb::ReleaseAnswersRequest { through }).await.map_err(problem)?;
            }
            tokio::select! {
                answer = answers.message() => match answer.map_err(problem)? {
                    Some(answer) => {
                        self.learn(&answer, &now);
                        waiting.add(self.publish.borrow().version, answer.number);
                    }
                    None => drop(streams.pop_front()),
                },
                changed = wanted.changed() => {
                    let next = wanted.borrow_and_update().clone().unwrap_or_default();
                    if changed.is_err() || pods(&next).is_empty() {
                        return Ok(());
                    }
                    let is_other = !next.keys().eq(now.keys()) || pods(&next) != pods(&now);
                    now = next;
                    if is_other {
                        streams.push_back(self.watch(&mut client, &now).await?);
                        self.forget_unless(&now);
                    }
                }
                Ok(()) = in_force.changed() => {}
                _ = looks.tick() => {
                    self.look(&mut client).await?;
                    self.keep();
                }
            }
        }
    }

    /// Has the engine tell of these, and nobody else.
    async fn watch(
        &self,
        client: &mut EngineClient<Channel>,
        wanted: &Patterns,
    ) -> Result<Streaming<pb::NameAnswer>, String> {
        let pods = pods(wanted);
        debug!(names = wanted.len(), pods = pods.len(), "asking what DNS tells");
        let request = pb::WatchNamesRequest {
            patterns: wanted.keys().map(ToString::to_string).collect(),
            servers: self.settings.servers.iter().map(ToString::to_string).collect(),
            pods: pods.iter().map(ToString::to_string).collect(),
            hold: true,
        };
        Ok(client.watch_names(request).await.map_err(problem)?.into_inner())
    }

    /// Forgets names that nobody wants.
    fn forget_unless(&self, wanted: &Patterns) {
        self.change(|table| table.forget_unless(|name| wanted.keys().any(|pattern| pattern.matches(name))));
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
                // What pods are told whom no such pattern is for is not learned. What is learned holds for all patterns.
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
            known.lost.add(answer.lost, now_ms);
            known.unreadable.add(answer.unreadable, now_ms);
            known.unreleased.add(answer.unreleased, now_ms);
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
        let found = client.find_flows(request).await.map_err(problem)?;
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

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
fn problem(status: Status) -> String {
    format!("vswitchd: {}", status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_goes_on_by_version_in_order() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.take(9), None);
        for (version, number) in [(1, 1), (1, 2), (3, 3), (4, 4)] {
            waiting.add(version, number);
        }
        assert_eq!(waiting.take(0), None);
        assert_eq!(waiting.take(2), Some(2));
        waiting.add(4, 5);
        assert_eq!(waiting.take(4), Some(5));
        assert_eq!(waiting.take(4), None);
    }
}
