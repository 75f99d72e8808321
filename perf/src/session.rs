//! One run: what was asked for, where its results go, and whether it is to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output::hint;
use crate::result::{Config, Measurement};
use crate::{Error, Result};

/// How soon after the first signal another one is the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// Set by SIGINT, SIGTERM and SIGHUP.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches the signals from now on: the first is told and obeyed as soon as what is measured can be left, one more than
    /// a second later ends the process at once. (A terminal that is closed sends two within a moment.)
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn catch() -> std::io::Result<Self> {
        let interrupt = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let told = interrupt.clone();
        let body = move || {
            let mut first = None;
            for signal in signals.forever() {
                told.set();
                let since = first.get_or_insert_with(Instant::now).elapsed();
                if since > PATIENCE {
                    std::process::exit(128 + signal);
                }
                hint(
                    "\nending: what was measured is kept; once more ends it at once, and may leave temporary files\n",
                );
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(body)?;
        Ok(interrupt)
    }

    /// Whether the run is to end.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends the run, as a signal does.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for threads of one's own.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// What a scenario is run with.
#[derive(Debug)]
pub struct Session {
    /// What was asked for.
    pub config: Config,
    /// Whether to end.
    pub interrupt: Interrupt,
    /// What was measured so far.
    pub results: Vec<Measurement>,
    /// What a reader has to know besides.
    pub notes: Vec<String>,
    matched: AtomicBool,
    bar: ProgressBar,
}

impl Session {
    /// A session with no results yet. `quiet`: no progress bars.
    #[must_use]
    pub fn new(config: Config, interrupt: Interrupt, quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("{prefix:>12} {bar:30} {pos}/{len} {elapsed} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let (results, notes, matched) = (Vec::new(), Vec::new(), AtomicBool::new(false));
        Self { config, interrupt, results, notes, matched, bar }
    }

    /// A session for tests: one round, quick, no bars.
    #[must_use]
    pub fn for_tests() -> Self {
        let config = Config { quick: true, rounds: 1, ..Config::default() };
        Self::new(config, Interrupt::default(), true)
    }

    /// Starts the progress of a scenario that takes `steps` steps.
    pub fn begin(&self, scenario: &'static str, steps: u64) {
        self.bar.reset();
        self.bar.set_length(steps);
        self.bar.set_prefix(scenario);
        self.bar.enable_steady_tick(Duration::from_millis(250));
    }

    /// Says what is done now.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] when the run is to end: pass it up.
    pub fn step(&self, message: &str) -> Result<()> {
        self.check()?;
        self.bar.set_message(message.to_owned());
        Ok(())
    }

    /// One step of the scenario is done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// Ends the progress of a scenario.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// # Errors
    ///
    /// [`Error::Interrupted`] when the run is to end.
    pub fn check(&self) -> Result<()> {
        if self.interrupt.is_set() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Whether a case is wanted.
    #[must_use]
    pub fn wants(&self, case: &str) -> bool {
        let wanted = self.config.only.as_deref().is_none_or(|only| case.contains(only));
        self.matched.fetch_or(wanted, Ordering::Relaxed);
        wanted
    }

    /// That some case was wanted, after all scenarios were asked for theirs.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] when `--only` names none.
    pub fn check_matched(&self) -> Result<()> {
        match &self.config.only {
            Some(only) if !self.matched.load(Ordering::Relaxed) => {
                let scenarios = self.config.scenarios.join(", ");
                Err(Error::Unknown(format!(
                    "--only {only:?} is part of no case's name that {scenarios} would measure: `vswitch-perf list` has them, \
                     and what only --full measures"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Keeps a figure.
    pub fn record(&mut self, measurement: Measurement) {
        self.results.push(measurement);
    }

    /// Keeps what a reader has to know: each only once.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.bar.suspend(|| hint(&format!("note: {note}\n")));
            self.notes.push(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches_no_case_is_an_error_and_what_matches_one_is_not() {
        let mut session = Session::for_tests();
        session.check_matched().unwrap();
        session.config.only = Some("rules-7".to_owned());
        session.config.scenarios = vec!["lockstep".to_owned()];
        assert!(!session.wants("flows-1k/rules-1k"));
        let error = session.check_matched().unwrap_err().to_string();
        assert!(error.contains("--only \"rules-7\"") && error.contains("lockstep"), "{error}");
        assert!(session.wants("flows-1k/rules-7") && !session.wants("flows-1k"));
        session.check_matched().unwrap();
    }
}
