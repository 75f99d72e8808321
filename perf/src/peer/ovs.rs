//! Open vSwitch with its userspace datapath and AF_XDP: two ports, what comes by the first leaves by the second.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Program, find, folder};
use crate::net::Namespace;
use crate::{Error, Result};

/// Where Debian's package has the description of the database.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PACKAGE: &str = "openvswitch-switch";
const BRIDGE: &str = "br0";

/// A running Open vSwitch.
#[derive(Debug)]
pub struct Ovs {
    // The switch ends before its database does.
    switch: Program,
    _database: Program,
    _files: TempDir,
}

impl Ovs {
    /// Starts one in `namespace` whose polling thread is on `core`. The devices need no NAPI of their own: its XDP program
    /// brings it.
    ///
    /// # Errors
    ///
    /// [`Error::Unmet`] when it is not installed, [`Error::Setup`] when it does not do what it is told.
    pub fn start(namespace: &Namespace, from: &str, to: &str, core: usize) -> Result<Self> {
        let path = |program| find("ovs", program, PACKAGE);
        let files = folder()?;
        let at = |name: &str| files.path().join(name);
        let (file, socket) = (at("conf.db"), at("db.sock"));
        vswitch_testbeds::command::run(
            Command::new(path("ovsdb-tool")?).arg("create").arg(&file).arg(SCHEMA),
        )
        .map_err(|error| Error::setup("make the database of ovs", error))?;
        let mut command = namespace.command(path("ovsdb-server")?);
        command.arg(&file).arg(format!("--remote=punix:{}", socket.display()));
        let mut database = daemon(command, files.path(), "ovsdb-server")?;
        database.wait("start the database of ovs", || socket.exists())?;
        tell(
            &files,
            &format!(
                "--no-wait init -- set Open_vSwitch . other_config:pmd-cpu-mask={:#x} \
                 other_config:n-handler-threads=1 other_config:n-revalidator-threads=1",
                1_u64 << core
            ),
        )?;
        let mut command = namespace.command(path("ovs-vswitchd")?);
        command.arg(format!("unix:{}", socket.display()));
        let mut switch = daemon(command, files.path(), "ovs-vswitchd")?;
        // Waits until the switch has done what the database now says.
        let port = |name: &str, number: u8| {
            format!(
                "-- add-port {BRIDGE} {name} -- set interface {name} type=afxdp options:xdp-mode=native \
                 ofport_request={number} "
            )
        };
        let bridge = format!("add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev fail_mode=secure ");
        tell(&files, &(bridge + &port(from, 1) + &port(to, 2)))?;
        for name in [from, to] {
            let problem = tell(&files, &format!("get interface {name} error"))?;
            if problem.trim() != "[]" {
                return Err(Error::setup(format!("add {name} to ovs"), problem.trim()));
            }
        }
        let management = at(&format!("{BRIDGE}.mgmt"));
        switch.wait("start ovs", || management.exists())?;
        let flow = "in_port=1,actions=output:2";
        let mut add = Command::new(path("ovs-ofctl")?);
        vswitch_testbeds::command::run(add.args([
            "add-flow",
            &format!("unix:{}", management.display()),
            flow,
        ]))
        .map_err(|error| Error::setup("give ovs its flow", error))?;
        let ovs = Self { switch, _database: database, _files: files };
        ovs.thread().map(|_| ovs).ok_or_else(|| Error::setup("start ovs", "it has no polling thread"))
    }

    /// Its polling thread, as [`crate::machine::Watch::thread`] wants it.
    #[must_use]
    pub fn thread(&self) -> Option<String> {
        self.switch.thread("pmd-")
    }
}

fn daemon(mut command: Command, files: &Path, name: &str) -> Result<Program> {
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, files);
    }
    let control = files.join(format!("{name}.ctl"));
    command.arg(format!("--unixctl={}", control.display())).args(["-vsyslog:off", "-vconsole:warn"]);
    Program::start(&mut command, Stdio::null(), &files.join(format!("{name}.log")))
}

/// Runs `ovs-vsctl`, its arguments separated by blanks.
fn tell(files: &TempDir, words: &str) -> Result<String> {
    let mut command = Command::new(find("ovs", "ovs-vsctl", PACKAGE)?);
    command.arg(format!("--db=unix:{}", files.path().join("db.sock").display()));
    command.args(["--timeout=15"]).args(words.split_whitespace());
    vswitch_testbeds::command::run(&mut command).map_err(|error| Error::setup("tell ovs", error))
}
