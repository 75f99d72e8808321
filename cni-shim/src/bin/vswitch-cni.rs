//! The CNI network plugin. Executed by the container runtime; see the crate's README.

use std::process::ExitCode;

fn main() -> ExitCode {
    let about =
        concat!("vswitch-cni ", env!("CARGO_PKG_VERSION"), ": CNI plugin, attaches pods to the vSwitch");
    vswitch_cni::run_plugin(&vswitch_cni::network::Network, about)
}
