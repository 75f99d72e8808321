//! The generator for two cores: XDP live frames, made in the kernel and put out of a device without a socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use core_affinity::CoreId;
use hdrhistogram::Histogram;

use super::{Namespace, Pattern, Sink, SinkOptions, Veth, buckets, frames, xdp};
use crate::machine::{Taken, Watch};
use crate::{Error, Result};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/generator.bpf.o"));
/// Lines of 64 bytes that a busy generator writes to: 64 MiB.
const LINES: u32 = 1 << 20;
/// Frames the kernel hands on at a time, at most.
const BATCH_MAX: u32 = 64;
const WHAT: &str = "the generator";

/// How fast frames leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as it goes.
    Flood,
    /// By a schedule that does not wait for anybody: frames bear the time they are due, and leave then, or at once
    /// when that is past.
    Open {
        /// Frames in a second. Bursts come ten times a second or more.
        rate: f64,
        /// Frames that leave together, when the first of them is due.
        burst: u32,
        /// Whether it writes all over a memory larger than the caches while it waits: a core that is loaded, and yet not
        /// late.
        busy: bool,
    },
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sent {
    /// Frames.
    pub frames: u64,
    /// In a second, by the program's own clock: what the kernel does before the first frame and behind the last takes some
    /// 40 ms, and is not in it. 0: they were too few to say.
    pub rate: f64,
    /// How late the last burst left by the schedule. Always zero in a flood.
    pub behind: Duration,
    /// How late the latest burst left.
    pub behind_max: Duration,
    /// What was taken of the generator's time, and by whom.
    pub taken: Taken,
}

impl Sent {
    /// Why what the generator did says nothing of it; None: it had its core.
    #[must_use]
    pub fn void(&self) -> Option<String> {
        self.taken.too_much("the generator's time")
    }
}

/// A generator on one device. It needs a core of its own while it runs.
pub struct Generator {
    object: Ebpf,
    state: Array<MapData, [u64; 8]>,
    late: PerCpuArray<MapData, u64>,
    stop: Arc<Mutex<Array<MapData, u64>>>,
    namespace: Namespace,
    frame: Vec<u8>,
    batch: u32,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("batch", &self.batch).finish_non_exhaustive()
    }
}

/// Ends a generator before it has sent all, from another thread.
#[derive(Clone)]
pub struct Stop(Arc<Mutex<Array<MapData, u64>>>);

impl Generator {
    /// A generator of `pattern` on `interface` of `namespace`. What is at the interface's other end must have NAPI: an XDP
    /// program, or GRO ([`super::link::gro`]); frames are lost otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when the kernel does not take the program.
    pub fn new(namespace: &Namespace, interface: &str, pattern: &Pattern, pace: Pace) -> Result<Self> {
        let index = namespace
            .enter(|| nix::net::if_::if_nametoindex(interface))?
            .map_err(|errno| Error::setup(format!("generate on {interface}"), errno))?;
        let (interval_ps, burst, lines) = match pace {
            Pace::Flood => (0, BATCH_MAX, 0),
            Pace::Open { rate, burst, busy } => {
                ((1e12 / rate) as u64, burst.max(1), if busy { LINES } else { 0 })
            }
        };
        // A batch that spans two bursts would hold the first back until the second is due.
        let batch = (1..=burst.min(BATCH_MAX)).rev().find(|batch| burst.is_multiple_of(*batch)).unwrap_or(1);
        let (v6, templates) = (u32::from(pattern.v6()), pattern.templates().len() as u32);
        let mut object = EbpfLoader::new()
            .override_global("V6", &v6, true)
            .override_global("TEMPLATES", &templates, true)
            .override_global("FLOWS", &pattern.flows(), true)
            .override_global("IFINDEX", &index, true)
            .override_global("BURST", &burst, true)
            .override_global("INTERVAL_PS", &interval_ps, true)
            .override_global("LINES", &lines, true)
            .map_max_entries("memory", lines.max(1))
            .map_max_entries("templates", templates)
            .load(OBJECT)
            .map_err(|error| xdp::failed(WHAT, &error))?;
        xdp::program(&mut object, "generate")?.load().map_err(|error| xdp::failed(WHAT, &error))?;
        let mut entries = xdp::array::<[u64; 9]>(&mut object, "templates")?;
        for number in 0..templates {
            entries
                .set(number, template(pattern, number as usize), 0)
                .map_err(|error| xdp::failed(WHAT, &error))?;
        }
        let state = xdp::array(&mut object, "states")?;
        let late = xdp::per_core(&mut object, "late")?;
        let stop = Arc::new(Mutex::new(xdp::array(&mut object, "stops")?));
        let frame = pattern.templates()[0].clone();
        Ok(Self { object, state, late, stop, namespace: namespace.clone(), frame, batch })
    }

