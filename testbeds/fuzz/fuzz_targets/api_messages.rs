//! What an agent may send to an engine: a message that converts survives the way back, a whole state compiles, and a
//! delta on it either fails by a rule or leads to a state that compiles too.
#![no_main]

use std::sync::OnceLock;

use prost::Message;
use vswitch_datapath::tables::{Revision, Role};
use vswitch_datapath::testing::World;
use vswitch_datapath::{CompileInputs, PortFacts, PortIndex, PortMap, Underlay, compile};
use vswitch_fuzz::seed;
use vswitch_model::api::engine::{self, apply_request};
use vswitch_model::{Delta, DesiredState, Generation, Mac};

static BASE: OnceLock<DesiredState> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let state = BASE.get_or_init(|| World::node(1).desired);
        let full = engine::DesiredState::from(state.clone());
        let request = |change| engine::ApplyRequest { generation: 1, change: Some(change) };
        seed("full", &request(apply_request::Change::Full(full)).encode_to_vec());
        let removal = state.changes_to(&DesiredState { local: state.local.clone(), ..DesiredState::default() });
        let delta = engine::Delta::from(Delta { base: Generation(0), changes: removal });
        seed("delta", &request(apply_request::Change::Delta(delta)).encode_to_vec());
    },
    |data: &[u8]| {
        let Ok(request) = engine::ApplyRequest::decode(data) else { return };
        match request.change {
            Some(apply_request::Change::Full(message)) => {
                let Ok(state) = DesiredState::try_from(message) else { return };
                let back = DesiredState::try_from(engine::DesiredState::from(state.clone()));
                assert_eq!(back.as_ref(), Ok(&state));
                compiles(&state);
            }
            Some(apply_request::Change::Delta(message)) => {
                let Ok(delta) = Delta::try_from(message) else { return };
                let mut state = BASE.get_or_init(|| World::node(1).desired).clone();
                delta.changes.into_iter().for_each(|change| state.apply(change));
                compiles(&state);
            }
            None => {}
        }
    }
);

/// A state that passes its check compiles, or is too large for the tables.
fn compiles(state: &DesiredState) {
    if state.check().is_err() {
        return;
    }
    let facts = |(index, name): (usize, &vswitch_model::PortName)| {
        let index = PortIndex(u16::try_from(index).expect("a state has at most 1024 ports"));
        let facts = PortFacts { index, role: Role::Pod, mac: Mac::GATEWAY, mtu: 1500, finishes_checksums: false, takes_large: false };
        (name.clone(), facts)
    };
    let ports: PortMap = state.ports.keys().enumerate().map(facts).collect();
    let inputs = CompileInputs {
        generation: Generation(1),
        revision: Revision(1),
        desired: state,
        ports: &ports,
        underlay: &Underlay::default(),
    };
    let _too_large = compile(&inputs);
}
