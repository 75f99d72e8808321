//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::machine::{Hiccups, Machine, Watch};
use crate::result::{Config, ResultFile, SCHEMA};
use crate::scenario::{self, Scenario};
use crate::session::{Interrupt, Session};
use crate::{Error, Result, output, table};

/// Measures the switch, beside what else one could use, in the same run.
#[derive(Debug, Parser)]
#[command(
    name = "vswitch-perf",
    version,
    about,
    after_help = "A scenario is one of `vswitch-perf list`, or `all` for all of them; what each measures by default, with --quick and with --full, `list` says."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Explain each scenario: its cases, peers and units.
    List,
    /// Run scenarios: `vswitch-perf run lockstep calls`, or shorter `vswitch-perf lockstep`.
    Run {
        /// Their names, or `all`.
        #[arg(required = true)]
        scenarios: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Say what moved between two result files, by how much, against the noise of both. The exit code is 0 whatever moved, and
    /// 1 when a file is none or the two have no figure in common.
    Compare {
        /// The earlier file.
        a: PathBuf,
        /// The later file.
        b: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make one self-contained page of result files: plots, tables and the data itself.
    Report {
        /// The result files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The page to write.
        #[arg(short, long, value_name = "FILE", default_value = "report.html")]
        output: PathBuf,
    },
    /// What the scenario `instructions` runs under valgrind.
    #[command(hide = true)]
    CountInstructions,
    #[command(external_subcommand)]
    Scenario(Vec<String>),
}

#[derive(Debug, Clone, Args)]
struct Options {
    /// Write the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Few cases, short runs: all scenarios in two minutes.
    #[arg(long)]
    quick: bool,
    /// All cases, the slow ones too.
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Rounds each case is measured in at least, peers taking turns within each [default: 3; 1 with --quick]. Short ones are
    /// more by themselves: lockstep 9 (5 with --quick, 15 with --full), pods 5 (3), engine 3 with --quick.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Of `instructions`: keep what is counted as what is right from now on.
    #[arg(long)]
    update: bool,
    /// No progress bars.
    #[arg(long)]
    no_progress: bool,
}

/// `vswitch-perf lockstep --quick` is `vswitch-perf run lockstep --quick`.
#[derive(Debug, Parser)]
#[command(name = "vswitch-perf", no_binary_name = true)]
struct Single {
    scenario: String,
    /// More than one is for `run`.
    #[arg(hide = true)]
    more: Vec<String>,
    #[command(flatten)]
    options: Options,
}

impl Single {
    fn alone(&self) -> Result<()> {
        if self.more.is_empty() {
            return Ok(());
        }
        let (first, more) = (&self.scenario, self.more.join(" "));
        Err(Error::Unknown(format!("for several scenarios it is `vswitch-perf run {first} {more}`")))
    }
}

/// What the binary does.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::List => output::say(&table::list(scenario::ALL)),
        Command::Run { scenarios, options } => run(&scenarios, &options),
        Command::CountInstructions => scenario::instructions::counted::run(),
        Command::Compare { a, b, json } => compare(&a, &b, json),
        Command::Report { files, output } => report(&files, &output),
        Command::Scenario(words) => {
            let single = Single::parse_from(words);
            single.alone().and_then(|()| run(&[single.scenario], &single.options))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::hint(&format!("vswitch-perf: {error}\n"));
            ExitCode::from(if matches!(error, Error::Interrupted) { 130 } else { 1 })
        }
    }
}

fn compare(a: &Path, b: &Path, json: bool) -> Result<()> {
    let found = crate::compare::compare(&ResultFile::read(a)?, &ResultFile::read(b)?);
    if json {
        let text = serde_json::to_string_pretty(&found);
        output::say(&(text.map_err(|error| Error::setup("write the comparison as JSON", error))? + "\n"))?;
    } else {
        output::say(&crate::compare::text(&found))?;
    }
    if found.rows.is_empty() {
        return Err(Error::Unknown(format!(
            "{} and {} have no figure in common: nothing was compared",
            a.display(),
            b.display()
        )));
    }
    Ok(())
}

