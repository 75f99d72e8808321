//! `vswitchd`: one node's engine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use vswitch::api;
use vswitch::config::{Config, DEFAULT_PATH, Loaded};
use vswitch::engine::{Engine, FinalReport, FlowMemory, KernelDevices};
use vswitch::metrics;
use vswitch_model::api::Socket;

#[global_allocator]
static HEAP: vswitch::io::Heap = vswitch::io::Heap;

/// The engine of one node: forwards and filters the packets of its pods.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT (what happens without a command, too).
    Run(Run),
    /// Say whether a configuration is right, for this machine, and what it means.
    CheckConfig {
        /// The configuration (TOML); without this option, /etc/vswitch/vswitchd.toml, which need not be there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The configuration (TOML); without this option, /etc/vswitch/vswitchd.toml, which need not be there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to write the account of packets and frames at the end (JSON).
    #[arg(long)]
    final_report: Option<PathBuf>,
}

/// Anything that ends the daemon: its text is what a person sees.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Some(Command::CheckConfig { config }) => check(config.as_deref()),
        Some(Command::Run(run)) => start(&run),
        None => start(&arguments.run),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vswitchd: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn check(path: Option<&Path>) -> Result<(), Failure> {
    let (loaded, from) = load(path)?;
    loaded.check_machine()?;
    println!("# {}", FlowMemory::of(&loaded.config));
    print!("# {from}: right. With defaults for what it leaves open:\n{}", loaded.config.to_toml());
    Ok(())
}

/// The configuration, and where it is from. One that is named has to be there.
fn load(path: Option<&Path>) -> Result<(Loaded, String), Failure> {
    let default = Some(Path::new(DEFAULT_PATH)).filter(|path| path.exists());
    let (loaded, from) = match path.or(default) {
        Some(path) => (Loaded::read(path)?, path.display().to_string()),
        None => (Loaded::defaults(), format!("no {DEFAULT_PATH}")),
    };
    Ok((loaded, from))
}

fn start(run: &Run) -> Result<(), Failure> {
    let (loaded, from) = load(run.config.as_deref())?;
    loaded.check_cores()?;
    let config = loaded.config;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&config.log))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = from, "vswitchd starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(serve(config))?;
    // Calls that still wait for something are cut off: the engine they ask is gone.
    runtime.shutdown_background();
    let line = serde_json::to_string(&report)?;
    tracing::info!(frames_leaked = report.frames_leaked, report = %line, "stopped");
    if let Some(path) = &run.final_report {
        std::fs::write(path, line + "\n")
            .map_err(|error| format!("{}: cannot be written: {error}", path.display()))?;
    }
    Ok(())
}

/// Runs the engine until a signal asks it to end.
async fn serve(config: Config) -> Result<FinalReport, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let socket = Socket::bind("vswitchd", &config.api_socket)?;
    let metrics = match config.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let devices = Box::new(KernelDevices::new(config.frames)?);
    let mut engine = tokio::task::spawn_blocking(move || Engine::start(config, devices, true)).await??;
    if let Some(listener) = metrics {
        tokio::spawn(metrics::serve(listener, Arc::clone(engine.shared())));
    }
    tracing::info!(socket = %engine.shared().config.api_socket.display(), "vswitchd runs");
    let signalled = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let served = api::serve(socket, &engine, signalled).await;
    let report = tokio::task::spawn_blocking(move || engine.stop()).await?;
    served?;
    report.ok_or_else(|| "the compiler thread ended early; see the log".into())
}
