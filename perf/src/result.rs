//! Result files: what `--json` writes and `compare` and `report` read.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::{Error, Result, output};

/// The schema this build writes and reads. Another meaning of a field is another number.
pub const SCHEMA: &str = "vswitch-perf/1";

/// One run of one or more scenarios.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// The commit the harness and the engine were built from; `-dirty` is appended when files were changed.
    pub commit: String,
    /// What it was measured on.
    pub machine: Machine,
    /// How it was asked for.
    pub config: Config,
    /// Whether the run came to its end. False: interrupted or failed, and what follows is what there was by then.
    pub complete: bool,
    /// What was measured.
    pub results: Vec<Measurement>,
    /// What a reader has to know: peers that were missing, cases left out, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How a run was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Config {
    /// The scenarios, in order.
    pub scenarios: Vec<String>,
    /// Fewer cases and shorter runs.
    pub quick: bool,
    /// All cases, the slow ones too.
    pub full: bool,
    /// Rounds each case was to be measured in at least. How many it was, each figure says.
    pub rounds: u32,
    /// Only cases whose name contains this.
    pub only: Option<String>,
    /// Whether kept figures were replaced by what was measured.
    #[serde(default)]
    pub update: bool,
    /// When it began, in seconds since 1970.
    pub started_s: u64,
    /// What it took, in seconds.
    pub took_s: f64,
    /// What each scenario took of that, in order.
    #[serde(default)]
    pub seconds: Vec<(String, f64)>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The scenario's name.
    pub scenario: String,
    /// What was measured, for instance `known-flow/v4/vxlan/flows-10k/rules-1k`. Stable from build to build.
    pub case: String,
    /// Which figure of it, for instance `packet`, `p99.9`, `no-drop-rate`. A ratio to a peer is named by [`ratio_name`].
    pub metric: String,
    /// Its unit: `ns`, `cycles`, `Mpps`, `1`, ...
    pub unit: String,
    /// The median over the rounds.
    pub value: f64,
    /// The lowest of the rounds.
    pub low: f64,
    /// The highest of the rounds.
    pub high: f64,
    /// The rounds it rests on. 0: not known, the file is of an earlier build.
    #[serde(default)]
    pub rounds: u32,
    /// The same figure of the peers, from the same rounds.
    #[serde(default)]
    pub peers: BTreeMap<String, f64>,
    /// Why the figure must not be used: the machine took the cores away, or what was counted does not add up. None: it may.
    pub void: Option<String>,
}

impl Measurement {
    /// A figure measured in several rounds: their median, lowest and highest.
    ///
    /// # Panics
    /// When there is no round.
    #[must_use]
    pub fn of_rounds(scenario: &str, case: &str, metric: &str, unit: &str, rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
        Self {
            scenario: scenario.to_owned(),
            case: case.to_owned(),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            value: median_of_sorted(&sorted),
            low,
            high,
            rounds: u32::try_from(rounds.len()).unwrap_or(u32::MAX),
            peers: BTreeMap::new(),
            void: None,
        }
    }

    /// The same with a peer's median of the same rounds.
    #[must_use]
    pub fn beside(mut self, peer: &str, value: f64) -> Self {
        self.peers.insert(peer.to_owned(), value);
        self
    }

    /// The same, marked as not to be used.
    #[must_use]
    pub fn void_because(mut self, reason: Option<String>) -> Self {
        self.void = self.void.or(reason);
        self
    }
}

/// The name of a ratio to a peer, always above 1 when we are better: it says of which metric it is.
#[must_use]
pub fn ratio_name(peer: &str, metric: &str) -> String {
    format!("ratio/{peer}/{metric}")
}

/// The peer and the metric that a ratio is of; files of earlier builds may leave the metric out, and nobody guesses it. None:
/// this metric is no ratio.
#[must_use]
pub fn ratio_of(metric: &str) -> Option<(&str, Option<&str>)> {
    let rest = metric.strip_prefix("ratio/")?;
    Some(rest.split_once('/').map_or((rest, None), |(peer, metric)| (peer, Some(metric))))
}

