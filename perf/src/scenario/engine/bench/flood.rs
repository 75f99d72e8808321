//! Packets of known flows beside a flood of new ones, each offered at its own pace: what comes through when the worker has no time
//! for all. The clock is what turns take of the core, so that it does not matter what else the machine does.

use std::collections::VecDeque;
use std::sync::Arc;

use vswitch_datapath::{BATCH, Now};

use super::turns::core_time;
use super::{BURST, Bench, Held};
use crate::scenario::engine::wire::Wire;
use crate::workload::{Frames, Stream};
use crate::{Error, Result};

/// Packets that wait for the worker at a port: as many as an AF_XDP ring holds.
const RING: u64 = 2048;
/// More than a turn takes of one port.
const TURN_MOST: usize = 8 * BATCH;

/// What comes by one port.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its packets by number. Those of known flows are the first; each of the others opens a flow of its own.
    pub stream: Stream,
    /// Million packets a second of known flows.
    pub known_mpps: f64,
    /// Million packets a second that open flows.
    pub new_mpps: f64,
}

impl Offer {
    fn new_share(&self) -> f64 {
        self.new_mpps / (self.known_mpps + self.new_mpps)
    }
}

/// An offer on its way.
struct Offered<'a> {
    offer: &'a Offer,
    wire: Arc<Wire>,
    numbers: Mixed,
    interval_ns: f64,
    /// Part of the next packet that has come.
    part: f64,
    waiting: u64,
    /// What lies ready.
    staged: VecDeque<u64>,
    came: u64,
    lost: u64,
    /// Packets that came by its port and ended before.
    drops_before: u64,
}

/// Numbers of packets: of two kinds, spread evenly.
struct Mixed {
    known: Box<dyn Iterator<Item = u64>>,
    new: std::ops::RangeFrom<u64>,
    new_share: f64,
    part: f64,
}

impl Iterator for Mixed {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.part += self.new_share;
        if self.part >= 1.0 {
            self.part -= 1.0;
            self.new.next()
        } else {
            self.known.next()
        }
    }
}

impl<'a> Offered<'a> {
    fn new(bench: &Bench<Stream>, offer: &'a Offer) -> Result<Self> {
        let wire = bench.held.wires.of(offer.stream.enters().as_str());
        wire.stage(0, |_, _| {});
        wire.queue_behind(0);
        let known = bench.frames.traffic.flows;
        let numbers = Mixed {
            known: Box::new(bench.frames.order().map(move |number| number % known)),
            new: known..,
            new_share: offer.new_share(),
            part: 0.0,
        };
        let interval_ns = 1e3 / (offer.known_mpps + offer.new_mpps);
        let drops_before = drops(&bench.held, offer)?;
        let (part, waiting, came, lost) = (0.0, 0, 0, 0);
        let staged = VecDeque::with_capacity(BURST);
        Ok(Self { offer, wire, numbers, interval_ns, part, waiting, staged, came, lost, drops_before })
    }

    /// Lets some time pass.
    fn wait(&mut self, ns: f64) {
        self.part += ns / self.interval_ns;
        let came = self.part as u64;
        self.part -= came as f64;
        let kept = came.min(RING - self.waiting);
        (self.came, self.lost, self.waiting) =
            (self.came + came, self.lost + came - kept, self.waiting + kept);
    }

    /// Lets the worker have what waits. More lies ready than a turn takes of one port, so that a visit that brings less than it
    /// might has found the port empty.
    fn offer(&mut self) -> usize {
        if self.staged.len() < TURN_MOST {
            self.staged.extend(self.numbers.by_ref().take(BURST - self.staged.len()));
            let Self { offer, wire, staged, .. } = self;
            wire.stage(staged.len(), |at, frame| offer.stream.write(staged[at], frame));
        }
        let released = self.wire.release(self.waiting as usize);
        self.wire.queue_behind(self.waiting as usize - released);
        released
    }

    fn took(&mut self, offered: usize) {
        let took = offered - self.wire.waiting();
        self.staged.drain(..took);
        self.waiting -= took as u64;
    }

    fn known_came(&self) -> f64 {
        self.came as f64 * (1.0 - self.offer.new_share())
    }

    /// What became of the newcomers, of which alone some end.
    fn newcomers(&self, held: &Held) -> Result<Newcomers> {
        let taken = (self.came - self.lost - self.waiting) as f64;
        let came = (self.came as f64 * self.offer.new_share()).max(1.0);
        let ended = (drops(held, self.offer)? - self.drops_before) as f64;
        let opened = (taken * self.offer.new_share() - ended).max(0.0) / came;
        Ok(Newcomers { looked_at: taken / self.came.max(1) as f64, opened: opened.min(1.0) })
    }
}

/// What became of an offer's packets that open flows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Newcomers {
    /// The part that the worker looked at, whatever it did with it.
    pub looked_at: f64,
    /// The part that opened a flow.
    pub opened: f64,
}

/// What came of a flood.
#[derive(Debug, Clone, PartialEq)]
pub struct Flooded {
    /// Of the packets of known flows, the part that came out where it was to.
    pub known: f64,
    /// By offer.
    pub new: Vec<Newcomers>,
}

impl Bench<Stream> {
    /// Offers packets of known flows and others for so long by the worker's clock. What waits at the end has not come through.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`], [`Error::Interrupted`].
    pub fn flood(&mut self, offers: &[Offer], seconds: f64) -> Result<Flooded> {
        let mut offered = offers.iter().map(|offer| Offered::new(self, offer)).collect::<Result<Vec<_>>>()?;
        let before = self.through();
        let end = self.now_ns + seconds * 1e9;
        let mut turns = 0u32;
        let mut ready = vec![0; offered.len()];
        while self.now_ns < end {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(4096) && self.interrupt.is_set() {
                return Err(Error::Interrupted);
            }
            let Some(worker) = &mut self.held.worker else { break };
            ready.iter_mut().zip(&mut offered).for_each(|(ready, offered)| *ready = offered.offer());
            worker.set_clock(Now(self.now_ns as u64));
            let before = core_time()?;
            // Nobody tells it to stop while it is in our hand.
            let _ = worker.step();
            let took_ns = core_time()?.saturating_sub(before).as_nanos() as f64;
            self.now_ns += took_ns;
            for (ready, offered) in ready.iter().zip(&mut offered) {
                offered.took(*ready);
                offered.wait(took_ns);
            }
        }
        let known_came: f64 = offered.iter().map(Offered::known_came).sum();
        Ok(Flooded {
            known: (self.through() - before) as f64 / known_came.max(1.0),
            new: offered.iter().map(|offered| offered.newcomers(&self.held)).collect::<Result<_>>()?,
        })
    }

    /// Packets that came out and opened no flow. One of a known flow that had to be opened anew is none.
    fn through(&self) -> i64 {
        self.held.wires.arrived() as i64 - self.flows_created() as i64
    }
}

/// Packets that came by the port of an offer and ended.
fn drops(held: &Held, offer: &Offer) -> Result<u64> {
    let port = offer.stream.enters();
    let counts = held.counts(port).ok_or_else(|| Error::setup("read counters", format!("no port {port}")))?;
    Ok(counts.drops.iter().sum())
}
