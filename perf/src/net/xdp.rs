//! What generator and sink do alike with aya.

use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, Pod};

use super::Namespace;
use crate::{Error, Result};

/// An error with all its causes: the loader's own text says little.
pub(super) fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    Error::setup(what, texts.join(": "))
}

/// The object's program of this name.
pub(super) fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = object.program_mut(name).ok_or_else(|| Error::setup(name, "no such program"))?;
    program.try_into().map_err(|error| failed(name, &error))
}

/// Attaches the object's program natively to a device of a namespace, for as long as the object lives.
pub(super) fn attach(object: &mut Ebpf, name: &str, namespace: &Namespace, interface: &str) -> Result<()> {
    let program = program(object, name)?;
    let what = format!("attach the program {name} to {interface}");
    let attached = namespace.enter(|| program.attach(interface, XdpMode::Driver))?;
    attached.map(drop).map_err(|error| failed(&what, &error))
}

fn taken(object: &mut Ebpf, name: &str) -> Result<Map> {
    object.take_map(name).ok_or_else(|| Error::setup(name, "no such map"))
}

/// The object's array map of this name.
pub(super) fn array<T: Pod>(object: &mut Ebpf, name: &str) -> Result<Array<MapData, T>> {
    Array::try_from(taken(object, name)?).map_err(|error| failed(name, &error))
}

/// The object's array map, of a value for each core, of this name.
pub(super) fn per_core<T: Pod>(object: &mut Ebpf, name: &str) -> Result<PerCpuArray<MapData, T>> {
    PerCpuArray::try_from(taken(object, name)?).map_err(|error| failed(name, &error))
}
