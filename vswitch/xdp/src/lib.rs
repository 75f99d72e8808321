//! The steering XDP program and its loader.
//!
//! The program (`bpf/steering.bpf.c`) decides for each frame a device receives whether it goes to the engine's AF_XDP socket
//! or up the kernel's stack. [`Steering`] loads it once for a network namespace; [`Steering::attach`] puts it on a device;
//! the rest tells it what is ours.
//!
//! Programs are attached by `bpf_link`, which the kernel takes off when the process ends, however it ends: the node's own
//! traffic goes on. What a pod then sends reaches the node's kernel at the host end of its veth; who opens a pod's port sees to
//! it beforehand that the kernel neither forwards nor answers there.

mod error;
mod steering;

#[cfg(test)]
mod tests;

pub use error::SteeringError;
pub use steering::{Device, Mode, Role, Steering, TunnelEndpoint};
