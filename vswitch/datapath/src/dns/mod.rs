//! DNS answers that pods receive, copied for whoever learns from them which addresses a name has.
//!
//! An answer is told when it was sent on to a pod of this node, over UDP, from port 53, within a flow that the pod itself
//! has opened and policy allows. Nothing of it is read here: a copy goes through a bounded queue, and how many did not is
//! counted. While nobody asks, nothing is copied.
//!
//! Whoever asks may have answers held until it has seen to what they say: the walk then gives such a packet to the worker
//! apart ([`crate::Output::held`]) with a number, by which the reader [releases](DnsQueue::release) it.

mod answer;
mod pods;
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
use crate::{Buffer, Now, Output, Packet};
use pods::PodFilter;

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
    /// By which the packet it came in is released; 0: it went on at once.
    pub held: u64,
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
    /// Numbers of held answers that may go on.
    released: ArrayQueue<u64>,
    wanted: AtomicBool,
    holds: AtomicBool,
    /// The reader waits to be woken.
    sleeps: AtomicBool,
    pods: PodFilter,
    /// Answers that were told.
    pub told: Counter,
    /// Answers that were not, since nobody had read those before.
    pub lost: Counter,
    /// Answers that were not, since they are longer than [`LENGTH_MAX`] or came in fragments.
    pub too_long: Counter,
    /// Answers that went on unreleased: they had been held for the longest time, or too many were held.
    pub unreleased: Counter,
}

impl Default for DnsQueue {
    fn default() -> Self {
        Self {
            answers: ArrayQueue::new(WAITING),
            released: ArrayQueue::new(2 * WAITING),
            wanted: AtomicBool::new(false),
            holds: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
            pods: PodFilter::default(),
            told: Counter::default(),
            lost: Counter::default(),
            too_long: Counter::default(),
            unreleased: Counter::default(),
        }
    }
}

impl DnsQueue {
    /// Takes the oldest answer that waits.
    #[must_use]
    pub fn take(&self) -> Option<DnsAnswer> {
        self.answers.pop()
    }

    /// For the reader: says that it waits to be woken. False: it shall not wait, there is an answer.
    #[must_use]
    pub fn sleep(&self) -> bool {
        self.sleeps.swap(true, Ordering::SeqCst);
        self.answers.is_empty() || !self.sleeps.swap(false, Ordering::SeqCst)
    }

    /// For the worker, after it told: whether the reader is to be woken. True once for each time it waits.
    #[must_use]
    pub fn wakes(&self) -> bool {
        self.sleeps.swap(false, Ordering::SeqCst)
    }

    /// Says that somebody wants to know what these pods are told; what some others are told may come as well. `pods` is
    /// empty: what any is told. `holds`: each answer that is told waits to be released.
    pub fn want(&self, pods: &[IpAddr], holds: bool) {
        self.pods.set(pods);
        self.holds.store(holds, Ordering::Relaxed);
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Says that nobody wants to know.
    pub fn want_nothing(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Lets a held answer go on.
    pub fn release(&self, held: u64) {
        // No room: it goes on when it has been held for the longest time, and is counted then.
        self.released.push(held).ok();
    }

    /// For the worker: an answer that may go on.
    #[must_use]
    pub fn take_released(&self) -> Option<u64> {
        self.released.pop()
    }

    /// Whether somebody wants to know.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// The number by which the packet is to be held. None: it goes on.
    fn tell<B: Buffer>(&self, now: Now, parsed: &Parsed, packet: &Packet<B>) -> Option<u64> {
        let begin = usize::from(parsed.transport) + UDP_HEADER;
        // A large packet is of several messages, and its frame is not to be kept.
        let is_one = parsed.piece == Piece::Whole && packet.offload.segment.is_none();
        let message = packet.buffer.bytes().get(begin..usize::from(parsed.end)).filter(|_| is_one);
        let mut bytes = [0; LENGTH_MAX];
        let copied = message.and_then(|message| Some((bytes.get_mut(..message.len())?, message)));
        let Some((place, message)) = copied else {
            self.too_long.add(1);
            return None;
        };
        place.copy_from_slice(message);
        let length = message.len();
        let held = if self.holds.load(Ordering::Relaxed) { self.told.get() + 1 } else { 0 };
        let (server, pod) = (parsed.source, parsed.destination);
        if self.answers.push(DnsAnswer { time: now, server, pod, held, length, bytes }).is_err() {
            self.lost.add(1);
            return None;
        }
        self.told.add(1);
        Some(held).filter(|held| *held != 0)
    }
}

/// Tells of the answers among a batch that was forwarded: those that are to leave, and to a pod.
#[cold]
pub(crate) fn tell<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &[Packet<B>],
    out: &mut Output<B>,
) {
    let queue = &context.counters.dns;
    if !queue.is_wanted() {
        return;
    }
    for index in scratch.answers.iter() {
        let parsed = &scratch.parsed[index];
        let to_pod = context.tables.adjacency(scratch.adjacency[index]).is_pod();
        let is_answer = parsed.protocol == protocol::UDP && scratch.fates.of(index) == Fate::Sent && to_pod;
        if let Some(packet) = packets.get(index).filter(|_| is_answer && queue.pods.has(parsed.destination)) {
            if let Some(number) = queue.tell(context.now, parsed, packet) {
                scratch.fates.set(index, Fate::Held);
                scratch.held[index] = number;
            }
            out.told = true;
        }
    }
}
