//! One thing that is measured: a generator, what stands behind it, and a sink, taking turns on one core.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use quanta::Clock;
use vswitch_datapath::PortIndex;
use vswitch_model::DesiredState;

use super::sockets::Sockets;
use crate::net::frames::{VXLAN_V4, payload_at};
use crate::net::topology::{WIRE, WIRE_MTU};
use crate::net::{
    BATCH, Batches, ByHand, Namespace, Pattern, Sink, SinkOptions, Switch, SwitchCounts, SwitchOptions,
    Topology, Veth,
};
use crate::peer::Bare;
use crate::{Error, Result};

/// Turns without a packet after which the core is given away for a moment.
const TURNS_MAX: usize = 100;
/// How long what the kernel has put off may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What stands between generator and sink.
pub(crate) enum Between {
    /// Nothing: the generator's veth ends in the sink.
    Nothing,
    /// The kernel: its work is done inside the generator's system call.
    Kernel,
    /// A bare AF_XDP forwarder.
    Bare(Bare),
    /// The engine, its worker turned by hand.
    Engine {
        /// Its worker: first to go, so that the engine's end finds it turning.
        hand: Box<ByHand>,
        /// The engine.
        switch: Box<Switch>,
        /// The number of the port that packets come by.
        from: PortIndex,
        /// What it had counted when measuring began.
        before: SwitchCounts,
    },
    /// Something made by a test.
    #[cfg(test)]
    Other(Box<dyn FnMut() -> usize + Send>),
}

impl Between {
    /// An engine with `desired` in force, whose packets come by the port `from`.
    pub(crate) fn engine(
        topology: &Topology,
        desired: &DesiredState,
        from: &str,
        options: SwitchOptions,
    ) -> Result<Self> {
        let (switch, hand) = Switch::by_hand(topology, desired, options)?;
        let open = switch.engine().shared().snapshot.load().ports.open.clone();
        let port = open.iter().find(|(name, _)| name.as_str() == from).map(|(_, open)| open.index);
        let from = port.ok_or_else(|| Error::setup(format!("find port {from}"), "it is not open"))?;
        let before = switch.counts();
        Ok(Self::Engine { hand: Box::new(hand), switch: Box::new(switch), from, before })
    }
}

/// One thing that is measured.
pub(crate) struct Track {
    /// Its name: `ours`, or the peer's.
    pub(crate) name: &'static str,
    between: Between,
    ends: Ends,
    sent: u64,
    clock: Clock,
    /// What it all runs on, for as long as it runs.
    _alive: Vec<Namespace>,
}

/// Where packets come from, and where they end.
enum Ends {
    /// Frames of a packet socket, counted by an XDP program.
    Frames {
        /// The generator.
        batches: Box<Batches>,
        /// The sink.
        sink: Box<Sink>,
    },
    /// Datagrams of programs in pods.
    Sockets(Box<Sockets>),
}

/// Where the frames leave.
pub(crate) enum Exit<'a> {
    /// By the pods with these ports.
    Pods(&'a [String]),
    /// By the uplink, in VXLAN over IPv4 where something encapsulates.
    Wire {
        /// Whether it does.
        tunnel: bool,
    },
}

impl Track {
    /// Puts a generator at the pod `from`, and a sink at the exit.
    pub(crate) fn new(
        name: &'static str,
        between: Between,
        topology: &Topology,
        pattern: &Pattern,
        from: &str,
        exit: &Exit<'_>,
    ) -> Result<Self> {
        let tunnel = if matches!(exit, Exit::Wire { tunnel: true }) { VXLAN_V4 } else { 0 };
        let mut sink = Sink::new(&SinkOptions::at(payload_at(pattern.v6()) + tunnel))?;
        match exit {
            Exit::Pods(pods) => {
                for pod in *pods {
                    let pod = topology.pod(pod)?;
                    sink.attach(&pod.namespace, &pod.interface)?;
                }
            }
            Exit::Wire { .. } => {
                let remote = topology.remote.as_ref();
                let remote = remote.ok_or_else(|| Error::setup("place the sink", "there is no wire"))?;
                sink.attach(&remote.namespace, WIRE)?;
            }
        }
        let near = topology.pod(from)?;
        let batches = Batches::new(&near.namespace, &near.interface, pattern)?;
        let ends = Ends::Frames { batches: Box::new(batches), sink: Box::new(sink) };
        Ok(Self::with(name, between, ends, topology.namespaces()))
    }

