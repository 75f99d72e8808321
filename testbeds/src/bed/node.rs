//! A node that vswitchd and vswitch-agent run on.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::api::{Agent, Engine};
use super::cni::Network;
use super::{Settings, Store};
use crate::command::{run, wait_for};
use crate::error::AtPath;
use crate::netns::Netns;
use crate::process::{Daemon, ProcessId};
use crate::run::Run;
use crate::topology::{self, Node};
use crate::{Error, Result};

/// How long a process of ours may take to answer after its start.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to end when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// A node's processes and how to reach them.
#[derive(Debug)]
pub struct VswitchNode {
    /// Its network namespace.
    pub netns: Netns,
    /// What the container runtime knows of it.
    pub network: Network,
    name: String,
    binaries: PathBuf,
    folder: PathBuf,
    engine: Option<Daemon>,
    agent: Option<Daemon>,
}

impl VswitchNode {
    /// Writes the configuration of a node; nothing is started yet.
    pub fn prepare(
        run: &Run,
        node: &Node,
        netns: Netns,
        binaries: &Path,
        settings: &Settings,
    ) -> Result<Self> {
        let folder = run.file(&node.name);
        std::fs::create_dir_all(&folder).at(&folder)?;
        let mut this = Self {
            network: Network::new(&netns, binaries, &folder.join("agent.sock")),
            netns,
            name: node.name.clone(),
            binaries: binaries.to_owned(),
            folder,
            engine: None,
            agent: None,
        };
        if let Some(mtu) = settings.cni_mtu {
            this.network = this.network.with("mtu", mtu.into());
        }
        this.write("vswitchd.toml", &this.engine_config(node, settings))?;
        this.write("agent.toml", &this.agent_config(node, settings))?;
        Ok(this)
    }

    fn engine_config(&self, node: &Node, settings: &Settings) -> String {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let uplinks: &[&str] =
            if settings.two_uplinks { &[topology::UPLINK, topology::UPLINK_2] } else { &[topology::UPLINK] };
        let first = usize::from(node.number - 1);
        let workers: Vec<usize> = (0..settings.workers).map(|worker| (first + worker) % cores).collect();
        let mut text = format!(
            "uplink = {uplinks:?}\nhost_port = \"vswitch0\"\ncores = {workers:?}\npoll = {poll:?}\napi_socket = {socket:?}\n\
             state_file = {state:?}\nmetrics = \"127.0.0.1:9101\"\nlog = {log:?}\n",
            poll = settings.poll,
            socket = self.engine_socket(),
            state = self.folder.join("engine.state"),
            log = settings.log,
        );
        for (key, value) in [("frames", settings.frames), ("flows", settings.flows)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }

    fn agent_config(&self, node: &Node, settings: &Settings) -> String {
        let store = match settings.store {
            Store::Etcd => format!("etcd = [\"http://{}:2379\"]\n", topology::ETCD),
            Store::Embedded => format!("embedded = {:?}\n", self.folder.join("store.redb")),
        };
        let cool_down = settings.cool_down_s.map(|s| format!("cool_down_s = {s}\n")).unwrap_or_default();
        format!(
            "node = {name:?}\napi_socket = {socket:?}\nengine_socket = {engine:?}\nlog = {log:?}\nnames_file = {names:?}\n{cool_down}\n\
             [underlay]\nipv4 = \"{v4}/{v4_length}\"\nipv6 = \"{v6}/{v6_length}\"\n\n[store]\n{store}",
            name = node.name,
            socket = self.agent_socket(),
            engine = self.engine_socket(),
            log = settings.log,
            names = self.folder.join("names.json"),
            v4 = node.underlay_v4(),
            v4_length = topology::UNDERLAY_V4_LENGTH,
            v6 = node.underlay_v6(),
            v6_length = topology::UNDERLAY_V6_LENGTH,
        )
    }

    /// The engine's socket.
    #[must_use]
    pub fn engine_socket(&self) -> PathBuf {
        self.folder.join("engine.sock")
    }

    /// The agent's socket.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    /// A file of this node.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The engine's API.
    pub fn engine(&self) -> Result<Engine> {
        Engine::at(&self.engine_socket())
    }

    /// The agent's API.
    pub fn agent(&self) -> Result<Agent> {
        Agent::at(&self.agent_socket())
    }

    /// Starts vswitchd; does not wait until it answers.
    pub fn start_engine(&mut self) -> Result<()> {
        // What an engine before has left is not to be taken for the report of this one.
        let _not_there = std::fs::remove_file(self.final_report_path());
        // On a node of its own an engine has cores of its own. Here it shares them with all the rest, and has the right of
        // way in their stead: a veth's ring holds 256 packets, a tenth of a second of fifty calls.
        let mut command = self.netns.command("nice");
        command.args(["-n", "-15"]).arg(binary(&self.binaries, "vswitchd")?);
        command.args(["run", "--config"]).arg(self.file("vswitchd.toml"));
        command.arg("--final-report").arg(self.final_report_path());
        self.engine = Some(Daemon::start(&mut command, &self.file("vswitchd.log"))?);
        Ok(())
    }

    /// Starts vswitch-agent; does not wait until it answers.
    pub fn start_agent(&mut self) -> Result<()> {
        let mut command = self.command("vswitch-agent")?;
        command.arg("--config").arg(self.file("agent.toml"));
        self.agent = Some(Daemon::start(&mut command, &self.file("agent.log"))?);
        Ok(())
    }

    /// Waits until the engine answers.
    pub fn wait_engine(&mut self) -> Result<()> {
        let engine = self.engine()?;
        let name = self.name.clone();
        wait_while_alive(&format!("vswitchd of {name} to answer"), self.engine.as_mut(), || {
            engine.status().map(drop)
        })
    }

    /// Waits until the agent answers and has read the store.
    pub fn wait_agent(&mut self) -> Result<()> {
        let agent = self.agent()?;
        let what = format!("vswitch-agent of {} to have read its store", self.name);
        wait_while_alive(&what, self.agent.as_mut(), || {
            let status = agent.status()?;
            if status.store_synced { Ok(()) } else { Err(Error::other(format!("{status:?}"))) }
        })
    }

    /// Waits until the agent would attach a pod.
    pub fn wait_ready(&mut self) -> Result<()> {
        let agent = self.agent()?;
        let what = format!("vswitch-agent of {} to be ready for pods", self.name);
        wait_while_alive(&what, self.agent.as_mut(), || {
            let reply = agent.ready(vswitch_model::api::agent::ReadyRequest {})?;
            if reply.ready { Ok(()) } else { Err(Error::other(reply.reason)) }
        })
    }

    /// Waits until the engine runs what the agent last calculated.
    pub fn wait_in_force(&mut self) -> Result<()> {
        let agent = self.agent()?;
        let what = format!("the engine of {} to run what its agent wants", self.name);
        wait_while_alive(&what, self.agent.as_mut(), || {
            let status = agent.status()?;
            let (wanted, run) = (status.generation_calculated, status.generation_acknowledged);
            if wanted == run {
                Ok(())
            } else {
                Err(Error::other(format!("wanted {wanted}, acknowledged {run}")))
            }
        })
    }

    /// Kills the engine at once (SIGKILL).
    pub fn kill_engine(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            engine.kill();
        }
    }

