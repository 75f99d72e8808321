//! Result files as the page wants them: files of one build on one machine together, figures by scenario, case and metric.

use std::collections::{BTreeMap, HashMap};

use crate::machine::Machine;
use crate::math::statistics::Spread;
use crate::result::{Measurement, ResultFile, ratio_name, ratio_of};
use crate::workload;

/// Files of one build on one machine: their figures may stand in one plot.
#[derive(Debug)]
pub(super) struct Run<'files> {
    /// Its files by name, in the order they were given.
    pub files: Vec<&'files (String, ResultFile)>,
    /// Their figures. One that is in several files is the median of those that are not void, with the spread of all.
    pub rows: Vec<Measurement>,
    /// Where among them the ratios are, by scenario, case and name.
    ratios: HashMap<[String; 3], usize>,
}

impl<'files> Run<'files> {
    /// The files, put together by build and machine.
    #[must_use]
    pub(super) fn of(files: &'files [(String, ResultFile)]) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for file in files {
            let same = |run: &&mut Self| key(&run.files[0].1) == key(&file.1);
            match runs.iter_mut().find(same) {
                Some(run) => run.files.push(file),
                None => runs.push(Self { files: vec![file], rows: Vec::new(), ratios: HashMap::new() }),
            }
        }
        for run in &mut runs {
            run.rows = merged(run.files.iter().flat_map(|(_, file)| &file.results));
            for (place, row) in run.rows.iter().enumerate().filter(|(_, row)| ratio_of(&row.metric).is_some())
            {
                let name = [&row.scenario, &row.case, &row.metric].map(String::clone);
                run.ratios.entry(name).or_insert(place);
            }
        }
        runs
    }

    /// The machine of the first file.
    #[must_use]
    pub(super) fn machine(&self) -> &Machine {
        &self.files[0].1.machine
    }

    /// The commit of all files.
    #[must_use]
    pub(super) fn commit(&self) -> &str {
        &self.files[0].1.commit
    }

    /// Figures of a scenario that may be used.
    pub(super) fn usable<'run>(&'run self, scenario: &'run str) -> impl Iterator<Item = &'run Measurement> {
        let sound = |row: &&Measurement| row.void.is_none() && is_in_range(row);
        self.rows.iter().filter(move |row| row.scenario == scenario).filter(sound)
    }

    /// How many times better we are than this peer by this figure, as the scenario recorded it from rounds of both, with its
    /// spread. None: it recorded none that may be used. Medians are never divided in its place: they may be of rounds that
    /// the other was left out of, which is why there is no ratio.
    #[must_use]
    pub(super) fn ratio(&self, row: &Measurement, peer: &str) -> Option<(f64, Option<(f64, f64)>)> {
        row.peers.get(peer)?;
        let name = [row.scenario.clone(), row.case.clone(), ratio_name(peer, &row.metric)];
        let ratio = self.rows.get(*self.ratios.get(&name)?).filter(|ratio| ratio.void.is_none())?;
        Some((ratio.value, (ratio.low < ratio.high).then_some((ratio.low, ratio.high))))
    }
}

/// Whether a row can be drawn: nothing that is measured is outside of this, and an axis could not hold it.
fn is_in_range(row: &Measurement) -> bool {
    let mut values = [row.value, row.low, row.high].into_iter().chain(row.peers.values().copied());
    values.all(|value| value == 0.0 || (1e-15..1e15).contains(&value.abs()))
}

fn key(file: &ResultFile) -> (&str, &str, &str, usize) {
    (&file.commit, &file.machine.cpu, &file.machine.kernel, file.machine.cores)
}

/// Figures of one name as one, in the order of their first appearance.
fn merged<'files>(rows: impl Iterator<Item = &'files Measurement>) -> Vec<Measurement> {
    let mut places: BTreeMap<[&str; 4], usize> = BTreeMap::new();
    let mut groups: Vec<Vec<&Measurement>> = Vec::new();
    for row in rows {
        let name = [&*row.scenario, &*row.case, &*row.metric, &*row.unit];
        let place = *places.entry(name).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(row);
    }
    groups.into_iter().map(|group| one_of(&group)).collect()
}

