//! The sink: an XDP program that counts our frames where they arrive, and drops them.

use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use hdrhistogram::Histogram;

use super::{Namespace, buckets, xdp};
use crate::Result;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sink.bpf.o"));
const WHAT: &str = "the sink";

/// What a sink looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkOptions {
    /// Where the payload begins, in bytes.
    pub payload_at: usize,
    /// Flows whose order is watched: the pattern's. 0: it is not.
    pub flows: u32,
    /// Whether delays are taken: only of frames with a due time.
    pub timed: bool,
}

impl SinkOptions {
    /// A sink that only counts.
    #[must_use]
    pub fn at(payload_at: usize) -> Self {
        Self { payload_at, flows: 0, timed: false }
    }
}

/// What a sink counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Our frames.
    pub packets: u64,
    /// Their bytes, without FCS.
    pub bytes: u64,
    /// Other frames, which went on to the kernel.
    pub others: u64,
}

/// What a sink saw of one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Frames.
    pub received: u64,
    /// The number, within the flow, behind the highest that came.
    pub next: u64,
    /// Frames that had not come when a later one did.
    pub gaps: u64,
    /// Frames that came behind a later one, or twice.
    pub late: u64,
    /// The last frame's delay, in nanoseconds.
    pub transit_ns: u64,
    /// Interarrival jitter (RFC 3550, section 6.4.1), in sixteenths of a nanosecond.
    pub jitter16_ns: u64,
    /// Sum of all delays, in nanoseconds.
    pub delay_sum_ns: u64,
    /// The longest delay, in nanoseconds.
    pub delay_max_ns: u64,
}

impl Flow {
    /// Frames that did not come, of `sent`. Right when none came twice.
    #[must_use]
    pub fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.received)
    }

    /// Interarrival jitter, in nanoseconds.
    #[must_use]
    pub fn jitter_ns(&self) -> f64 {
        self.jitter16_ns as f64 / 16.0
    }
}

/// A sink, on any number of devices.
pub struct Sink {
    object: Ebpf,
    counts: PerCpuArray<MapData, [u64; 3]>,
    delays: PerCpuArray<MapData, u64>,
    flows: Array<MapData, [u64; 8]>,
    options: SinkOptions,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Sink {
    /// A sink on no device yet.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setup`] when the kernel does not take the program.
    pub fn new(options: &SinkOptions) -> Result<Self> {
        let mut object = EbpfLoader::new()
            .override_global("AT", &(options.payload_at as u32), true)
            .override_global("FLOWS", &options.flows, true)
            .override_global("TIMED", &u32::from(options.timed), true)
            .map_max_entries("flows", options.flows.max(1))
            .load(OBJECT)
            .map_err(|error| xdp::failed(WHAT, &error))?;
        xdp::program(&mut object, "sink")?.load().map_err(|error| xdp::failed(WHAT, &error))?;
        Ok(Self {
            counts: xdp::per_core(&mut object, "counts")?,
            delays: xdp::per_core(&mut object, "delays")?,
            flows: xdp::array(&mut object, "flows")?,
            object,
            options: *options,
        })
    }

    /// Puts it on a device, natively, for as long as it lives. The device has NAPI from now on.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setup`].
    pub fn attach(&mut self, namespace: &Namespace, interface: &str) -> Result<()> {
        xdp::attach(&mut self.object, "sink", namespace, interface)
    }

    /// What came, on all devices, since it was made or reset.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setup`].
    pub fn counted(&self) -> Result<Counted> {
        let cores = self.counts.get(&0, 0).map_err(|error| xdp::failed(WHAT, &error))?;
        Ok(cores.iter().fold(Counted::default(), |sum, [packets, bytes, others]| Counted {
            packets: sum.packets + packets,
            bytes: sum.bytes + bytes,
            others: sum.others + others,
        }))
    }

    /// What came of each flow.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setup`].
    pub fn flows(&self) -> Result<Vec<Flow>> {
        let flow = |entry: std::result::Result<[u64; 8], _>| {
            let [received, next, gaps, late, transit_ns, jitter16_ns, delay_sum_ns, delay_max_ns] = entry?;
            Ok(Flow { received, next, gaps, late, transit_ns, jitter16_ns, delay_sum_ns, delay_max_ns })
        };
        let all = self.flows.iter().take(self.options.flows as usize).map(flow);
        all.collect::<std::result::Result<_, aya::maps::MapError>>()
            .map_err(|error| xdp::failed(WHAT, &error))
    }

    /// The delays in nanoseconds, of all flows; within 1.6 % of what they were.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setup`].
    pub fn delays(&self) -> Result<Histogram<u64>> {
        buckets::read(&self.delays, WHAT)
    }

    /// Forgets what came. Nothing may be coming meanwhile.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setup`].
    pub fn reset(&mut self) -> Result<()> {
        let failed = |error| xdp::failed(WHAT, &error);
        let cores = aya::util::nr_cpus().map_err(|(what, error)| crate::Error::setup(what, error))?;
        let zeros = PerCpuValues::try_from(vec![[0; 3]; cores]).map_err(|error| xdp::failed(WHAT, &error))?;
        self.counts.set(0, zeros, 0).map_err(failed)?;
        for flow in 0..self.options.flows {
            self.flows.set(flow, [0; 8], 0).map_err(failed)?;
        }
        if self.options.timed { buckets::clear(&mut self.delays, WHAT) } else { Ok(()) }
    }
}
