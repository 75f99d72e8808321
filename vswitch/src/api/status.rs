//! Who the engine is and how it is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use vswitch_datapath::compile::Tunnels;
use vswitch_datapath::policy::{PolicyDirection, RefusedPolicy, View};
use vswitch_datapath::tables::Role;
use vswitch_model::api::engine as pb;
use vswitch_model::limits;
use vswitch_model::{DesiredState, NextHop, Tunnel, TunnelId};

use super::routes::is_resolved;
use crate::config::{Config, Poll};
use crate::engine::{Device, OpenPort, Shared, Snapshot, role_name};
use crate::netlink::{Hop, PathMtu};

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
        ports: ports(config, &snapshot),
        tunnels: tunnels(&snapshot),
        limits: Some(pb::Limits {
            frames: u64::from(config.frames),
            flows: u64::from(config.flows),
            fragments: u64::from(config.fragments),
            ports: limits::PORTS_MAX as u64,
            routes: limits::ROUTES_MAX as u64,
            icmp_errors_per_second: u64::from(config.icmp_errors_per_second),
            icmp_errors_per_source: u64::from(config.icmp_errors_per_source),
        }),
        save_error: snapshot.save_error.clone().unwrap_or_default(),
        restored: snapshot.restored,
        problems: problems(&snapshot),
        settings: settings(config),
    }
}

fn settings(config: &Config) -> Vec<pb::Setting> {
    let fields = config.fields().into_iter();
    fields.map(|(name, value)| pb::Setting { name: name.to_owned(), value: value.to_string() }).collect()
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    let refused = snapshot.tables.policy.refused().iter().map(|refused| too_large(snapshot, refused));
    let hindered = snapshot.hindered_uplinks().map(|(name, why)| format!("uplink {name}: {why}"));
    let steering = snapshot.steer_error.iter().map(|error| format!("uplinks are not steered: {error}"));
    let lost = lost_addresses(snapshot).map(|address| {
        format!("{address}, by which other nodes reach this one, is on no interface here; `ip address add` gives it back")
    });
    refused
        .chain(hindered)
        .chain(lost)
        .chain(steering)
        .chain(snapshot.full.iter().map(ToString::to_string))
        .collect()
}