fn one_of(group: &[&Measurement]) -> Measurement {
    let sound: Vec<&&Measurement> = group.iter().filter(|row| row.void.is_none()).collect();
    let mut whole = sound.first().map_or(group[0], |row| **row).clone();
    let values: Vec<f64> = sound.iter().map(|row| row.value).collect();
    if let Some(spread) = Spread::of(&values) {
        whole.value = spread.value;
        whole.low = sound.iter().map(|row| row.low).fold(spread.low, f64::min);
        whole.high = sound.iter().map(|row| row.high).fold(spread.high, f64::max);
        // Of a file that does not say on how many, neither does the sum.
        let known = sound.iter().all(|row| row.rounds > 0);
        whole.rounds = if known { sound.iter().map(|row| row.rounds).sum() } else { 0 };
    }
    for (peer, value) in &mut whole.peers {
        let values: Vec<f64> = sound.iter().filter_map(|row| row.peers.get(peer).copied()).collect();
        *value = Spread::of(&values).map_or(*value, |spread| spread.value);
    }
    whole
}

/// Axes that are drawn as curves, from case names such as `flows-10k`.
pub(super) const AXES: [&str; 8] = ["flows", "rules", "cidrs", "routes", "pods", "calls", "players", "batch"];

/// The number a case has on an axis, and its name without it. An axis that the name leaves out for being as in
/// [`workload::Case::BASE`] has that number.
#[must_use]
pub(super) fn on_axis(case: &str, axis: &str) -> Option<(f64, String)> {
    let number = |part: &str| count(part.strip_prefix(axis)?.strip_prefix('-')?);
    let found = case.split('/').find_map(number);
    let rest: Vec<&str> = case.split('/').filter(|part| number(part).is_none()).collect();
    found.map(|found| (found, rest.join("/")))
}

/// What a case that says nothing of this axis has on it.
#[must_use]
pub(super) fn unsaid(case: &str, axis: &str) -> Option<f64> {
    if !(case.starts_with("known-flow/") || case.starts_with("new-flow/")) {
        return None;
    }
    match axis {
        "routes" => Some(workload::Case::BASE.routes as f64),
        "batch" => Some(workload::Case::BASE.batch as f64),
        _ => None,
    }
}

/// `10k`, `1M`, `250`, `2.5k`.
fn count(text: &str) -> Option<f64> {
    let (digits, factor) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let plain = !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_digit() || digit == '.');
    digits.parse::<f64>().ok().filter(|_| plain).map(|number| number * factor)
}

/// Figures that differ only in their number on an axis, in order of it; at least two, none at 0, which no axis by factors has.
#[derive(Debug)]
pub(super) struct Series<'run> {
    /// The case without the axis.
    pub name: String,
    /// Number and figure.
    pub points: Vec<(f64, &'run Measurement)>,
}