fn report(files: &[PathBuf], page_file: &Path) -> Result<()> {
    let named = |file: &PathBuf| {
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        ResultFile::read(file).map(|results| (name, results))
    };
    let is_output = |file: &PathBuf| {
        file.canonicalize().ok().zip(page_file.canonicalize().ok()).is_some_and(|(a, b)| a == b)
    };
    if files.iter().any(is_output) {
        let problem = "it is one of the result files: name another file for the page with -o".to_owned();
        return Err(Error::File { file: page_file.to_owned(), problem });
    }
    let page = crate::report::html(&files.iter().map(named).collect::<Result<Vec<_>>>()?);
    output::write(page_file, &page)?;
    output::say(&format!("{}\n", page_file.display()))
}

fn run(names: &[String], options: &Options) -> Result<()> {
    let scenarios = chosen(names)?;
    if let Some(path) = &options.json {
        output::check_writable(path)?;
    }
    let interrupt = Interrupt::catch().map_err(|error| Error::setup("catch signals", error))?;
    let config = Config {
        scenarios: scenarios.iter().map(|scenario| scenario.about().name.to_owned()).collect(),
        quick: options.quick,
        full: options.full,
        rounds: options.rounds.unwrap_or(if options.quick { 1 } else { 3 }),
        only: options.only.clone(),
        update: options.update,
        started_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        took_s: 0.0,
        seconds: Vec::new(),
    };
    // 250 pods are some thousand descriptors: more than a shell allows by itself.
    let _raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    // What cannot be had is void later, by what is taken away.
    let raised = crate::machine::raise();
    let mut machine = Machine::describe();
    output::hint(&table::machine(&machine));
    let warnings: Vec<String> = machine.hiccups.iter().filter_map(Hiccups::warning).collect();
    let (watch, start) = (Watch::start(), Instant::now());
    let mut session = Session::new(config, interrupt, options.no_progress);
    if !raised.raised {
        session.note("without root nothing is kept from taking the cores: no priority is raised");
    }
    warnings.into_iter().for_each(|warning| session.note(warning));
    let outcome = run_all(&scenarios, &mut session);
    machine.steal_percent = watch.steal_percent();
    session.config.took_s = start.elapsed().as_secs_f64();
    let file = ResultFile {
        schema: SCHEMA.to_owned(),
        commit: env!("COMMIT").to_owned(),
        machine,
        config: session.config,
        complete: outcome.is_ok(),
        results: session.results,
        notes: session.notes,
    };
    // Whatever becomes of the other, the results are told once.
    let written = options.json.as_deref().map_or(Ok(()), |path| file.write(path));
    let said = output::say(&table::results(&file));
    outcome.and(written).and(said)
}

/// Runs what can be run: a scenario that this machine cannot serve is named and left out, and fails the run at its end.
fn run_all(scenarios: &[&dyn Scenario], session: &mut Session) -> Result<()> {
    let mut failed = Vec::new();
    for scenario in scenarios {
        let about = scenario.about();
        let start = Instant::now();
        let outcome = unmet(&about).map_or_else(|| scenario.run(session), Err);
        session.config.seconds.push((about.name.to_owned(), start.elapsed().as_secs_f64()));
        session.end();
        match outcome {
            Ok(()) => {}
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => {
                session.note(format!("{}: {error}", about.name));
                failed.push(about.name);
            }
        }
    }
    if failed.is_empty() { session.check_matched() } else { Err(Error::Failed(failed.join(", "))) }
}

fn unmet(about: &scenario::About) -> Option<Error> {
    let name = about.name;
    let cores = core_affinity::get_core_ids().map_or(0, |cores| cores.len());
    if about.root && !nix::unistd::geteuid().is_root() {
        return Some(Error::Unmet(format!(
            "{name} makes network namespaces and loads XDP programs: run it as root"
        )));
    }
    (cores < about.cores).then(|| {
        Error::Unmet(format!("{name} needs {} cores, and this process may use {cores}", about.cores))
    })
}

fn chosen(names: &[String]) -> Result<Vec<&'static dyn Scenario>> {
    let mut chosen = Vec::new();
    for name in names {
        if name == "all" {
            chosen.extend(scenario::ALL);
        } else {
            chosen.push(scenario::find(name)?);
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_scenarios_are_for_run_and_that_is_said() {
        let single = |words: &[&str]| Single::try_parse_from(words).unwrap();
        single(&["lockstep", "--quick"]).alone().unwrap();
        let error = single(&["lockstep", "engine", "--quick"]).alone().unwrap_err().to_string();
        assert!(error.contains("`vswitch-perf run lockstep engine`"), "{error}");
    }
}
