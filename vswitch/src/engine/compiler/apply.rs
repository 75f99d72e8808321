//! What control wants is judged, brought into force and saved.

use std::collections::BTreeMap;
use std::sync::Arc;

use vswitch_model::{Change, Delta, DesiredState, Generation, Invalid, PortName, Touched};

use super::{Applied, ApplyError, Compiler, IN_FORCE};
use crate::engine::Desire;
use crate::engine::ports::wanted;

/// What led to a state, when it was not sent whole.
pub(super) struct Led {
    changes: Vec<Change>,
    touched: Touched,
}

impl Compiler {
    pub(super) fn apply(&mut self, generation: Generation, desire: Desire) -> Result<Applied, ApplyError> {
        let current = self.generation;
        let (desired, led) = match desire {
            Desire::Full(state) => (Arc::from(state), None),
            Desire::Delta(delta) if delta.base != current => {
                return Err(ApplyError::ResyncNeeded { base: delta.base, current });
            }
            Desire::Delta(Delta { changes, .. }) => {
                let touched = Touched::of(&changes);
                (self.desired.next(&changes), Some(Led { changes, touched }))
            }
        };
        let repeated = generation == current && desired == *self.desired.now();
        if generation <= current && !repeated {
            return Err(ApplyError::Generation { generation, current });
        }
        self.check(&desired, led.as_ref())?;
        let delta = led.as_ref().map(|led| Delta { base: current, changes: led.changes.clone() });
        let outcome = if repeated {
            self.retry_ports();
            Ok(())
        } else {
            self.bring_into_force(generation, desired, led)
        };
        // Also when a worker is late: it is published, and sent again it would be no change.
        if self.generation != current || self.save_error.is_some() {
            self.save(delta);
        }
        outcome?;
        self.restored = false;
        self.all_run(IN_FORCE)?;
        Ok(Applied { generation, failed_ports: self.failed_pods() })
    }

    /// That the state is whole, and what [`DesiredState::check`] cannot know: this engine's own ports.
    fn check(&self, desired: &DesiredState, led: Option<&Led>) -> Result<(), Invalid> {
        match led {
            Some(led) => desired.check_touched(&led.touched)?,
            None => desired.check()?,
        }
        let config = &self.shared.config;
        for name in config.uplinks.iter().chain([&config.host_port]) {
            if desired.ports.contains_key(name) {
                let problem = "is the name of an uplink or of the host port of this node";
                return Err(Invalid::new(format!("ports[{name}].name"), problem));
            }
        }
        let own = config.uplinks.len() + 1;
        if desired.ports.len() + own > vswitch_model::limits::PORTS_MAX {
            let most = vswitch_model::limits::PORTS_MAX - own;
            let problem =
                format!("{} of them, but at most {most} beside this node's own", desired.ports.len());
            return Err(Invalid::new("ports", problem));
        }
        Ok(())
    }

    fn failed_pods(&self) -> BTreeMap<PortName, String> {
        let desired = self.desired.now();
        let pods = self.ports.failed.iter().filter(|(name, _)| desired.ports.contains_key(*name));
        pods.map(|(name, reason)| (name.clone(), reason.clone())).collect()
    }

    /// Steps 2 to 4 of the module's documentation. An error leaves everything as it was.
    pub(super) fn bring_into_force(
        &mut self,
        generation: Generation,
        desired: Arc<DesiredState>,
        led: Option<Led>,
    ) -> Result<(), ApplyError> {
        let before = Arc::clone(self.desired.now());
        let wanted = wanted(&self.shared.config, &desired);
        let opened = self.ports.open_missing(&wanted, self.devices.as_mut(), &self.shared.workers);
        let touched = led.as_ref().map(|led| &led.touched);
        if let Err(error) = self.publish(generation, &desired, touched.map(|touched| (&*before, touched))) {
            for name in opened.iter().filter(|name| !before.ports.contains_key(*name)) {
                self.ports.close(name, &self.shared.workers);
            }
            return Err(error.into());
        }
        let spares_routes = touched.is_some_and(Touched::spares_routes);
        self.generation = generation;
        self.desired.adopt(desired, led.map(|led| led.changes));
        let in_force = self.all_run(IN_FORCE);
        self.ports.close_extra(&wanted, &self.shared.workers);
        if !spares_routes {
            self.steer(&wanted);
            if let Some(follower) = &self.follower {
                follower.want(self.wanted_of_kernel());
            }
        }
        in_force
    }

    /// Saves the state of now: what leads to it from what was saved last, or all of it.
    pub(super) fn save(&mut self, since: Option<Delta>) {
        let added = match since.filter(|_| self.save_error.is_none()) {
            Some(delta) => self.saved.append(self.generation, delta),
            None => Ok(false),
        };
        let outcome = match added {
            Ok(false) => self.saved.save(self.generation, self.desired.now()),
            done => done.map(drop),
        };
        let outcome = outcome.map_err(|error| error.to_string());
        if let Err(error) = &outcome
            && self.save_error.as_ref() != Some(error)
        {
            tracing::error!(%error, "the state is in force, but not on disk; it is tried again");
        }
        self.save_error = outcome.err();
    }
}
