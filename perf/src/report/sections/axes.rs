//! Curves along an axis.

use std::collections::{BTreeSet, HashSet};

use super::super::data::{AXES, Series, on_axis, series};
use super::super::lines::{Curve, Plot};
use super::super::svg::tick_label;
use super::words::{all_of, distinct, named, titled, which_is_better};
use super::{card, range};
use crate::result::Measurement;

/// Curves along the axes these figures lie on, and the figures that lie on none. What grows by orders is drawn by factors.
pub(super) fn by_axis<'run>(id: &str, rows: &[&'run Measurement]) -> (String, Vec<&'run Measurement>) {
    let (mut html, mut drawn): (String, HashSet<*const Measurement>) = (String::new(), HashSet::new());
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
        let mut all: Vec<Curve> = found.iter().flat_map(curves).collect();
        let common = shorten(&mut all);
        let plot = Plot {
            id: format!("{id}-{axis}"),
            shows: format!("{} against {axis}", titled(metric, unit)),
            x_title: (*axis).to_owned(),
            y_title: titled(metric, unit),
            y_log: low > 0.0 && high / low > 30.0,
            from_zero: metric != "mos",
            y_range: (metric == "mos").then_some((1.0, 4.5)),
            x_ticks: measured(&all),
            curves: all,
            ..Plot::default()
        };
        html += &card(
            &format!("{} against {axis}", named(metric)),
            &format!("{}{}", which_is_better(metric, unit), all_of(&common)),
            &plot.draw(),
            false,
        );
    }
    // A case that stands on an axis without saying so is drawn beside the others, too.
    let is_drawn = |row: &Measurement| drawn.contains(&std::ptr::from_ref(row));
    let says = |row: &Measurement| !engine || on_axis(&row.case, "batch").is_some();
    let rest = rows.iter().filter(|row| !(is_drawn(row) && says(row))).copied().collect();
    (html, rest)
}

/// Ours and each peer's of a series.
pub(super) fn curves(series: &Series<'_>) -> Vec<Curve> {
    let peers: BTreeSet<&String> = series.points.iter().flat_map(|(_, row)| row.peers.keys()).collect();
    let of =
        |name: &str| if series.name.is_empty() { name.to_owned() } else { format!("{name}/{}", series.name) };
    let ours = Curve {
        name: if peers.is_empty() { series.name.clone() } else { of("vswitch") },
        ours: !peers.is_empty(),
        points: series.points.iter().map(|(at, row)| (*at, row.value, range(row))).collect(),
        ..Curve::default()
    };
    let place = |peer: &str, (at, row): &(f64, &Measurement)| Some((*at, *row.peers.get(peer)?, None));
    let of_peer = |peer: &&String| Curve {
        name: of(peer),
        points: series.points.iter().filter_map(|point| place(peer, point)).collect(),
        ..Curve::default()
    };
    std::iter::once(ours).chain(peers.iter().map(of_peer)).collect()
}

/// Leaves out of the names what all curves have, and gives it. A curve alone is ours.
pub(super) fn shorten(curves: &mut [Curve]) -> String {
    if let [only] = curves {
        only.ours = true;
        return std::mem::replace(&mut only.name, "vswitch".to_owned());
    }
    let (names, common) = distinct(&curves.iter().map(|curve| curve.name.clone()).collect::<Vec<_>>());
    for (curve, name) in curves.iter_mut().zip(names) {
        curve.name = name;
    }
    common
}

/// The places on the x axis that were measured, with their labels. None: too many to be told.
pub(super) fn measured(curves: &[Curve]) -> Option<Vec<(f64, String)>> {
    let mut places: Vec<f64> =
        curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0)).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    (places.len() <= 8).then(|| places.into_iter().map(|place| (place, tick_label(place))).collect())
}
