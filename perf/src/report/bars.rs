//! Lying bars: ours beside the peers, and stacked ones.

use std::fmt::Write;

use super::svg::{self, Scale, cut, escape, short, tick_label, width};

/// One bar.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    /// What it is.
    pub label: String,
    /// How long.
    pub value: f64,
    /// Lowest and highest round, where they are known.
    pub range: Option<(f64, f64)>,
    /// Whether it is ours.
    pub ours: bool,
    /// What stands behind its value.
    pub note: String,
}

/// Parts of one bar.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    /// What it is.
    pub label: String,
    /// Name and length of each part, in order.
    pub parts: Vec<(String, f64)>,
}

const ROW: f64 = 27.0;
const BAR: f64 = 16.0;
const AXIS: f64 = 26.0;

/// Room for the labels on the left, in px.
fn label_room<'a>(labels: impl Iterator<Item = &'a str>, wide: f64) -> f64 {
    labels.map(width).fold(40.0, f64::max).min(wide * 0.4) * 1.04 + 10.0
}

fn grid(svg: &mut String, scale: &Scale, (top, bottom): (f64, f64), unit: &str) {
    let ticks = scale.ticks(4);
    for (place, tick) in ticks.iter().enumerate() {
        let x = scale.at(*tick);
        svg::line(svg, (x, top + 2.0), (x, bottom), "grid");
        let label = tick_label(*tick);
        let last = place + 1 == ticks.len();
        svg::text(
            svg,
            (x, bottom + 16.0),
            "tick",
            "middle",
            &if last { format!("{label} {unit}") } else { label },
        );
    }
}

/// Where bars end that would make all others too short to compare: at 1.5 times the longest of the others. None: no bar is
/// longer than 2.5 times the next.
fn torn(bars: &[Bar]) -> Option<f64> {
    let mut values: Vec<f64> = bars.iter().map(|bar| bar.value).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    let gap = (1..values.len())
        .take(2)
        .find(|next| values[*next] > 0.0 && values[next - 1] > 2.5 * values[*next])?;
    (values.len() > 3).then(|| values[gap] * 1.5)
}

/// Bars from 0, one below the other, their values behind them and their notes in a column at the right under `notes`.
#[must_use]
pub(super) fn bars(id: &str, shows: &str, unit: &str, notes: &str, bars: &[Bar], wide: f64) -> String {
    let left = label_room(bars.iter().map(|bar| bar.label.as_str()), wide);
    let noted = bars.iter().map(|bar| width(&bar.note)).fold(0.0, f64::max);
    let noted = if noted > 0.0 { noted.max(width(notes)) + 10.0 } else { 0.0 };
    let values = bars.iter().map(|bar| width(&short(bar.value))).fold(20.0, f64::max) + 14.0;
    let head = if noted > 0.0 { 16.0 } else { 0.0 };
    let bottom = head + ROW * bars.len() as f64 + 4.0;
    let end = torn(bars);
    let longest = |bar: &Bar| bar.range.map_or(bar.value, |(_, high)| high.max(bar.value));
    let high = end.unwrap_or_else(|| bars.iter().map(longest).fold(0.0, f64::max));
    let scale = Scale::new(false, (0.0, high), (left, (wide - noted - values).max(left + 60.0)));
    let mut svg = svg::open(id, wide, bottom + AXIS, shows);
    grid(&mut svg, &scale, (head, bottom), unit);
    if noted > 0.0 {
        svg::text(&mut svg, (wide - 2.0, 10.0), "note", "end", notes);
    }
    // A name stands out only beside others.
    let alone = bars.iter().all(|bar| bar.ours);
    for (row, bar) in bars.iter().enumerate() {
        let name = if bar.ours && !alone { "ours" } else { "peer" };
        let middle = head + ROW * row as f64 + ROW / 2.0 + 6.0;
        svg::text(&mut svg, (left - 8.0, middle), name, "end", &cut(&bar.label, left - 10.0));
        let top = head + ROW * row as f64 + (ROW - BAR) / 2.0 + 2.0;
        draw_bar(&mut svg, bar, &scale, (left, top), (unit, wide), end.is_some_and(|end| bar.value > end));
    }
    svg + "</svg>"
}

fn draw_bar(
    svg: &mut String,
    bar: &Bar,
    scale: &Scale,
    (left, top): (f64, f64),
    (unit, wide): (&str, f64),
    torn: bool,
) {
    let (text, end) = (top + BAR - 4.0, scale.at(bar.value));
    // What the generator alone costs is no peer, but the floor.
    let kind = if bar.ours {
        "ours"
    } else if bar.label == "drop" {
        "floor"
    } else {
        "peer"
    };
    let told = bar.range.map_or(String::new(), |(low, high)| format!(" ({} to {})", short(low), short(high)));
    let _ = write!(
        svg,
        "<rect class=\"bar {kind}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"><title>{}: {} {}{told}</title></rect>",
        (end - left).max(1.0),
        escape(&bar.label),
        short(bar.value),
        escape(unit)
    );
    if torn {
        let _ =
            write!(svg, "<path class=\"torn\" d=\"M{:.1} {:.1}l7 -20h5l-7 20z\"/>", end - 26.0, top + 18.0);
    }
    let mut after = end;
    if let Some((low, high)) = bar.range.filter(|(low, high)| scale.at(*high) - scale.at(*low) > 2.0) {
        let middle = top + BAR / 2.0;
        svg::line(svg, (scale.at(low), middle), (scale.at(high), middle), "whisker");
        for place in [low, high] {
            let x = scale.at(place);
            svg::line(svg, (x, middle - 4.0), (x, middle + 4.0), "whisker");
        }
        after = after.max(scale.at(high));
    }
    svg::text(svg, (after + 7.0, text), "value", "start", &short(bar.value));
    if !bar.note.is_empty() {
        svg::text(svg, (wide - 2.0, text), "note", "end", &bar.note);
    }
}

