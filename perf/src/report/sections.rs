//! The page's sections: which figures become which plot.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::bars::{Bar, Stack, bars, stacks};
use super::data::{AXES, Run, Series, series};
use super::lines::{Curve, Plot, Point};
use super::svg::{escape, short, trimmed};
use crate::compare::{Better, better};
use crate::result::Measurement;

/// A part of the page.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name in the page.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// HTML.
    pub body: String,
}

/// Scenarios with their headings and what a reader should know to judge the plots, in the order of the page.
pub(super) const SCENARIOS: [(&str, &str, &str); 10] = [
    (
        "throughput",
        "Throughput",
        "No-drop and partial-drop rates by MLRsearch (RFC 9971) on two cores; peers take turns with us within each round.",
    ),
    (
        "lockstep",
        "Lockstep",
        "Generator, switch and sink take turns on one core over real veth: the time one packet costs, generator and sink included.",
    ),
    (
        "latency",
        "Latency",
        "Open loop: counted from when a packet should have left. Each step to the right is ten times rarer.",
    ),
    (
        "calls",
        "Calls",
        "Relayed G.711 calls, 50 packets a second each way a leg. MOS by the E-model (ITU-T G.107): above 4.3 users are very satisfied.",
    ),
    ("engine", "Engine", "The engine on memory ports: what the code itself costs, without the kernel."),
    ("instructions", "Instructions", "Instructions a packet under callgrind: the same number on every run."),
    ("bulk", "Bulk transfer", "TCP streams from pod to pod."),
    ("game", "Game servers", "All players' packets at once, 64 or 128 times a second."),
    ("pods", "Pods", "From one port to 250."),
    ("churn", "Churn", "Policies, routes and pods that change under traffic."),
];

/// What may be drawn of this run, in the order of the page.
#[must_use]
pub(super) fn sections(run: &Run<'_>, prefix: &str) -> Vec<Section> {
    let mut found = Vec::new();
    for (scenario, title, about) in SCENARIOS {
        let body = match scenario {
            "latency" => latency(run, prefix),
            "engine" => stages(run, prefix) + &panels(run, scenario, prefix),
            _ => panels(run, scenario, prefix),
        };
        push(&mut found, prefix, scenario, title, about, &body);
        if scenario == "engine" {
            let about = "What a packet costs as tables grow, relative to the smaller table. The dashed line is what it may grow to.";
            push(&mut found, prefix, "scaling", "Scaling", about, &scaling(run, prefix));
        }
    }
    let known: BTreeSet<&str> = SCENARIOS.iter().map(|scenario| scenario.0).collect();
    let others: BTreeSet<&str> =
        run.rows.iter().map(|row| &*row.scenario).filter(|name| !known.contains(name)).collect();
    for other in others {
        push(&mut found, prefix, other, other, "", &panels(run, other, prefix));
    }
    found
}

fn push(found: &mut Vec<Section>, prefix: &str, name: &str, title: &str, about: &str, body: &str) {
    if !body.is_empty() {
        let body = format!("<p class=\"about\">{}</p><div class=\"cards\">{body}</div>", escape(about));
        found.push(Section { id: format!("{prefix}{name}"), title: title.to_owned(), body });
    }
}

/// A plot with its heading. `wide`: over all columns.
fn card(title: &str, sub: &str, plot: &str, wide: bool) -> String {
    let class = if wide { "card wide" } else { "card" };
    let (title, sub) = (escape(title), escape(sub));
    format!(
        "<figure class=\"{class}\"><figcaption><b>{title}</b><span>{sub}</span></figcaption>{plot}</figure>"
    )
}

