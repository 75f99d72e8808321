//! A forwarder between a generator and a sink, whatever forwards.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vswitch::config::Poll;
use vswitch_model::Mac;

use super::outcome::{Lost, Outcome};
use super::who::{Cores, Who};
use crate::machine::Watch;
use crate::net::topology::{Layout, UPLINK, WIRE};
use crate::net::{
    Ends, Generator, Namespace, Pace, Pattern, Sent, Sink, SinkOptions, Switch, SwitchOptions, Topology,
    frames, link,
};
use crate::peer::{self, BareThread, Filter, Ovs, Testpmd};
use crate::workload::{ALLOWED_PORTS, Family, Node, Traffic, Way};
use crate::{Error, Result};

/// Flows the frames are of.
pub const FLOWS: u32 = 1000;
/// Rules of policy and routes that ours has in force.
pub const RULES: usize = 1000;
const ROUTES: usize = 1000;
/// Length of the frames, in bytes without FCS: the smallest.
pub(super) const LENGTH: usize = 60;
/// Frames that leave together: at a million in a second every 16 us.
pub const BURST: u32 = 16;
/// How long a forwarder may take until all of some frames come through.
const FORWARDS: Duration = Duration::from_secs(5);
/// Frames in a second, meanwhile.
const FIRST_RATE: f64 = 50_000.0;
/// It forwards when it loses no more than this part of them: the machine may be busy elsewhere.
const FIRST_LOSS: f64 = 0.1;
/// After this long without another frame a peer has nothing under way any more.
const QUIET: Duration = Duration::from_millis(30);
/// By then ours can say what became of every frame.
const ACCOUNTED: Duration = Duration::from_secs(2);

enum Forwarder {
    Ours(Box<Switch>),
    /// With the threads that receive, and forward, if it is not the generator's that does.
    Kernel(Vec<String>),
    Ovs(Ovs),
    Testpmd(Testpmd),
    Bare(BareThread),
}

/// What is counted so far, at every place.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    received: u64,
    lost: Lost,
}

/// A forwarder with a generator before it and a sink behind it.
pub struct Bench {
    // Dropped first: what forwards goes before its devices do.
    forwarder: Forwarder,
    topology: Topology,
    sink: Sink,
    pattern: Pattern,
    source: (Namespace, String),
    /// The devices of the forwarder, in the switch's namespace.
    ends: (String, String),
    cores: Cores,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Bench {
    /// Sets it up. When this returns, frames of its flows come through.
    ///
    /// # Errors
    ///
    /// [`Error::Unmet`] when a peer is not installed; [`Error::Setup`] when it does not start or forward.
    pub fn start(who: Who, way: Way, cores: Cores, timed: bool) -> Result<Self> {
        Self::start_with(who, way, cores, timed, pattern)
    }

    /// The same with other frames, which are of [`LENGTH`].
    pub(super) fn start_with(
        who: Who,
        way: Way,
        cores: Cores,
        timed: bool,
        pattern: impl FnOnce(&Node, Way) -> Result<Pattern>,
    ) -> Result<Self> {
        let node = Node::in_memory(2, 1).with_rules(RULES).with_routes(Family::V4, ROUTES);
        let desired = node.desired();
        let topology = Topology::build(&desired, Layout { uplink: way != Way::Local, ..Layout::default() })?;
        let source = topology.pod(node.pods[0].port.as_str())?;
        let (sink_at, sink_device, out) = match (&topology.remote, way) {
            (Some(remote), _) => (&remote.namespace, WIRE, UPLINK.to_owned()),
            (None, _) => {
                let pod = topology.pod(node.pods[1].port.as_str())?;
                (&pod.namespace, pod.interface.as_str(), pod.host.clone())
            }
        };
        let overhead = if way == Way::Local { 0 } else { frames::VXLAN_V4 };
        let options = SinkOptions { payload_at: frames::payload_at(false) + overhead, flows: 0, timed };
        let mut sink = Sink::new(&options)?;
        sink.attach(sink_at, sink_device)?;
        let ends = (source.host.clone(), out);
        let pattern = pattern(&node, way)?;
        let source = (source.namespace.clone(), source.interface.clone());
        let (from, to) = (ends.0.as_str(), ends.1.as_str());
        let switch = &topology.switch;
        let forwarder = match who {
            Who::Ours => {
                let options = SwitchOptions {
                    core: Some(cores.forwarder),
                    poll: Poll::Busy,
                    ..SwitchOptions::default()
                };
                Forwarder::Ours(Box::new(Switch::start(&topology, &desired, options)?))
            }
            Who::Kernel | Who::KernelThreaded => {
                peer::kernel::forward(&topology, &desired, Filter::None, &[])?;
                // The generator's frames have to be received by NAPI.
                link::gro(switch, from)?;
                if who == Who::KernelThreaded {
                    Forwarder::Kernel(link::threaded(switch, from, cores.forwarder)?)
                } else {
                    Forwarder::Kernel(Vec::new())
                }
            }
            Who::Ovs => Forwarder::Ovs(Ovs::start(switch, from, to, cores.forwarder)?),
            Who::Testpmd => {
                Forwarder::Testpmd(Testpmd::start(switch, from, to, cores.forwarder, cores.generator)?)
            }
            Who::Bare => Forwarder::Bare(BareThread::start(switch, from, to, cores.forwarder)?),
        };
        let mut bench = Self { forwarder, topology, sink, pattern, source, ends, cores };
        bench.wait_until_it_forwards()?;
        Ok(bench)
    }

    /// Two frames of each flow: nobody has anything to learn any more.
    fn wait_until_it_forwards(&mut self) -> Result<()> {
        let start = Instant::now();
        let seconds = f64::from(self.pattern.all_flows() * 2) / FIRST_RATE;
        loop {
            let outcome = self.offer(FIRST_RATE, seconds)?;
            if outcome.loss() <= FIRST_LOSS {
                return self.sink.reset();
            }
            if start.elapsed() > FORWARDS {
                let Outcome { sent, received, lost } = outcome;
                let cause = format!(
                    "of {} frames in a row {received} come through: {lost:?}{}",
                    sent.frames,
                    self.reasons()
                );
                return Err(Error::setup("forward between two devices", cause));
            }
        }
    }

    /// A generator of its frames. `rate`: in a second; infinite: as many as it can.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn generator(&self, rate: f64) -> Result<Generator> {
        self.loaded_generator(rate, false)
    }