/// All curves of these figures along an axis.
#[must_use]
pub(super) fn series<'run>(rows: &[&'run Measurement], axis: &str) -> Vec<Series<'run>> {
    let mut found: Vec<Series<'run>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in rows {
        if let Some((at, name)) = on_axis(&row.case, axis) {
            let place = *places.entry(name).or_insert_with_key(|name| {
                found.push(Series { name: name.clone(), points: Vec::new() });
                found.len() - 1
            });
            found[place].points.push((at, row));
        }
    }
    let mut unnumbered: HashMap<&str, &'run Measurement> = HashMap::new();
    for row in rows {
        unnumbered.entry(&row.case).or_insert(row);
    }
    for series in &mut found {
        let base = unnumbered.get(&*series.name);
        if let Some((at, row)) = base.and_then(|row| Some((unsaid(&row.case, axis)?, *row))) {
            series.points.push((at, row));
        }
        series.points.retain(|(at, _)| *at > 0.0);
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        series.points.dedup_by(|a, b| a.0 == b.0);
    }
    found.retain(|series| series.points.len() > 1);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Config, SCHEMA};

    fn file(commit: &str, rows: Vec<Measurement>) -> (String, ResultFile) {
        let file = ResultFile {
            schema: SCHEMA.to_owned(),
            commit: commit.to_owned(),
            machine: Machine::default(),
            config: Config::default(),
            complete: true,
            results: rows,
            notes: Vec::new(),
        };
        (format!("{commit}.json"), file)
    }

    fn figure(case: &str, rounds: &[f64]) -> Measurement {
        Measurement::of_rounds("engine", case, "cycles", "cycles", rounds)
    }

    #[test]
    fn files_of_one_build_become_one_with_the_spread_of_all() {
        let files = [
            file("a", vec![figure("x", &[1.0, 2.0, 3.0]).beside("kernel", 8.0)]),
            file("a", vec![figure("x", &[4.0, 5.0]).beside("kernel", 10.0)]),
            file("a", vec![figure("x", &[900.0]).void_because(Some("steal".into()))]),
            file("b", vec![figure("x", &[7.0])]),
        ];
        let runs = Run::of(&files);
        assert_eq!((runs.len(), runs[0].files.len(), runs[0].rows.len()), (2, 3, 1));
        let row = &runs[0].rows[0];
        assert_eq!((row.value, row.low, row.high, row.peers["kernel"]), (3.25, 1.0, 5.0, 9.0));
        assert_eq!(row.rounds, 5, "those that count");
        assert_eq!(runs[1].rows[0].value, 7.0);
    }

    #[test]
    fn a_figure_void_everywhere_stays_void() {
        let void = figure("x", &[1.0]).void_because(Some("steal".into()));
        let files = [file("a", vec![void.clone()]), file("a", vec![void])];
        let runs = Run::of(&files);
        assert!(runs[0].rows[0].void.is_some() && runs[0].usable("engine").next().is_none());
    }

    #[test]
    fn what_no_axis_can_hold_is_not_drawn() {
        let rows = [5e-324, 1.7e308, f64::NAN, 3.0].map(|value| figure(&value.to_string(), &[value]));
        let files =
            [file("a", [rows.to_vec(), vec![figure("peer", &[1.0]).beside("kernel", 1e-320)]].concat())];
        let runs = Run::of(&files);
        let drawn: Vec<&str> = runs[0].usable("engine").map(|row| row.case.as_str()).collect();
        assert_eq!(drawn, ["3"]);
    }

    #[test]
    fn a_ratio_belongs_to_the_metric_it_names() {
        let of = |metric: &str, unit: &str, rounds: &[f64]| {
            Measurement::of_rounds("lockstep", "x", metric, unit, rounds)
        };
        let files = [file(
            "a",
            vec![
                of("packet", "ns", &[2.0]).beside("kernel", 4.0).beside("bare", 4.0),
                of("net", "ns", &[1.0]).beside("kernel", 3.0).beside("bare", 3.0),
                of("ratio/kernel/packet", "1", &[1.9, 2.0, 2.1]),
                of("ratio/kernel/net", "1", &[3.0]),
                of("ratio/bare", "1", &[2.0]),
            ],
        )];
        let run = &Run::of(&files)[0];
        assert_eq!(run.ratio(&run.rows[0], "kernel"), Some((2.0, Some((1.9, 2.1)))));
        assert_eq!(run.ratio(&run.rows[1], "kernel"), Some((3.0, None)));
        for row in &run.rows[..2] {
            assert_eq!(run.ratio(row, "bare"), None, "that of an earlier build says not of what it is");
        }
        assert_eq!(run.ratio(&run.rows[0], "ovs"), None, "none was recorded");
    }

    #[test]
    fn a_ratio_that_is_void_or_of_another_metric_is_not_made_up() {
        let delay = figure("x", &[10.0]).beside("kernel", 40.0).beside("ovs", 20.0);
        let ratio = |metric: &str, value: f64| Measurement::of_rounds("engine", "x", metric, "1", &[value]);
        let files = [file(
            "a",
            vec![
                delay,
                ratio("ratio/kernel/packet", 1.0),
                ratio("ratio/kernel/cycles", 9.0),
                ratio("ratio/ovs/cycles", 2.0).void_because(Some("steal".into())),
            ],
        )];
        let run = &Run::of(&files)[0];
        assert_eq!(run.ratio(&run.rows[0], "kernel"), Some((9.0, None)), "its own, whatever the medians say");
        assert_eq!(run.ratio(&run.rows[0], "ovs"), None, "void");
    }

    #[test]
    fn numbers_in_case_names() {
        assert_eq!(
            on_axis("known-flow/v4/flows-10k/rules-1k", "flows"),
            Some((1e4, "known-flow/v4/rules-1k".into()))
        );
        assert_eq!(on_axis("a/routes-1M", "routes"), Some((1e6, "a".into())));
        assert_eq!(on_axis("pods-250", "pods"), Some((250.0, String::new())));
        assert_eq!(on_axis("a/rules-many", "rules"), None);
        assert_eq!(on_axis("a/rules-inf", "rules"), None);
        assert_eq!(on_axis("known-flows-10k", "flows"), None);
    }

    #[test]
    fn cases_along_an_axis_become_a_curve_the_unsaid_one_too() {
        let rows = ["known-flow/v4/routes-1M", "known-flow/v4", "known-flow/v6", "known-flow/v4/routes-0"];
        let rows = rows.map(|case| figure(case, &[1.0]));
        let rows: Vec<&Measurement> = rows.iter().collect();
        let found = series(&rows, "routes");
        assert_eq!(found.len(), 1);
        let places: Vec<f64> = found[0].points.iter().map(|point| point.0).collect();
        assert_eq!(places, [1e3, 1e6]);
        assert!(series(&rows, "flows").is_empty());
    }
}