    /// Kills the agent at once (SIGKILL).
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// Stops the engine in order and gives its final report.
    pub fn stop_engine(&mut self) -> Result<Value> {
        let Some(mut engine) = self.engine.take() else {
            return Err(Error::other(format!("vswitchd of {} does not run", self.name)));
        };
        succeeded("vswitchd", &engine.stop(STOP_LIMIT)?, &engine)?;
        let path = self.final_report_path();
        let text = std::fs::read(&path).at(&path)?;
        serde_json::from_slice(&text).map_err(|error| Error::other(format!("{}: {error}", path.display())))
    }

    /// Stops the agent in order.
    pub fn stop_agent(&mut self) -> Result<()> {
        match self.agent.take() {
            Some(mut agent) => succeeded("vswitch-agent", &agent.stop(STOP_LIMIT)?, &agent),
            None => Ok(()),
        }
    }

    /// Sends the engine a signal.
    pub fn signal_engine(&mut self, signal: Signal) {
        if let Some(engine) = &mut self.engine {
            engine.signal(signal);
        }
    }

    /// Processes that run, for the run's file.
    pub(super) fn processes(&self) -> impl Iterator<Item = ProcessId> {
        [&self.engine, &self.agent].into_iter().flatten().filter_map(Daemon::id)
    }

    /// Lets the processes run on when this value goes.
    pub(super) fn leave(&mut self) {
        for daemon in [&mut self.engine, &mut self.agent].into_iter().flatten() {
            daemon.leave();
        }
    }

    /// Runs vsctl against this node.
    pub fn vsctl(&self, words: &[&str]) -> Result<String> {
        run(&mut self.vsctl_command(words)?)
    }

    /// The command that runs vsctl against this node.
    pub fn vsctl_command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary(&self.binaries, "vsctl")?);
        command.arg("--agent-socket").arg(self.agent_socket());
        command.arg("--engine-socket").arg(self.engine_socket());
        command.args(words);
        Ok(command)
    }

    fn final_report_path(&self) -> PathBuf {
        self.file("final-report.json")
    }

    fn command(&self, program: &str) -> Result<Command> {
        Ok(self.netns.command(binary(&self.binaries, program)?))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.file(name);
        std::fs::write(&path, text).at(path)
    }
}

/// Where a program of ours is.
fn binary(folder: &Path, program: &str) -> Result<PathBuf> {
    let path = folder.join(program);
    if path.is_file() { Ok(path) } else { Err(Error::Binary(path)) }
}

fn wait_while_alive(
    what: &str,
    daemon: Option<&mut Daemon>,
    mut probe: impl FnMut() -> Result<()>,
) -> Result<()> {
    let Some(daemon) = daemon else {
        return Err(Error::other(format!("cannot wait for {what}: it was not started")));
    };
    let mut ended = None;
    wait_for(what, START_LIMIT, || match daemon.check() {
        Ok(()) => probe(),
        // No use in waiting for the dead.
        Err(error) => {
            ended = Some(error);
            Ok(())
        }
    })?;
    ended.map_or(Ok(()), Err)
}

fn succeeded(program: &str, status: &ExitStatus, daemon: &Daemon) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { line: program.to_owned(), status: status.to_string(), output: daemon.log_end() })
}
