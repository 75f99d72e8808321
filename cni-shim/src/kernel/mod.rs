//! What the plugin asks of the kernel: namespaces, links, addresses, routes, offloads.

pub mod ethtool;
mod genl;
pub mod links;
pub mod napi;
pub mod netns;
pub mod sysctl;
pub mod tun;