    fn loaded_generator(&self, rate: f64, busy: bool) -> Result<Generator> {
        let pace = if rate.is_finite() { Pace::Open { rate, burst: BURST, busy } } else { Pace::Flood };
        Generator::new(&self.source.0, &self.source.1, &self.pattern, pace)
    }

    /// Sends `rate` frames a second for so long, and looks what became of them.
    ///
    /// # Errors
    ///
    /// [`Error::Miscounted`] when more came than was sent, or ours cannot say what became of each.
    pub fn offer(&mut self, rate: f64, seconds: f64) -> Result<Outcome> {
        Ok(self.offer_timed(rate, seconds, false)?.0)
    }

    /// The same, with the generator, which knows how late it was. `busy`: it keeps the memory busy while it waits.
    ///
    /// # Errors
    ///
    /// As [`Bench::offer`].
    pub fn offer_timed(&mut self, rate: f64, seconds: f64, busy: bool) -> Result<(Outcome, Generator)> {
        let mut generator = self.loaded_generator(rate, busy)?;
        let count = ((rate * seconds) as u32).next_multiple_of(BURST).max(BURST);
        let before = self.counts()?;
        let sent = generator.send(self.cores.generator, count)?;
        Ok((self.outcome(before, sent)?, generator))
    }

    /// Floods it for about so long while `look` is called with what came, again and again, on the generator's core.
    ///
    /// # Errors
    ///
    /// As [`Bench::offer`].
    pub fn flood(&mut self, frames: u32, mut look: impl FnMut(u64) + Send) -> Result<Outcome> {
        let mut generator = self.generator(f64::INFINITY)?;
        let (before, core) = (self.counts()?, self.cores.generator);
        let sink = &self.sink;
        let done = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let looking = scope.spawn(|| -> Result<()> {
                core_affinity::set_for_current(core_affinity::CoreId { id: core });
                while !done.load(Ordering::Relaxed) {
                    look(sink.counted()?.packets - before.received);
                    // Short enough for windows of some milliseconds; the clock says how long each was.
                    std::thread::sleep(Duration::from_micros(500));
                }
                Ok(())
            });
            let sent = generator.send(core, frames);
            done.store(true, Ordering::Relaxed);
            looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(sent)
        })?;
        self.outcome(before, sent)
    }

    /// What became of the frames, once that is known of each. Of a peer's, those nobody says anything of are lost within it
    /// when none has come for a while.
    fn outcome(&self, before: Counts, sent: Sent) -> Result<Outcome> {
        let (start, mut last) = (Instant::now(), (0, Instant::now()));
        loop {
            let now = self.counts()?;
            let received = now.received - before.received;
            let mut lost = now.lost.since(&before.lost);
            let missing = sent.frames.checked_sub(received).ok_or_else(|| {
                Error::Miscounted(format!("{} frames were sent, {received} came", sent.frames))
            })?;
            if received != last.0 {
                last = (received, Instant::now());
            }
            let ours = matches!(self.forwarder, Forwarder::Ours(_));
            if missing == lost.all() {
                return Ok(Outcome { sent, received, lost });
            }
            if ours && (lost.all() > missing || start.elapsed() > ACCOUNTED) {
                return Err(Error::Miscounted(format!(
                    "{} frames were sent, {received} came, {} are accounted for as lost ({lost:?}{})",
                    sent.frames,
                    lost.all(),
                    self.reasons()
                )));
            }
            if !ours && last.1.elapsed() > QUIET {
                lost.within = missing.saturating_sub(lost.before + lost.behind);
                return Ok(Outcome { sent, received, lost });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Why ours dropped packets so far, by reason.
    fn reasons(&self) -> String {
        match &self.forwarder {
            Forwarder::Ours(switch) => format!(" {:?}", switch.counts().drops),
            _ => String::new(),
        }
    }

    fn counts(&self) -> Result<Counts> {
        let device = |name: &str| link::counts(&self.topology.switch, name);
        let (from, to) = (device(&self.ends.0)?, device(&self.ends.1)?);
        let (mut within, mut at_socket) = (0, 0);
        match &self.forwarder {
            Forwarder::Ours(switch) => {
                let ports = switch.statistics();
                at_socket = ports.receive_ring_full + ports.fill_ring_empty + ports.receive_dropped;
                // What the port was refused is in the device's count, too: a veth whose other end's ring is full counts the
                // packet, and says NET_XMIT_DROP (drivers/net/veth.c), which the socket turns into EBUSY (net/xdp/xsk.c).
                within = switch.counts().dropped();
            }
            Forwarder::Bare(bare) => within = bare.refused(),
            Forwarder::Kernel(_) | Forwarder::Ovs(_) | Forwarder::Testpmd(_) => {}
        }
        let lost = Lost { before: from.rx_dropped, at_socket, within, behind: to.tx_dropped };
        Ok(Counts { received: self.sink.counted()?.packets, lost })
    }

    /// Watches the thread that forwards, from now on.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let threads = match &self.forwarder {
            Forwarder::Ours(_) => peer::thread("self", "worker-").into_iter().collect(),
            Forwarder::Bare(_) => peer::thread("self", peer::bare::THREAD).into_iter().collect(),
            Forwarder::Ovs(ovs) => ovs.thread().into_iter().collect(),
            Forwarder::Testpmd(testpmd) => testpmd.thread().into_iter().collect(),
            Forwarder::Kernel(threads) => threads.clone(),
        };
        threads.iter().fold(Watch::start(), |watch, thread| watch.thread(thread))
    }

    /// Moves the receiving of the pod that is the sink to a thread, on a core that others need.
    #[cfg(test)]
    pub(super) fn starve_sink(&self, core: usize) -> Result<()> {
        let pod = self.topology.pods.iter().find(|pod| pod.host == self.ends.1).expect("the way is local");
        link::threaded(&pod.namespace, &pod.interface, core).map(drop)
    }

    /// The sink.
    #[must_use]
    pub fn sink(&mut self) -> &mut Sink {
        &mut self.sink
    }
}