    /// Sends `count` frames from `core`, and gives how many were, and how fast. One call of the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn send(&mut self, core: usize, count: u32) -> Result<Sent> {
        self.state.set(0, [0; 8], 0).map_err(|error| xdp::failed(WHAT, &error))?;
        let (object, namespace, frame, batch) = (&mut self.object, &self.namespace, &self.frame, self.batch);
        let run = move || {
            // The kernel looks the device up where the calling thread is.
            namespace.join()?;
            if !core_affinity::set_for_current(CoreId { id: core }) {
                return Err(Error::setup(WHAT, format!("cannot be pinned to core {core}")));
            }
            let program: &Xdp = xdp::program(object, "generate")?;
            let attrs = TestRunAttrs::new().xdp_live_frames(batch);
            let options =
                TestRunOptions { data_in: Some(frame), repeat: count, attrs, ..TestRunOptions::default() };
            let watch = Watch::start();
            program.test_run(options).map_err(|error| xdp::failed("run live frames", &error))?;
            Ok(watch.taken())
        };
        let taken = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("generator".to_owned()).spawn_scoped(scope, run);
            let thread = thread.map_err(|error| Error::setup("start a thread", error))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let [frames, start, .., behind, behind_max, looked, looked_at] =
            self.state.get(&0, 0).map_err(|error| xdp::failed(WHAT, &error))?;
        let took = Duration::from_nanos(looked_at.saturating_sub(start)).as_secs_f64();
        let rate = if took > 0.0 { looked as f64 / took } else { 0.0 };
        let [behind, behind_max] = [behind, behind_max].map(Duration::from_nanos);
        Ok(Sent { frames, rate, behind, behind_max, taken })
    }

    /// How late bursts left, in nanoseconds, of all calls of [`Generator::send`]. Empty in a flood.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn late(&self) -> Result<Histogram<u64>> {
        buckets::read(&self.late, WHAT)
    }

    /// What ends [`Generator::send`] early, for good.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        Stop(Arc::clone(&self.stop))
    }

    /// Frames a second that `core` generates of this pattern when nothing but a sink takes them, and why that is void.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`], and [`Error::Miscounted`] when the sink saw more than was sent.
    pub fn alone(pattern: &Pattern, core: usize, count: u32) -> Result<(f64, Option<String>)> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        let mac = |last| vswitch_model::Mac([2, 0, 0, 0, 0xfe, last]);
        let veth = Veth { near: (&near, "gen", mac(1)), far: (&far, "sink", mac(2)), mtu: 1500, queues: 1 };
        veth.make()?;
        let mut sink = Sink::new(&SinkOptions::at(frames::payload_at(pattern.v6())))?;
        sink.attach(&far, "sink")?;
        let mut generator = Self::new(&near, "gen", pattern, Pace::Flood)?;
        let sent = generator.send(core, count)?;
        let counted = sink.counted()?;
        if counted.packets > sent.frames {
            return Err(Error::Miscounted(format!(
                "the generator sent {}, the sink took {}",
                sent.frames, counted.packets
            )));
        }
        Ok((sent.rate * counted.packets as f64 / sent.frames.max(1) as f64, sent.void()))
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

impl Stop {
    /// Ends it: what was not sent yet is not.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn stop(&self) -> Result<()> {
        let mut stop = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stop.set(0, 1, 0).map_err(|error| xdp::failed(WHAT, &error))
    }
}

/// `struct template` of the program.
fn template(pattern: &Pattern, number: usize) -> [u64; 9] {
    let frame = &pattern.templates()[number];
    let word = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
    let mut entry = [0; 9];
    let headers = frames::payload_at(pattern.v6());
    for (index, value) in entry.iter_mut().take(headers.div_ceil(8).min(7)).enumerate() {
        *value = word(index * 8);
    }
    if pattern.v6() {
        entry[7] = word(56);
    }
    let ports = headers - 8;
    let port = |at: usize| u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    entry[8] = u64::from(pattern.fixed_sum(number)) | port(ports) << 32 | port(ports + 2) << 48;
    entry
}
