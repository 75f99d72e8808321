//! `vswitch-perf compare A B`: what moved between two result files, by how much, against the noise of both.
//!
//! The rule: a figure moved when the ranges of its rounds, lowest to highest, do not overlap between the files. When its
//! peers moved with it, it was the machine that did; how ours moved beside them, the ratios tell. A single round has no
//! range, and void figures are not compared. Absolute figures of different machines are not either; ratios to peers are,
//! for the peers ran on the same machine in the same rounds.

mod text;
mod verdict;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::machine::Machine;
use crate::result::{Measurement, ResultFile, ratio_of};

pub use text::text;
pub use verdict::{Verdict, of_one_round};

/// The rule, as it is printed.
pub const RULE: &str = "a figure moved when the ranges of its rounds (lowest to highest) do not overlap; where its peers \
                        moved the same way, at least half as far, the machine did";

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Larger ones: rates, ratios to peers, scores, calls.
    More,
    /// Smaller ones: times, cycles, losses.
    Less,
}

/// Which way a figure of this metric and unit is better. None: it cannot be told.
#[must_use]
pub fn better(metric: &str, unit: &str) -> Option<Better> {
    // Before anything else: the name of a ratio holds that of a metric, which may be better when it is less.
    if ratio_of(metric).is_some() {
        return Some(Better::More);
    }
    // How often something was done that is neither good nor bad by itself: what it costs is another figure.
    if metric == "sleeps" || metric == "turns" {
        return None;
    }
    let is = |words: &[&str]| words.iter().any(|word| metric.contains(word));
    if is(&["mos", "goodput", "ndr", "pdr", "throughput"]) || metric == "calls" {
        return Some(Better::More);
    }
    if is(&[
        "loss",
        "lost",
        "jitter",
        "delay",
        "cost",
        "drop",
        "duplicate",
        "growth",
        "reorder",
        "retransmit",
    ]) {
        return Some(Better::Less);
    }
    match unit {
        "ns" | "us" | "ms" | "s" | "cycles" | "instructions" | "%" | "bytes" => Some(Better::Less),
        _ if unit.ends_with("pps") || unit.ends_with("/s") => Some(Better::More),
        _ => None,
    }
}

/// One figure in both files.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// As in [`Measurement`].
    pub scenario: String,
    /// As in [`Measurement`].
    pub case: String,
    /// As in [`Measurement`].
    pub metric: String,
    /// As in [`Measurement`].
    pub unit: String,
    /// In the first file: value, lowest, highest.
    pub a: [f64; 3],
    /// In the second file: value, lowest, highest.
    pub b: [f64; 3],
    /// Second value over first. None: the first is 0.
    pub factor: Option<f64>,
    /// Half the range of the rounds as a part of the value, of the noisier file. None: one of them has a single round.
    pub noise: Option<f64>,
    /// What became of it.
    pub verdict: Verdict,
    /// Whether it is better in the second file. None: it did not move, or which way is better cannot be told.
    pub improved: Option<bool>,
    /// Second over first of the peers in the same rounds: when they moved as well, the machine did.
    pub peers: BTreeMap<String, f64>,
    /// Why it is void, if it is.
    pub void: Option<String>,
}

impl Row {
    /// How far it moved, whichever way: 0 for not at all, the same for twice and for half.
    #[must_use]
    pub fn size(&self) -> f64 {
        match self.factor {
            Some(factor) if factor > 0.0 => factor.ln().abs(),
            Some(_) => f64::INFINITY,
            None if self.b[0] == self.a[0] => 0.0,
            None => f64::INFINITY,
        }
    }
}

/// Two files, side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// [`RULE`].
    pub rule: &'static str,
    /// Commits of the files.
    pub commits: [String; 2],
    /// What a reader has to know before believing any of it.
    pub warnings: Vec<String>,
    /// What moved first, and the largest move first.
    pub rows: Vec<Row>,
    /// Scenario, case, metric and unit of what only the first file has.
    pub only_a: Vec<[String; 4]>,
    /// Scenario, case, metric and unit of what only the second file has.
    pub only_b: Vec<[String; 4]>,
}

