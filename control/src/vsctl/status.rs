//! `status`: the agent and the engine side by side, whichever of them answers.

use std::path::Path;

use serde_json::{Value, json};
use vswitch_model::api::agent::{AgentStatus, GetAgentStatusRequest};
use vswitch_model::api::engine::{EngineStatus, GetStatusRequest};

use super::output::{Report, duration, facts, indent, table};
use super::{Failure, agent, engine_client};

/// The report, and whether both answered, with the store there and the engine in step.
pub(super) async fn status(agent_socket: &Path, engine_socket: &Path) -> (Report, bool) {
    let (agent, engine) = tokio::join!(ask_agent(agent_socket), ask_engine(engine_socket));
    let healthy = agent.as_ref().is_ok_and(is_well) && engine.is_ok();
    (report(&agent, &engine), healthy)
}

fn is_well(agent: &AgentStatus) -> bool {
    agent.store_connected && agent.store_synced && agent.engine_error.is_empty()
}

async fn ask_agent(socket: &Path) -> Result<AgentStatus, Failure> {
    Ok(agent(socket).await?.get_status(GetAgentStatusRequest {}).await?.into_inner())
}

async fn ask_engine(socket: &Path) -> Result<EngineStatus, Failure> {
    Ok(engine_client(socket).await?.get_status(GetStatusRequest {}).await?.into_inner())
}

fn report(agent: &Result<AgentStatus, Failure>, engine: &Result<EngineStatus, Failure>) -> Report {
    let error = |failure: &Failure| (json!({"error": failure.to_string()}), failure.to_string());
    let (agent_value, agent_text) =
        agent.as_ref().map_or_else(error, |status| (agent_value(status), agent_text(status)));
    let (engine_value, engine_text) =
        engine.as_ref().map_or_else(error, |status| (engine_value(status), engine_text(status)));
    Report {
        value: json!({"agent": agent_value, "engine": engine_value}),
        text: format!("agent\n{}\n\nengine\n{}", indent(&agent_text, 2), indent(&engine_text, 2)),
    }
}

fn agent_value(status: &AgentStatus) -> Value {
    let pools = status.pools.iter().map(|pool| {
        json!({
            "name": pool.name, "cidr": pool.cidr, "blocks": pool.blocks, "addressesUsed": pool.addresses_used,
            "addressesUsedLocal": pool.addresses_used_local,
        })
    });
    json!({
        "version": status.version, "node": status.node, "uptimeMs": status.uptime_ms,
        "store": {
            "kind": status.store, "connected": status.store_connected, "synced": status.store_synced,
            "error": status.store_error,
        },
        "engine": {"connected": status.engine_connected, "error": status.engine_error},
        "generationCalculated": status.generation_calculated,
        "generationAcknowledged": status.generation_acknowledged,
        "podsLocal": status.pods_local, "nodes": status.nodes, "policies": status.policies,
        "policiesStaged": status.policies_staged,
        "pools": pools.collect::<Vec<_>>(),
        "problems": status.problems,
    })
}

fn agent_text(status: &AgentStatus) -> String {
    let store = match (status.store_connected, status.store_synced) {
        (true, true) => "connected".to_owned(),
        (true, false) => "connected, not synced yet".to_owned(),
        (false, _) => format!("away: {}", status.store_error),
    };
    let engine = match (status.engine_connected, status.engine_error.as_str()) {
        (true, "") => "connected".to_owned(),
        (true, refusal) => format!("connected, not in step: {refusal}"),
        (false, error) => format!("away: {error}"),
    };
    let generation = match (status.generation_calculated, status.generation_acknowledged) {
        (0, 0) => "none calculated yet".to_owned(),
        (0, got) => format!("none calculated yet, {got} in force"),
        (wanted, got) if !status.engine_connected => {
            format!("{wanted} calculated, {got} was in force when the engine was there last")
        }
        (wanted, got) if wanted == got => format!("{wanted}, in force"),
        (wanted, got) => format!("{wanted} calculated, {got} in force"),
    };
    let mut text = facts(&[
        ("node", status.node.clone()),
        ("version", format!("{}, up {}", status.version, duration(status.uptime_ms))),
        ("store", format!("{}, {store}", status.store)),
        ("engine", engine),
        ("generation", generation),
        (
            "objects",
            format!(
                "{} pods here, {} nodes, {} policies and {} staged",
                status.pods_local, status.nodes, status.policies, status.policies_staged
            ),
        ),
    ]);
    if !status.pools.is_empty() {
        let rows = status.pools.iter().map(|pool| {
            let used = [pool.blocks, pool.addresses_used, pool.addresses_used_local].map(|n| n.to_string());
            let [blocks, addresses, here] = used;
            [pool.name.clone(), pool.cidr.clone(), blocks, addresses, here]
        });
        text = format!("{text}\n\n{}", table(["pool", "cidr", "blocks", "in use", "here"], rows));
    }
    for problem in &status.problems {
        text = format!("{text}\nproblem: {problem}");
    }
    text
}

