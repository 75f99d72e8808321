//! The walk of a batch through the stages: one for each worker.

use std::fmt;
use std::sync::Arc;

use crate::counters::Counters;
use crate::flow::{Flow, FlowTable};
use crate::flow_log::FlowLog;
use crate::fragment::FragmentTable;
use crate::icmp::ErrorLimits;
use crate::output::Output;
use crate::stage::{Context, Indices, Scratch, flow, forward, receive, source, transmit, uplink};
use crate::tables::Tables;
use crate::trace::{TraceSpec, Tracer};
use crate::{BATCH, Buffer, Mark, NoProbe, Now, Packet, Probe, Stage, coalesce, dns};

/// Sizes and limits of a worker's walk. Memory for them is taken at creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkConfig {
    /// Flows followed at once, 1 to [`FlowTable::CAPACITY_MAX`].
    pub flows: usize,
    /// Fragmented packets followed at once.
    pub fragments: usize,
    /// ICMP errors sent in a second; as many at once. To pods, to pods whose packets are too big, and to all others: so many each.
    pub icmp_errors_per_second: u32,
    /// Of these, those sent because of one sender; as many at once.
    pub icmp_errors_per_source: u32,
    /// Records of new flows that are denied or marked made in a second; as many at once. 0: none.
    pub flow_records_per_second: u32,
    /// Whether TCP segments outside of their connection's window end as [`vswitch_model::DropReason::TcpOutOfWindow`].
    pub tcp_windows: bool,
    /// Keys the hashes; has to be unpredictable.
    pub seed: u64,
}

impl Default for WalkConfig {
    /// 65536 flows, 1024 fragmented packets, 1000 ICMP errors a second (as Linux: `net.ipv4.icmp_msgs_per_sec`), 100 of
    /// them because of one sender, 100 flow
    /// records, windows checked; the seed is 0, which is for tests only.
    fn default() -> Self {
        Self {
            flows: 65_536,
            fragments: 1024,
            icmp_errors_per_second: 1000,
            icmp_errors_per_source: 100,
            flow_records_per_second: 100,
            tcp_windows: true,
            seed: 0,
        }
    }
}

/// What one worker knows and needs to walk batches of packets.
pub struct Walk {
    flows: FlowTable,
    fragments: FragmentTable,
    limits: ErrorLimits,
    log: FlowLog,
    counters: Arc<Counters>,
    scratch: Box<Scratch>,
    keys: Box<flow::Keys>,
    misses: Box<flow::Misses>,
    newcomers: flow::Newcomers,
    tracer: Option<Tracer>,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("flows", &self.flows.len()).finish_non_exhaustive()
    }
}

impl Walk {
    /// A walk that counts in `counters`, which nobody else writes.
    #[must_use]
    pub fn new(config: &WalkConfig, counters: Arc<Counters>) -> Self {
        let flows = FlowTable::new(config.flows, config.seed).counting_in(Arc::clone(&counters.rules));
        Self {
            flows: if config.tcp_windows { flows.following_windows() } else { flows },
            fragments: FragmentTable::new(config.fragments, config.seed),
            limits: ErrorLimits::new(
                config.icmp_errors_per_second,
                config.icmp_errors_per_source,
                config.seed,
            ),
            log: FlowLog::new(config.flow_records_per_second, Arc::clone(&counters.flow_log)),
            counters,
            scratch: Box::new(Scratch::new()),
            keys: Box::new(flow::Keys::new()),
            misses: Box::new(flow::Misses::new()),
            newcomers: flow::Newcomers::new(),
            tracer: None,
        }
    }

    /// Walks packets to their end and leaves `batch` empty: each goes to `out.tx`, with the port it leaves by, to `out.held`
    /// to do so later, or its buffer to `out.dropped`, in the order they came. ICMP errors, ARP and neighbour replies go in
    /// the buffer of the packet that caused them; fragments take buffers of `out.spare`. More than [`BATCH`] packets are
    /// walked in turns.
    #[inline]
    pub fn process<B: Buffer>(
        &mut self,
        tables: &Tables,
        now: Now,
        batch: &mut Vec<Packet<B>>,
        out: &mut Output<B>,
    ) {
        self.process_probed(tables, now, batch, out, &mut NoProbe);
    }

