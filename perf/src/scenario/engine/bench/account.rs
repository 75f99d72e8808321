//! What became of packets: every one that was sent is to come through, and to make a flow or find one.

use std::sync::Arc;

use vswitch_datapath::Counters;
use vswitch_model::DropReason;

use super::super::wire::{Wire, Wires};
use crate::{Error, Result};

/// Where packets are looked for.
#[derive(Debug)]
pub(super) struct Account {
    /// The far ends of the ports they are to leave by.
    pub(super) far: Vec<Arc<Wire>>,
    pub(super) wires: Wires,
    pub(super) counters: Arc<Counters>,
}

/// What came out where, so far.
#[derive(Debug)]
pub(super) struct Balance {
    created: u64,
    arrived: u64,
    elsewhere: u64,
    drops: Vec<(DropReason, u64)>,
}

impl Account {
    pub(super) fn now(&self) -> Balance {
        let arrived = self.far.iter().map(|wire| wire.arrived()).sum();
        Balance {
            created: self.counters.flows_created.get(),
            arrived,
            elsewhere: self.wires.arrived() - arrived,
            drops: DropReason::ALL.iter().map(|reason| (*reason, self.counters.drops(*reason))).collect(),
        }
    }

    /// Sent = received + drops by reason; and of these, none here: all that is sent is to come through, and as many flows
    /// are to be `made`.
    pub(super) fn check(&self, name: &str, before: &Balance, sent: u64, made: u64) -> Result<()> {
        let after = self.now();
        let arrived = after.arrived - before.arrived;
        let elsewhere = after.elsewhere - before.elsewhere;
        let drops =
            after.drops.iter().zip(&before.drops).map(|((reason, now), (_, then))| (*reason, now - then));
        let drops: Vec<(DropReason, u64)> = drops.filter(|(_, count)| *count > 0).collect();
        if arrived == sent && elsewhere == 0 && drops.is_empty() {
            let created = after.created - before.created;
            if created == made {
                return Ok(());
            }
            return Err(Error::Miscounted(format!(
                "{name}: {sent} packets made {created} flows, and should have made {made}"
            )));
        }
        let dropped: u64 = drops.iter().map(|(_, count)| count).sum();
        let list: Vec<String> = drops.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let lost = sent as i64 - arrived as i64 - dropped as i64;
        Err(Error::Miscounted(format!(
            "{name}: {sent} packets were sent, {arrived} came through, {elsewhere} came out elsewhere, {dropped} were \
             dropped ({}), {lost} are nowhere: every one should have come through",
            if list.is_empty() { "none".to_owned() } else { list.join(", ") },
        )))
    }
}