fn engine_value(status: &EngineStatus) -> Value {
    let workers = status.workers.iter().map(|worker| {
        json!({
            "worker": worker.worker, "core": worker.core, "pollMode": worker.poll_mode,
            "generation": worker.generation, "turns": worker.turns, "turnsIdle": worker.turns_idle,
            "sleeps": worker.sleeps,
        })
    });
    let limits = status.limits.unwrap_or_default();
    json!({
        "version": status.version, "node": status.node, "uptimeMs": status.uptime_ms,
        "generationDesired": status.generation_desired, "generationInForce": status.generation_in_force,
        "restored": status.restored, "saveError": status.save_error,
        "problems": status.problems,
        "workers": workers.collect::<Vec<_>>(),
        "ports": status.ports.len(),
        "portsFailed": failed_ports(status).count(),
        "tunnels": status.tunnels.len(),
        "limits": {
            "frames": limits.frames, "flows": limits.flows, "fragments": limits.fragments, "ports": limits.ports,
            "routes": limits.routes, "icmpErrorsPerSecond": limits.icmp_errors_per_second,
            "icmpErrorsPerSource": limits.icmp_errors_per_source,
        },
    })
}

fn failed_ports(status: &EngineStatus) -> impl Iterator<Item = String> {
    let failed = status.ports.iter().filter(|port| !port.failure.is_empty());
    failed.map(|port| format!("{}: {}", port.name, port.failure))
}

fn engine_text(status: &EngineStatus) -> String {
    let node =
        if status.node.is_empty() { "(no agent has spoken yet)".to_owned() } else { status.node.clone() };
    let mut generation = match (status.generation_desired, status.generation_in_force) {
        (wanted, got) if wanted == got => format!("{wanted}, in force"),
        (wanted, got) => format!("{wanted} desired, {got} in force"),
    };
    if status.restored {
        generation.push_str(" (from disk; no agent has confirmed it)");
    }
    let unresolved = status.tunnels.iter().filter(|tunnel| tunnel.next_hop_mac.is_empty()).count();
    let mut text = facts(&[
        ("node", node),
        ("version", format!("{}, up {}", status.version, duration(status.uptime_ms))),
        ("generation", generation),
        ("ports", format!("{}, {} of them not open", status.ports.len(), failed_ports(status).count())),
        ("tunnels", format!("{}, {unresolved} of them unresolved", status.tunnels.len())),
    ]);
    if !status.workers.is_empty() {
        let rows = status.workers.iter().map(|worker| {
            [
                worker.worker.to_string(),
                worker.core.to_string(),
                worker.poll_mode.clone(),
                worker.generation.to_string(),
                format!("{}%", percent(worker.turns_idle, worker.turns)),
                worker.sleeps.to_string(),
            ]
        });
        text = format!(
            "{text}\n\n{}",
            table(["worker", "core", "mode", "generation", "idle turns", "sleeps"], rows)
        );
    }
    for problem in failed_ports(status) {
        text = format!("{text}\nproblem: port {problem}");
    }
    for problem in &status.problems {
        text = format!("{text}\nproblem: {problem}");
    }
    if !status.save_error.is_empty() {
        text = format!("{text}\nproblem: the state cannot be saved: {}", status.save_error);
    }
    text
}

fn percent(part: u64, whole: u64) -> u128 {
    if whole == 0 { 0 } else { u128::from(part) * 100 / u128::from(whole) }
}

#[cfg(test)]
mod tests {
    use vswitch_model::api::agent::PoolUse;
    use vswitch_model::api::engine::{PortStatus, WorkerStatus};

