//! Builds the demo's network, runs it, reports, and takes it away.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use vswitch_testbeds::run::Run;
use vswitch_testbeds::{Result, demo};

/// Networks of namespaces on one machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two nodes, real calls between pods with policy on, and a report
    Demo(Demo),
    /// Take runs away
    Down {
        /// The runs; none named: all
        ids: Vec<String>,
    },
    /// List runs of which something stands
    List,
}

#[derive(Debug, clap::Args)]
struct Demo {
    /// Print one JSON object, on one line, in place of text
    #[arg(long)]
    json: bool,
    /// Leave everything standing, and print commands worth trying
    #[arg(long)]
    keep: bool,
    /// Only take away what an earlier run left standing
    #[arg(long, conflicts_with_all = ["json", "keep"])]
    down: bool,
    /// What forwards packets
    #[arg(long, value_enum, default_value_t = Datapath::Vswitch)]
    datapath: Datapath,
    /// Calls to make
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000))]
    calls: u32,
    /// Calls at once, at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    calls_at_once: u32,
    /// Seconds of each bulk stream
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    stream_seconds: u32,
    /// Name of the run, part of the names of its namespaces
    #[arg(long, default_value = "demo")]
    id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Datapath {
    /// vswitchd, with policy
    Vswitch,
    /// The kernel as Calico sets it up, without policy: a yardstick
    Kernel,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vswitch-testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Demo(demo) if demo.down => Run::down(&demo.id)?,
        Command::Demo(demo) => return run_demo(&demo),
        Command::Down { ids } => {
            let ids = if ids.is_empty() { Run::all()? } else { ids };
            for id in ids {
                Run::down(&id)?;
            }
        }
        Command::List => Run::all()?.iter().for_each(|id| println!("{id}")),
    }
    Ok(true)
}

fn run_demo(demo: &Demo) -> Result<bool> {
    take_away_when_interrupted(demo.id.clone());
    let options = demo::Options {
        id: demo.id.clone(),
        kernel: demo.datapath == Datapath::Kernel,
        calls: demo.calls,
        calls_at_once: demo.calls_at_once,
        stream_seconds: demo.stream_seconds,
        keep: demo.keep,
    };
    let report = demo::run(&options)?;
    if demo.json {
        println!("{}", serde_json::to_string(&report).expect("plain data"));
    } else {
        print!("{report}");
    }
    Ok(report.ok)
}

/// On Ctrl-C and on a polite end, takes the run away before going.
fn take_away_when_interrupted(id: String) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            eprintln!("vswitch-testbed: interrupted, taking run {id} away");
            if let Err(error) = Run::abandon(&id) {
                eprintln!("vswitch-testbed: {error}");
            }
            std::process::exit(130);
        });
    });
}
