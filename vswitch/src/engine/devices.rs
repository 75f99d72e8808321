//! The seam between the engine and what ports are made of: AF_XDP sockets and tun devices, or memory in tests.

use std::sync::Arc;

use ipnet::IpNet;
use vswitch_datapath::PortIndex;
use vswitch_datapath::tables::Role;
use vswitch_model::PortName;
use vswitch_xdp::TunnelEndpoint;

use crate::io::{Port, Umem};

/// What a port is to be opened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// The host end of a pod's veth.
    Pod {
        /// Its name.
        interface: PortName,
        /// Path of its network namespace. None: the engine's own.
        netns: Option<String>,
    },
    /// A tun device in a pod, which is made by opening it unless it is there from before.
    Tun {
        /// Its name in the pod.
        interface: PortName,
        /// Path of the pod's network namespace.
        netns: String,
        /// Its MTU in bytes.
        mtu: u16,
    },
    /// An interface of the underlay.
    Uplink {
        /// Its name.
        interface: PortName,
    },
    /// The tun device to the node's kernel, which is made by opening it.
    Host {
        /// Its name.
        interface: PortName,
    },
}

impl Device {
    /// What is at its other end.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Pod { .. } | Self::Tun { .. } => Role::Pod,
            Self::Uplink { .. } => Role::Uplink,
            Self::Host { .. } => Role::Host,
        }
    }
}

/// Why a port cannot be opened; says in words what would help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DeviceError(pub String);

/// Opens ports, and tells the steering program what is ours.
pub trait Devices: Send {
    /// The memory all ports share.
    fn umem(&self) -> &Arc<Umem>;

    /// How a port on this device gets frames in and out, for people: `af_xdp`, `tun`, `memory`.
    fn kind(&self, device: &Device) -> &'static str;

    /// Opens a port.
    fn open(&mut self, device: &Device, index: PortIndex) -> Result<Box<dyn Port>, DeviceError>;

    /// Opens a port for several workers: 1 to `parts` of them, of the same number, each with receive and transmit queues of its
    /// own. Those of one flow and direction come by one of them.
    fn open_parts(
        &mut self,
        device: &Device,
        index: PortIndex,
        parts: usize,
    ) -> Result<Vec<Box<dyn Port>>, DeviceError> {
        debug_assert!(parts > 0, "somebody has to own it");
        Ok(vec![self.open(device, index)?])
    }

    /// On uplinks, what is addressed to these prefixes and tunnel ends is ours; everything else is the kernel's.
    fn steer(&mut self, prefixes: &[IpNet], tunnels: &[TunnelEndpoint]) -> Result<(), DeviceError>;
}
