//! Latency by percentile.

use std::collections::{BTreeSet, HashMap};

use super::super::data::{Run, Series};
use super::super::lines::{Curve, Plot};
use super::super::svg::trimmed;
use super::words::unit_in_words;
use super::{all_cases, card, curves};
use crate::result::{Measurement, ratio_of};

/// Latency by percentile: x is log10 of how rare. The same heights in all plots.
pub(super) fn latency(run: &Run<'_>, prefix: &str) -> String {
    let percentile = |metric: &str| metric.strip_prefix('p').and_then(|digits| digits.parse::<f64>().ok());
    let rows: Vec<&Measurement> = run
        .usable("latency")
        .filter(|row| row.metric == "max" || percentile(&row.metric).is_some())
        .collect();
    let rarest =
        rows.iter().filter_map(|row| percentile(&row.metric)).filter(|p| *p < 100.0).fold(90.0, f64::max);
    let end = -(1.0 - rarest / 100.0).log10() + 0.7;
    let place =
        |row: &Measurement| percentile(&row.metric).map_or(end, |p| -(1.0 - p / 100.0).log10().min(0.0));
    let mut ticks: Vec<(f64, String)> = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
        .into_iter()
        .filter(|p| *p <= rarest)
        .map(|p: f64| (-(1.0 - p / 100.0).log10(), format!("{} %", trimmed(p, 3))))
        .collect();
    if rows.iter().any(|row| row.metric == "max") {
        ticks.push((end, "max".to_owned()));
    }
    let all =
        || rows.iter().flat_map(|row| row.peers.values().copied().chain([row.value, row.low, row.high]));
    let positive = || all().filter(|value| *value > 0.0);
    // Room for the figures below the lowest points.
    let y_range = Some((positive().fold(f64::INFINITY, f64::min) / 3.0, positive().fold(0.0, f64::max)));
    let (mut cases, mut of_case): (Vec<&String>, HashMap<&str, Vec<&Measurement>>) = Default::default();
    for row in &rows {
        let those = of_case.entry(&row.case).or_default();
        if those.is_empty() {
            cases.push(&row.case);
        }
        those.push(row);
    }
    let mut html = String::new();
    for case in cases {
        let mut points: Vec<(f64, &Measurement)> =
            of_case[&**case].iter().map(|row| (place(row), *row)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let unit = &points[0].1.unit;
        let series = Series { name: String::new(), points: points.clone() };
        let plot = Plot {
            id: format!("{prefix}latency-{case}"),
            shows: format!("Latency by percentile, {case}"),
            x_title: "percentile".to_owned(),
            y_title: format!("latency, {}", unit_in_words(unit)),
            y_log: true,
            y_range,
            x_plain: true,
            x_ticks: Some(ticks.clone()),
            curves: curves(&series)
                .into_iter()
                .map(|curve| Curve { ours: curve.name == "vswitch", told: curve.name == "vswitch", ..curve })
                .collect(),
            ..Plot::default()
        };
        html += &card(case, "less is better", &plot.draw(), false);
    }
    html + &latency_rest(run, prefix)
}

/// What scenario latency measures besides percentiles.
fn latency_rest(run: &Run<'_>, prefix: &str) -> String {
    let mut rest = String::new();
    let is_percentile = |row: &&Measurement| row.metric == "max" || row.metric.starts_with('p');
    let rows: Vec<&Measurement> =
        run.usable("latency").filter(|row| !is_percentile(row) && ratio_of(&row.metric).is_none()).collect();
    let metrics: BTreeSet<&str> = rows.iter().map(|row| &*row.metric).collect();
    for metric in metrics {
        let of_metric: Vec<&Measurement> = rows.iter().filter(|row| row.metric == metric).copied().collect();
        rest += &all_cases(&format!("{prefix}latency-{metric}"), &of_metric);
    }
    rest
}
