//! Tables are made, published, and run by every worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vswitch_datapath::policy::View;
use vswitch_datapath::tables::Revision;
use vswitch_datapath::{CompileError, CompileInputs, Hop, Underlay};
use vswitch_model::{DesiredState, Generation, Policy, RuleId, Touched};

use super::{ApplyError, Compiler, HISTORY};
use crate::netlink;

impl Compiler {
    /// Makes tables of `desired` and publishes them. `before` is the state of the tables of now, and what is touched since;
    /// None: anything may have been.
    pub(super) fn publish(
        &mut self,
        generation: Generation,
        desired: &DesiredState,
        before: Option<(&DesiredState, &Touched)>,
    ) -> Result<(), CompileError> {
        let ports = self.ports.map(desired, &self.facts);
        let underlay = self.underlay();
        let revision = Revision(self.tables.revision.0 + 1);
        let inputs = CompileInputs { generation, revision, desired, ports: &ports, underlay: &underlay };
        let mut tables = self.maker.compile(&inputs, before)?;
        tables.follow(&self.tables);
        let tables = Arc::new(tables);
        for refused in tables.policy.refused().iter().filter(|r| !self.tables.policy.refused().contains(r)) {
            let (error, pods) = (&refused.error, refused.subjects.len());
            match refused.view {
                View::InForce => {
                    tracing::error!(%error, pods, "policy is too large; the pods it selects are denied everything");
                }
                View::Staged => tracing::error!(%error, pods, "what is staged is too large to be judged"),
            }
        }
        self.compiled = (ports, underlay);
        self.count_rules(desired, before.map(|(_, touched)| touched), revision);
        self.published.publish(&tables);
        self.history.push_back((revision, generation));
        self.history.drain(..self.history.len().saturating_sub(HISTORY));
        self.generation_before = self.tables.generation;
        self.retired.push(std::mem::replace(&mut self.tables, tables));
        self.shared.workers.iter().for_each(crate::worker::Handle::wake);
        Ok(())
    }

    /// Makes room for what the rules of `desired` will have done, and begins anew where a number means another rule than
    /// before. Rules are the same where their place in their policy is.
    fn count_rules(&self, desired: &DesiredState, touched: Option<&Touched>, revision: Revision) {
        let policies: Vec<&Policy> = match touched {
            Some(touched) => touched.policies.iter().filter_map(|id| desired.policies.get(id)).collect(),
            None => desired.policies.values().collect(),
        };
        let last = policies.iter().flat_map(|policy| policy.places()).map(|(rule, _)| rule).max();
        let last = last.unwrap_or_default().max(RuleId(RuleId::FIRST_ASSIGNED));
        let tallies = || self.shared.workers.iter().map(|worker| &worker.counters.rules);
        tallies().for_each(|tallies| tallies.reserve(last));
        for policy in policies {
            let before = self.desired.now().policies.get(&policy.id);
            if before == Some(policy) {
                continue;
            }
            let before = before.filter(|before| before.name == policy.name);
            let places: BTreeMap<RuleId, &str> = before.into_iter().flat_map(Policy::places).collect();
            for (rule, _) in policy.places().filter(|(rule, place)| places.get(rule) != Some(place)) {
                tallies().for_each(|tallies| tallies.begin(rule, revision));
            }
        }
    }

    /// Waits until every worker runs the newest tables, and frees the ones before.
    pub(super) fn all_run(&mut self, patience: Duration) -> Result<(), ApplyError> {
        let deadline = Instant::now() + patience;
        let behind = |revision| self.shared.workers.iter().any(|worker| worker.status.revision() < revision);
        while behind(self.tables.revision) {
            if Instant::now() > deadline {
                return Err(ApplyError::NotInForce(self.tables.generation));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        self.retired.clear();
        Ok(())
    }

    /// The underlay with uplinks by number. Ways by an uplink that is not open are left out.
    pub(super) fn underlay(&self) -> Underlay {
        let by_open_uplink = |hop: &netlink::Hop| {
            let port = self.ports.uplink(&hop.interface)?;
            let mtu = u16::try_from(hop.mtu).unwrap_or(u16::MAX);
            let netlink::Hop { source: src_mac, destination: dst_mac, weight, on_link, .. } = *hop;
            Some(Hop { port, dst_mac, src_mac, mtu, weight, on_link })
        };
        let hops = self
            .facts
            .hops
            .iter()
            .map(|(remote, hops)| (*remote, hops.iter().flatten().filter_map(by_open_uplink).collect()));
        let paths = self.facts.paths.iter().map(|(remote, path)| (*remote, path.mtu)).collect();
        Underlay { hops: hops.collect(), paths, local_addresses: self.facts.local_addresses.clone() }
    }
}
