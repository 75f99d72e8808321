//! What a person sees: tables for the terminal.

use std::collections::BTreeSet;
use std::fmt::Write;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::machine::Machine;
use crate::result::{Measurement, ResultFile};
use crate::scenario::Scenario;

/// Each scenario with its cases, metrics and peers.
#[must_use]
pub fn list(scenarios: &[&dyn Scenario]) -> String {
    let mut text = String::new();
    for scenario in scenarios {
        let about = scenario.about();
        let needs = match (about.root, about.cores) {
            (false, cores) => format!("{cores} core(s)"),
            (true, cores) => format!("root, {cores} core(s)"),
        };
        let sets = if about.sets.is_empty() { "the same cases with --quick and --full" } else { about.sets };
        let _ = writeln!(text, "{}\n  {}", about.name, wrapped(about.measures, 2));
        for (title, told) in [("cases", about.cases), ("", sets)] {
            let _ = writeln!(text, "  {title:<8} {}", wrapped(told, INDENT));
        }
        for (place, (metric, told)) in about.metrics.iter().enumerate() {
            let title = if place == 0 { "metrics" } else { "" };
            let _ = writeln!(text, "  {title:<8} {}", wrapped(&format!("{metric}, {told}"), INDENT + 2));
        }
        for (title, told) in [("peers", about.peers), ("needs", needs.as_str())] {
            let _ = writeln!(text, "  {title:<8} {}", wrapped(told, INDENT));
        }
        text.push('\n');
    }
    text
}

/// Columns before what is said of a scenario.
const INDENT: usize = 11;

/// Text in lines of at most 110 columns, all but the first indented; a word that is longer has a line of its own.
fn wrapped(text: &str, indent: usize) -> String {
    const WIDE: usize = 110;
    let (mut lines, mut column) = (String::new(), indent);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > WIDE {
            lines += "\n";
            lines += &" ".repeat(indent);
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += length;
    }
    lines
}

/// The machine in a few lines.
#[must_use]
pub fn machine(machine: &Machine) -> String {
    let mut text = format!(
        "{}, {} cores, {} GiB, Linux {}, TSC {}\n",
        machine.cpu,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        tsc(machine)
    );
    for hiccups in &machine.hiccups {
        let _ = writeln!(
            text,
            "core {}: lost {:.1} % of {:.0} ms in gaps, the longest {:.0} us",
            hiccups.core, hiccups.lost_percent, hiccups.watched_ms, hiccups.longest_us
        );
    }
    text
}

/// The time stamp counter's pace.
#[must_use]
pub fn tsc(machine: &Machine) -> String {
    match machine.tsc_mhz {
        mhz if mhz > 0.0 => format!("{mhz:.0} MHz"),
        _ => "none that can be used".to_owned(),
    }
}

/// All results: a table for each scenario, ours beside the peers.
#[must_use]
pub fn results(file: &ResultFile) -> String {
    let mut text = String::new();
    for scenario in &file.config.scenarios {
        let rows: Vec<&Measurement> = file.results.iter().filter(|row| row.scenario == *scenario).collect();
        if !rows.is_empty() {
            let _ = write!(text, "\n{scenario}\n{}\n{}", of_scenario(&rows), reasons(&rows));
        }
    }
    let voids = file.results.iter().filter(|row| row.void.is_some()).count();
    if voids > 0 {
        let _ =
            writeln!(text, "{voids} figures are void (marked !): measure them again on a quieter machine");
    }
    if !file.notes.is_empty() {
        let _ = writeln!(text, "notes printed while it ran: {}; --json keeps them", file.notes.len());
    }
    let end = if file.complete { "" } else { "; NOT COMPLETE: what is above is what there was by then" };
    let _ = writeln!(
        text,
        "{} figures in {:.0} s, the hypervisor took {:.1} % of all cores on the whole{end}",
        file.results.len(),
        file.config.took_s,
        file.machine.steal_percent
    );
    if let [_, _, ..] = file.config.seconds[..] {
        let each = file.config.seconds.iter().map(|(name, seconds)| format!("{name} {seconds:.0} s"));
        let _ = writeln!(text, "of these {}", each.collect::<Vec<_>>().join(", "));
    }
    text
}

