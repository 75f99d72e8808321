//! DPDK's testpmd with net_af_xdp: what comes by one device leaves by the other, with no look at it (`io`).

use std::process::Stdio;

use tempfile::TempDir;

use super::{Program, find, folder};
use crate::net::Namespace;
use crate::{Error, Result};

const PACKAGE: &str = "dpdk-dev";
/// Memory it may have, in MiB; no huge pages are asked for.
const MEMORY: &str = "256";

/// A running testpmd.
#[derive(Debug)]
pub struct Testpmd {
    program: Program,
    _files: TempDir,
}

impl Testpmd {
    /// Starts one in `namespace` whose forwarding thread is on `core`; `idle` is another core, for its command line.
    ///
    /// # Errors
    ///
    /// [`Error::Unmet`] when it is not installed, [`Error::Setup`] when it does not start.
    pub fn start(namespace: &Namespace, from: &str, to: &str, core: usize, idle: usize) -> Result<Self> {
        let files = folder()?;
        let log = files.path().join("testpmd.log");
        let mut command = namespace.command(find("testpmd", "dpdk-testpmd", PACKAGE)?);
        for variable in ["XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"] {
            command.env(variable, files.path());
        }
        command.args(["-l", &format!("{core},{idle}"), "--main-lcore", &idle.to_string()]);
        command.args([
            "--no-huge",
            "-m",
            MEMORY,
            "--no-pci",
            "--no-telemetry",
            "--file-prefix",
            "vswitch-perf",
        ]);
        for (number, device) in [from, to].iter().enumerate() {
            command.args(["--vdev", &format!("net_af_xdp{number},iface={device}")]);
        }
        command.args(["--", "--nb-cores=1", "--forward-mode=io", "--total-num-mbufs=16384"]);
        command.args(["--no-lsc-interrupt", "--auto-start", "--interactive"]);
        // It ends when its input does: the pipe's other end stays with the child's value.
        let mut program = Program::start(&mut command, Stdio::piped(), &log)?;
        // The prompt is written last, when it forwards.
        program.wait("start testpmd", || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("testpmd>"))
        })?;
        let testpmd = Self { program, _files: files };
        testpmd
            .thread()
            .map(|_| testpmd)
            .ok_or_else(|| Error::setup("start testpmd", "it has no forwarding thread"))
    }

    /// Its forwarding thread, as [`crate::machine::Watch::thread`] wants it.
    #[must_use]
    pub fn thread(&self) -> Option<String> {
        self.program.thread("rte-worker")
    }
}