    use super::*;

    fn agent_status() -> AgentStatus {
        AgentStatus {
            version: "0.1.0".into(),
            node: "n1".into(),
            uptime_ms: 61_000,
            store: "etcd".into(),
            store_connected: true,
            store_synced: true,
            engine_connected: false,
            engine_error: "vswitchd does not answer".into(),
            generation_calculated: 7,
            generation_acknowledged: 6,
            pods_local: 2,
            nodes: 3,
            policies: 4,
            pools: vec![PoolUse {
                name: "v4".into(),
                cidr: "10.244.0.0/16".into(),
                blocks: 1,
                addresses_used: 3,
                addresses_used_local: 2,
            }],
            problems: vec!["Endpoint x: no such pool".into()],
            ..AgentStatus::default()
        }
    }

    #[test]
    fn both_halves_are_told() {
        let engine = EngineStatus {
            version: "0.1.0".into(),
            generation_desired: 6,
            generation_in_force: 6,
            restored: true,
            workers: vec![WorkerStatus {
                core: 1,
                poll_mode: "busy".into(),
                turns: 8,
                turns_idle: 6,
                ..WorkerStatus::default()
            }],
            ports: vec![PortStatus {
                name: "vsw1".into(),
                failure: "no such interface".into(),
                ..PortStatus::default()
            }],
            ..EngineStatus::default()
        };
        let report = report(&Ok(agent_status()), &Ok(engine));
        for line in [
            "  store:       etcd, connected",
            "  engine:      away: vswitchd does not answer",
            "  generation:  7 calculated, 6 was in force when the engine was there last",
            "  objects:     2 pods here, 3 nodes, 4 policies and 0 staged",
            "  v4    10.244.0.0/16  1       3       2",
            "  problem: Endpoint x: no such pool",
            "  node:        (no agent has spoken yet)",
            "  generation:  6, in force (from disk; no agent has confirmed it)",
            "  ports:       1, 1 of them not open",
            "  0       1     busy  0           75%         0",
            "  problem: port vsw1: no such interface",
        ] {
            assert!(report.text.lines().any(|found| found == line), "{line}\n---\n{}", report.text);
        }
        assert_eq!(report.value["agent"]["store"]["kind"], "etcd");
        assert_eq!(report.value["engine"]["portsFailed"], 1);
    }

    #[test]
    fn an_engine_that_refuses_is_not_said_to_be_away() {
        let refused = AgentStatus {
            engine_connected: true,
            engine_error: "vswitchd refuses it: too many routes".into(),
            ..agent_status()
        };
        let denied = "nothing is let through to pod a: too many rows".to_owned();
        let engine = EngineStatus { problems: vec![denied], ..EngineStatus::default() };
        let report = report(&Ok(refused), &Ok(engine));
        for line in [
            "  engine:      connected, not in step: vswitchd refuses it: too many routes",
            "  problem: nothing is let through to pod a: too many rows",
        ] {
            assert!(report.text.lines().any(|found| found == line), "{line}\n---\n{}", report.text);
        }
        assert_eq!(report.value["engine"]["problems"][0], "nothing is let through to pod a: too many rows");
    }

    #[test]
    fn an_agent_that_never_reached_its_store_has_nothing_in_force() {
        let lost = AgentStatus {
            store_connected: false,
            store_synced: false,
            generation_calculated: 0,
            generation_acknowledged: 0,
            ..agent_status()
        };
        let text = agent_text(&lost);
        assert!(text.lines().any(|line| line == "generation:  none calculated yet"), "{text}");
        let restarted = AgentStatus { generation_acknowledged: 7, ..lost };
        let text = agent_text(&restarted);
        assert!(text.lines().any(|line| line == "generation:  none calculated yet, 7 in force"), "{text}");
    }

    #[test]
    fn one_that_does_not_answer_hides_nothing_of_the_other() {
        let away = Failure("vswitchd does not answer on /x: gone".into());
        let report = report(&Ok(agent_status()), &Err(away));
        assert!(report.text.ends_with("engine\n  vswitchd does not answer on /x: gone"), "{}", report.text);
        assert_eq!(report.value["engine"], json!({"error": "vswitchd does not answer on /x: gone"}));
        assert_eq!(report.value["agent"]["node"], "n1");
    }
}
