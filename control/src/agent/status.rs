//! How the agent is.

use std::collections::BTreeSet;
use std::time::Duration;

use vswitch_model::api::agent as pb;

use super::Core;
use crate::calc::Inputs;
use crate::config::Field;
use crate::object::{Flannel, Key, Kind};

/// How many pods are named in one problem.
const PODS_NAMED: usize = 5;
/// How long an address may be assigned before its pod is attached.
const ATTACH_GRACE: Duration = Duration::from_secs(600);

impl Core {
    /// Whether an attach would be served now; None: yes, else why not.
    pub(super) fn not_ready(&self) -> Option<String> {
        let snapshot = self.reflector.current();
        let progress = self.engine.progress().borrow().clone();
        if !snapshot.synced || snapshot.stale.is_some() {
            return Some(self.store_reason());
        }
        if let Some(reason) = self.registration.borrow().as_ref() {
            return Some(format!("node {}: {reason}", self.settings.node));
        }
        progress.engine_error.or(progress.calculation_error)
    }

    pub(super) async fn status(&self) -> pb::AgentStatus {
        let snapshot = self.reflector.current();
        let progress = self.engine.progress().borrow().clone();
        let in_force = progress.in_force;
        let connected = snapshot.synced && snapshot.stale.is_none();
        // Of a store that is away nothing is asked.
        let pools = if connected { self.ipam.pool_use().await.unwrap_or_default() } else { Vec::new() };
        let mut problems: Vec<String> =
            snapshot.problems.iter().map(|(key, problem)| format!("{key}: {problem}")).collect();
        problems.extend(kept_though_wrong(&snapshot.inputs));
        problems.extend(progress.problems);
        problems.extend(progress.calculation_error);
        problems.extend(self.names.problems());
        problems.extend(
            self.registration.borrow().as_ref().map(|why| format!("node {}: {why}", self.settings.node)),
        );
        let failed = in_force.iter().flat_map(|in_force| in_force.failed_ports.iter());
        problems.extend(failed.map(|(port, reason)| format!("port {port}: {reason}")));
        problems.extend(self.leaks(ATTACH_GRACE).await.iter().map(ToString::to_string));
        problems.extend(without_pod(&snapshot.inputs, &self.settings.node));
        let local = snapshot.inputs.endpoints.values().filter(|e| e.spec.node == self.settings.node);
        pb::AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.settings.node.clone(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            store: self.store_kind.to_owned(),
            store_connected: connected,
            store_synced: snapshot.synced,
            store_error: if connected { String::new() } else { self.store_reason() },
            engine_connected: progress.engine_error.is_none() || progress.engine_refuses,
            engine_error: progress.engine_error.unwrap_or_default(),
            generation_calculated: progress.calculated.0,
            generation_acknowledged: in_force.as_ref().map_or(0, |in_force| in_force.generation.0),
            pods_local: count(local.count()),
            nodes: count(snapshot.inputs.nodes.len()),
            policies: count(snapshot.inputs.policies_in_force()),
            policies_staged: count(snapshot.inputs.policies_staged()),
            pools: pools
                .into_iter()
                .map(|pool| pb::PoolUse {
                    name: pool.name,
                    cidr: pool.cidr.to_string(),
                    blocks: pool.blocks,
                    addresses_used: pool.used,
                    addresses_used_local: pool.used_here,
                })
                .collect(),
            problems,
            settings: self.settings.shown.iter().map(setting).collect(),
        }
    }
}

/// What would not be taken from people today, and is kept as it was, or read but for what is wrong.
fn kept_though_wrong(inputs: &Inputs) -> impl Iterator<Item = String> {
    let nodes = inputs.nodes.iter().map(|(name, node)| (Kind::Node, name, Flannel::check(node)));
    let pools = inputs.pools.iter().map(|(name, pool)| (Kind::IpPool, name, pool.check_fit()));
    nodes.chain(pools).filter_map(|(kind, name, checked)| {
        checked.err().map(|invalid| format!("{}: {invalid}", Key::cluster(kind, name)))
    })
}

fn setting(field: &Field) -> pb::Setting {
    let Field { table, name, value } = field;
    let name = if table.is_empty() { (*name).to_owned() } else { format!("{table}.{name}") };
    pb::Setting { name, value: value.clone() }
}

/// That pods of `node` are attached and nobody knows their labels, which closes them to policies that may select them.
/// Where there are no policies it means nothing.
fn without_pod(inputs: &Inputs, node: &str) -> Option<String> {
    if inputs.policies_in_force() == 0 {
        return None;
    }
    let local = inputs.endpoints.values().map(|endpoint| &endpoint.spec);
    let local = local.filter(|spec| spec.node == node && !spec.pod.is_empty());
    let full_names = local.map(|spec| (spec.namespace.clone(), spec.pod.clone()));
    let without: BTreeSet<_> = full_names.filter(|full_name| inputs.pods.get(full_name).is_none()).collect();
    let names: Vec<_> =
        without.iter().take(PODS_NAMED).map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    let more = match without.len().saturating_sub(PODS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!without.is_empty()).then(|| {
        format!(
            "attached without a Pod object: {}{more}; a policy that may select them, as far as is known, denies them \
             everything in its directions",
            names.join(", ")
        )
    })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
