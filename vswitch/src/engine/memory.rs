//! Devices in memory: an engine for tests and measurements that needs neither privilege nor kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use vswitch_datapath::PortIndex;
use vswitch_datapath::tables::Role;
use vswitch_xdp::TunnelEndpoint;

use super::devices::{Device, DeviceError, Devices};
use crate::io::{MemoryPeer, Port, Umem, UmemError, memory};

/// Packets that wait in each direction of a port.
const QUEUE: usize = 1024;

/// Opens a memory port for every device, but for those that are said to be missing.
#[derive(Debug)]
pub struct MemoryDevices {
    umem: Arc<Umem>,
    world: MemoryWorld,
}

/// What is at the other ends of memory ports. A clone is the same world.
#[derive(Debug, Clone, Default)]
pub struct MemoryWorld {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    peers: BTreeMap<String, MemoryPeer>,
    missing: BTreeSet<String>,
    prefixes: Vec<IpNet>,
    tunnels: Vec<TunnelEndpoint>,
}

impl MemoryDevices {
    /// Devices whose ports share `frames` frames, and their other ends.
    pub fn new(frames: usize) -> Result<(Self, MemoryWorld), UmemError> {
        let world = MemoryWorld::default();
        Ok((Self { umem: Umem::plain(frames)?, world: world.clone() }, world))
    }
}

impl MemoryDevices {
    fn open_queue(
        &mut self,
        device: &Device,
        index: PortIndex,
        queue: usize,
    ) -> Result<Box<dyn Port>, DeviceError> {
        let (Device::Pod { interface, .. }
        | Device::Tun { interface, .. }
        | Device::Uplink { interface }
        | Device::Host { interface }) = device;
        let mut inner = self.world.lock();
        if inner.missing.contains(interface.as_str()) {
            return Err(DeviceError(format!("interface {interface}: there is none of this name")));
        }
        let (port, peer) = memory::pair(interface.as_str(), index, QUEUE)
            .map_err(|error| DeviceError(format!("interface {interface}: {error}")))?;
        let name = if queue == 0 { interface.to_string() } else { format!("{interface}/{queue}") };
        inner.peers.insert(name, peer);
        Ok(Box::new(port))
    }
}

impl MemoryWorld {
    /// The other end of the port that was opened last on `interface`; of an uplink's further queues, on `interface/1` and so on.
    #[must_use]
    pub fn peer(&self, interface: &str) -> Option<MemoryPeer> {
        self.lock().peers.get(interface).cloned()
    }

    /// Says that an interface does not exist, or does again.
    pub fn set_missing(&self, interface: &str, missing: bool) {
        let mut inner = self.lock();
        if missing {
            inner.missing.insert(interface.to_owned());
        } else {
            inner.missing.remove(interface);
        }
    }

    /// What is ours on uplinks, as was said last.
    #[must_use]
    pub fn steered(&self) -> (Vec<IpNet>, Vec<TunnelEndpoint>) {
        let inner = self.lock();
        (inner.prefixes.clone(), inner.tunnels.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Devices for MemoryDevices {
    fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    fn kind(&self, _: &Device) -> &'static str {
        "memory"
    }

    fn open(&mut self, device: &Device, index: PortIndex) -> Result<Box<dyn Port>, DeviceError> {
        self.open_queue(device, index, 0)
    }

    /// An uplink has as many queues as there are workers.
    fn open_parts(
        &mut self,
        device: &Device,
        index: PortIndex,
        parts: usize,
    ) -> Result<Vec<Box<dyn Port>>, DeviceError> {
        let queues = if device.role() == Role::Uplink { parts } else { 1 };
        (0..queues).map(|queue| self.open_queue(device, index, queue)).collect()
    }

    fn steer(&mut self, prefixes: &[IpNet], tunnels: &[TunnelEndpoint]) -> Result<(), DeviceError> {
        let mut inner = self.world.lock();
        prefixes.clone_into(&mut inner.prefixes);
        tunnels.clone_into(&mut inner.tunnels);
        Ok(())
    }
}
