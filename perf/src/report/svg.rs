//! What all plots are made of: scales, ticks, numbers, escaped text.

use std::fmt::Write;

/// Text as it may stand in HTML and SVG, in attributes too.
#[must_use]
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A number of about three digits, for labels: `0.934`, `12.3`, `1366`, `12.3k`, `1.2M`.
#[must_use]
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => trimmed(value / 1e6, 2) + "M",
        size if size >= 1e4 => trimmed(value / 1e3, 1) + "k",
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.1e}").replace("e-", "·10⁻").chars().map(raised()).collect(),
    }
}

/// Digits after `⁻` raised, one after the other.
fn raised() -> impl FnMut(char) -> char {
    let mut high = false;
    move |letter| {
        high |= letter == '⁻';
        let digit = letter.to_digit(10).filter(|_| high);
        digit.and_then(|digit| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit as usize)).unwrap_or(letter)
    }
}

/// With at most so many digits after the point, and no zeros at the end.
#[must_use]
pub(super) fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// About how wide text is at 12 px, in px.
#[must_use]
pub(super) fn width(text: &str) -> f64 {
    text.chars().map(|letter| if "iljtf.,:|'/ ()".contains(letter) { 4.0 } else { 6.9 }).sum()
}

/// Text cut to a width in px, with an ellipsis.
#[must_use]
pub(super) fn cut(text: &str, room: f64) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for letter in text.chars() {
        if width(&kept) + 14.0 > room {
            break;
        }
        kept.push(letter);
    }
    kept + "…"
}

/// From values to places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Whether equal factors, and not equal differences, are equally far apart.
    pub log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// `low` to `high` become `from` to `to`. A logarithmic one needs `low` above 0.
    #[must_use]
    pub(super) fn new(log: bool, (low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let high = if high > low {
            high
        } else if log {
            low * 10.0
        } else {
            low + 1.0
        };
        Self { log, low, high, from, to }
    }

    /// Where a value is; those outside are at the nearer end.
    #[must_use]
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values for grid lines, about `wanted` of them.
    #[must_use]
    pub(super) fn ticks(&self, wanted: usize) -> Vec<f64> {
        if self.log { self.log_ticks(wanted) } else { self.linear_ticks(wanted) }
    }

    fn linear_ticks(&self, wanted: usize) -> Vec<f64> {
        let step = nice((self.high - self.low) / wanted.max(1) as f64);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|tick| tick as f64 * step).collect()
    }

    fn log_ticks(&self, wanted: usize) -> Vec<f64> {
        let (low, high) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let all = |steps: &[f64]| -> Vec<f64> {
            let decades =
                (low..=high).flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
            decades.filter(|tick| *tick >= self.low * 0.999 && *tick <= self.high * 1.001).collect()
        };
        let [ones, halves, fine] = [&[1.0][..], &[1.0, 3.0], &[1.0, 2.0, 5.0]].map(all);
        let mut ticks = [fine, halves].into_iter().find(|ticks| ticks.len() <= wanted + 2).unwrap_or(ones);
        let keep = ticks.len().div_ceil(wanted + 2);
        ticks = ticks.into_iter().step_by(keep.max(1)).collect();
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
#[must_use]
pub(super) fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| step <= power * factor * 1.000_001);
    power * factor.unwrap_or(10.0)
}

/// A label on an axis.
#[must_use]
pub(super) fn tick_label(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => trimmed(value / 1e6, 2) + "M",
        size if size >= 1e3 => trimmed(value / 1e3, 2) + "k",
        size if size >= 0.001 => trimmed(value, 4),
        _ => short(value),
    }
}

/// The opening tag of a plot of this size, with what it shows for those who cannot see it.
#[must_use]
pub(super) fn open(id: &str, wide: f64, high: f64, shows: &str) -> String {
    let shows = escape(shows);
    format!(
        "<svg class=\"plot\" id=\"{}\" viewBox=\"0 0 {wide:.0} {high:.0}\" role=\"img\" aria-label=\"{shows}\" style=\"max-width:{wide:.0}px\">",
        escape(id)
    )
}

/// A line of text. `class` says how it looks, `anchor` is start, middle or end.
pub(super) fn text(svg: &mut String, (x, y): (f64, f64), class: &str, anchor: &str, text: &str) {
    let text = escape(text);
    let _ = write!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

/// A straight line.
pub(super) fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), class: &str) {
    let ((a, b), (c, d)) = (from, to);
    let _ = write!(svg, "<line x1=\"{a:.1}\" y1=\"{b:.1}\" x2=\"{c:.1}\" y2=\"{d:.1}\" class=\"{class}\"/>");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.9341, 2.5, 12.34, 1366.4, 25_300.0, 3e6, 2.13e-5, 1e-10].map(short);
        assert_eq!(shown, ["0", "0.934", "2.50", "12.3", "1366", "25.3k", "3M", "2.1·10⁻⁵", "1.0·10⁻¹⁰"]);
        assert_eq!([0.0, 0.5, 2000.0, 1e6, 2.5e6].map(tick_label), ["0", "0.5", "2k", "1M", "2.5M"]);
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(cut("kernel", 100.0), "kernel");
        let cut = cut("kernel with conntrack and a thousand linear rules", 100.0);
        assert!(cut.ends_with('…') && width(&cut) <= 100.0, "{cut}");
    }

    proptest! {
        #[test]
        fn ticks_are_few_and_inside(low in 0.001..1e6, factor in 1.01..1e6, wanted in 3_usize..8, log: bool) {
            let scale = Scale::new(log, (low, low * factor), (0.0, 100.0));
            let ticks = scale.ticks(wanted);
            prop_assert!(ticks.len() <= wanted + 2, "{ticks:?}");
            for tick in &ticks {
                prop_assert!(*tick >= low * 0.99 && *tick <= low * factor * 1.01, "{tick} of {low} x {factor}");
            }
            prop_assert!(ticks.windows(2).all(|pair| scale.at(pair[0]) < scale.at(pair[1])), "{ticks:?}");
        }

        #[test]
        fn places_keep_the_order(a in 1.0..1e6, b in 1.0..1e6, log: bool) {
            let scale = Scale::new(log, (1.0, 1e6), (10.0, 200.0));
            prop_assert_eq!(a < b, scale.at(a) < scale.at(b));
            prop_assert!((10.0..=200.0).contains(&scale.at(a)));
        }
    }
}