/// Bars of parts, in the colours of `names`; `budget`: a line to be kept left of, with its name.
#[must_use]
pub(super) fn stacks(
    id: &str,
    shows: &str,
    unit: &str,
    stacks: &[Stack],
    names: &[String],
    budget: Option<(f64, &str)>,
    wide: f64,
) -> String {
    let total = |stack: &Stack| stack.parts.iter().map(|(_, value)| value).sum::<f64>();
    let left = label_room(stacks.iter().map(|stack| stack.label.as_str()), wide);
    let high = stacks.iter().map(total).chain(budget.map(|(value, _)| value)).fold(0.0, f64::max);
    let head = if budget.is_some() { 18.0 } else { 0.0 };
    let bottom = head + ROW * stacks.len() as f64 + 4.0;
    let scale = Scale::new(false, (0.0, high), (left, wide - 70.0));
    let mut svg = svg::open(id, wide, bottom + AXIS, shows);
    grid(&mut svg, &scale, (head, bottom), unit);
    for (row, stack) in stacks.iter().enumerate() {
        let top = head + ROW * row as f64 + (ROW - BAR) / 2.0;
        svg::text(&mut svg, (left - 8.0, top + BAR - 4.0), "peer", "end", &cut(&stack.label, left - 10.0));
        let mut sum = 0.0;
        for (name, value) in &stack.parts {
            let (from, to) = (scale.at(sum), scale.at(sum + value));
            sum += value;
            let colour = names.iter().position(|known| known == name).unwrap_or(0) % 10;
            let _ = write!(
                svg,
                "<rect class=\"part c{colour}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\"><title>{}, {}: {} {}</title></rect>",
                (to - from - 1.0).max(0.5),
                escape(&stack.label),
                escape(name),
                short(*value),
                escape(unit)
            );
            let inside = short(*value);
            if to - from > width(&inside) + 8.0 {
                svg::text(&mut svg, (f64::midpoint(from, to), top + BAR - 4.0), "inside", "middle", &inside);
            }
        }
        svg::text(&mut svg, (scale.at(sum) + 7.0, top + BAR - 4.0), "value", "start", &short(sum));
    }
    if let Some((value, name)) = budget {
        let x = scale.at(value);
        svg::line(&mut svg, (x, head - 3.0), (x, bottom), "limit");
        svg::text(&mut svg, (x, head - 7.0), "limit-name", "middle", name);
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, value: f64) -> Bar {
        Bar { label: label.to_owned(), value, range: None, ours: label == "ours", note: String::new() }
    }

    /// The widths of the bars in a plot.
    fn widths(svg: &str) -> Vec<f64> {
        let bars = svg.split("<rect").skip(1);
        bars.map(|bar| bar.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let svg =
            bars("b", "", "Mpps", "", &[bar("ours", 2.0), bar("kernel", 1.0), bar("a <b>", 0.0)], 520.0);
        let widths = widths(&svg);
        assert!((widths[0] / widths[1] - 2.0).abs() < 0.01 && widths[2] <= 1.0, "{widths:?}");
        assert!(svg.contains("a &lt;b&gt;") && !svg.contains("<b>"));
    }

    #[test]
    fn spreads_are_drawn_and_told() {
        let with = Bar { range: Some((1.0, 3.0)), ..bar("ours", 2.0) };
        let svg = bars("b", "", "Mpps", "", &[with], 520.0);
        assert_eq!(svg.matches("class=\"whisker\"").count(), 3);
        assert!(svg.contains("(1.00 to 3.00)"));
    }

    #[test]
    fn one_far_longer_than_the_rest_is_torn() {
        let values = [16.0, 2.0, 1.9, 1.8].map(|value| bar("peer", value));
        assert_eq!(torn(&values), Some(3.0));
        let svg = bars("b", "", "ns", "", &values, 520.0);
        assert_eq!(svg.matches("class=\"torn\"").count(), 1);
        assert!(svg.contains(">16.0</text>"), "its value is told all the same");
        assert_eq!(torn(&[4.0, 2.0, 1.9, 1.8].map(|value| bar("peer", value))), None);
        assert_eq!(torn(&[bar("a", 9.0), bar("b", 0.0)]), None);
    }

    #[test]
    fn parts_add_up_and_keep_their_colours() {
        let names = ["parse", "lookup"].map(str::to_owned).to_vec();
        let both = Stack { label: "a".into(), parts: vec![("parse".into(), 10.0), ("lookup".into(), 30.0)] };
        let one = Stack { label: "b".into(), parts: vec![("lookup".into(), 40.0)] };
        let svg = stacks("s", "", "cycles", &[both, one], &names, Some((110.0, "budget 110")), 1080.0);
        let widths = widths(&svg);
        assert!((widths[0] + widths[1] - widths[2]).abs() < 1.5, "{widths:?}");
        assert_eq!(svg.matches("part c1").count(), 2);
        assert!(svg.contains("budget 110"));
    }
}
