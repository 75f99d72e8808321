//! The ports that are open, by name: numbered, opened, closed, and retried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use vswitch_datapath::tables::Role;
use vswitch_datapath::{PortFacts, PortIndex, PortMap};
use vswitch_model::limits::PORTS_MAX;
use vswitch_model::{Attachment, DesiredState, DropReason, Mac, PortName};

use super::devices::{Device, Devices};
use crate::config::Config;
use crate::io::{Capabilities, Port, PortState};
use crate::netlink::Facts;
use crate::worker::{Command, Handle, PortReport, owner};

/// MTU of the host port until the agent has said one, in bytes.
pub(super) const HOST_MTU: u16 = 1450;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a port had counted when its number was given to it: numbers are used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Packets and bytes received.
    pub rx: (u64, u64),
    /// Packets and bytes sent by the walk.
    pub tx: (u64, u64),
    /// Drops by reason.
    pub drops: [u64; DropReason::COUNT],
}

impl Counts {
    /// What number `index` has counted so far, with all workers: its packets are counted where they are walked.
    #[must_use]
    pub fn of(workers: &[Handle], index: PortIndex) -> Self {
        let mut counts = Self { rx: (0, 0), tx: (0, 0), drops: [0; DropReason::COUNT] };
        for port in workers.iter().map(|worker| worker.counters.port(index)) {
            counts.rx.0 += port.rx_packets.get();
            counts.rx.1 += port.rx_bytes.get();
            counts.tx.0 += port.tx_packets.get();
            counts.tx.1 += port.tx_bytes.get();
            for (sum, reason) in counts.drops.iter_mut().zip(DropReason::ALL) {
                *sum += port.drops(*reason);
            }
        }
        counts
    }

    /// Packets that were handed to the port's device: those the walk sent less those the port did not take.
    #[must_use]
    pub fn sent(&self) -> u64 {
        let refused = [DropReason::TransmitRingFull, DropReason::TransmitRefused, DropReason::PortGone];
        self.tx.0.saturating_sub(refused.iter().map(|reason| self.drops[*reason as usize]).sum())
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let less = |a: (u64, u64), b: (u64, u64)| (a.0.wrapping_sub(b.0), a.1.wrapping_sub(b.1));
        let drops = std::array::from_fn(|reason| self.drops[reason].wrapping_sub(before.drops[reason]));
        Self { rx: less(self.rx, before.rx), tx: less(self.tx, before.tx), drops }
    }
}

/// A port that is open.
#[derive(Debug, Clone)]
pub struct OpenPort {
    /// Its number.
    pub index: PortIndex,
    /// The worker that owns it, of an uplink with several parts the first.
    pub worker: usize,
    /// Parts it has, each with queues of its own: the further ones are of the workers that follow.
    pub parts: usize,
    /// What it is opened on.
    pub device: Device,
    /// How it gets frames in and out, for people.
    pub kind: &'static str,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What its number had counted before it.
    pub before: Arc<Counts>,
}

impl OpenPort {
    /// The workers, of `count`, that have a part of it.
    pub fn workers(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.worker;
        (0..self.parts).map(move |part| (first + part) % count.max(1))
    }
}

/// All ports.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    /// Those that are open.
    pub open: BTreeMap<PortName, OpenPort>,
    /// Those that should be, and why they are not.
    pub failed: BTreeMap<PortName, String>,
    /// The numbers of ports that are closed, until another port needs them. A port that comes back, with a new device or after its
    /// device had gone, has its own again: its flows are with the worker of that number, and are followed where they come
    /// by it.
    left: Arc<BTreeMap<PortName, PortIndex>>,
    /// Where to look for a free number, and from there on, round and round: what refers to a closed port does not find
    /// another in its place soon.
    next: u16,
}

/// The ports that `desired` and the configuration want, by name.
#[must_use]
pub(super) fn wanted(config: &Config, desired: &DesiredState) -> BTreeMap<PortName, Device> {
    let pods = desired.ports.values().map(|port| {
        let device = match &port.attachment {
            Attachment::Veth { interface, netns } => {
                Device::Pod { interface: interface.clone(), netns: netns.clone() }
            }
            Attachment::Tun { interface, netns } => {
                Device::Tun { interface: interface.clone(), netns: netns.clone(), mtu: port.mtu }
            }
        };
        (port.name.clone(), device)
    });
    let uplinks =
        config.uplinks.iter().map(|name| (name.clone(), Device::Uplink { interface: name.clone() }));
    let host = (config.host_port.clone(), Device::Host { interface: config.host_port.clone() });
    pods.chain(uplinks).chain([host]).collect()
}

