//! The CNI IPAM plugin. Executed by a network plugin; see the crate's README.

use std::process::ExitCode;

fn main() -> ExitCode {
    let about = concat!(
        "vswitch-ipam ",
        env!("CARGO_PKG_VERSION"),
        ": CNI IPAM plugin, addresses from vswitch-agent's pools"
    );
    vswitch_cni::run_plugin(&vswitch_cni::ipam::Ipam, about)
}