/// A metric in words.
fn named(metric: &str) -> String {
    let known = [
        ("ndr", "no-drop rate"),
        ("pdr", "partial-drop rate (0.5 %)"),
        ("packet", "one packet"),
        ("net", "one packet, net of generator and sink"),
        ("time", "time for a packet"),
        ("cycles", "cycles for a packet"),
        ("rate", "rate"),
        ("new-flows", "new flows"),
        ("mos", "mean opinion score"),
        ("jitter", "jitter (RFC 3550)"),
        ("loss", "loss"),
        ("delay", "one-way delay"),
        ("calls", "calls at once"),
        ("goodput", "goodput"),
        ("burst-loss", "loss in bursts"),
        ("tick-jitter", "tick jitter"),
        ("idle-cost", "cost while idle"),
        ("lost", "packets lost"),
        ("worst-delay", "worst delay"),
        ("in-force", "time until in force"),
    ];
    known
        .iter()
        .find(|(name, _)| *name == metric)
        .map_or_else(|| metric.to_owned(), |(_, words)| (*words).to_owned())
}

fn unit_in_words(unit: &str) -> &str {
    if unit == "1" { "" } else { unit }
}

fn titled(metric: &str, unit: &str) -> String {
    match unit_in_words(unit) {
        "" => named(metric),
        unit => format!("{}, {unit}", named(metric)),
    }
}

fn which_is_better(metric: &str, unit: &str) -> &'static str {
    match better(metric, unit) {
        Some(Better::More) => "more is better",
        Some(Better::Less) => "less is better",
        None => "",
    }
}

fn range(row: &Measurement) -> Option<(f64, f64)> {
    (row.low < row.high).then_some((row.low, row.high))
}

/// Every figure of a scenario but ratios (which stand beside the peers) and stages: curves where cases lie along an axis, bars
/// beside peers where there are some, and else one plot of bars for all cases of a metric.
fn panels(run: &Run<'_>, scenario: &str, prefix: &str) -> String {
    let apart = |row: &&Measurement| {
        !(row.metric.starts_with("ratio/")
            || row.metric.starts_with("stage/")
            || row.metric.starts_with("counts/"))
    };
    let rows: Vec<&Measurement> = run.usable(scenario).filter(apart).collect();
    let mut metrics: Vec<(&str, &str)> = Vec::new();
    for row in &rows {
        if !metrics.contains(&(&*row.metric, &*row.unit)) {
            metrics.push((&row.metric, &row.unit));
        }
    }
    // Cards of one case side by side: its metrics are read together.
    let (mut beside, mut others) = (Vec::new(), String::new());
    for (metric, unit) in metrics {
        let of_metric: Vec<&Measurement> =
            rows.iter().filter(|row| row.metric == metric && row.unit == unit).copied().collect();
        let id = format!("{prefix}{scenario}-{metric}");
        let (curves, rest) = by_axis(&id, &of_metric);
        others += &curves;
        let (with_peers, alone): (Vec<&Measurement>, Vec<&Measurement>) =
            rest.into_iter().partition(|row| !row.peers.is_empty());
        for row in with_peers {
            let place = rows.iter().position(|other| other.case == row.case).unwrap_or(0);
            beside.push((place, beside_peers(run, &id, row)));
        }
        if !alone.is_empty() && scenario != "latency" {
            others += &all_cases(&id, &alone);
        }
    }
    beside.sort_by_key(|(place, _)| *place);
    beside.into_iter().map(|(_, card)| card).collect::<String>() + &others
}

/// Ours and the peers in one case, the best first.
fn beside_peers(run: &Run<'_>, id: &str, row: &Measurement) -> String {
    let ours =
        Bar { label: "vswitch".into(), value: row.value, range: range(row), ours: true, note: String::new() };
    let peer = |(name, value): (&String, &f64)| {
        let note = run.ratio(row, name).map_or(String::new(), |(ratio, spread)| {
            let spread = spread.map_or(String::new(), |(low, high)| format!(" ({low:.2}–{high:.2})"));
            format!("{ratio:.2}×{spread}")
        });
        Bar { label: name.clone(), value: *value, range: None, ours: false, note }
    };
    let mut all: Vec<Bar> = std::iter::once(ours).chain(row.peers.iter().map(peer)).collect();
    let which = better(&row.metric, &row.unit);
    all.sort_by(|a, b| {
        if which == Some(Better::Less) { a.value.total_cmp(&b.value) } else { b.value.total_cmp(&a.value) }
    });
    let (title, unit) = (titled(&row.metric, &row.unit), unit_in_words(&row.unit));
    let plot = bars(
        &format!("{id}-{}", row.case),
        &format!("{title}, {}: ours beside peers", row.case),
        unit,
        &all,
        520.0,
    );
    card(&row.case, &format!("{title} · {}", which_is_better(&row.metric, &row.unit)), &plot, false)
}