impl Ports {
    /// Opens the ports of `wanted` that are not open, and gives the names of those that now are. A port whose device
    /// changed is closed first. What fails is in [`Ports::failed`].
    pub fn open_missing(
        &mut self,
        wanted: &BTreeMap<PortName, Device>,
        devices: &mut dyn Devices,
        workers: &[Handle],
    ) -> Vec<PortName> {
        let mut opened = Vec::new();
        for (name, device) in wanted {
            match self.open.get(name) {
                Some(open) if open.device == *device => continue,
                Some(_) => self.close(name, workers),
                None => {}
            }
            match self.open_one(name, device, devices, workers) {
                Ok(open) => {
                    tracing::info!(port = %name, number = open.index.0, kind = open.kind, "port opened");
                    self.failed.remove(name);
                    self.open.insert(name.clone(), open);
                    opened.push(name.clone());
                }
                Err(reason) => {
                    if self.failed.get(name) != Some(&reason) {
                        tracing::warn!(port = %name, %reason, "port not opened; it is tried again");
                    }
                    self.failed.insert(name.clone(), reason);
                }
            }
        }
        opened
    }

    /// Closes the ports that are not in `wanted`, and forgets failures of others.
    pub fn close_extra(&mut self, wanted: &BTreeMap<PortName, Device>, workers: &[Handle]) {
        let extra: Vec<_> = self.open.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in extra {
            self.close(&name, workers);
        }
        self.failed.retain(|name, _| wanted.contains_key(name));
    }

    /// Closes the ports whose device is gone. Whether there were any.
    pub fn close_gone(&mut self, workers: &[Handle]) -> bool {
        let reports = reports(workers);
        let is_gone = |open: &OpenPort| {
            let own = |(_, report): &&(usize, PortReport)| report.port == open.index;
            reports.iter().filter(own).any(|(_, report)| report.state == PortState::Gone)
        };
        let gone: Vec<_> =
            self.open.iter().filter(|(_, open)| is_gone(open)).map(|(name, _)| name.clone()).collect();
        for name in &gone {
            tracing::warn!(port = %name, "its interface is gone; the port is closed");
            self.close(name, workers);
            self.failed.insert(name.clone(), "its interface is gone".to_owned());
        }
        !gone.is_empty()
    }

    /// Closes one port, if it is open. Its frames go back to the worker's pool.
    pub fn close(&mut self, name: &PortName, workers: &[Handle]) {
        let Some(open) = self.open.remove(name) else { return };
        for worker in open.workers(workers.len()).filter_map(|worker| workers.get(worker)) {
            match worker.ask(|reply| Command::RemovePort(open.index, reply), PATIENCE) {
                // Closed here: unmapping rings and closing sockets takes milliseconds.
                Ok(port) => drop(port),
                Err(error) => tracing::error!(port = %name, %error, "port not closed"),
            }
        }
        for worker in workers {
            worker.command(Command::TopUp, PATIENCE).ok();
        }
        Arc::make_mut(&mut self.left).insert(name.clone(), open.index);
        tracing::info!(port = %name, number = open.index.0, "port closed");
    }

    /// The ports as the compiler needs them. Uplinks whose interface the kernel has not described yet are left out.
    #[must_use]
    pub fn map(&self, desired: &DesiredState, facts: &Facts) -> PortMap {
        let host_mtu = desired.local.as_ref().map_or(HOST_MTU, |local| local.host_mtu);
        let entry = |(name, open): (&PortName, &OpenPort)| {
            let role = open.device.role();
            let (mac, mtu) = match &open.device {
                Device::Pod { .. } | Device::Tun { .. } => (Mac::default(), 0),
                Device::Host { .. } => (Mac::default(), host_mtu),
                Device::Uplink { interface } => {
                    let link = facts.links.get(interface.as_str())?;
                    (link.mac, u16::try_from(link.mtu).unwrap_or(u16::MAX))
                }
            };
            let finishes_checksums = open.capabilities.partial_checksum;
            let takes_large = open.capabilities.large;
            let facts = PortFacts { index: open.index, role, mac, mtu, finishes_checksums, takes_large };
            Some((name.clone(), facts))
        };
        self.open.iter().filter_map(entry).collect()
    }

