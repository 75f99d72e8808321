//! Whether costs grow no more than the laws say.

use super::super::data::{Run, Series, series};
use super::super::lines::{Curve, Plot, Point};
use super::super::svg::{escape, short, tick_label, trimmed};
use super::words::all_of;
use super::{card, measured, range, shorten};
use crate::result::Measurement;

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

pub(super) fn scaling(run: &Run<'_>, prefix: &str) -> String {
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
        let common = shorten(&mut found);
        let curves: Vec<Curve> = found.iter().map(|curve| relative(curve, law.from)).collect();
        let [from, to] = [law.from, law.to].map(short_count);
        let plot = Plot {
            id: format!("{prefix}scaling-{}", law.axis),
            shows: format!("Cost of a packet against {}, relative to {from}", law.axis),
            x_title: law.axis.to_owned(),
            y_title: format!("cost relative to {from} {}", law.axis),
            y_range: Some((0.9, law.factor)),
            x_ticks: measured(&curves),
            limit: Some((law.from, law.to, law.factor, format!("at most {}×", trimmed(law.factor, 1)))),
            curves,
            ..Plot::default()
        };
        let others = plot.curves.iter().any(|curve| curve.name.contains(" (to "));
        let chip = format!("<p class=\"verdict {class}\">{}</p>", escape(&verdict));
        let mut sub = format!("1 is the cost with {from} {}{}", law.axis, all_of(&common));
        if others {
            sub += " · of a curve that was not measured there, with what its name says";
        }
        if more > 0 {
            sub += &format!(" · {more} further curves are in the table");
        }
        html += &card(&format!("{from} → {to} {}", law.axis), &sub, &(chip + &plot.draw()), false);
    }
    html
}

fn short_count(value: f64) -> String {
    tick_label(value)
}

/// Costs along an axis, from the first scenario and metric that has them. A rate is taken as its inverse.
fn along(run: &Run<'_>, axis: &str) -> Vec<Curve> {
    let sources =
        [("packet", "cycles"), ("packet", "ns"), ("cycles", "cycles"), ("rate", "Mpps"), ("ndr", "Mpps")];
    let places = ["engine", "pods", "lockstep", "throughput"];
    for (scenario, (metric, unit)) in
        places.iter().flat_map(|place| sources.iter().map(move |source| (*place, *source)))
    {
        let rows: Vec<&Measurement> = run
            .usable(scenario)
            .filter(|row| row.metric == metric && row.unit == unit && row.value > 0.0 && row.low > 0.0)
            .collect();
        let rate = matches!(metric, "rate" | "ndr");
        let cost = |value: f64| if rate { 1.0 / value } else { value };
        let curve = |series: &Series<'_>| Curve {
            name: series.name.clone(),
            ours: false,
            told: false,
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

/// The same curve as factors of its value at `from`; or at its first point, which its name says then.
fn relative(curve: &Curve, from: f64) -> Curve {
    let at_from = curve.points.iter().find(|point| point.0 == from);
    let (place, base, _) = at_from.or(curve.points.first()).copied().unwrap_or((from, 1.0, None));
    let name = match at_from {
        Some(_) => curve.name.clone(),
        None => format!("{} (to {})", curve.name, short_count(place)),
    };
    let scaled = |(at, value, range): &Point| {
        (*at, value / base, range.map(|(a, b)| (a.min(b) / base, a.max(b) / base)))
    };
    Curve { name, points: curve.points.iter().map(scaled).collect(), ..curve.clone() }
}

/// What is known of a law whose ends were not both measured.
fn so_far(law: &Law, curves: &[Curve]) -> String {
    let missing = format!("not measured from {} to {}", short_count(law.from), short_count(law.to));
    let reached = |curve: &Curve| {
        let base = curve.points.iter().find(|point| point.0 == law.from)?;
        let last = curve.points.last().filter(|last| last.0 > law.from)?;
        Some((last.1 / base.1, last.0))
    };
    match curves.iter().filter_map(reached).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((factor, at)) => format!("{factor:.2}× up to {}; {missing}", short_count(at)),
        None => missing,
    }
}

/// Whether the law holds, in words and as a class.
fn judged(law: &Law, curves: &[Curve]) -> (String, &'static str) {
    let at =
        |curve: &Curve, place: f64| curve.points.iter().find(|point| point.0 == place).map(|point| point.1);
    let factors = curves.iter().filter_map(|curve| Some(at(curve, law.to)? / at(curve, law.from)?));
    match factors.max_by(f64::total_cmp) {
        None => (so_far(law, curves), "open"),
        Some(factor) if factor <= law.factor => (format!("{factor:.2}×: kept"), "kept"),
        Some(factor) => (format!("{factor:.2}×: more than {}×", short(law.factor)), "broken"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_curve_is_relative_to_is_named() {
        let curve = |first: f64| Curve {
            name: "v4".to_owned(),
            points: vec![(first, 2.0, None), (1e4, 4.0, Some((3.0, 5.0)))],
            ..Curve::default()
        };
        let at_from = relative(&curve(1e2), 1e2);
        assert_eq!((at_from.name.as_str(), at_from.points[1]), ("v4", (1e4, 2.0, Some((1.5, 2.5)))));
        let at_first = relative(&curve(1e3), 1e2);
        assert_eq!((at_first.name.as_str(), at_first.points[0].1), ("v4 (to 1k)", 1.0));
    }
}