/// All cases of a metric that has no peers.
fn all_cases(id: &str, rows: &[&Measurement]) -> String {
    let bar = |row: &&Measurement| Bar {
        label: row.case.clone(),
        value: row.value,
        range: range(row),
        ours: true,
        note: String::new(),
    };
    let all: Vec<Bar> = rows.iter().map(bar).collect();
    let (metric, unit) = (&rows[0].metric, &rows[0].unit);
    let wide = rows.iter().any(|row| row.case.len() > 24);
    let plot = bars(
        id,
        &format!("{} of each case", titled(metric, unit)),
        unit_in_words(unit),
        &all,
        if wide { 1080.0 } else { 520.0 },
    );
    card(&titled(metric, unit), which_is_better(metric, unit), &plot, wide)
}

/// Curves along the axes these figures lie on, and the figures that lie on none. What grows by orders is drawn by factors.
fn by_axis<'run>(id: &str, rows: &[&'run Measurement]) -> (String, Vec<&'run Measurement>) {
    let (mut html, mut drawn): (String, Vec<*const Measurement>) = (String::new(), Vec::new());
    // The laws' axes have a section of their own in scenario engine.
    let engine = rows.first().is_some_and(|row| row.scenario == "engine");
    for axis in AXES.iter().filter(|axis| !engine || **axis == "batch") {
        let found = series(rows, axis);
        if found.is_empty() {
            continue;
        }
        drawn.extend(
            found.iter().flat_map(|series| series.points.iter().map(|point| std::ptr::from_ref(point.1))),
        );
        let (metric, unit) = (&rows[0].metric, &rows[0].unit);
        let values = || found.iter().flat_map(|series| series.points.iter().map(|point| point.1.value));
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        let plot = Plot {
            id: format!("{id}-{axis}"),
            shows: format!("{} against {axis}", titled(metric, unit)),
            x_title: (*axis).to_owned(),
            y_title: titled(metric, unit),
            y_log: low > 0.0 && high / low > 30.0,
            from_zero: metric != "mos",
            y_range: (metric == "mos").then_some((1.0, 4.5)),
            curves: found.iter().flat_map(curves).collect(),
            ..Plot::default()
        };
        html += &card(
            &format!("{} against {axis}", named(metric)),
            which_is_better(metric, unit),
            &plot.draw(),
            false,
        );
    }
    let rest = rows.iter().filter(|row| !drawn.contains(&std::ptr::from_ref(**row))).copied().collect();
    (html, rest)
}

/// Ours and each peer's of a series.
fn curves(series: &Series<'_>) -> Vec<Curve> {
    let peers: BTreeSet<&String> = series.points.iter().flat_map(|(_, row)| row.peers.keys()).collect();
    let with =
        |name: &str| if series.name.is_empty() { name.to_owned() } else { format!("{name} {}", series.name) };
    let ours = Curve {
        name: if peers.is_empty() && !series.name.is_empty() { series.name.clone() } else { with("vswitch") },
        ours: !peers.is_empty() || series.name.is_empty(),
        points: series.points.iter().map(|(at, row)| (*at, row.value, range(row))).collect(),
    };
    let of_peer = |peer: &&String| Curve {
        name: with(peer),
        ours: false,
        points: series
            .points
            .iter()
            .filter_map(|(at, row)| Some((*at, *row.peers.get(*peer)?, None)))
            .collect(),
    };
    std::iter::once(ours).chain(peers.iter().map(of_peer)).collect()
}