    /// The number of the uplink on `interface`, when it is open.
    #[must_use]
    pub fn uplink(&self, interface: &str) -> Option<PortIndex> {
        let is_it = |open: &&OpenPort| matches!(&open.device, Device::Uplink { interface: name } if name.as_str() == interface);
        self.open.values().find(is_it).map(|open| open.index)
    }

    fn open_one(
        &mut self,
        name: &PortName,
        device: &Device,
        devices: &mut dyn Devices,
        workers: &[Handle],
    ) -> Result<OpenPort, String> {
        let own = self.left.get(name).copied();
        let index = own
            .or_else(|| self.free_number())
            .ok_or_else(|| format!("{PORTS_MAX} ports are open, which is the limit"))?;
        let parts = devices.open_parts(device, index, workers.len()).map_err(|error| error.to_string())?;
        let capabilities = parts.first().ok_or("there is no worker")?.capabilities();
        let open = OpenPort {
            index,
            worker: owner(index, workers.len()),
            parts: parts.len(),
            device: device.clone(),
            kind: devices.kind(device),
            capabilities,
            before: Arc::new(Counts::of(workers, index)),
        };
        let owners: Vec<usize> = open.workers(workers.len()).collect();
        for (given, (part, owner)) in parts.into_iter().zip(&owners).enumerate() {
            if let Err(reason) = give(part, &workers[*owner]) {
                for owner in &owners[..given] {
                    workers[*owner].ask(|reply| Command::RemovePort(index, reply), PATIENCE).ok();
                }
                return Err(reason);
            }
        }
        if own.is_none() {
            self.next = index.0.wrapping_add(1) % PORTS_MAX as u16;
        }
        if self.left.values().any(|left| *left == index) {
            Arc::make_mut(&mut self.left).retain(|_, left| *left != index);
        }
        Ok(open)
    }

    /// A number that no open port has: while there are any, one that no closed port may come back to.
    fn free_number(&self) -> Option<PortIndex> {
        let mut taken: BTreeSet<PortIndex> = self.open.values().map(|open| open.index).collect();
        let count = PORTS_MAX as u16;
        let free = |taken: &BTreeSet<PortIndex>| {
            (0..count)
                .map(|step| PortIndex((self.next + step) % count))
                .find(|number| !taken.contains(number))
        };
        let opened = taken.clone();
        taken.extend(self.left.values());
        free(&taken).or_else(|| free(&opened))
    }
}

/// Has a worker own a port, or a part of one.
fn give(port: Box<dyn Port>, worker: &Handle) -> Result<(), String> {
    let refused = worker.ask(|reply| Command::AddPort(port, reply), PATIENCE);
    match refused.map_err(|error| error.to_string())? {
        None => Ok(()),
        Some(_) => Err("the worker cannot wait for its packets".to_owned()),
    }
}

/// Reports that are asked for at once.
const REPORTS: usize = 64;

/// What all ports say of themselves, each with its worker's number. Workers that do not answer are left out.
#[must_use]
pub fn reports(workers: &[Handle]) -> Vec<(usize, PortReport)> {
    let mut all = Vec::new();
    for (number, worker) in workers.iter().enumerate() {
        let mut from = Some(PortIndex(0));
        while let Some(first) = from {
            let ask = |reply| Command::Ports(first, Vec::with_capacity(REPORTS), reply);
            let chunk = worker.ask(ask, PATIENCE).unwrap_or_default();
            from = chunk.next;
            all.extend(chunk.reports.into_iter().map(|report| (number, report)));
        }
    }
    all
}

/// Roles by the names the API has for them.
#[must_use]
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Pod => "pod",
        Role::Uplink => "uplink",
        Role::Host => "host",
        Role::None => "none",
    }
}
