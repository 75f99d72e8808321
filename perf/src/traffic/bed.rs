//! A node with pods, and who forwards between them: the switch, or one of the kernel's ways.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vswitch_model::{DesiredState, Mac};

use super::contender::{conntrack, kernel};
use super::forwarding::{self, Forwarding};
use super::frame::Ends;
use super::{Contender, Cores, Received, Receiver, Schedule, Sender, Sent, Source, Stream};
use crate::machine::Watch;
use crate::net::topology::Layout;
use crate::net::{Switch, SwitchOptions, Topology, link};
use crate::session::Session;
use crate::{Error, Result};

/// The pod that relays, and between whom. All by their place in [`Topology::pods`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relay {
    /// The relay.
    pub pod: usize,
    /// One end.
    pub one: usize,
    /// The other.
    pub other: usize,
}

/// Pods whose packets one contender forwards, with a receiver in each.
#[derive(Debug)]
pub struct Bed {
    // Dropped first: the engine ends before its devices do.
    switch: Option<Switch>,
    receiver: Receiver,
    topology: Topology,
    relay: Option<Relay>,
    cores: Cores,
    /// The threads that forward; none: the sender's does.
    threads: Vec<String>,
}

/// What one run came to.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What was sent.
    pub sent: Sent,
    /// What arrived.
    pub received: Received,
    /// What did not, by where it ended.
    pub lost: BTreeMap<String, u64>,
    /// Why it must not be used for what became of the sender; None: it may.
    pub sender_void: Option<String>,
    /// Why it must not be used for what became of the threads that forward; None: it may.
    pub forwarder_void: Option<String>,
    /// What the machine took from the sender or from those that forward, in percent.
    pub taken_percent: f64,
}

impl Trial {
    /// Why it must not be used; None: it may.
    #[must_use]
    pub fn void(&self) -> Option<&String> {
        self.sender_void.as_ref().or(self.forwarder_void.as_ref())
    }

    /// The delay, in microseconds, that this part of the packets sent (0 to 1) stayed within; infinite when more than the
    /// rest was lost.
    #[must_use]
    pub fn delay_us(&self, part: f64) -> f64 {
        let within = self.received.delay_ns(part, self.sent.packets);
        within.map_or(f64::INFINITY, |ns| ns as f64 / 1e3)
    }

    /// The longest delay of a packet that arrived, in microseconds.
    #[must_use]
    pub fn longest_us(&self) -> f64 {
        self.received.longest_ns() as f64 / 1e3
    }

    /// How late the sender handed this part of the packets over at most, in microseconds.
    #[must_use]
    pub fn late_us(&self, part: f64) -> f64 {
        self.sent.lateness.value_at_quantile(part) as f64 / 1e3
    }

    /// Packets that were lost, wherever.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }
}

/// What all counters of the bed say at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Books {
    drops: BTreeMap<String, u64>,
}

/// How long packets may be under way after the last was sent.
const DRAIN: Duration = Duration::from_millis(500);
/// The device ends whose counters are read, with what a loss there means.
const POD_TX: &str = "full-ring-of-host-end";
const HOST_RX: &str = "host-end-receive";
const HOST_TX: &str = "full-ring-of-pod";
const POD_RX: &str = "pod-receive";
/// What no device counts.
const ELSEWHERE: &str = "elsewhere-in-the-kernel";

impl Bed {
    /// Builds the pods of `desired` and lets `contender` forward between them. A desired state without an uplink.
    ///
    /// # Errors
    ///
    /// What could not be set up.
    pub fn build(
        contender: Contender,
        desired: &DesiredState,
        relay: Option<Relay>,
        cores: Cores,
    ) -> Result<Self> {
        let topology = Topology::build(desired, Layout::default())?;
        let mut receiver = Receiver::load()?;
        for (number, pod) in topology.pods.iter().enumerate() {
            let attach = || match relay {
                Some(relay) if relay.pod == number => {
                    let address = |pod: usize| topology.pods[pod].ipv4();
                    receiver.attach_relay(&pod.interface, address(relay.one)?, address(relay.other)?)
                }
                _ => receiver.attach(&pod.interface),
            };
            pod.namespace.enter(attach)??;
        }
        if let Some(relay) = relay.filter(|_| contender != Contender::Ours) {
            let host = &topology.pods[relay.pod].host;
            topology.switch.enter(|| receiver.attach_pass(host))??;
        }
        let (switch, threads) = match contender {
            Contender::Ours => {
                let switch = switch(&topology, desired, cores)?;
                (Some(switch), crate::peer::thread("self", "worker-").into_iter().collect())
            }
            Contender::Kernel | Contender::KernelCut => (None, kernel(&topology, desired, None, "")?),
            Contender::KernelThreaded => (None, kernel(&topology, desired, Some(cores.forwarder), "")?),
            Contender::KernelConntrack => (None, kernel(&topology, desired, None, &conntrack(&topology)?)?),
        };
        Ok(Self { switch, receiver, topology, relay, cores, threads })
    }

    /// Pods whose packets nobody forwards: each is received at the host end. What the sender is able to send.
    ///
    /// # Errors
    ///
    /// What could not be set up.
    pub fn bare(desired: &DesiredState, cores: Cores) -> Result<Self> {
        let topology = Topology::build(desired, Layout::default())?;
        let mut receiver = Receiver::load()?;
        for pod in &topology.pods {
            topology.switch.enter(|| receiver.attach(&pod.host))??;
        }
        Ok(Self { switch: None, receiver, topology, relay: None, cores, threads: Vec::new() })
    }

    /// The place of the pod whose host end has this name.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`].
    pub fn place(&self, host: &str) -> Result<usize> {
        let found = self.topology.pods.iter().position(|pod| pod.host == host);
        found.ok_or_else(|| Error::Unknown(format!("no pod {host} in this topology")))
    }

