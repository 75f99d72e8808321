//! What other threads ask of a worker. Memory for answers comes with the question.

use crossbeam::channel::Sender;
use vswitch_datapath::flow::{Flow, FlowIndex};
use vswitch_datapath::{Now, PortIndex, TraceSpec};

use super::Worker;
use super::turn::clear;
use crate::io::{Port, PortState, PortStatistics};

/// Flow records looked at for one [`Command::Flows`]: what a turn can spare.
const FLOWS_LOOKED_AT: u32 = 1024;

/// Ports asked for one [`Command::Ports`]: each makes two system calls.
const PORTS_LOOKED_AT: usize = 16;

/// A command. Its sender waits for the reply, where there is one, on a channel of its own.
pub enum Command {
    /// Own this port from now on; gives it back when it cannot be waited for.
    AddPort(Box<dyn Port>, Sender<Option<Box<dyn Port>>>),
    /// Give this port back, to be closed elsewhere. None: it has none of this number.
    RemovePort(PortIndex, Sender<Option<Box<dyn Port>>>),
    /// Take up frames that closed ports left.
    TopUp,
    /// Start a trace, or end the one that runs.
    Trace(Option<TraceSpec>),
    /// Append flows to the chunk, and move it on.
    Flows(FlowChunk, Sender<FlowChunk>),
    /// Append reports of the next ports from this number on, as many as a turn can spare, within the capacity.
    Ports(PortIndex, Vec<PortReport>, Sender<PortChunk>),
    /// Hand nothing over to other workers any more: they are about to end. Needs an answer of each before the first is
    /// stopped.
    Retire(Sender<()>),
    /// End, and give everything back.
    Stop(Sender<Stopped>),
}

/// Some of a worker's flows.
#[derive(Debug, Default)]
pub struct FlowChunk {
    /// The records, up to the vector's capacity.
    pub flows: Vec<Flow>,
    /// The first record that was not looked at yet. None: all were.
    pub next: Option<u32>,
    /// When they were looked at, by the worker's clock.
    pub now: Now,
}

impl FlowChunk {
    /// An empty chunk that starts at the record `from`.
    #[must_use]
    pub fn starting_at(from: u32) -> Self {
        Self { flows: Vec::with_capacity(FLOWS_LOOKED_AT as usize), next: Some(from), now: Now(0) }
    }
}

/// What some of a worker's ports say of themselves.
#[derive(Debug, Default)]
pub struct PortChunk {
    /// Of each port asked.
    pub reports: Vec<PortReport>,
    /// The first number that was not asked. None: all were.
    pub next: Option<PortIndex>,
}

/// What a port says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortReport {
    /// Which port.
    pub port: PortIndex,
    /// Its counters.
    pub statistics: PortStatistics,
    /// Whether its device works.
    pub state: PortState,
}

/// What a worker had when it ended. Its free frames are back in the UMEM.
pub struct Stopped {
    /// Its ports, to be closed: until then their rings hold frames.
    pub ports: Vec<Box<dyn Port>>,
}

impl Worker {
    /// Does what other threads asked for. What it gives is whom to tell when it ends.
    pub(super) fn obey(&mut self) -> Option<Sender<Stopped>> {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::AddPort(port, reply) => {
                    let refused = match self.rest.watch(port.as_ref()) {
                        Ok(()) => self.ports.add(port),
                        Err(_) => Some(port),
                    };
                    // A sender that has given up waiting needs no answer; so below.
                    reply.send(refused).ok();
                }
                Command::RemovePort(index, reply) => {
                    let mut removed = self.ports.remove(index);
                    self.drop_answers(index);
                    if let Some(port) = &mut removed {
                        self.rest.forget(port.as_ref());
                        clear(port.as_mut(), &mut self.pool, &mut self.batch, &self.counters);
                    }
                    reply.send(removed).ok();
                }
                Command::TopUp => self.pool.top_up(),
                Command::Trace(spec) => self.walk.set_trace(spec),
                Command::Flows(chunk, reply) => drop(reply.send(self.append_flows(chunk))),
                Command::Ports(from, mut reports, reply) => {
                    let next = self.ports.report(from, &mut reports, PORTS_LOOKED_AT);
                    reply.send(PortChunk { reports, next }).ok();
                }
                Command::Retire(reply) => {
                    if let Some(peers) = &mut self.peers {
                        peers.retire();
                    }
                    reply.send(()).ok();
                }
                Command::Stop(reply) => return Some(reply),
            }
        }
        None
    }

    fn append_flows(&self, mut chunk: FlowChunk) -> FlowChunk {
        let table = self.walk.flow_table();
        chunk.now = self.now();
        let Some(first) = chunk.next else { return chunk };
        let end = table.capacity() as u32;
        let last = end.min(first.saturating_add(FLOWS_LOOKED_AT));
        for number in first..last {
            if chunk.flows.len() == chunk.flows.capacity() {
                chunk.next = Some(number);
                return chunk;
            }
            chunk.flows.extend(table.get(FlowIndex(number)));
        }
        chunk.next = (last < end).then_some(last);
        chunk
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AddPort(..) => "AddPort",
            Self::RemovePort(..) => "RemovePort",
            Self::TopUp => "TopUp",
            Self::Trace(_) => "Trace",
            Self::Flows(..) => "Flows",
            Self::Ports(..) => "Ports",
            Self::Retire(_) => "Retire",
            Self::Stop(_) => "Stop",
        })
    }
}

impl std::fmt::Debug for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopped").field("ports", &self.ports.len()).finish()
    }
}