/// Latency by percentile: x is log10 of how rare. The same heights in all plots.
fn latency(run: &Run<'_>, prefix: &str) -> String {
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
    let y_range = Some((positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max)));
    let cases: Vec<&String> = rows.iter().fold(Vec::new(), |mut cases, row| {
        if !cases.contains(&&row.case) {
            cases.push(&row.case);
        }
        cases
    });
    let mut html = String::new();
    for case in cases {
        let mut points: Vec<(f64, &Measurement)> =
            rows.iter().filter(|row| row.case == *case).map(|row| (place(row), *row)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let unit = &points[0].1.unit;
        let series = Series { name: String::new(), points: points.clone() };
        let plot = Plot {
            id: format!("{prefix}latency-{case}"),
            shows: format!("Latency by percentile, {case}"),
            x_title: "percentile".to_owned(),
            y_title: format!("latency, {unit}"),
            y_log: true,
            y_range,
            x_ticks: Some(ticks.clone()),
            curves: curves(&series)
                .into_iter()
                .map(|curve| Curve { ours: curve.name == "vswitch", ..curve })
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
    let rows: Vec<&Measurement> = run
        .usable("latency")
        .filter(|row| !is_percentile(row) && !row.metric.starts_with("ratio/"))
        .collect();
    let metrics: BTreeSet<&str> = rows.iter().map(|row| &*row.metric).collect();
    for metric in metrics {
        let of_metric: Vec<&Measurement> = rows.iter().filter(|row| row.metric == metric).copied().collect();
        rest += &all_cases(&format!("{prefix}latency-{metric}"), &of_metric);
    }
    rest
}

/// Cycles by stage, a bar a case.
fn stages(run: &Run<'_>, prefix: &str) -> String {
    /// More would not be read; the table has them all.
    const SHOWN: usize = 24;
    /// What a packet of a known flow may cost in all, in cycles.
    const BUDGET: f64 = 110.0;
    let (mut names, mut found): (Vec<String>, Vec<Stack>) = (Vec::new(), Vec::new());
    for row in run.usable("engine") {
        let Some(stage) = row.metric.strip_prefix("stage/") else { continue };
        if !names.iter().any(|name| name == stage) {
            names.push(stage.to_owned());
        }
        let part = (stage.to_owned(), row.value);
        match found.iter_mut().find(|stack| stack.label == row.case) {
            Some(stack) => stack.parts.push(part),
            None => found.push(Stack { label: row.case.clone(), parts: vec![part] }),
        }
    }
    if found.is_empty() {
        return String::new();
    }
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    let mut legend = String::from("<ul class=\"legend\">");
    for (place, name) in names.iter().enumerate() {
        let _ = write!(legend, "<li><i class=\"c{}\"></i>{}</li>", place % 10, escape(name));
    }
    legend += "</ul>";
    let id = format!("{prefix}engine-stages");
    let budget = Some((BUDGET, "budget of a known flow: 110"));
    let plot = stacks(&id, "Cycles a packet by stage", "cycles", &found, &names, budget, 1080.0);
    let sub = if more > 0 {
        format!("less is better · {more} further cases are in the table")
    } else {
        "less is better".to_owned()
    };
    card("Cost by stage, cycles for a packet", &sub, &(legend + &plot), true)
}

/// A law: what may a packet cost with the larger table, in times of what it costs with the smaller.
struct Law {
    axis: &'static str,
    from: f64,
    to: f64,
    factor: f64,
}

const LAWS: [Law; 4] = [
    Law { axis: "flows", from: 1e4, to: 1e7, factor: 1.8 },
    Law { axis: "rules", from: 1e2, to: 1e5, factor: 1.1 },
    Law { axis: "routes", from: 1e3, to: 1e6, factor: 1.3 },
    Law { axis: "pods", from: 1.0, to: 250.0, factor: 1.2 },
];

fn scaling(run: &Run<'_>, prefix: &str) -> String {
    /// Curves in one plot that can still be told apart.
    const SHOWN: usize = 6;
    let mut html = String::new();
    for law in LAWS {
        let mut found = along(run, law.axis);
        if found.is_empty() {
            continue;
        }
        let reach = |curve: &Curve| curve.points.last().map_or(0.0, |point| point.0);
        found.sort_by(|a, b| reach(b).total_cmp(&reach(a)).then(b.points.len().cmp(&a.points.len())));
        let (verdict, class) = judged(&law, &found);
        let more = found.len().saturating_sub(SHOWN);
        found.truncate(SHOWN);
        let curves = found.iter().map(|curve| relative(curve, law.from)).collect();
        let [from, to] = [law.from, law.to].map(short_count);
        let plot = Plot {
            id: format!("{prefix}scaling-{}", law.axis),
            shows: format!("Cost of a packet against {}, relative to {from}", law.axis),
            x_title: law.axis.to_owned(),
            y_title: format!("cost relative to {from} {}", law.axis),
            y_range: Some((0.9, law.factor)),
            limit: Some((law.from, law.to, law.factor, format!("at most {}×", trimmed(law.factor, 1)))),
            curves,
            ..Plot::default()
        };
        let chip = format!("<p class=\"verdict {class}\">{}</p>", escape(&verdict));
        let sub = if more > 0 { format!("{more} further curves are in the table") } else { String::new() };
        html += &card(&format!("{from} → {to} {}", law.axis), &sub, &(chip + &plot.draw()), false);
    }
    html
}

fn short_count(value: f64) -> String {
    super::svg::tick_label(value)
}

/// Costs along an axis, from the first scenario and metric that has them. A rate is taken as its inverse.
fn along(run: &Run<'_>, axis: &str) -> Vec<Curve> {
    let sources = ["cycles", "time", "packet", "rate", "ndr"];
    let places = ["engine", "pods", "lockstep", "throughput"];
    for (scenario, metric) in
        places.iter().flat_map(|place| sources.iter().map(move |metric| (*place, *metric)))
    {
        let rows: Vec<&Measurement> = run
            .usable(scenario)
            .filter(|row| row.metric == metric && row.value > 0.0 && row.low > 0.0)
            .collect();
        let rate = matches!(metric, "rate" | "ndr");
        let cost = |value: f64| if rate { 1.0 / value } else { value };
        let curve = |series: &Series<'_>| Curve {
            name: if series.name.is_empty() { "vswitch".to_owned() } else { series.name.clone() },
            ours: series.name.is_empty(),
            points: series
                .points
                .iter()
                .map(|(at, row)| {
                    (*at, cost(row.value), range(row).map(|(low, high)| (cost(low), cost(high))))
                })
                .collect(),
        };
        let found: Vec<Curve> = series(&rows, axis).iter().map(curve).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// The same curve as factors of its value at `from`, or at its first point.
fn relative(curve: &Curve, from: f64) -> Curve {
    let base = curve
        .points
        .iter()
        .find(|point| point.0 == from)
        .or(curve.points.first())
        .map_or(1.0, |point| point.1);
    let scaled = |(at, value, range): &Point| {
        (*at, value / base, range.map(|(a, b)| (a.min(b) / base, a.max(b) / base)))
    };
    Curve { points: curve.points.iter().map(scaled).collect(), ..curve.clone() }
}

/// Whether the law holds, in words and as a class.
fn judged(law: &Law, curves: &[Curve]) -> (String, &'static str) {
    let at =
        |curve: &Curve, place: f64| curve.points.iter().find(|point| point.0 == place).map(|point| point.1);
    let factors = curves.iter().filter_map(|curve| Some(at(curve, law.to)? / at(curve, law.from)?));
    match factors.max_by(f64::total_cmp) {
        None => (format!("not measured from {} to {}", short_count(law.from), short_count(law.to)), "open"),
        Some(factor) if factor <= law.factor => (format!("{factor:.2}×: kept"), "kept"),
        Some(factor) => (format!("{factor:.2}×: more than {}×", short(law.factor)), "broken"),
    }
}