/// Why figures are void: each reason once, with the cases and how many figures it is said of.
fn reasons(rows: &[&Measurement]) -> String {
    /// Cases that are named.
    const NAMED: usize = 3;
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (reason, row) in rows.iter().filter_map(|row| Some((row.void.as_deref()?, row))) {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, cases)) => cases.push(&row.case),
            None => reasons.push((reason, vec![&row.case])),
        }
    }
    let line = |(reason, cases): &(&str, Vec<&str>)| {
        let different: BTreeSet<&str> = cases.iter().copied().collect();
        let named: Vec<&str> = different.iter().copied().take(NAMED).collect();
        let more = match different.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("! {}{more}: {reason} ({} of {})\n", named.join(", "), cases.len(), rows.len())
    };
    reasons.iter().map(line).collect()
}

fn of_scenario(rows: &[&Measurement]) -> Table {
    let peers: BTreeSet<&String> = rows.iter().flat_map(|row| row.peers.keys()).collect();
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    let titles = ["case", "metric", "unit", "ours", "low", "high"].map(str::to_owned);
    table.set_header(titles.into_iter().chain(peers.iter().map(|peer| (*peer).clone())));
    for row in rows {
        let shown = |value: &f64| {
            let mark = if row.void.is_some() { "!" } else { "" };
            format!("{mark}{}", number(*value))
        };
        let mut cells = vec![row.case.clone(), row.metric.clone(), row.unit.clone()];
        cells.extend([row.value, row.low, row.high].iter().map(shown));
        cells.extend(peers.iter().map(|peer| row.peers.get(*peer).map_or_else(String::new, shown)));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number with about four significant digits.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        _ if value == 0.0 => 0,
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 1.0 => 3,
        size if size >= 0.001 => 4,
        _ => return format!("{value:.1e}"),
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_a_line_for_each_metric_and_none_too_long() {
        let text = list(crate::scenario::ALL);
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
        for part in [
            "\n  metrics  calls, calls at once",
            "\n           mos-mean, mos-worst, mos, 1 to 4.5",
            "below 1e-6",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for scenario in crate::scenario::ALL {
            let mut names: Vec<&str> =
                scenario.about().metrics.iter().flat_map(|(name, _)| name.split(", ")).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{}: a metric told twice", scenario.about().name);
        }
    }

    #[test]
    fn numbers_have_four_digits_or_so() {
        let shown = [0.0, 1.0, 12.345, 123.456, 12345.6, 0.0123, 0.000_01, -2.0].map(number);
        assert_eq!(shown, ["0", "1.000", "12.35", "123.5", "12346", "0.0123", "1.0e-5", "-2.000"]);
    }

    #[test]
    fn results_stand_beside_their_peers_and_void_ones_are_marked() {
        let row =
            Measurement::of_rounds("lockstep", "plain/v4", "packet", "ns", &[100.0]).beside("kernel", 200.0);
        let void = |metric: &str, reason: &str| {
            Measurement::of_rounds("lockstep", "vxlan/v4", metric, "ns", &[1.0, 0.5, 2.0])
                .beside("kernel", 3.0)
                .void_because(Some(reason.to_owned()))
        };
        let file = ResultFile {
            schema: String::new(),
            commit: String::new(),
            machine: Machine::default(),
            config: crate::result::Config { scenarios: vec!["lockstep".to_owned()], ..Default::default() },
            complete: false,
            results: vec![row, void("packet", "too busy"), void("net", "too busy"), void("a", "too short")],
            notes: vec!["no ovs".to_owned()],
        };
        let text = results(&file);
        for part in [
            "kernel",
            "100.0",
            "200.0",
            "!1.000",
            "!0.5000",
            "!2.000",
            "!3.000",
            "\n! vxlan/v4: too busy (2 of 4)\n! vxlan/v4: too short (1 of 4)\n",
            "3 figures are void",
            "NOT COMPLETE",
            "notes printed while it ran: 1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("no ovs"), "it was printed when it came up: {text}");
    }
}
