//! Curves over a number: points with their spread, joined, named at their ends.

use std::fmt::Write;

use super::svg::{self, Scale, cut, escape, short, tick_label, width};

/// x, y, and lowest and highest y where known.
pub(super) type Point = (f64, f64, Option<(f64, f64)>);

/// One curve.
#[derive(Debug, Clone, Default)]
pub(super) struct Curve {
    /// What it is.
    pub name: String,
    /// Whether it is ours: then it is drawn strongest.
    pub ours: bool,
    /// Whether its heights are written beside its points.
    pub told: bool,
    /// Its points, in order of x.
    pub points: Vec<Point>,
}

/// A plot of curves.
#[derive(Debug, Clone, Default)]
pub(super) struct Plot {
    /// Its name in the page.
    pub id: String,
    /// What it shows, in words.
    pub shows: String,
    /// What the x axis is.
    pub x_title: String,
    /// What the y axis is, with the unit.
    pub y_title: String,
    /// Whether y is drawn by factors.
    pub y_log: bool,
    /// Whether y begins at 0. It does not when it is drawn by factors.
    pub from_zero: bool,
    /// y is drawn from and to at least these.
    pub y_range: Option<(f64, f64)>,
    /// Whether x is drawn as it is, and not by factors.
    pub x_plain: bool,
    /// Places and labels of the x axis, in order. None: round ones.
    pub x_ticks: Option<Vec<(f64, String)>>,
    /// A height that is not to be exceeded: from x, to x, y, name.
    pub limit: Option<(f64, f64, f64, String)>,
    /// The curves.
    pub curves: Vec<Curve>,
}

const WIDE: f64 = 520.0;
const HIGH: f64 = 300.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = HIGH - 44.0;

impl Plot {
    /// The plot as SVG.
    #[must_use]
    pub(super) fn draw(&self) -> String {
        let names = self.curves.iter().map(|curve| width(&curve.name)).fold(0.0, f64::max).min(150.0);
        let right = WIDE - names - 24.0;
        let (x, y) = (self.x_scale(54.0, right), self.y_scale());
        let mut svg = svg::open(&self.id, WIDE, HIGH, &self.shows);
        self.axes(&mut svg, &x, &y, right);
        // Ours last, on top.
        let order = |curve: &&(usize, &Curve)| curve.1.ours;
        let numbered: Vec<(usize, &Curve)> = self.colours();
        for (colour, curve) in
            numbered.iter().filter(|curve| !order(curve)).chain(numbered.iter().filter(order))
        {
            draw_curve(&mut svg, curve, *colour, &x, &y);
        }
        self.name_curves(&mut svg, &numbered, &y, right);
        svg + "</svg>"
    }

