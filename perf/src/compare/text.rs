//! A comparison as a person reads it in a terminal.

use std::fmt::Write;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::{Comparison, Row, Verdict};
use crate::table::number;

/// The comparison as text.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let [a, b] = &comparison.commits;
    let mut text = format!("A {a}\nB {b}\nrule: {}\n", comparison.rule);
    for warning in &comparison.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let (void, rows): (Vec<&Row>, Vec<&Row>) =
        comparison.rows.iter().partition(|row| row.verdict == Verdict::Void);
    if !rows.is_empty() {
        let _ = write!(text, "\n{}\n", table(&rows));
    }
    for row in void {
        let why = row.void.as_deref().unwrap_or_default();
        let _ = writeln!(text, "void, not compared: {} {} {} ({why})", row.scenario, row.case, row.metric);
    }
    for (which, names) in [("A", &comparison.only_a), ("B", &comparison.only_b)] {
        for name in names {
            let _ = writeln!(text, "only in {which}: {}", name.join(" "));
        }
    }
    let count = |test: &dyn Fn(&&Row) -> bool| comparison.rows.iter().filter(test).count();
    let moved = count(&|row| row.verdict == Verdict::Moved);
    let _ = writeln!(
        text,
        "{moved} of {} figures moved: {} better, {} worse; {} void, {} not comparable, {} only in A, {} only in B",
        comparison.rows.len(),
        count(&|row| row.improved == Some(true)),
        count(&|row| row.improved == Some(false)),
        count(&|row| row.verdict == Verdict::Void),
        count(&|row| row.verdict == Verdict::OtherMachine),
        comparison.only_a.len(),
        comparison.only_b.len()
    );
    text
}

fn table(rows: &[&Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["scenario", "case", "metric", "unit", "A", "B", "change", "noise", "verdict", "peers"]);
    for row in rows {
        let range =
            |[value, low, high]: [f64; 3]| format!("{} ({}..{})", number(value), number(low), number(high));
        let peers: Vec<String> =
            row.peers.iter().map(|(peer, factor)| format!("{peer} {}", percent(Some(*factor)))).collect();
        table.add_row([
            row.scenario.clone(),
            row.case.clone(),
            row.metric.clone(),
            row.unit.clone(),
            range(row.a),
            range(row.b),
            percent(row.factor),
            format!("±{:.1} %", row.noise * 100.0),
            verdict(row).to_owned(),
            peers.join(", "),
        ]);
    }
    for column in table.column_iter_mut().skip(4).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `+12.3 %`, or `x3.2` beyond twice.
fn percent(factor: Option<f64>) -> String {
    match factor {
        None => "from 0".to_owned(),
        Some(factor) if factor >= 2.0 => format!("x{factor:.2}"),
        Some(factor) => format!("{:+.1} %", (factor - 1.0) * 100.0),
    }
}

fn verdict(row: &Row) -> &'static str {
    match (row.verdict, row.improved) {
        (Verdict::Moved, Some(true)) => "better",
        (Verdict::Moved, Some(false)) => "WORSE",
        (Verdict::Moved, None) => "moved",
        (Verdict::Within, _) => "within noise",
        (Verdict::OtherMachine, _) => "other machine",
        (Verdict::Void, _) => "void",
    }
}