/// The rounds that the machine left us the cores for; when there is none, all of them, and why they are void.
pub fn usable<T>(rounds: impl IntoIterator<Item = (T, Option<String>)>) -> (Vec<T>, Option<String>) {
    let (good, void): (Vec<_>, Vec<_>) = rounds.into_iter().partition(|(_, void)| void.is_none());
    let reason = if good.is_empty() { void.first().and_then(|(_, void)| void.clone()) } else { None };
    let those = if good.is_empty() { void } else { good };
    (those.into_iter().map(|(value, _)| value).collect(), reason)
}

/// The median of values in ascending order; the mean of the middle two when their number is even.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn median_of_sorted(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

impl ResultFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when it cannot be read, is no result file, or is one of another schema.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |problem: String| Error::File { file: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let value: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| failed(format!("not a result file of vswitch-perf: {error}")))?;
        match value.get("schema").and_then(serde_json::Value::as_str) {
            Some(SCHEMA) => {}
            Some(other) => {
                return Err(failed(format!(
                    "schema {other:?}, and this vswitch-perf reads {SCHEMA:?}: measure anew, or use the build that wrote it"
                )));
            }
            None => {
                return Err(failed(format!(
                    "no result file of vswitch-perf: it has no `schema` ({SCHEMA:?})"
                )));
            }
        }
        serde_json::from_value(value).map_err(|error| failed(format!("schema {SCHEMA:?}, but {error}")))
    }

    /// Writes it, in one step: a reader sees all of it or what was there before.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed =
            |error: serde_json::Error| Error::File { file: path.to_owned(), problem: error.to_string() };
        output::write(path, &(serde_json::to_string_pretty(self).map_err(failed)? + "\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ResultFile {
        ResultFile {
            schema: SCHEMA.to_owned(),
            commit: "0123abc".to_owned(),
            machine: Machine::default(),
            config: Config::default(),
            complete: true,
            results: vec![
                Measurement::of_rounds("lockstep", "plain/v4", "packet", "ns", &[3.0, 1.0, 2.0, 10.0])
                    .beside("kernel", 4.0),
            ],
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        file().write(&path).unwrap();
        assert_eq!(ResultFile::read(&path).unwrap(), file());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn rounds_become_median_and_spread() {
        let result = &file().results[0];
        assert_eq!((result.value, result.low, result.high, result.rounds), (2.5, 1.0, 10.0, 4));
        let mut earlier = serde_json::to_value(result).unwrap();
        earlier.as_object_mut().unwrap().remove("rounds");
        assert_eq!(serde_json::from_value::<Measurement>(earlier).unwrap().rounds, 0, "not known");
    }

    #[test]
    fn ratios_are_named_and_read_alike() {
        for metric in ["packet", "delay-p99.9", "counts/x"] {
            let named = ratio_name("kernel-conntrack", metric);
            assert_eq!(ratio_of(&named), Some(("kernel-conntrack", Some(metric))));
        }
        assert_eq!(ratio_of("ratio/kernel"), Some(("kernel", None)), "of an earlier build");
        assert_eq!(ratio_of("packet"), None);
        assert_eq!(ratio_of("delay ratio/kernel"), None);
    }

    #[test]
    fn what_is_no_result_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for (text, expected) in [
            ("{}", "has no `schema`"),
            (
                "{\"schema\": \"vswitch-perf/9\"}",
                "schema \"vswitch-perf/9\", and this vswitch-perf reads \"vswitch-perf/1\"",
            ),
            ("{\"schema\": \"vswitch-perf/1\"}", "missing field"),
            ("nonsense", "not a result file"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = ResultFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("a.json"), "{error}");
        }
        assert!(
            ResultFile::read(&folder.path().join("none")).unwrap_err().to_string().contains("No such file")
        );
    }
}
