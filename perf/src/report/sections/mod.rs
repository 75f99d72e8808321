//! The page's sections: which figures become which plot.

mod axes;
mod latency;
mod scaling;
mod stages;
mod words;

use std::collections::{BTreeSet, HashMap};

use super::bars::{Bar, bars};
use super::data::Run;
use super::svg::escape;
use crate::compare::{Better, better};
use crate::result::{Measurement, ratio_of};
use axes::{by_axis, curves, measured, shorten};
use latency::latency;
use scaling::scaling;
use stages::stages;
pub(super) use words::unit_in_words;
use words::{all_of, distinct, titled, which_is_better};

/// Bars in one plot that are still read; the table has all cases.
const SHOWN: usize = 24;

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
pub(super) const SCENARIOS: [(&str, &str, &str); 12] = [
    (
        "throughput",
        "Throughput",
        "No-drop and partial-drop rates by MLRsearch (RFC 9971) on two cores; peers take turns with us within each round.",
    ),
    (
        "lockstep",
        "Lockstep",
        "Generator, switch and sink take turns on one core over real veth: the time one packet costs, generator and sink included, and net of them.",
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
    (
        "policy",
        "Policy",
        "The verdict of a new flow with few and many rules: packets that ask 64 of them (of-64), and packets that ask all (of-all). Growth is relative to the smallest table of the same kind; 1.1 is what may be. The compiler's time is that of a core.",
    ),
    ("instructions", "Instructions", "Instructions a packet under callgrind: the same number on every run."),
    ("bulk", "Bulk transfer", "TCP streams from pod to pod."),
    ("game", "Game servers", "All players' packets at once, 64 or 128 times a second."),
    ("pods", "Pods", "From one port to 250."),
    ("churn", "Churn", "Policies, routes and pods that change under traffic."),
    (
        "strain",
        "Strain",
        "Single turns of a worker while tables are replaced and flows expire; known flows beside a flood of new ones; the start.",
    ),
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
        let body = void(run, scenario, body.is_empty()) + &body;
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

/// Heads the column of ratios in a plot.
const TIMES_AS_GOOD: &str = "vswitch: times as good";

fn push(found: &mut Vec<Section>, prefix: &str, name: &str, title: &str, about: &str, body: &str) {
    if !body.is_empty() {
        let legend = if body.contains(TIMES_AS_GOOD) {
            " At the right, how many times as good as the peer: above 1 vswitch is better, below 1 the peer."
        } else {
            ""
        };
        let body =
            format!("<p class=\"about\">{}{legend}</p><div class=\"cards\">{body}</div>", escape(about));
        found.push(Section { id: format!("{prefix}{name}"), title: title.to_owned(), body });
    }
}

/// What is said of a scenario of which figures are void; `all`: nothing is drawn of it. Empty: none is void.
fn void(run: &Run<'_>, scenario: &str, all: bool) -> String {
    let rows = || run.rows.iter().filter(|row| row.scenario == scenario);
    let void: Vec<&str> = rows().filter_map(|row| row.void.as_deref()).collect();
    let Some(first) = void.first() else { return String::new() };
    let (number, of, why) = (void.len(), rows().count(), escape(first));
    let told = if all && number == of {
        format!("{number} figures, all of them void, so nothing is drawn")
    } else {
        format!("{number} of {of} void, and not drawn")
    };
    format!("<p class=\"warning wide\">{told}. The first: {why}.</p>")
}

/// A plot with its heading. `wide`: over all columns.
fn card(title: &str, sub: &str, plot: &str, wide: bool) -> String {
    let class = if wide { "card wide" } else { "card" };
    let (title, sub) = (escape(title), escape(sub));
    format!(
        "<figure class=\"{class}\"><figcaption><b>{title}</b><span>{sub}</span></figcaption>{plot}</figure>"
    )
}

fn range(row: &Measurement) -> Option<(f64, f64)> {
    (row.low < row.high).then_some((row.low, row.high))
}

/// Metrics that say how something was measured, and are nobody's merit: they stand in the tables.
const OF_THE_MEASURING: [&str; 6] = ["left-out", "trials", "width", "search-width", "ends", "asked"];

/// Every figure of a scenario but ratios (which stand beside the peers), stages, parts of another figure and what only tells of the measuring: curves where cases lie
/// along an axis, bars beside peers where there are some, and else one plot of bars for all cases of a metric.
fn panels(run: &Run<'_>, scenario: &str, prefix: &str) -> String {
    let apart = |row: &&Measurement| {
        !(ratio_of(&row.metric).is_some()
            || row.metric.starts_with("stage/")
            || row.metric.starts_with("part/")
            || row.metric.starts_with("counts/")
            || OF_THE_MEASURING.contains(&row.metric.as_str()))
    };
    let mut rows: Vec<&Measurement> = run.usable(scenario).filter(apart).collect();
    if scenario == "engine" {
        once(&mut rows);
    }
    let mut metrics: Vec<(&str, &str)> = Vec::new();
    for row in &rows {
        if !metrics.contains(&(&*row.metric, &*row.unit)) {
            metrics.push((&row.metric, &row.unit));
        }
    }
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (place, row) in rows.iter().enumerate() {
        first.entry(&row.case).or_insert(place);
    }
    // Cards of one case side by side: its metrics are read together.
    let (mut beside, mut others, mut bars) = (Vec::new(), String::new(), String::new());
    for &(metric, unit) in &metrics {
        let of_metric: Vec<&Measurement> =
            rows.iter().filter(|row| row.metric == metric && row.unit == unit).copied().collect();
        let twice = metrics.iter().filter(|(other, _)| *other == metric).count() > 1;
        let id =
            format!("{prefix}{scenario}-{metric}") + &if twice { format!("-{unit}") } else { String::new() };
        let (curves, rest) = by_axis(&id, &of_metric);
        others += &curves;
        let (with_peers, alone): (Vec<&Measurement>, Vec<&Measurement>) =
            rest.into_iter().partition(|row| !row.peers.is_empty());
        for row in with_peers {
            let place = first.get(&*row.case).copied().unwrap_or(0);
            beside.push((place, beside_peers(run, &id, row)));
        }
        if !alone.is_empty() {
            bars += &all_cases(&id, &alone);
        }
    }
    beside.sort_by_key(|(place, _)| *place);
    let beside: String = beside.into_iter().map(|(_, card)| card).collect();
    // Curves are all of one height: together they leave no holes.
    others + &beside + &bars
}

/// Leaves out what the engine's cycles say already: a packet's time, its rate but for new flows, and the sum of its stages.
fn once(rows: &mut Vec<&Measurement>) {
    let in_cycles = rows.iter().any(|row| row.metric == "packet" && row.unit == "cycles");
    let again = |row: &Measurement| match &*row.metric {
        "packet" => row.unit != "cycles",
        "rate" => !row.case.starts_with("new-flow"),
        metric => metric == "walk",
    };
    rows.retain(|row| !in_cycles || !again(row));
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
        TIMES_AS_GOOD,
        &all,
        520.0,
    );
    card(&row.case, &format!("{title} · {}", which_is_better(&row.metric, &row.unit)), &plot, false)
}

/// All cases of a metric that has no peers.
fn all_cases(id: &str, rows: &[&Measurement]) -> String {
    let (labels, common) = distinct(&rows.iter().map(|row| row.case.clone()).collect::<Vec<_>>());
    let wide = labels.iter().any(|label| label.len() > 30);
    let bar = |(row, label): (&&Measurement, String)| Bar {
        label,
        value: row.value,
        range: range(row),
        ours: true,
        note: String::new(),
    };
    let all: Vec<Bar> = rows.iter().zip(labels).take(SHOWN).map(bar).collect();
    let (metric, unit) = (&rows[0].metric, &rows[0].unit);
    let title = titled(metric, unit);
    let size = if wide { 1080.0 } else { 520.0 };
    let plot = bars(id, &format!("{title} of each case"), unit_in_words(unit), "", &all, size);
    let mut sub = format!("{}{}", which_is_better(metric, unit), all_of(&common));
    if rows.len() > SHOWN {
        sub += &format!(" · {} further cases are in the table", rows.len() - SHOWN);
    }
    card(&title, &sub, &plot, wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Config, ResultFile, SCHEMA};

    fn drawn(rows: Vec<Measurement>) -> String {
        let file = ResultFile {
            schema: SCHEMA.to_owned(),
            commit: String::new(),
            machine: crate::machine::Machine::default(),
            config: Config::default(),
            complete: true,
            results: rows,
            notes: Vec::new(),
        };
        let files = [("a.json".to_owned(), file)];
        sections(&Run::of(&files)[0], "").into_iter().map(|section| section.body).collect()
    }

    #[test]
    fn a_ratio_stands_beside_its_metric_and_has_no_panel_of_its_own() {
        let of = |metric: &str, unit: &str, rounds: &[f64]| {
            Measurement::of_rounds("game", "tick-64", metric, unit, rounds)
        };
        let html = drawn(vec![
            of("delay-p50", "us", &[10.0]).beside("kernel", 20.0),
            of("delay-p99", "us", &[20.0]).beside("kernel", 80.0),
            of("ratio/kernel/delay-p50", "1", &[1.8, 2.0, 2.2]),
            of("ratio/kernel/delay-p99", "1", &[3.5, 4.0, 4.5]),
        ]);
        assert_eq!(html.matches("<svg").count(), 2, "{html}");
        assert_eq!(html.matches("above 1 vswitch is better, below 1 the peer").count(), 1, "once a section");
        assert!(html.contains("2.00× (1.80–2.20)") && html.contains("4.00× (3.50–4.50)"), "{html}");
    }

    fn figure(metric: &str, unit: &str) -> Measurement {
        Measurement::of_rounds("engine", "known-flow/v4/plain", metric, unit, &[5.0])
    }

    #[test]
    fn what_was_measured_in_vain_is_said() {
        let html = drawn(vec![figure("packet", "cycles").void_because(Some("steal 40 %".to_owned()))]);
        assert!(html.contains("1 figures, all of them void") && html.contains("steal 40 %"), "{html}");
        assert!(!html.contains("<svg"));
        assert!(drawn(Vec::new()).is_empty());
        let part = figure("rate", "Mpps").void_because(Some("steal 40 %".to_owned()));
        let html = drawn(vec![figure("packet", "cycles"), part]);
        assert!(html.contains("1 of 2 void") && html.contains("<svg"), "{html}");
    }

    #[test]
    fn what_only_tells_of_the_measuring_is_not_drawn() {
        let calls = |metric| Measurement::of_rounds("calls", "relayed/g711/most", metric, "calls", &[5.0]);
        let html = drawn(vec![calls("calls"), calls("ends"), calls("search-width")]);
        assert_eq!(html.matches("<svg").count(), 1, "{html}");
    }

    #[test]
    fn what_cycles_say_is_not_said_again() {
        let both = drawn(vec![figure("packet", "cycles"), figure("packet", "ns"), figure("rate", "Mpps")]);
        assert_eq!(both.matches("<svg").count(), 1);
        assert_eq!(drawn(vec![figure("packet", "ns"), figure("rate", "Mpps")]).matches("<svg").count(), 2);
    }
}