    /// A source of packets from one pod to another.
    ///
    /// # Errors
    ///
    /// What could not be set up.
    pub fn source(&self, from: usize, to: usize, payload: usize) -> Result<Source> {
        let (from, to) = (&self.topology.pods[from], &self.topology.pods[to]);
        let ends = Ends { macs: (from.mac.0, Mac::GATEWAY.0), addresses: (from.ipv4()?, to.ipv4()?) };
        from.namespace.enter(|| Source::open(&from.interface, ends, payload))?
    }

    /// The switch, when it is what forwards.
    pub fn switch(&mut self) -> Option<&mut Switch> {
        self.switch.as_mut()
    }

    /// The devices.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Sends on a thread of its own on the sender's core while `meanwhile` runs here, waits until nothing is under way, and
    /// accounts for every packet. `meanwhile` is given the flag that ends the sending.
    ///
    /// # Errors
    ///
    /// [`Error::Miscounted`] when, with the switch, packets are neither received nor counted as dropped by anybody; and
    /// what `meanwhile` says.
    pub fn run<T>(
        &mut self,
        sender: &mut Sender,
        (schedule, streams): (&Schedule, &[Stream]),
        packets: u64,
        meanwhile: impl FnOnce(&mut Option<Switch>, &AtomicBool) -> Result<T>,
    ) -> Result<(Trial, T)> {
        self.receiver.reset(schedule.streams())?;
        let before = self.books()?;
        let (core, stop) = (self.cores.sender, AtomicBool::new(false));
        let (switch, threads) = (&mut self.switch, &self.threads);
        let (sent, watched, done) = std::thread::scope(|scope| {
            let body = || {
                if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
                    return Err(Error::setup(format!("send from core {core}"), "it cannot be had"));
                }
                let (watch, forwarding) = (Watch::start(), Forwarding::start(threads));
                let sent = sender.run(schedule, streams, packets, &stop)?;
                Ok((sent, (watch.void(), watch.taken_percent(), forwarding.taken_percent())))
            };
            let thread = scope.spawn(body);
            let done = meanwhile(switch, &stop);
            if done.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            let sent = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sent.map(|(sent, watched)| (sent, watched, done))
        })?;
        let done = done?;
        let (received, lost) = self.settle(&sent, schedule.streams(), &before)?;
        let (sender_void, of_sender, of_forwarder) = watched;
        let (forwarder_void, taken_percent) = (forwarding::void(of_forwarder), of_sender.max(of_forwarder));
        Ok((Trial { sent, received, lost, sender_void, forwarder_void, taken_percent }, done))
    }

    /// Waits until every packet is accounted for, or nothing changes any more.
    fn settle(
        &mut self,
        sent: &Sent,
        streams: u32,
        before: &Books,
    ) -> Result<(Received, BTreeMap<String, u64>)> {
        let start = Instant::now();
        loop {
            let received = self.receiver.read(streams)?;
            let mut lost = self.books()?.since(before);
            if sent.refused() > 0 {
                *lost.entry(POD_TX.to_owned()).or_default() += sent.refused();
            }
            let known = received.packets() + lost.values().sum::<u64>();
            if known == sent.packets {
                return Ok((received, lost));
            }
            if start.elapsed() > DRAIN {
                let missing = sent.packets.saturating_sub(known);
                if self.switch.is_none() && known <= sent.packets {
                    lost.insert(ELSEWHERE.to_owned(), missing);
                    return Ok((received, lost));
                }
                return Err(Error::Miscounted(format!(
                    "{} packets were sent, {} received, and the losses are {lost:?}: {known} in all",
                    sent.packets,
                    received.packets()
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// All counters of losses.
    fn books(&self) -> Result<Books> {
        let mut drops: BTreeMap<String, u64> = BTreeMap::new();
        let mut add = |key: &str, count: u64| *drops.entry(key.to_owned()).or_default() += count;
        for (number, pod) in self.topology.pods.iter().enumerate() {
            let host = link::counts(&self.topology.switch, &pod.host)?;
            let end = link::counts(&pod.namespace, &pod.interface)?;
            // What the relay sends back and the host end does not take is counted at both (veth_get_stats64,
            // drivers/net/veth.c). What a sender sends and it does not take, the sender is told and counts.
            let relayed =
                if self.relay.is_some_and(|relay| relay.pod == number) { end.tx_dropped } else { 0 };
            add(POD_TX, relayed);
            add(HOST_RX, host.rx_dropped.saturating_sub(relayed));
            add(HOST_TX, host.tx_dropped);
            add(POD_RX, end.rx_dropped);
        }
        for (reason, count) in self.switch.iter().flat_map(|switch| switch.counts().drops) {
            add(reason, count);
        }
        Ok(Books { drops })
    }
}

impl Books {
    fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let less = |(key, count): (&String, &u64)| {
            (key.clone(), count.saturating_sub(before.drops.get(key).copied().unwrap_or(0)))
        };
        self.drops.iter().map(less).filter(|(_, count)| *count > 0).collect()
    }
}

/// Waits while a sender sends for about `time`, and stops it when the session is interrupted.
///
/// # Errors
///
/// [`Error::Interrupted`].
pub fn wait(session: &Session, time: Duration, stop: &AtomicBool) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        if let Err(interrupted) = session.check() {
            stop.store(true, Ordering::Relaxed);
            return Err(interrupted);
        }
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
    Ok(())
}

fn switch(topology: &Topology, desired: &DesiredState, cores: Cores) -> Result<Switch> {
    let options = SwitchOptions { core: Some(cores.forwarder), ..SwitchOptions::default() };
    Switch::start(topology, desired, options)
}
