//! The node agent: follows the store, keeps the engine in step, serves CNI and vsctl.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use vswitch_control::agent::underlay::{Facts, Found, choose};
use vswitch_control::agent::{Agent, Settings, serve};
use vswitch_control::config::{Config, DEFAULT_PATH, StoreConfig};
use vswitch_control::ipam::wall_clock;
use vswitch_control::store::{Embedded, Etcd, EtcdOptions, SharedStore};
use vswitch_model::api::Socket;
use vswitch_model::limits;

/// The node agent of vswitch.
#[derive(Debug, Parser)]
#[command(name = "vswitch-agent", version)]
struct Arguments {
    /// The configuration; without this option, /etc/vswitch/agent.toml, which need not be there.
    #[arg(long, value_name = "FILE", env = "VSWITCH_AGENT_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT (the default).
    Run,
    /// Read and check the configuration, say what is wrong with it, and end.
    CheckConfig,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vswitch-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let default = Some(Path::new(DEFAULT_PATH)).filter(|path| path.exists());
    let (config, from) = match arguments.config.as_deref().or(default) {
        Some(file) => (Config::read(file)?, file.display().to_string()),
        None => (Config::default(), format!("no {DEFAULT_PATH}")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let settings = settings(&config).await?;
        match arguments.command.as_ref().unwrap_or(&Command::Run) {
            Command::CheckConfig => {
                let shown = config.shown(&settings);
                print!("# {from}: right. With what it leaves open filled in:\n{shown}");
                Ok(())
            }
            Command::Run => {
                tracing_subscriber::fmt()
                    .with_env_filter(config.log.parse::<tracing_subscriber::EnvFilter>()?)
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    .init();
                serve_node(&config, settings).await
            }
        }
    })
}

/// What the configuration leaves open is found out here.
async fn settings(config: &Config) -> Result<Settings, Failure> {
    let node = match &config.node {
        Some(node) => node.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_lowercase(),
    };
    let found: Found = choose(&config.underlay, &Facts::read().await?)?;
    let pod_mtu = match config.pod_mtu {
        Some(mtu) => mtu,
        None => {
            let mtu = found.pod_mtu();
            u16::try_from(mtu).ok().filter(|mtu| *mtu >= limits::MTU_MIN).ok_or_else(|| {
                format!("pod_mtu: the underlay leaves {mtu} bytes, and {} is the least", limits::MTU_MIN)
            })?
        }
    };
    let mut settings = Settings {
        node,
        underlay: found.underlay,
        pod_mtu,
        pod_port: config.pod_port,
        vni: config.vni,
        vxlan_port: config.vxlan_port,
        flannel_port: config.flannel_port,
        dscp: config.dscp,
        pod_tunnels: config.pod_tunnels,
        engine_socket: config.engine_socket.clone(),
        cool_down: config.cool_down,
        names_file: Some(config.names_file.clone()),
        dns_servers: config.dns_servers.clone(),
        shown: Vec::new(),
    };
    settings.shown = config.fields(&settings);
    Ok(settings)
}

async fn serve_node(config: &Config, settings: Settings) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // First of all: of two agents on one node the second must not speak to the engine.
    let socket = Socket::bind("vswitch-agent", &config.api_socket)?;
    let (store, kind): (SharedStore, _) = match &config.store {
        StoreConfig::Embedded(path) => (Arc::new(Embedded::open(path)?), "embedded"),
        StoreConfig::Etcd { endpoints, prefix } => {
            let mut options = EtcdOptions::new(endpoints.clone());
            options.prefix.clone_from(prefix);
            (Arc::new(Etcd::connect(options).await?), "etcd")
        }
    };
    let Settings { node, underlay, pod_mtu, .. } = &settings;
    info!(node, ?underlay, pod_mtu, store = kind, "vswitch-agent {}", env!("CARGO_PKG_VERSION"));
    let agent = Agent::start(settings, store, kind, wall_clock());
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
    };
    let served = serve(agent.service(), socket, stop).await;
    if let Err(error) = &served {
        error!(%error, "the agent API is not served");
    }
    Ok(served?)
}
