//! Each test sends packets into a small world and says what left and which counters moved; no other may have.

mod ecmp;
mod flows;
mod forwarding;
mod fragments;
mod large;
mod modes;
mod newcomers;
mod pod_tunnels;
mod pods;
mod policy;
mod related;
mod source_ports;
mod tracing;
mod underlay;
mod windows;

use std::net::IpAddr;

use crate::PortIndex;
use crate::testing::world::{v4, v6};

/// A pod's address in both families.
fn both(node: u8, pod: PortIndex) -> [IpAddr; 2] {
    [v4(node, pod), v6(node, pod)]
}