/// Compares the second file with the first.
#[must_use]
pub fn compare(a: &ResultFile, b: &ResultFile) -> Comparison {
    let other_machine = differences(&a.machine, &b.machine);
    let (mut warnings, mut rows) = (warnings(a, b), Vec::new());
    if !other_machine.is_empty() {
        warnings.push(format!(
            "other machine ({}): absolute figures are not comparable and not compared; ratios to peers are",
            other_machine.join(", ")
        ));
    }
    let (of_a, of_b) = (by_name(a, &mut warnings, "A"), by_name(b, &mut warnings, "B"));
    for (name, first) in &of_a {
        if let Some(second) = of_b.get(name) {
            rows.push(row(first, second, !other_machine.is_empty()));
        }
    }
    rows.sort_by(|x, y| x.verdict.cmp(&y.verdict).then(y.size().total_cmp(&x.size())));
    let only = |here: &BTreeMap<[String; 4], &Measurement>, there: &BTreeMap<[String; 4], &Measurement>| {
        here.keys().filter(|name| !there.contains_key(*name)).cloned().collect()
    };
    Comparison {
        rule: RULE,
        commits: [a.commit.clone(), b.commit.clone()],
        warnings,
        rows,
        only_a: only(&of_a, &of_b),
        only_b: only(&of_b, &of_a),
    }
}

fn by_name<'file>(
    file: &'file ResultFile,
    warnings: &mut Vec<String>,
    which: &str,
) -> BTreeMap<[String; 4], &'file Measurement> {
    let mut rows = BTreeMap::new();
    for row in &file.results {
        let name = [row.scenario.clone(), row.case.clone(), row.metric.clone(), row.unit.clone()];
        if let Some(before) = rows.insert(name, row) {
            let name = [&*before.scenario, &*before.case, &*before.metric, &*before.unit].join(" ");
            warnings.push(format!("{which} has {name} more than once: the last is compared"));
        }
    }
    rows
}

fn warnings(a: &ResultFile, b: &ResultFile) -> Vec<String> {
    let mut warnings = Vec::new();
    for (which, file) in [("A", a), ("B", b)] {
        if !file.complete {
            warnings.push(format!("{which} is not complete: it was interrupted, or a scenario failed"));
        }
        let once = file.results.iter().filter(|row| of_one_round(row)).count();
        if once > 0 {
            let all = file.results.len();
            warnings.push(format!(
                "{once} of {all} figures of {which} are of one round, so their noise is unknown, and none is said to have moved: \
                 use --rounds 3"
            ));
        }
    }
    if (a.config.quick, a.config.full) != (b.config.quick, b.config.full) {
        warnings
            .push("one is --quick or --full and the other is not: trials had different lengths".to_owned());
    }
    warnings
}

fn differences(a: &Machine, b: &Machine) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |name: &str, a: &str, b: &str| {
        if a != b {
            found.push(format!("{name} {a} and {b}"));
        }
    };
    differ("processor", &a.cpu, &b.cpu);
    differ("cores", &a.cores.to_string(), &b.cores.to_string());
    differ("kernel", &a.kernel, &b.kernel);
    // Two machines of one kind may run at different speeds; the TSC is known to about a thousandth.
    if (a.tsc_mhz - b.tsc_mhz).abs() > a.tsc_mhz.max(b.tsc_mhz) * 0.01 {
        differ("TSC", &format!("{:.0} MHz", a.tsc_mhz), &format!("{:.0} MHz", b.tsc_mhz));
    }
    found
}

fn row(a: &Measurement, b: &Measurement, other_machine: bool) -> Row {
    let factor = (a.value != 0.0).then(|| b.value / a.value);
    let void = |row: &Measurement, which: &str| row.void.as_ref().map(|why| format!("{which}: {why}"));
    let void = if a.void == b.void {
        void(a, "A and B")
    } else {
        let each: Vec<String> = [void(a, "A"), void(b, "B")].into_iter().flatten().collect();
        Some(each.join("; "))
    };
    let shared = b.peers.iter().filter_map(|(peer, value)| {
        let before = a.peers.get(peer).filter(|before| **before != 0.0)?;
        Some((peer.clone(), value / before))
    });
    let peers: BTreeMap<String, f64> = shared.collect();
    let verdict = verdict::judge(a, b, other_machine, &peers);
    let improved = better(&b.metric, &b.unit).filter(|_| verdict == Verdict::Moved);
    Row {
        scenario: b.scenario.clone(),
        case: b.case.clone(),
        metric: b.metric.clone(),
        unit: b.unit.clone(),
        a: [a.value, a.low, a.high],
        b: [b.value, b.low, b.high],
        factor,
        noise: noise(a).zip(noise(b)).map(|(a, b)| a.max(b)),
        verdict,
        improved: improved.map(|better| (b.value > a.value) == (better == Better::More)),
        peers,
        void,
    }
}

fn noise(row: &Measurement) -> Option<f64> {
    let known = || if row.value == 0.0 { 0.0 } else { (row.high - row.low) / 2.0 / row.value.abs() };
    (!of_one_round(row)).then(known)
}

#[cfg(test)]
mod tests;
