//! Who the engine is and how it is.

use vswitch_datapath::policy::{PolicyDirection, RefusedPolicy, View};
use vswitch_model::api::engine as pb;
use vswitch_model::limits;

use crate::config::Poll;
use crate::engine::{Device, OpenPort, Shared, Snapshot, role_name};
use crate::netlink::Hop;

/// Names told of a list before it is cut short.
const NAMED: usize = 5;

pub(super) fn status(shared: &Shared) -> pb::EngineStatus {
    let snapshot = shared.snapshot.load_full();
    let config = &shared.config;
    pb::EngineStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: snapshot.desired.local.as_ref().map(|local| local.node.clone()).unwrap_or_default(),
        uptime_ms: shared.started.elapsed().as_millis() as u64,
        generation_desired: snapshot.generation.0,
        generation_in_force: shared.generation_in_force(&snapshot).0,
        workers: workers(shared, &snapshot),
        ports: ports(&snapshot),
        tunnels: tunnels(&snapshot),
        limits: Some(pb::Limits {
            frames: u64::from(config.frames),
            flows: u64::from(config.flows),
            fragments: u64::from(config.fragments),
            ports: limits::PORTS_MAX as u64,
            routes: limits::ROUTES_MAX as u64,
            icmp_errors_per_second: u64::from(config.icmp_errors_per_second),
        }),
        save_error: snapshot.save_error.clone().unwrap_or_default(),
        restored: snapshot.restored,
        problems: snapshot
            .tables
            .policy
            .refused()
            .iter()
            .map(|refused| too_large(&snapshot, refused))
            .collect(),
    }
}

/// Whose policy is not in force because it is too large, and what it would take.
fn too_large(snapshot: &Snapshot, refused: &RefusedPolicy) -> String {
    let desired = &snapshot.desired;
    let of =
        |id| desired.identities.get(id).map_or_else(|| id.to_string(), |known| known.description.clone());
    let policies = refused.policies.iter().filter_map(|id| desired.policies.get(id)).map(|p| p.name.clone());
    let direction = match refused.error.direction {
        PolicyDirection::Ingress => "to",
        PolicyDirection::Egress => "from",
    };
    if refused.view == View::Staged {
        let (subjects, policies) = (some(refused.subjects.iter().map(of)), some(policies));
        return format!(
            "what is staged {direction} {subjects} is not judged: {} ({policies})",
            refused.error
        );
    }
    format!(
        "nothing is let through {direction} {}, but for the node itself: {} ({})",
        some(refused.subjects.iter().map(of)),
        refused.error,
        some(policies)
    )
}

/// The first of some names, and how many more there are.
fn some(mut names: impl Iterator<Item = String>) -> String {
    let first: Vec<_> = names.by_ref().take(NAMED).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn workers(shared: &Shared, snapshot: &Snapshot) -> Vec<pb::WorkerStatus> {
    let one = |worker: &crate::worker::Handle| {
        let newest = worker.status.revision() >= snapshot.tables.revision;
        let generation = if newest { snapshot.tables.generation } else { snapshot.generation_before };
        let poll_mode = match worker.config.poll {
            Poll::Busy => "busy",
            Poll::Adaptive => "adaptive",
        };
        pb::WorkerStatus {
            worker: worker.config.number as u32,
            core: worker.config.core.unwrap_or_default() as u32,
            poll_mode: poll_mode.to_owned(),
            generation: generation.0,
            turns: worker.status.turns.get(),
            turns_idle: worker.status.turns_idle.get(),
            sleeps: worker.status.sleeps.get(),
        }
    };
    shared.workers.iter().map(one).collect()
}

/// Open ports, and those that should be open and are not.
fn ports(snapshot: &Snapshot) -> Vec<pb::PortStatus> {
    let open = snapshot.ports.open.iter().map(|(name, open)| {
        let mut status = described(snapshot, name.as_str());
        status.role = role_name(open.device.role()).to_owned();
        status.kind = open.kind.to_owned();
        status.worker = open.worker as u32;
        describe_device(&mut status, snapshot, open);
        status
    });
    let failed = snapshot.ports.failed.iter().map(|(name, reason)| {
        let mut status = described(snapshot, name.as_str());
        status.role = if snapshot.desired.ports.contains_key(name) { "pod" } else { "uplink" }.to_owned();
        status.failure.clone_from(reason);
        status
    });
    open.chain(failed).collect()
}

/// What the desired state says of a pod's port; for any other its name alone.
fn described(snapshot: &Snapshot, name: &str) -> pb::PortStatus {
    let status = pb::PortStatus { name: name.to_owned(), ..pb::PortStatus::default() };
    match snapshot.desired.ports.values().find(|port| port.name.as_str() == name) {
        Some(port) => pb::PortStatus {
            mac: port.mac.to_string(),
            addresses: port.addresses.iter().map(ToString::to_string).collect(),
            mtu: u32::from(port.mtu),
            workload: port.workload.clone(),
            ..status
        },
        None => status,
    }
}

fn describe_device(status: &mut pb::PortStatus, snapshot: &Snapshot, open: &OpenPort) {
    match &open.device {
        Device::Pod { .. } => {}
        Device::Tun { .. } => status.mac.clear(),
        Device::Uplink { interface } => {
            if let Some(link) = snapshot.facts.links.get(interface.as_str()) {
                status.mac = link.mac.to_string();
                status.mtu = link.mtu;
            }
        }
        Device::Host { .. } => {
            status.mtu = u32::from(snapshot.tables.port(open.index).mtu);
            let local = snapshot.desired.local.iter();
            status.addresses =
                local.flat_map(|local| &local.host_addresses).map(ToString::to_string).collect();
            status.failure = snapshot.facts.host_problem.clone().unwrap_or_default();
        }
    }
}

fn tunnels(snapshot: &Snapshot) -> Vec<pb::TunnelStatus> {
    let one = |tunnel: &vswitch_model::Tunnel| {
        let hops = snapshot.facts.hops.get(&tunnel.remote).into_iter().flatten().flatten();
        let each = |of: fn(&Hop) -> String| hops.clone().map(of).collect::<Vec<_>>().join(", ");
        pb::TunnelStatus {
            id: tunnel.id.0,
            node: tunnel.node.clone(),
            remote: tunnel.remote.to_string(),
            next_hop_mac: each(|hop| hop.destination.to_string()),
            uplink: each(|hop| hop.interface.clone()),
            encapsulation: tunnel.encapsulation.to_string(),
        }
    };
    snapshot.desired.tunnels.values().map(one).collect()
}
