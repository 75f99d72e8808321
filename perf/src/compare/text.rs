//! A comparison as a person reads it in a terminal.

use std::collections::BTreeMap;
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
    let mut reasons: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in void {
        reasons.entry(row.void.as_deref().unwrap_or_default()).or_default().push(row);
    }
    for (why, rows) in reasons {
        let _ = writeln!(text, "void, not compared ({why}):");
        for row in rows {
            let _ = writeln!(text, "  {} {} {} {}", row.scenario, row.case, row.metric, row.unit);
        }
    }
    for (which, names) in [("A", &comparison.only_a), ("B", &comparison.only_b)] {
        for name in names {
            let _ = writeln!(text, "only in {which}: {}", name.join(" "));
        }
    }
    let count = |test: &dyn Fn(&&Row) -> bool| comparison.rows.iter().filter(test).count();
    let of = |verdict| count(&|row| row.verdict == verdict);
    if comparison.rows.is_empty() {
        text += "the two have no figure in common: nothing was compared\n";
        return text;
    }
    let _ = writeln!(
        text,
        "{} of {} figures moved: {} better, {} worse; {} moved with the machine, {} of one round, {} void, {} not comparable, \
         {} only in A, {} only in B",
        of(Verdict::Moved),
        comparison.rows.len(),
        count(&|row| row.improved == Some(true)),
        count(&|row| row.improved == Some(false)),
        of(Verdict::MachineMoved),
        of(Verdict::OneRound),
        of(Verdict::Void),
        of(Verdict::OtherMachine),
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
            row.noise.map_or_else(|| "unknown".to_owned(), |noise| format!("±{:.1} %", noise * 100.0)),
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
        (Verdict::MachineMoved, _) => "the machine moved",
        (Verdict::OneRound, _) => "one round",
        (Verdict::Within, _) => "within noise",
        (Verdict::OtherMachine, _) => "other machine",
        (Verdict::Void, _) => "void",
    }
}
