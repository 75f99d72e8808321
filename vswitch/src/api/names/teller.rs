//! Reads answers and tells of them; and knows which packets wait for what was told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tonic::Status;
use vswitch_datapath::dns::{NamedAddress, WAITING, named_addresses};
use vswitch_datapath::{DnsAnswer, DnsQueue};
use vswitch_model::api::engine as pb;

use super::NameQuery;
use crate::engine::Shared;

/// Told answers whose packets may still be held; of more the oldest have waited for as long as any may.
const HOLDING_MAX: usize = 1024;

/// Held packets whose answers were told, the oldest first.
pub(super) struct Holding<'a> {
    shared: &'a Shared,
    packets: VecDeque<Told>,
}

struct Told {
    /// Of the answer.
    number: u64,
    worker: usize,
    held: u64,
}

impl<'a> Holding<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, packets: VecDeque::with_capacity(HOLDING_MAX) }
    }

    fn add(&mut self, told: Told) {
        if self.packets.len() == HOLDING_MAX {
            self.packets.pop_front();
        }
        self.packets.push_back(told);
    }

    /// Lets those go on whose answers were told up to this number.
    pub(super) fn release(&mut self, through: u64) {
        while let Some(told) = self.packets.pop_front_if(|told| told.number <= through) {
            release(self.shared, told.worker, told.held);
        }
    }

    /// Nobody watches any more: everything goes on, be it read or not.
    pub(super) fn end(&mut self) {
        self.release(u64::MAX);
        for (number, worker) in self.shared.workers.iter().enumerate() {
            while let Some(answer) = worker.counters.dns.take() {
                release(self.shared, number, answer.held);
            }
        }
    }
}

fn release(shared: &Shared, worker: usize, held: u64) {
    if held != 0
        && let Some(worker) = shared.workers.get(worker)
    {
        worker.release_answer(held);
    }
}

/// The sum over all workers of something they count.
fn sum(shared: &Shared, count: impl Fn(&DnsQueue) -> u64) -> u64 {
    shared.workers.iter().map(|worker| count(&worker.counters.dns)).sum()
}

/// Answers of which nothing is known.
fn lost(shared: &Shared) -> u64 {
    sum(shared, |dns| dns.lost.get() + dns.too_long.get())
}

fn unreleased(shared: &Shared) -> u64 {
    sum(shared, |dns| dns.unreleased.get())
}

/// What nobody was told yet. It goes to who watches next, too.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Answers that were lost here.
    lost: u64,
    /// Answers that could not be read.
    unreadable: u64,
    /// What the workers had lost, and let go on unreleased, when it was told last.
    lost_before: u64,
    unreleased_before: u64,
}

pub(super) struct Teller<'a> {
    shared: &'a Shared,
    query: NameQuery,
    answers: mpsc::Sender<Result<pb::NameAnswer, Status>>,
    /// The number of the answer that was told last, by whomever.
    told: &'a AtomicU64,
    untold: &'a mut Untold,
}

impl<'a> Teller<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        query: NameQuery,
        answers: mpsc::Sender<Result<pb::NameAnswer, Status>>,
        told: &'a AtomicU64,
        untold: &'a mut Untold,
    ) -> Self {
        Self { shared, query, answers, told, untold }
    }

    /// Reads what the workers have told, a queue of each at most. Whether they ring from now on when there is more.
    pub(super) fn turn(&mut self, holding: &mut Holding<'_>) -> bool {
        for (number, worker) in self.shared.workers.iter().enumerate() {
            for _ in 0..WAITING {
                let Some(answer) = worker.counters.dns.take() else { break };
                match self.tell(&answer) {
                    Some(told) => holding.add(Told { number: told, worker: number, held: answer.held }),
                    None => release(self.shared, number, answer.held),
                }
            }
        }
        self.shared.workers.iter().all(|worker| worker.counters.dns.sleep())
    }

    /// The number by which it was told; None: nobody is told.
    fn tell(&mut self, answer: &DnsAnswer) -> Option<u64> {
        if !self.query.is_of(answer) {
            return None;
        }
        let addresses = match named_addresses(answer.message(), |name| self.query.wants(name)) {
            Ok(addresses) => addresses,
            Err(error) => {
                tracing::debug!(?answer, %error, "an answer of DNS cannot be read");
                self.untold.unreadable += 1;
                return None;
            }
        };
        if addresses.is_empty() {
            return None;
        }
        let (lost, unreleased) = (lost(self.shared), unreleased(self.shared));
        let number = self.told.load(Ordering::Relaxed) + 1;
        let message = pb::NameAnswer {
            server: answer.server.to_string(),
            pod: answer.pod.to_string(),
            addresses: addresses.into_iter().map(address).collect(),
            lost: self.untold.lost + (lost - self.untold.lost_before),
            unreadable: self.untold.unreadable,
            number,
            unreleased: unreleased - self.untold.unreleased_before,
        };
        // Before it is sent: who gets it may answer at once.
        self.told.store(number, Ordering::Release);
        if self.answers.try_send(Ok(message)).is_err() {
            self.untold.lost += 1;
            return None;
        }
        *self.untold = Untold { lost_before: lost, unreleased_before: unreleased, ..Untold::default() };
        Some(number)
    }
}

fn address(found: NamedAddress) -> pb::NamedAddress {
    let NamedAddress { name, address, ttl_s } = found;
    pb::NamedAddress { name: name.to_string(), address: address.to_string(), ttl_s }
}