    /// Ours have colour 0; the others count from 1.
    fn colours(&self) -> Vec<(usize, &Curve)> {
        let mut next = 0;
        let number = |curve: &'_ Curve| {
            next += usize::from(!curve.ours);
            if curve.ours { 0 } else { (next - 1) % 9 + 1 }
        };
        let colours: Vec<usize> = self.curves.iter().map(number).collect();
        colours.into_iter().zip(&self.curves).collect()
    }

    fn xs(&self) -> impl Iterator<Item = f64> {
        self.curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0))
    }

    fn x_scale(&self, left: f64, right: f64) -> Scale {
        if self.x_plain {
            let ticks = self.x_ticks.as_deref().unwrap_or_default();
            let ends = (ticks.first().map_or(0.0, |tick| tick.0), ticks.last().map_or(1.0, |tick| tick.0));
            return Scale::new(false, ends, (left, right - 6.0));
        }
        let (low, high) =
            self.xs().fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
        let low = if low.is_finite() && low > 0.0 { low } else { 1.0 };
        let (from, to) = self.limit.as_ref().map_or((low, high), |limit| (limit.0, limit.1));
        Scale::new(true, (low.min(from), high.max(to)), (left, right - 6.0))
    }

    fn y_scale(&self) -> Scale {
        let (mut low, mut high) = self.y_range.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
        for (_, y, range) in self.curves.iter().flat_map(|curve| &curve.points) {
            let (from, to) = range.unwrap_or((*y, *y));
            let lowest = from.min(*y);
            if !self.y_log || lowest > 0.0 {
                low = low.min(lowest);
            }
            high = high.max(to.max(*y));
        }
        if let Some(limit) = &self.limit {
            high = high.max(limit.2 * 1.02);
        }
        if !(low.is_finite() && high.is_finite()) {
            (low, high) = if self.y_log { (1.0, 10.0) } else { (0.0, 1.0) };
        }
        if self.y_log {
            return Scale::new(true, (round(low, false), round(high, true)), (BOTTOM, TOP));
        }
        let low = if self.from_zero { low.min(0.0) } else { low };
        let step = svg::nice((high - low).max(high.abs() * 0.02).max(1e-12) / 4.0);
        let ends = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        Scale::new(false, ends, (BOTTOM, TOP))
    }

    fn axes(&self, svg: &mut String, x: &Scale, y: &Scale, right: f64) {
        for tick in y.ticks(5) {
            svg::line(svg, (54.0, y.at(tick)), (right, y.at(tick)), "grid");
            svg::text(svg, (47.0, y.at(tick) + 4.0), "tick", "end", &tick_label(tick));
        }
        let mut taken = f64::NEG_INFINITY;
        let by_value = || x.ticks(5).into_iter().map(|tick| (tick, tick_label(tick))).collect();
        for (tick, label) in self.x_ticks.clone().unwrap_or_else(by_value) {
            svg::line(svg, (x.at(tick), TOP), (x.at(tick), BOTTOM), "grid");
            svg::line(svg, (x.at(tick), BOTTOM), (x.at(tick), BOTTOM + 5.0), "axis");
            let half = width(&label) / 2.0;
            if x.at(tick) - half > taken + 4.0 {
                svg::text(svg, (x.at(tick), BOTTOM + 18.0), "tick", "middle", &label);
                taken = x.at(tick) + half;
            }
        }
        svg::line(svg, (54.0, BOTTOM), (right, BOTTOM), "axis");
        svg::text(svg, (8.0, 13.0), "axis-title", "start", &self.y_title);
        svg::text(svg, (f64::midpoint(54.0, right), HIGH - 6.0), "axis-title", "middle", &self.x_title);
        if let Some((from, to, height, name)) = &self.limit {
            let level = y.at(*height);
            svg::line(svg, (x.at(*from), level), (x.at(*to), level), "limit");
            svg::text(svg, (x.at(*from), level - 5.0), "limit-name", "start", name);
        }
    }

    /// Names at the right ends, pushed apart where they would overlap.
    fn name_curves(&self, svg: &mut String, numbered: &[(usize, &Curve)], y: &Scale, right: f64) {
        const APART: f64 = 15.0;
        let end = |curve: &Curve| curve.points.last().map(|point| y.at(point.1));
        let mut names: Vec<(f64, usize, &Curve)> =
            numbered.iter().filter_map(|(colour, curve)| Some((end(curve)?, *colour, *curve))).collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        for index in 1..names.len() {
            names[index].0 = names[index].0.max(names[index - 1].0 + APART);
        }
        let mut ceiling = BOTTOM;
        for name in names.iter_mut().rev() {
            name.0 = name.0.min(ceiling);
            ceiling = name.0 - APART;
        }
        for (place, colour, curve) in names {
            let class = if curve.ours { "ours" } else { "peer" };
            mark(svg, (right + 8.0, place), colour, &curve.name);
            svg::text(svg, (right + 17.0, place + 4.0), class, "start", &cut(&curve.name, 150.0));
        }
    }
}

/// To 1, 2 or 5 times a power of ten.
fn round(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let found = if up {
        steps.into_iter().find(|step| *step >= value * 0.999)
    } else {
        steps.into_iter().rev().find(|step| *step <= value * 1.001)
    };
    found.unwrap_or(value)
}

