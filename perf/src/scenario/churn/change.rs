//! What changes, and how each contender is told.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use vswitch::engine::Desire;
use vswitch_model::{Change as Step, Delta, DesiredState, Generation, Mac, NextHop};

use crate::net::{Namespace, Switch, Topology, Veth};
use crate::traffic::Contender;
use crate::workload::node::{Pod, port_name};
use crate::workload::{ALLOWED_PORTS, Family, Node, Rules, count, random_prefixes};
use crate::{Error, Result};

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// So many rules; with nftables, addresses of a set.
    Policy(usize),
    /// So many routes.
    Routes(usize),
    /// So many pods.
    Pods(usize),
}

impl Change {
    pub(super) const fn steps(self) -> [&'static str; 2] {
        match self {
            Self::Policy(_) => ["load", "swap"],
            Self::Routes(_) => ["load", "withdraw"],
            Self::Pods(_) => ["come", "go"],
        }
    }

    pub(super) const fn count(self) -> usize {
        match self {
            Self::Policy(count) | Self::Routes(count) | Self::Pods(count) => count,
        }
    }

    /// Changes that are asked for one by one.
    pub(super) const fn parts(self) -> usize {
        match self {
            Self::Pods(pods) => pods,
            Self::Policy(_) | Self::Routes(_) => 1,
        }
    }

    pub(super) fn case(self, step: &str) -> String {
        let number = count(self.count() as u64);
        match self {
            Self::Policy(_) => format!("policy/rules-{number}/{step}"),
            Self::Routes(_) => format!("routes/routes-{number}/{step}"),
            Self::Pods(_) => format!("pods/pods-{number}/{step}"),
        }
    }
}

/// What is in force, and what changes next.
pub(super) struct State {
    contender: Contender,
    change: Change,
    node: Node,
    desired: DesiredState,
    topology: Option<Topology>,
    /// Where the ends of pods that come are: they go with it.
    ends: Option<Namespace>,
}

/// A change that only has to be sent.
pub(super) enum Prepared {
    /// To the switch, as the agent does it: deltas, one after another.
    Deltas(Vec<Vec<Step>>),
    /// To the kernel: a command with its input.
    Command(Namespace, &'static [&'static str], String),
}

impl State {
    /// Two pods, `pod-0` and `pod-1`, and a hundred rules.
    pub(super) fn new(contender: Contender, change: Change) -> Self {
        let mut node = Node::in_memory(2, 1);
        (node.uplink, node.rules) = (None, Rules(100));
        Self { contender, change, desired: node.desired(), node, topology: None, ends: None }
    }

    pub(super) fn desired(&self) -> &DesiredState {
        &self.desired
    }

    /// The same on devices. Those of pods that will come are made now.
    pub(super) fn on(mut self, topology: &Topology) -> Result<Self> {
        self.topology = Some(topology.clone());
        if let Change::Pods(pods) = self.change {
            let ends = self.ends.insert(Namespace::new()?);
            for number in 0..pods {
                let pod = newcomer(number);
                let end = format!("new{number}");
                let near = (&topology.switch, pod.port.as_str(), Mac::GATEWAY);
                Veth { near, far: (ends, &end, pod.mac), mtu: self.node.pod_mtu, queues: 1 }.make()?;
            }
        }
        Ok(self)
    }

    /// Works out what is to be sent for `step`, one of [`Change::steps`], before any clock runs.
    pub(super) fn prepare(&mut self, step: &str) -> Result<Prepared> {
        match (self.contender, self.change) {
            (Contender::Ours, Change::Pods(pods)) => Ok(self.pods(pods, step == "come")),
            (Contender::Ours, change) => {
                let mut next = self.node.desired();
                match change {
                    Change::Policy(rules) => {
                        self.node.rules = Rules(rules);
                        next = self.node.desired();
                        if step == "swap" {
                            replace_rules(&mut next);
                        }
                    }
                    Change::Routes(routes) if step == "load" => add_routes(&mut next, &self.node, routes),
                    Change::Routes(_) | Change::Pods(_) => {}
                }
                let delta = self.desired.changes_to(&next);
                self.desired = next;
                Ok(Prepared::Deltas(vec![delta]))
            }
            (_, Change::Policy(rules)) => self.command(&["nft", "-f", "-"], nft(rules, step == "swap")),
            (_, change) => {
                let verb = if step == "load" { "replace" } else { "del" };
                let mut lines = String::new();
                for (at, prefix) in random_prefixes(Family::V4, change.count()).iter().enumerate() {
                    let _ = writeln!(lines, "route {verb} {prefix} dev pod-{}", at % 2);
                }
                self.command(&["ip", "-batch", "-"], lines)
            }
        }
    }

