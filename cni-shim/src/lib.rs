//! CNI plugins: `vswitch-cni` attaches pods to the vSwitch, `vswitch-ipam` gives them addresses.
//!
//! Both speak CNI 1.1 (and results back to 0.3.0) on standard input and output, and the agent API on a unix socket.
//! What makes a pod's port is told in [`pod`] and [`network`]; neither keeps state of its own: names follow from the
//! attachment, everything else is the agent's or the kernel's.

pub mod agent;
pub mod cni_args;
pub mod config;
pub mod delegate;
pub mod error;
pub mod ipam;
pub mod kernel;
pub mod names;
pub mod network;
pub mod pod;

use std::process::ExitCode;

use rscni_plugin::cni::{Cni, Plugin};
use rscni_plugin::types::NetConf;

/// Runs a plugin as its `main`: parameters from the environment, configuration from standard input, the result or the
/// error as JSON on standard output. Exit code 1 on an error.
pub fn run_plugin(plugin: &impl Cni, about: &str) -> ExitCode {
    match Plugin::default().msg(about).run(plugin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread that waits for sockets: all a plugin needs.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Everything that reads bytes from outside, on the same bytes: `CNI_ARGS` up to the first newline, behind it standard
/// input and the answer of an IPAM plugin. For the fuzzer; it must not panic.
pub fn fuzz_input(data: &[u8]) {
    let cut = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (arguments, rest) = data.split_at(cut);
    let input = rest.get(1..).unwrap_or_default();
    let _ = cni_args::CniArgs::parse(&String::from_utf8_lossy(arguments));
    let _ = delegate::read_result(input);
    if let Ok(conf) = serde_json::from_slice::<NetConf>(input) {
        let _ = config::NetworkConf::read(&conf);
        let _ = config::IpamConf::read(&conf);
        for attachment in conf.valid_attachments.iter().flatten() {
            let id = names::AttachmentId::new(&attachment.container_id, &attachment.ifname);
            assert!(names::is_host_interface(&id.host_interface()));
            let _ = names::host_alias(&conf.name, &id);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fuzz_input;

    proptest! {
        #[test]
        fn no_input_makes_it_panic(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz_input(&data);
        }

        #[test]
        fn nearly_right_input_neither(
            arguments in "[A-Z_=;a-z0-9]{0,40}",
            name in "\\PC{0,20}",
            key in "[a-z./]{0,12}",
            mtu in any::<i64>(),
            container in "\\PC{0,300}",
        ) {
            let config = serde_json::json!({
                "cniVersion": "1.1.0", "name": name, "type": "vswitch-cni", "mtu": mtu, "ipam": {"type": key, (key.as_str()): 1},
                "cni.dev/valid-attachments": [{"containerID": container, "ifname": key}],
                "ips": [{"address": format!("10.0.0.1/{mtu}")}],
            });
            fuzz_input(format!("{arguments}\n{config}").as_bytes());
        }
    }
}
