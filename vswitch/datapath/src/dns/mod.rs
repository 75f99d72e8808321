//! DNS answers that pods receive, copied for whoever learns from them which addresses a name has.
//!
//! An answer is told when it was sent on to a pod of this node, over UDP, from port 53, within a flow that the pod itself
//! has opened and policy allows. Nothing of it is read here: a copy goes through a bounded queue, and how many did not is
//! counted. While nobody asks, nothing is copied.

mod answer;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use vswitch_model::limits::MTU_MAX;

pub use answer::{NamedAddress, Unreadable, named_addresses};

use crate::counters::Counter;
use crate::parse::{Parsed, Piece, protocol};
use crate::stage::{Context, Fate, Scratch};
use crate::{Buffer, Now, Packet};

/// Where servers of names answer from.
pub const PORT: u16 = 53;
/// Answers that wait to be read, of each worker.
pub const WAITING: usize = 256;
/// Longest answer that is told, in bytes: what comes in one packet, after the headers of IPv4 and UDP. A longer one has
/// come in fragments, or over TCP; servers do without by the advice of 1232 bytes (DNS flag day 2020).
pub const LENGTH_MAX: usize = MTU_MAX as usize - 20 - UDP_HEADER;

const UDP_HEADER: usize = 8;

/// One answer.
#[derive(Clone)]
pub struct DnsAnswer {
    /// When its batch was handled.
    pub time: Now,
    /// Who sent it.
    pub server: IpAddr,
    /// The pod it was sent on to.
    pub pod: IpAddr,
    length: usize,
    bytes: [u8; LENGTH_MAX],
}

impl DnsAnswer {
    /// The DNS message.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Debug for DnsAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, pod, length, .. } = self;
        write!(f, "{length} bytes from {server} to {pod}")
    }
}

/// What a worker tells, as others see it.
#[derive(Debug)]
pub struct DnsQueue {
    answers: ArrayQueue<DnsAnswer>,
    wanted: AtomicBool,
    /// Answers that were told.
    pub told: Counter,
    /// Answers that were not, since nobody had read those before.
    pub lost: Counter,
    /// Answers that were not, since they are longer than [`LENGTH_MAX`] or came in fragments.
    pub too_long: Counter,
}

impl Default for DnsQueue {
    fn default() -> Self {
        Self {
            answers: ArrayQueue::new(WAITING),
            wanted: AtomicBool::new(false),
            told: Counter::default(),
            lost: Counter::default(),
            too_long: Counter::default(),
        }
    }
}

impl DnsQueue {
    /// Takes the oldest answer that waits.
    #[must_use]
    pub fn take(&self) -> Option<DnsAnswer> {
        self.answers.pop()
    }

    /// Says whether somebody wants to know.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether somebody wants to know.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn tell(&self, now: Now, parsed: &Parsed, frame: &[u8]) {
        let begin = usize::from(parsed.transport) + UDP_HEADER;
        let message = frame.get(begin..usize::from(parsed.end)).filter(|_| parsed.piece == Piece::Whole);
        let mut bytes = [0; LENGTH_MAX];
        let copied = message.and_then(|message| Some((bytes.get_mut(..message.len())?, message)));
        let Some((place, message)) = copied else { return self.too_long.add(1) };
        place.copy_from_slice(message);
        let length = message.len();
        let answer = DnsAnswer { time: now, server: parsed.source, pod: parsed.destination, length, bytes };
        match self.answers.push(answer) {
            Ok(()) => self.told.add(1),
            Err(_) => self.lost.add(1),
        }
    }
}

/// Tells of the answers among a batch that was forwarded: those that did leave, and to a pod.
#[cold]
pub(crate) fn tell<B: Buffer>(context: &Context<'_>, scratch: &Scratch, packets: &[Packet<B>]) {
    let queue = &context.counters.dns;
    if !queue.is_wanted() {
        return;
    }
    for index in scratch.answers.iter() {
        let parsed = &scratch.parsed[index];
        let to_pod = context.tables.adjacency(scratch.adjacency[index]).is_pod();
        let is_answer = parsed.protocol == protocol::UDP && scratch.fate[index] == Fate::Sent && to_pod;
        if let Some(packet) = packets.get(index).filter(|_| is_answer) {
            queue.tell(context.now, parsed, packet.buffer.bytes());
        }
    }
}
