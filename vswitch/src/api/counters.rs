//! What the engine has counted since it started.

use std::collections::BTreeMap;

use vswitch_datapath::Stage;
use vswitch_model::api::engine as pb;
use vswitch_model::{DropReason, PortName};

use crate::engine::{Counts, OpenPort, Shared, reports, role_name};
use crate::io::PortStatistics;

/// What one open port has counted.
#[derive(Debug, Clone)]
pub struct PortNumbers {
    /// Its name.
    pub name: PortName,
    /// What is at its other end: `pod`, `uplink`, `host`.
    pub role: &'static str,
    /// Whose it is; empty when it is the node's own.
    pub workload: String,
    /// Since it was opened.
    pub counts: Counts,
    /// What the port itself says. None: its worker did not answer.
    pub statistics: Option<PortStatistics>,
}

/// The numbers of all open ports. Waits for the workers.
#[must_use]
pub fn port_numbers(shared: &Shared) -> Vec<PortNumbers> {
    let snapshot = shared.snapshot.load_full();
    let reports: BTreeMap<_, _> = reports(&shared.workers)
        .into_iter()
        .map(|(worker, report)| ((worker, report.port), report.statistics))
        .collect();
    let one = |(name, open): (&PortName, &OpenPort)| {
        let parts = open.workers(shared.workers.len()).map(|worker| reports.get(&(worker, open.index)));
        let statistics = parts.map(Option::<&PortStatistics>::copied).reduce(|a, b| Some(a?.plus(b?)));
        PortNumbers {
            name: name.clone(),
            role: role_name(open.device.role()),
            workload: snapshot.desired.ports.get(name).map(|port| port.workload.clone()).unwrap_or_default(),
            counts: Counts::of(&shared.workers, open.index).since(&open.before),
            statistics: statistics.flatten(),
        }
    };
    snapshot.ports.open.iter().map(one).collect()
}

pub(super) fn counters(shared: &Shared) -> pb::Counters {
    let workers = || shared.workers.iter();
    let sum = |of: &dyn Fn(&crate::worker::Handle) -> u64| workers().map(of).sum::<u64>();
    let flows = pb::FlowCounters {
        current: sum(&|worker| worker.status.flows()),
        capacity: sum(&|worker| worker.config.walk.flows as u64),
        created: sum(&|worker| worker.counters.flows_created.get()),
        expired: sum(&|worker| worker.counters.flows_expired.get()),
        refused: sum(&|worker| worker.counters.drops(DropReason::FlowTableFull)),
        revalidated: sum(&|worker| worker.counters.stage(Stage::Revalidate)),
        evicted: sum(&|worker| worker.counters.flows_evicted.get()),
        current_of_workers: workers().map(|worker| worker.status.flows()).collect(),
    };
    let frames = shared.umem.account(shared.frames_held());
    let stage = |stage: &Stage| pb::StageCounter {
        stage: stage.key().to_owned(),
        packets: sum(&|worker| worker.counters.stage(*stage)),
    };
    let drops: [u64; DropReason::COUNT] =
        std::array::from_fn(|reason| sum(&|worker| worker.counters.drops(DropReason::ALL[reason])));
    pb::Counters {
        ports: port_numbers(shared).iter().map(port_counters).collect(),
        drops: drop_counters(&drops),
        flows: Some(flows),
        frames: Some(pb::FrameCounters {
            total: frames.total as u64,
            free: frames.free as u64,
            receiving: frames.fill as u64,
            transmitting: frames.transmit as u64,
            in_worker: frames.held as u64,
            unaccounted: frames.total as i64
                - (frames.free + frames.fill + frames.transmit + frames.held) as i64,
        }),
        stages: Stage::ALL.iter().map(stage).collect(),
    }
}

fn port_counters(port: &PortNumbers) -> pb::PortCounters {
    let lost = port.statistics.map_or(0, |s| s.receive_ring_full + s.fill_ring_empty + s.receive_dropped);
    pb::PortCounters {
        name: port.name.to_string(),
        role: port.role.to_owned(),
        workload: port.workload.clone(),
        rx_packets: port.counts.rx.0,
        rx_bytes: port.counts.rx.1,
        tx_packets: port.counts.sent(),
        tx_bytes: port.counts.tx.1,
        drops: drop_counters(&port.counts.drops),
        rx_lost: lost,
    }
}

fn drop_counters(drops: &[u64; DropReason::COUNT]) -> Vec<pb::DropCounter> {
    let happened = DropReason::ALL.iter().zip(drops).filter(|(_, packets)| **packets > 0);
    happened
        .map(|(reason, packets)| pb::DropCounter { reason: reason.key().to_owned(), packets: *packets })
        .collect()
}
