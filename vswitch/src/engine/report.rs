//! What is left to say when the engine has stopped: nothing may be unaccounted for.

use std::collections::BTreeMap;

use serde::Serialize;
use vswitch_model::DropReason;

use super::{Counts, Shared, role_name};

/// The engine's account at its stop, as it is logged and written for `--final-report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FinalReport {
    /// Frames that are nowhere: neither free, nor in a ring. Zero, or there is a bug.
    pub frames_leaked: u64,
    /// Frames there were.
    pub frames_total: u64,
    /// Frames that are free again.
    pub frames_free: u64,
    /// Packets that ended, by reason; reasons that did not occur are left out.
    pub drops: BTreeMap<&'static str, u64>,
    /// Packets by port.
    pub ports: BTreeMap<String, PortReport>,
    /// Flows that were created.
    pub flows_created: u64,
}

/// What one port counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortReport {
    /// What was at its other end.
    pub role: &'static str,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// What the ports that were open at the stop have counted.
fn counts(shared: &Shared) -> BTreeMap<String, PortReport> {
    let snapshot = shared.snapshot.load();
    let ports = snapshot.ports.open.iter().map(|(name, open)| {
        let counts = Counts::of(&shared.workers, open.index).since(&open.before);
        let report = PortReport {
            role: role_name(open.device.role()),
            rx_packets: counts.rx.0,
            rx_bytes: counts.rx.1,
            tx_packets: counts.sent(),
            tx_bytes: counts.tx.1,
        };
        (name.to_string(), report)
    });
    ports.collect()
}

impl FinalReport {
    /// The account of an engine whose workers have ended and whose ports are closed.
    pub(super) fn of(shared: &Shared) -> Self {
        let frames = shared.umem.account(0);
        let sum = |reason| shared.workers.iter().map(|worker| worker.counters.drops(reason)).sum::<u64>();
        let drops = DropReason::ALL.iter().map(|reason| (reason.key(), sum(*reason))).filter(|(_, n)| *n > 0);
        Self {
            // What was dropped instead of being put back is marked as held by a worker, and none is left.
            frames_leaked: frames.leaked as u64,
            frames_total: frames.total as u64,
            frames_free: frames.free as u64,
            drops: drops.collect(),
            ports: counts(shared),
            flows_created: shared.workers.iter().map(|worker| worker.counters.flows_created.get()).sum(),
        }
    }
}