    /// Has programs in pods send and receive.
    pub(crate) fn of_sockets(
        name: &'static str,
        between: Between,
        topology: &Topology,
        sockets: Sockets,
    ) -> Self {
        Self::with(name, between, Ends::Sockets(Box::new(sockets)), topology.namespaces())
    }

    fn with(name: &'static str, between: Between, ends: Ends, alive: Vec<Namespace>) -> Self {
        Self { name, between, ends, sent: 0, clock: Clock::new(), _alive: alive }
    }

    /// The generator straight into the sink: what both cost, and nothing else.
    pub(crate) fn alone(pattern: &Pattern) -> Result<Self> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        let mac = |last| vswitch_model::Mac([2, 0, 0, 0, 0xfd, last]);
        Veth { near: (&near, "near", mac(1)), far: (&far, "far", mac(2)), mtu: WIRE_MTU, queues: 1 }
            .make()?;
        let mut sink = Sink::new(&SinkOptions::at(payload_at(pattern.v6())))?;
        sink.attach(&far, "far")?;
        let batches = Batches::new(&near, "near", pattern)?;
        let ends = Ends::Frames { batches: Box::new(batches), sink: Box::new(sink) };
        Ok(Self::with("drop", Between::Nothing, ends, vec![near, far]))
    }

    /// Sends so many batches, each to its end, and gives the nanoseconds a packet that each took.
    pub(crate) fn run(&mut self, count: usize) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(count);
        if let Between::Engine { hand, .. } = &mut self.between {
            // Before anything is sent: the thread that turned it until now would take the first batch.
            hand.take()?;
        }
        for _ in 0..count {
            if let Ends::Frames { batches, .. } = &mut self.ends {
                batches.prepare(BATCH, 0);
            }
            let start = self.clock.raw();
            match &mut self.ends {
                Ends::Frames { batches, .. } => batches.send().map(drop)?,
                Ends::Sockets(sockets) => sockets.send()?,
            }
            let mut worked = self.work();
            if let (Ok(()), Ends::Sockets(sockets)) = (&worked, &mut self.ends) {
                worked = sockets.take();
            }
            worked.map_err(|error| self.explained(error))?;
            let took = self.clock.delta_as_nanos(start, self.clock.raw());
            self.sent += BATCH as u64;
            times.push(took as f64 / BATCH as f64);
        }
        Ok(times)
    }

    /// Sends a batch of which one frame says that it is from somebody else.
    #[cfg(test)]
    pub(crate) fn run_with_one_spoofed(&mut self) -> Result<()> {
        let Ends::Frames { batches, .. } = &mut self.ends else {
            return Err(Error::setup("spoof a frame", "sockets send none"));
        };
        batches.prepare(BATCH, 0);
        batches.prepared_frames()[40][11] ^= 1;
        batches.send()?;
        self.sent += BATCH as u64;
        self.work()
    }

    /// What is not done inside the generator's system call.
    fn work(&mut self) -> Result<()> {
        match &mut self.between {
            Between::Nothing | Between::Kernel => Ok(()),
            Between::Bare(bare) => take_batch(self.name, || Ok(bare.turn())),
            Between::Engine { hand, switch, from, .. } => {
                let worker = hand.take()?;
                let received = &switch.engine().shared().workers[0].counters.port(*from).rx_packets;
                take_batch(self.name, || {
                    let before = received.get();
                    match worker.step() {
                        ControlFlow::Continue(_) => Ok((received.get() - before) as usize),
                        ControlFlow::Break(_) => Err(Error::setup("turn the worker", "it was told to end")),
                    }
                })
            }
            #[cfg(test)]
            Between::Other(turn) => take_batch(self.name, || Ok(turn())),
        }
    }

    /// The same error with what ours and its sockets have counted.
    fn explained(&mut self, error: Error) -> Error {
        match (&mut self.between, error) {
            (Between::Engine { hand, switch, .. }, Error::Miscounted(what)) => {
                hand.release();
                let (counts, statistics) = (switch.counts(), switch.statistics());
                Error::Miscounted(format!("{what}; it has counted {counts:?}, its sockets {statistics:?}"))
            }
            (_, error) => error,
        }
    }

    /// Sees to it that every frame is accounted for: what was sent came, or ended for a reason that was counted.
    ///
    /// # Errors
    ///
    /// [`Error::Miscounted`].
    pub(crate) fn check(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let came = match &self.ends {
                Ends::Frames { sink, .. } => sink.counted()?.packets,
                Ends::Sockets(sockets) => sockets.taken,
            };
            let (dropped, why) = self.dropped()?;
            if came + dropped == self.sent {
                return Ok(());
            }
            if came + dropped > self.sent || start.elapsed() > PATIENCE {
                return Err(Error::Miscounted(format!(
                    "{}: {} packets were sent, {came} came and {dropped} were dropped{why}: {} are missing",
                    self.name,
                    self.sent,
                    self.sent.abs_diff(came + dropped)
                )));
            }
            // What the kernel has put off is done by a thread that may need this core.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Packets that ended on the way, and for which reasons.
    pub(crate) fn dropped(&mut self) -> Result<(u64, String)> {
        match &mut self.between {
            Between::Engine { switch, before, .. } => {
                let now = switch.counts();
                let why =
                    if now.drops == before.drops { String::new() } else { format!(" ({:?})", now.drops) };
                Ok((now.dropped() - before.dropped(), why))
            }
            Between::Bare(bare) => Ok((bare.refused, String::new())),
            _ => Ok((0, String::new())),
        }
    }

    /// Whether a packet ended on the way: such a figure would not be one of forwarding.
    pub(crate) fn lost(&mut self) -> Result<Option<String>> {
        let (dropped, why) = self.dropped()?;
        Ok((dropped > 0)
            .then(|| format!("{}: {dropped} of {} packets were dropped{why}", self.name, self.sent)))
    }

    /// Sends what the far pod would answer to each flow, so that connections are established.
    pub(crate) fn answer(&mut self, pattern: &Pattern, topology: &Topology, far: &str) -> Result<()> {
        self.run((pattern.all_flows() as usize).div_ceil(BATCH))?;
        let far = topology.pod(far)?;
        let answers = pattern.answers(far.mac);
        let mut batches = Batches::new(&far.namespace, &far.interface, pattern)?;
        for chunk in answers.chunks(BATCH) {
            batches.prepare_these(chunk);
            batches.send()?;
        }
        Ok(())
    }
}

/// Turns until a batch has been taken.
fn take_batch(name: &str, mut turn: impl FnMut() -> Result<usize>) -> Result<()> {
    let (mut taken, mut idle, mut since) = (0, 0, None);
    loop {
        let received = turn()?;
        taken += received;
        if taken >= BATCH {
            return Ok(());
        }
        idle = if received == 0 { idle + 1 } else { 0 };
        // The kernel now and then leaves its part to a thread, which needs this core.
        if idle == TURNS_MAX {
            idle = 0;
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err(Error::Miscounted(format!(
                    "{name} took {taken} of a batch of {BATCH}: the rest was lost before it"
                )));
            }
            std::thread::yield_now();
        }
    }
}