fn draw_curve(svg: &mut String, curve: &Curve, colour: usize, x: &Scale, y: &Scale) {
    let places: Vec<(f64, f64)> = curve.points.iter().map(|point| (x.at(point.0), y.at(point.1))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let strength = if curve.ours { " strong" } else { "" };
    let _ = write!(svg, "<polyline class=\"curve s{colour}{strength}\" points=\"{}\"/>", path.join(" "));
    for (place, (at, value, range)) in places.iter().zip(&curve.points) {
        if let Some((low, high)) = range.filter(|(low, high)| (y.at(*low) - y.at(*high)).abs() > 2.0) {
            svg::line(svg, (place.0, y.at(low)), (place.0, y.at(high)), &format!("spread s{colour}"));
        }
        if curve.told {
            // The last one keeps clear of the names.
            let last = places.last() == Some(place);
            let (x, anchor) = if last { (place.0 + 6.0, "end") } else { (place.0, "middle") };
            svg::text(svg, (x, place.1 + 19.0), "told-value", anchor, &short(*value));
        }
        let told = range.map_or(String::new(), |(low, high)| format!(" ({} to {})", short(low), short(high)));
        mark(svg, *place, colour, &format!("{}, {}: {}{told}", curve.name, tick_label(*at), short(*value)));
    }
}

/// A mark by colour: their forms differ too.
fn mark(svg: &mut String, (x, y): (f64, f64), colour: usize, told: &str) {
    let form = match colour % 4 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\""),
        1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\"", x - 3.5, y - 3.5),
        2 => format!("<path d=\"M{x:.1} {:.1}l4.5 8h-9z\"", y - 5.0),
        _ => format!("<path d=\"M{x:.1} {:.1}l4.8 4.8l-4.8 4.8l-4.8-4.8z\"", y - 4.8),
    };
    let _ = write!(svg, "{form} class=\"mark c{colour}\"><title>{}</title>", escape(told));
    svg.push_str(match colour % 4 {
        0 => "</circle>",
        1 => "</rect>",
        _ => "</path>",
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, ys: &[f64]) -> Curve {
        let points = ys.iter().enumerate().map(|(x, y)| (10_f64.powi(x as i32), *y, None)).collect();
        Curve { name: name.to_owned(), ours: name == "ours", told: false, points }
    }

    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let opening = format!("{attribute}=\"");
        let parts = svg.split(&opening).skip(1);
        parts.filter_map(|part| part.split('"').next().unwrap().parse().ok()).collect()
    }

    #[test]
    fn each_point_has_its_mark_within_the_picture() {
        let plot = Plot {
            curves: vec![curve("ours", &[1.0, 1.1, 1.3]), curve("kernel", &[1.0, 2.0, 9.0])],
            from_zero: true,
            ..Plot::default()
        };
        let svg = plot.draw();
        // Three points and a key each.
        assert_eq!(
            (svg.matches("class=\"mark c0\"").count(), svg.matches("class=\"mark c1\"").count()),
            (4, 4)
        );
        assert!(numbers(&svg, "cx").iter().all(|x| (0.0..=WIDE).contains(x)), "{svg}");
        assert!(numbers(&svg, "y1").iter().all(|y| (0.0..=HIGH).contains(y)), "{svg}");
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let curves =
            (0..6).map(|index| curve(&format!("peer {index}"), &[1.0, 1.0 + f64::from(index) * 1e-3]));
        let svg = Plot { curves: curves.collect(), ..Plot::default() }.draw();
        let texts = svg.split("<text").filter(|text| text.contains("class=\"peer\""));
        let mut ys: Vec<f64> = texts.map(|text| numbers(text, "y")[0]).collect();
        ys.sort_by(f64::total_cmp);
        assert_eq!(ys.len(), 6);
        assert!(ys.windows(2).all(|pair| pair[1] - pair[0] > 14.0), "{ys:?}");
    }

    #[test]
    fn odd_data_is_drawn_somehow() {
        for curves in
            [vec![], vec![curve("ours", &[])], vec![curve("ours", &[0.0])], vec![curve("ours", &[5.0])]]
        {
            for y_log in [false, true] {
                let svg = Plot { curves: curves.clone(), y_log, ..Plot::default() }.draw();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
