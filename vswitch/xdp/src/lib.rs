//! The steering XDP program and its loader.
//!
//! The program (`bpf/steering.bpf.c`) decides for each frame a device receives whether it goes to the engine's AF_XDP socket
//! or up the kernel's stack. [`Steering`] loads it once for a network namespace; [`Steering::attach`] puts it on a device;
//! the rest tells it what is ours.
//!
//! Programs are attached by `bpf_link`, which the kernel takes off when the process ends, however it ends: the node's own
//! traffic goes on. A pod whose engine is dead then sends into the node's kernel, through a host end that has no address and
//! to a gateway that nobody answers for; what forwards nothing must keep it so (`net.ipv4.conf.*.forwarding` of the host
//! ends off, no proxy ARP), which is up to whoever makes the veth.

mod error;
mod steering;

#[cfg(test)]
mod tests;

pub use error::SteeringError;
pub use steering::{Device, Mode, Role, Steering, TunnelEndpoint};