    /// The same for a measurement, which is told after each stage.
    #[inline(always)]
    pub fn process_probed<B: Buffer, P: Probe>(
        &mut self,
        tables: &Tables,
        now: Now,
        batch: &mut Vec<Packet<B>>,
        out: &mut Output<B>,
        probe: &mut P,
    ) {
        while !batch.is_empty() {
            self.turn(tables, now, batch, out, probe);
        }
    }

    #[inline(always)]
    fn turn<B: Buffer, P: Probe>(
        &mut self,
        tables: &Tables,
        now: Now,
        batch: &mut Vec<Packet<B>>,
        out: &mut Output<B>,
        probe: &mut P,
    ) {
        let count = batch.len().min(BATCH);
        let Self { flows, fragments, limits, log, counters, scratch, keys, misses, newcomers, tracer } = self;
        let context = Context { tables, now, counters };
        let packets = &mut batch[..count];
        scratch.reset(count, tracer.is_some());
        if let Some(tracer) = tracer {
            tracer.capture(packets);
        }

        keys.clear();
        let received = receive::run(&context, scratch, packets, (flows, keys));
        probe.mark(Mark::Parse);
        let mut entered = received.own;
        source::pods(&context, scratch, packets, &received.pods, &mut entered);
        probe.mark(Mark::Source);
        uplink::run(&context, scratch, packets, &received.uplinks, &mut entered);
        source::hosts(&context, scratch, &received.hosts, &mut entered);
        probe.mark(Mark::Decapsulate);

        let mut allowed = Indices::new();
        let mut memory = flow::Memory { flows, fragments, keys, misses, newcomers, log };
        flow::run(
            &context,
            scratch,
            packets,
            &mut memory,
            (&entered, received.tunnelled),
            &mut allowed,
            probe,
        );
        forward::run(&context, scratch, packets, &allowed);
        if !scratch.answers.is_empty() {
            dns::tell(&context, scratch, packets, out);
        }
        probe.mark(Mark::Forward);
        if !scratch.reports.is_empty() {
            forward::report(&context, scratch, packets, limits);
        }
        probe.mark(Mark::Report);
        let left = out.tx.len();
        transmit::run(&context, scratch, batch, count, out);
        if tables.coalesces {
            let takes_large = |packet: &Packet<B>| tables.port(packet.port).takes_large;
            let coalesced = coalesce::run(out, left, takes_large);
            context.counters.passed(Stage::Coalesce, coalesced);
        }
        probe.mark(Mark::Leave);

        if let Some(tracer) = tracer {
            tracer.record(scratch, tables, flows, now, count);
        }
    }

    /// From now on, of the packets that come by one port and belong to no known flow only `most` are judged, and the others
    /// end ([`WorkerBehind`](vswitch_model::DropReason::WorkerBehind)); None: all are judged. Called between turns of a
    /// worker, each of which has that number anew.
    #[inline]
    pub const fn limit_newcomers(&mut self, most: Option<u16>) {
        self.newcomers.limit(most);
    }

    /// Forgets flows that timed out, looking at no more than `budget` of them. Called between batches; how many it forgot.
    pub fn tick(&mut self, now: Now, budget: usize) -> usize {
        let expired = self.flows.expire(now, budget);
        if expired > 0 {
            self.counters.flows_expired.add(expired as u64);
        }
        expired
    }

    /// The flows, in no order of meaning.
    pub fn flows(&self) -> impl Iterator<Item = Flow> {
        self.flows.iter().map(|(_, flow)| flow)
    }

    /// The flow table itself, to look flows up.
    #[must_use]
    pub fn flow_table(&self) -> &FlowTable {
        &self.flows
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Starts a trace, or ends the one that is taken.
    pub fn set_trace(&mut self, spec: Option<TraceSpec>) {
        self.tracer = spec.map(Tracer::new);
    }
}