/// Addresses of this node's tunnels that the node does not have: a kernel forgets those of IPv6 when an interface goes down.
fn lost_addresses(snapshot: &Snapshot) -> impl Iterator<Item = IpAddr> {
    let facts = &snapshot.facts;
    let known = snapshot.desired.local.iter().filter(|_| !facts.links.is_empty());
    let own = known.flat_map(|local| [local.underlay_v4.map(IpAddr::V4), local.underlay_v6.map(IpAddr::V6)]);
    own.flatten().filter(|address| !facts.local_addresses.contains(address))
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
fn ports(config: &Config, snapshot: &Snapshot) -> Vec<pb::PortStatus> {
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
        let own = if *name == config.host_port { Role::Host } else { Role::Uplink };
        let role = if snapshot.desired.ports.contains_key(name) { Role::Pod } else { own };
        role_name(role).clone_into(&mut status.role);
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
                link.hindrance().unwrap_or_default().clone_into(&mut status.hindrance);
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
    let use_of = Use::of(snapshot);
    let mut all: Vec<_> =
        snapshot.desired.tunnels.values().map(|tunnel| one_tunnel(snapshot, &use_of, tunnel)).collect();
    all.sort_by(|a, b| (&a.node, a.remote.parse::<IpAddr>().ok()).cmp(&(&b.node, b.remote.parse().ok())));
    all
}

fn one_tunnel(snapshot: &Snapshot, use_of: &Use, tunnel: &Tunnel) -> pb::TunnelStatus {
    let hops = snapshot.facts.hops.get(&tunnel.remote);
    let unresolved = hops.and_then(|hops| hops.as_ref().err());
    let hops = hops.into_iter().flatten().flatten();
    let each = |of: fn(&Hop) -> String| hops.clone().map(of).collect::<Vec<_>>().join(", ");
    let path = snapshot.facts.paths.get(&tunnel.remote);
    let left = |path: &PathMtu| path.until.saturating_duration_since(Instant::now()).as_millis() as u64;
    pb::TunnelStatus {
        id: tunnel.id.0,
        node: tunnel.node.clone(),
        remote: tunnel.remote.to_string(),
        next_hop_mac: each(|hop| hop.destination.to_string()),
        uplink: each(|hop| hop.interface.clone()),
        encapsulation: tunnel.encapsulation.to_string(),
        unresolved: unresolved.map(ToString::to_string).unwrap_or_default(),
        carries: families(use_of.carried.get(&tunnel.id)),
        direct: families(use_of.direct.get(&tunnel.remote)),
        path_mtu: path.map_or(0, |path| path.mtu.into()),
        path_mtu_by: path.map(|path| path.by.to_string()).unwrap_or_default(),
        path_mtu_ms: path.map_or(0, left),
    }
}

/// What routes lead where: whether any of IPv4 does, and any of IPv6.
#[derive(Default)]
struct Use {
    carried: BTreeMap<TunnelId, [bool; 2]>,
    direct: BTreeMap<IpAddr, [bool; 2]>,
}

impl Use {
    fn of(snapshot: &Snapshot) -> Self {
        let desired: &DesiredState = &snapshot.desired;
        let tunnels = Tunnels::of(desired);
        let taken = desired.tunnels.keys().filter_map(|id| {
            let carrier = tunnels.carrier(*id, |remote| is_resolved(snapshot, remote))?;
            Some((*id, carrier.id))
        });
        let taken: BTreeMap<TunnelId, TunnelId> = taken.collect();
        let mut used = Self::default();
        for (prefix, next_hop) in &desired.routes {
            let families = match next_hop {
                NextHop::Tunnel(id) => used.carried.entry(*taken.get(id).unwrap_or(id)).or_default(),
                NextHop::Direct(remote) => used.direct.entry(*remote).or_default(),
                _ => continue,
            };
            families[usize::from(prefix.addr().is_ipv6())] = true;
        }
        used
    }
}

fn families(used: Option<&[bool; 2]>) -> Vec<String> {
    let names = ["IPv4", "IPv6"].into_iter().zip(used.copied().unwrap_or_default());
    names.filter(|(_, used)| *used).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use vswitch_model::{Encapsulation, Mac};

    use super::*;
    use crate::netlink::{Facts, Link, Unresolved};
    use crate::testing::one_pod;

    #[test]
    fn tunnels_and_the_node_say_what_is_wrong_with_them() {
        let mut state = one_pod();
        for (id, node, remote) in
            [(1, "two", "192.0.2.20"), (2, "two", "192.0.2.3"), (3, "three", "192.0.2.4")]
        {
            let (id, remote) = (TunnelId(id), remote.parse().unwrap());
            let tunnel = Tunnel { id, node: node.into(), remote, encapsulation: Encapsulation::IpIp };
            state.tunnels.insert(id, tunnel);
        }
        let routes = [
            ("10.2.0.0/26", NextHop::Tunnel(TunnelId(1))),
            ("fd02::/122", NextHop::Tunnel(TunnelId(1))),
            ("10.3.0.0/26", NextHop::Direct("192.0.2.4".parse().unwrap())),
        ];
        state.routes.extend(routes.map(|(prefix, next_hop)| (prefix.parse().unwrap(), next_hop)));
        let path = PathMtu {
            mtu: 1400,
            by: "192.0.2.9".parse().unwrap(),
            until: Instant::now() + Duration::from_secs(600),
        };
        let unresolved = Unresolved::NoCarrier("eth0".into());
        let mut snapshot = Snapshot::empty();
        snapshot.desired = Arc::new(state);
        snapshot.facts = Arc::new(Facts {
            paths: BTreeMap::from([("192.0.2.20".parse().unwrap(), path)]),
            hops: BTreeMap::from([("192.0.2.4".parse().unwrap(), Err(unresolved))]),
            ..Facts::default()
        });
        assert_eq!(problems(&snapshot), [""; 0], "the kernel has not been asked yet");
        let link = Link { index: 2, mac: Mac::default(), mtu: 1500, up: true, carrier: true };
        let mut facts = Facts::clone(&snapshot.facts);
        facts.links.insert("eth0".into(), link);
        snapshot.facts = Arc::new(facts.clone());
        assert!(
            problems(&snapshot)[0].starts_with("192.0.2.1, by which other nodes reach this one, is on no")
        );
        facts.local_addresses.insert("192.0.2.1".parse().unwrap());
        snapshot.facts = Arc::new(facts);
        assert_eq!(problems(&snapshot), [""; 0]);
        let tunnels = tunnels(&snapshot);
        let said = |t: &pb::TunnelStatus| [t.remote.clone(), t.carries.join(" "), t.direct.join(" ")];
        let expected = [["192.0.2.4", "", "IPv4"], ["192.0.2.3", "", ""], ["192.0.2.20", "IPv4 IPv6", ""]];
        assert_eq!(tunnels.iter().map(said).collect::<Vec<_>>(), expected);
        assert_eq!(tunnels[0].unresolved, "its uplink eth0 has no carrier");
        assert_eq!((tunnels[2].path_mtu, &*tunnels[2].path_mtu_by), (1400, "192.0.2.9"));
        assert!((1..=600_000).contains(&tunnels[2].path_mtu_ms), "{:?}", tunnels[2]);
    }
}