    fn command(&self, words: &'static [&'static str], input: String) -> Result<Prepared> {
        let topology = self.topology.as_ref();
        let topology = topology.ok_or_else(|| Error::setup("change the kernel", "there are no devices"))?;
        Ok(Prepared::Command(topology.switch.clone(), words, input))
    }

    /// A delta for each pod that comes or goes.
    fn pods(&mut self, pods: usize, come: bool) -> Prepared {
        let mut deltas = Vec::with_capacity(pods);
        for number in 0..pods {
            if come {
                self.node.pods.push(newcomer(number));
            } else {
                self.node.pods.pop();
            }
            let next = self.node.desired();
            deltas.push(self.desired.changes_to(&next));
            self.desired = next;
        }
        Prepared::Deltas(deltas)
    }
}

/// A pod that comes later.
fn newcomer(number: usize) -> Pod {
    let [high, low] = (number as u16).to_be_bytes();
    Pod {
        port: port_name(&format!("new-{number}")),
        netns: None,
        mac: Mac([0x0a, 0x58, 10, 7, high, low]),
        v4: Ipv4Addr::new(10, 7, high, low),
        v6: std::net::Ipv6Addr::new(0xfd10, 0, 0, 7, 0, 0, 0, number as u16),
    }
}

/// Makes another rule of each but those that allow the traffic: it speaks of the next port.
fn replace_rules(desired: &mut DesiredState) {
    let rules = desired.policies.values_mut().flat_map(|policy| &mut policy.rules);
    for ports in rules.flat_map(|rule| &mut rule.ports) {
        if ports.first != *ALLOWED_PORTS.start() {
            (ports.first, ports.last) = (ports.first + 1, ports.last + 1);
        }
    }
}

/// Random routes to the two pods in turn.
fn add_routes(desired: &mut DesiredState, node: &Node, routes: usize) {
    for (at, prefix) in random_prefixes(Family::V4, routes).into_iter().enumerate() {
        desired.routes.insert(prefix, NextHop::Port(node.pods[at % 2].port.clone()));
    }
}

/// Replaces the set by which nftables decides (see `traffic::contender`), in one transaction: the two pods and others.
fn nft(addresses: usize, swap: bool) -> String {
    let first = if swap { 0x0a80_0000_u32 } else { 0x0a40_0000 };
    let mut text = String::from("flush set ip perf known\nadd element ip perf known { 10.0.1.10, 10.0.1.11");
    for number in 0..addresses.saturating_sub(2) as u32 {
        let _ = write!(text, ", {}", Ipv4Addr::from(first + number));
    }
    text.push_str(" }\n");
    text
}

impl Prepared {
    /// Sends it, and waits until it is acknowledged: the time that took.
    pub(super) fn bring_into_force(self, switch: Option<&Switch>) -> Result<Duration> {
        match (self, switch) {
            (Self::Deltas(deltas), Some(switch)) => {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let runtime = runtime.map_err(|error| Error::setup("ask the engine", error))?;
                let start = Instant::now();
                for changes in deltas {
                    let base = switch.engine().shared().snapshot.load().generation;
                    let desire = Desire::Delta(Delta { base, changes });
                    let applied =
                        runtime.block_on(switch.engine().applier().apply(Generation(base.0 + 1), desire));
                    let applied =
                        applied.map_err(|error| Error::setup("bring a change into force", error))?;
                    if let Some((port, reason)) = applied.failed_ports.first_key_value() {
                        return Err(Error::setup(format!("open port {port}"), reason));
                    }
                }
                Ok(start.elapsed())
            }
            (Self::Command(namespace, words, input), _) => {
                let start = Instant::now();
                namespace.with_input(words, &input)?;
                Ok(start.elapsed())
            }
            (Self::Deltas(_), None) => Err(Error::setup("bring a change into force", "there is no switch")),
        }
    }
}
