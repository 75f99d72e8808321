//! What changes by itself: ports that come and go, the underlay, what the kernel refused; and what is shown of all.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use vswitch_datapath::CompileError;
use vswitch_model::{PortName, Touched};

use super::{Compiler, IN_FORCE, LOOK};
use crate::engine::devices::Device;
use crate::engine::ports::wanted;
use crate::engine::shared::Snapshot;
use crate::netlink::Facts;

impl Compiler {
    /// Looks again at everything that may have changed by itself or can be tried again.
    pub(super) fn refresh(&mut self) {
        let looked_long_ago = self.looked.elapsed() >= LOOK;
        if looked_long_ago || self.ports.open.values().any(|open| self.vanished(&open.device)) {
            self.looked = Instant::now();
            self.full.look(&self.shared.workers, self.looked);
            self.ports.close_gone(&self.shared.workers);
        }
        self.retry_ports();
        let now = (self.ports.map(self.desired.now(), &self.facts), self.underlay());
        if now != self.compiled
            && let Err(error) = self.publish_again()
        {
            tracing::error!(%error, "the underlay changed, but there are no tables for it");
        }
        self.all_run(IN_FORCE).ok();
        if self.save_error.is_some() {
            self.save(None);
        }
        if self.steer_error.is_some() {
            self.steer(&wanted(&self.shared.config, self.desired.now()));
        }
        self.show();
    }

    /// Logs which uplinks can carry nothing any more, and which can again.
    pub(super) fn tell_of_uplinks(&self, facts: &Facts) {
        for name in &self.shared.config.uplinks {
            let state = |facts: &Facts| Some(facts.links.get(name.as_str())?.hindrance());
            match (state(&self.facts), state(facts)) {
                (before, Some(Some(hindrance))) if before != Some(Some(hindrance)) => {
                    tracing::warn!(uplink = %name, "{hindrance}: nothing goes by it");
                }
                (Some(Some(_)), Some(None)) => tracing::info!(uplink = %name, "up, with a carrier again"),
                _ => {}
            }
        }
    }

    pub(super) fn retry_ports(&mut self) {
        let wanted = wanted(&self.shared.config, self.desired.now());
        let opened = self.ports.open_missing(&wanted, self.devices.as_mut(), &self.shared.workers);
        if !opened.is_empty()
            && let Err(error) = self.publish_again()
        {
            tracing::error!(%error, "ports came back, but there are no tables for them");
        }
    }

    /// Tables of the state of now, when something else has changed.
    fn publish_again(&mut self) -> Result<(), CompileError> {
        let desired = Arc::clone(self.desired.now());
        self.publish(self.generation, &desired, Some((&desired, &Touched::default())))
    }

    /// Whether the kernel's last description lacks the interface of a port.
    pub(super) fn vanished(&self, device: &Device) -> bool {
        let (Device::Pod { interface, netns: None }
        | Device::Uplink { interface }
        | Device::Host { interface }) = device
        else {
            return false;
        };
        !self.facts.links.is_empty() && !self.facts.links.contains_key(interface.as_str())
    }

    pub(super) fn steer(&mut self, wanted: &BTreeMap<PortName, Device>) {
        let (prefixes, tunnels) = crate::engine::kernel::ours(self.desired.now(), wanted);
        let outcome = self.devices.steer(&prefixes, &tunnels).map_err(|error| error.to_string());
        if let Err(error) = &outcome {
            tracing::error!(%error, "uplinks are not steered as they should be");
        }
        self.steer_error = outcome.err();
    }

    pub(super) fn wanted_of_kernel(&self) -> crate::netlink::Wanted {
        crate::engine::kernel::wanted(&self.shared.config, self.desired.now())
    }

    /// Lets other threads see the state of now.
    pub(super) fn show(&self) {
        self.shared.snapshot.store(Arc::new(Snapshot {
            generation: self.generation,
            generation_before: self.generation_before,
            desired: Arc::clone(self.desired.now()),
            tables: Arc::clone(&self.tables),
            ports: self.ports.clone(),
            facts: Arc::clone(&self.facts),
            save_error: self.save_error.clone(),
            steer_error: self.steer_error.clone(),
            restored: self.restored,
            full: self.full.full().to_vec(),
            history: self.history.clone(),
            rules: OnceLock::new(),
        }));
    }
}
