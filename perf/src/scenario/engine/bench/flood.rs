//! Packets of known flows beside a flood of new ones, each offered at its own pace: what comes through when the worker has no time
//! for all. The clock is what turns take of the core, so that it does not matter what else the machine does.

use std::sync::Arc;

use vswitch_datapath::Now;
use vswitch_model::PortName;

use super::turns::core_time;
use super::{BURST, Bench, Held};
use crate::scenario::engine::wire::Wire;
use crate::workload::{Frames, Stream};
use crate::{Error, Result};

/// Packets that wait for the worker at a port: as many as an AF_XDP ring holds.
const RING: u64 = 2048;

/// Packets of one kind that come at a pace of their own.
struct Offered<'a> {
    wire: Arc<Wire>,
    stream: &'a Stream,
    numbers: Box<dyn Iterator<Item = u64>>,
    interval_ns: f64,
    /// Part of the next packet that has come.
    part: f64,
    waiting: u64,
    staged: usize,
    came: u64,
    lost: u64,
}

impl<'a> Offered<'a> {
    fn new(held: &Held, stream: &'a Stream, numbers: Box<dyn Iterator<Item = u64>>, mpps: f64) -> Self {
        let (wire, interval_ns) = (held.wires.of(stream.enters().as_str()), 1e3 / mpps);
        wire.stage(0, |_, _| {});
        Self { wire, stream, numbers, interval_ns, part: 0.0, waiting: 0, staged: 0, came: 0, lost: 0 }
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

    /// Lets the worker have what waits, as far as it lies ready.
    fn offer(&mut self) -> usize {
        if self.staged == 0 {
            let next: Vec<u64> = self.numbers.by_ref().take(BURST).collect();
            self.wire.stage(next.len(), |at, frame| self.stream.write(next[at], frame));
            self.staged = next.len();
        }
        self.wire.release(self.waiting as usize)
    }

    fn took(&mut self, offered: usize) {
        let took = offered - self.wire.waiting();
        self.staged -= took;
        self.waiting -= took as u64;
    }
}

/// What came of a flood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flooded {
    /// Of the packets of known flows, the part that came through.
    pub known: f64,
    /// Of those of new flows, the part that the worker looked at, whatever it did with it.
    pub new: f64,
}

impl Bench<Stream> {
    /// Offers `mpps` million packets a second of known flows, and as many again of which each opens a flow, from another pod; for so
    /// long by the worker's clock. `flood`: where these come from; None: there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`], [`Error::Interrupted`].
    pub fn flood(&mut self, mpps: f64, flood: Option<&Stream>, seconds: f64) -> Result<Flooded> {
        let known_port = self.frames.enters().clone();
        let dropped = drops_of(&self.held, &known_port)?;
        let numbers = Box::new(self.frames.order());
        let mut known = Offered::new(&self.held, &self.frames, numbers, mpps);
        let mut new = flood.map(|stream| Offered::new(&self.held, stream, Box::new(0..), mpps));
        let end = self.now_ns + seconds * 1e9;
        let mut turns = 0u32;
        while self.now_ns < end {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(4096) && self.interrupt.is_set() {
                return Err(Error::Interrupted);
            }
            let Some(worker) = &mut self.held.worker else { break };
            let offered = (known.offer(), new.as_mut().map_or(0, Offered::offer));
            worker.set_clock(Now(self.now_ns as u64));
            let before = core_time()?;
            // Nobody tells it to stop while it is in our hand.
            let _ = worker.step();
            let took_ns = core_time()?.saturating_sub(before).as_nanos() as f64;
            self.now_ns += took_ns;
            known.took(offered.0);
            known.wait(took_ns);
            if let Some(new) = &mut new {
                new.took(offered.1);
                new.wait(took_ns);
            }
        }
        let dropped = drops_of(&self.held, &known_port)? - dropped;
        let part = |through: u64, came: u64| through as f64 / came.max(1) as f64;
        Ok(Flooded {
            known: part(known.came - known.lost - dropped.min(known.came), known.came),
            new: new.map_or(1.0, |new| part(new.came - new.lost, new.came)),
        })
    }
}

/// Packets that came by a port and ended.
fn drops_of(held: &Held, port: &PortName) -> Result<u64> {
    let counts = held.counts(port).ok_or_else(|| Error::setup("read counters", format!("no port {port}")))?;
    Ok(counts.drops.iter().sum())
}