/// What every forwarder is measured with.
pub(super) fn pattern(node: &Node, way: Way) -> Result<Pattern> {
    Ok(Pattern::new(&[ends(node, way)?], FLOWS, LENGTH))
}

/// From the first pod to the second, or to somebody behind a tunnel.
pub(super) fn ends(node: &Node, way: Way) -> Result<Ends> {
    let (pod, stream) = (&node.pods[0], Traffic::new(way, Family::V4, 1).on(node)?);
    let first = stream.frame(0);
    // RFC 791, section 3.1, behind the Ethernet header.
    let destination: [u8; 4] = first[30..34].try_into().expect("four bytes");
    Ok(Ends {
        source_mac: pod.mac,
        destination_mac: Mac::GATEWAY,
        source: pod.v4.into(),
        destination: std::net::Ipv4Addr::from(destination).into(),
        source_port: 1024,
        destination_port: *ALLOWED_PORTS.start(),
    })
}

/// Frames in a second that the generator makes when a sink takes them at once, and why that is void: what is measured has to
/// be slower.
///
/// # Errors
///
/// As [`Generator::alone`].
pub fn alone(cores: Cores, frames: u32) -> Result<(f64, Option<String>)> {
    Generator::alone(&pattern(&Node::in_memory(2, 1), Way::Local)?, cores.generator, frames)
}
