//! The state that the engine is to have, and what of it the engine lacks.

use std::collections::BTreeMap;
use std::sync::Arc;

use vswitch_model::api::engine::ApplyRequest;
use vswitch_model::api::{apply_request, delta_request};
use vswitch_model::{DesiredState, DomainPattern, Generation, Invalid, Port, PortName, Touched};

use crate::calc::{Calculator, Inputs, NameWanted};

/// Ports by name.
pub type Ports = BTreeMap<PortName, Port>;

/// The newest state that is whole.
#[derive(Debug)]
pub struct Wanted {
    calculator: Calculator,
    /// Where the calculation has gone on since the last state that was whole.
    unjudged: Touched,
    /// None: nothing has been calculated yet.
    state: Option<DesiredState>,
    /// Where it differs, or did at some time, from what the engine acknowledged last.
    unsent: Touched,
}

impl Wanted {
    /// None yet: nothing has been calculated.
    #[must_use]
    pub fn new(calculator: Calculator) -> Self {
        Self { calculator, unjudged: Touched::default(), state: None, unsent: Touched::default() }
    }

    /// Makes what is calculated of these objects the wanted state, if that is whole; otherwise the one before stays.
    /// Whether it is another.
    pub fn follow(&mut self, inputs: &Inputs) -> Result<bool, Invalid> {
        self.unjudged.merge(self.calculator.calculate(inputs));
        let calculated = self.calculator.state();
        // What is calculated refers to nothing that is not there; what comes from objects as it is is judged here.
        let judge =
            if self.unjudged.spares_routes() { DesiredState::check_limits } else { DesiredState::check };
        judge(calculated)?;
        let mut touched = std::mem::take(&mut self.unjudged);
        let is_first = self.state.is_none();
        let state = self.state.get_or_insert_default();
        touched.retain_differing(state, calculated);
        touched.changes(calculated).into_iter().for_each(|change| state.apply(change));
        let is_other = is_first || !touched.is_empty();
        self.unsent.merge(touched);
        Ok(is_other)
    }

    /// The names that policies in force speak of.
    pub(super) fn names(&self) -> BTreeMap<DomainPattern, NameWanted> {
        self.calculator.names()
    }

    /// What of the newest objects could not be done as they say.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        self.calculator.problems()
    }

    /// Whether there is a state, and the engine has it if it has what it acknowledged.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.state.is_some() && self.unsent.is_empty()
    }

    /// Whether there is a state.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.state.is_some()
    }

    /// What leads the engine to the state from what it acknowledged, if that is given, or from anything. None: there is no
    /// state.
    #[must_use]
    pub fn request(&self, generation: Generation, base: Option<Generation>) -> Option<ApplyRequest> {
        let state = self.state.as_ref()?;
        Some(match base {
            Some(base) => delta_request(generation, base, self.unsent.changes(state)),
            None => apply_request(generation, None, state),
        })
    }

    /// Notes that the engine has the state. Gives its ports: `known` where these are the same.
    pub fn acknowledged(&mut self, known: Option<Arc<Ports>>) -> Arc<Ports> {
        self.unsent = Touched::default();
        let Some(state) = &self.state else { return Arc::default() };
        known.filter(|known| **known == state.ports).unwrap_or_else(|| Arc::new(state.ports.clone()))
    }
}

#[cfg(test)]
mod tests {
    use vswitch_model::Delta;
    use vswitch_model::api::engine::apply_request::Change;

    use super::*;
    use crate::calc::CalcConfig;
    use crate::object::{Object, manifest};

    fn object(text: &str) -> Object {
        manifest::parse("test", "default", text).unwrap().remove(0).object
    }

    fn endpoint(name: &str, address: &str, mtu: u16) -> Object {
        let mut object = object(&format!(
            "{{apiVersion: vswitch.internal/v1, kind: Endpoint, metadata: {{name: {name}.eth0}}, spec: {{node: n0, namespace: x, \
             pod: {name}, containerId: {name}, interface: eth0, port: {name}, attachment: {{veth: {{interface: {name}, \
             netns: null}}}}, mac: '0a:00:00:00:00:01', addresses: [{address}], mtu: 1400}}}}"
        ));
        if let Object::Endpoint(endpoint) = &mut object {
            endpoint.spec.mtu = mtu;
        }
        object
    }

    /// What an engine with this state has after the request.
    fn after(mut state: DesiredState, request: Option<ApplyRequest>) -> DesiredState {
        match request.unwrap().change.unwrap() {
            Change::Full(full) => state = full.try_into().unwrap(),
            Change::Delta(delta) => {
                let delta = Delta::try_from(delta).unwrap();
                delta.changes.into_iter().for_each(|change| state.apply(change));
            }
        }
        state
    }

    #[test]
    fn what_is_not_whole_is_not_wanted_and_told_of_once_it_is() {
        let mut wanted = Wanted::new(Calculator::new("n0", CalcConfig::default()));
        assert!(wanted.request(Generation(1), None).is_none(), "nothing is calculated yet");
        let mut inputs: Inputs = [endpoint("a", "10.0.0.1", 1400)].into_iter().collect();
        assert!(wanted.follow(&inputs).unwrap() && !wanted.is_sent());
        let first = after(DesiredState::default(), wanted.request(Generation(1), None));
        assert_eq!(first.ports.len(), 1);
        let ports = wanted.acknowledged(None);
        assert!(wanted.is_sent() && *ports == first.ports);

        inputs.set(endpoint("b", "10.0.0.2", 1));
        assert!(wanted.follow(&inputs).is_err());
        inputs.set(endpoint("a", "10.0.0.3", 1400));
        assert!(wanted.follow(&inputs).is_err(), "it still is not");
        assert!(wanted.is_sent(), "the one before stays");
        assert_eq!(after(DesiredState::default(), wanted.request(Generation(2), None)), first);

        inputs.set(endpoint("b", "10.0.0.2", 1400));
        assert!(wanted.follow(&inputs).unwrap() && !wanted.is_sent());
        let by_delta = after(first, wanted.request(Generation(3), Some(Generation(1))));
        assert_eq!(by_delta, after(DesiredState::default(), wanted.request(Generation(3), None)));
        assert_eq!(by_delta.ports.len(), 2);
        assert!(!Arc::ptr_eq(&ports, &wanted.acknowledged(Some(ports.clone()))));

        inputs.set(object("{apiVersion: v1, kind: Namespace, metadata: {name: other}}"));
        assert!(!wanted.follow(&inputs).unwrap() && wanted.is_sent(), "the state is the same");
    }
}
