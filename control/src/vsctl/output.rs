//! Printing: one result, as a table for people, as JSON or as YAML.

use std::io::{self, Write};
use std::sync::OnceLock;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use terminal_size::{Width, terminal_size_of};

use super::Failure;
use super::cli::Format;
use crate::object::Kind;

/// What a verb found: for programs, and for people.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    /// The result as data.
    pub(super) value: Value,
    /// The result as text, lines without the last line's end.
    pub(super) text: String,
}

/// Prints to standard output. A reader that went away (`vsctl get flows | head`) has seen enough: false.
pub(super) fn print(report: &Report, format: Format) -> Result<bool, Failure> {
    let text = render(report, format)?;
    if text.is_empty() {
        return Ok(true);
    }
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure(format!("standard output: {error}"))),
    }
}

/// Prints one result of a stream: as JSON on a line, as YAML a document.
pub(super) fn print_one(report: Report, format: Format) -> Result<bool, Failure> {
    match format {
        Format::Table | Format::Wide | Format::Name => print(&report, Format::Table),
        Format::Json => print(&Report { text: report.value.to_string(), ..report }, Format::Table),
        Format::Yaml => {
            let text = format!("---\n{}", yaml(&report.value)?);
            print(&Report { text, ..report }, Format::Table)
        }
    }
}

pub(super) fn render(report: &Report, format: Format) -> Result<String, Failure> {
    match format {
        Format::Table | Format::Wide => Ok(report.text.clone()),
        Format::Name => Ok(names(&report.value).join("\n")),
        Format::Json => {
            serde_json::to_string_pretty(&report.value).map_err(|error| Failure(error.to_string()))
        }
        Format::Yaml => yaml(&report.value),
    }
}

/// The objects in a list, in a list of outcomes, or the one object, as KIND/NAME.
fn names(value: &Value) -> Vec<String> {
    let items = value["items"].as_array().or_else(|| value.as_array());
    let items = items.map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    let name = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let known = |known: &&Kind| known.name() == kind && known.api_versions().contains(&version.as_str());
        let kind = Kind::ALL.iter().find(known).map_or(kind.clone(), ToString::to_string);
        let name = object["metadata"]["name"].as_str().or_else(|| object["name"].as_str());
        format!("{}/{}", kind.to_lowercase(), name.unwrap_or_default())
    };
    items.iter().map(name).collect()
}

/// YAML without the end of its last line.
pub(super) fn yaml(value: &Value) -> Result<String, Failure> {
    let text = serde_yaml_ng::to_string(value).map_err(|error| Failure(error.to_string()))?;
    Ok(text.trim_end().to_owned())
}

/// Columns under their names, as kubectl prints them: two blanks between, no lines.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.map(str::to_uppercase));
    for row in rows {
        table.add_row(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    finish(table)
}

/// The same for columns known only at run time.
pub(super) fn table_of(header: &[String], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    finish(table)
}

/// Columns of the terminal, where standard output is one.
static WIDTH: OnceLock<u16> = OnceLock::new();

/// Tables are to fit the terminal from now on, if standard output is one; what is piped is never cut.
pub(super) fn fit_terminal() {
    if let Some((Width(columns), _)) = terminal_size_of(io::stdout()) {
        // It is asked once, at the start.
        let _ = WIDTH.set(columns);
    }
}

fn finish(table: Table) -> String {
    arranged(table, WIDTH.get().copied())
}

/// In at most so many columns: cells that are too long go on in the next line.
fn arranged(mut table: Table, width: Option<u16>) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.trim_fmt()
}

/// `name: value` lines, the values under each other.
pub(super) fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{:<w$}  {value}", format!("{name}:"), w = width + 1))
        .collect();
    lines.join("\n")
}

/// Every line moved to the right; empty ones stay empty.
pub(super) fn indent(text: &str, blanks: usize) -> String {
    let blanks = " ".repeat(blanks);
    let shift = |line: &str| if line.is_empty() { String::new() } else { format!("{blanks}{line}") };
    text.lines().map(shift).collect::<Vec<_>>().join("\n")
}

/// Milliseconds, as people say them.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_columns_without_lines() {
        let text =
            table(["name", "packets"], [["eth0".into(), "12".into()], [String::new(), "1234567890".into()]]);
        assert_eq!(text, "NAME  PACKETS\neth0  12\n-     1234567890");
        assert_eq!(table(["name"], []), "NAME");
        assert_eq!(table_of(&["a".into(), "b".into()], vec![vec!["1".into(), "2".into()]]), "A  B\n1  2");
    }

    #[test]
    fn a_narrow_terminal_gets_all_of_it_in_more_lines() {
        let wide = || {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING);
            table.set_header(["POLICY", "RULE", "PACKETS"]);
            let policy = "StagedKubernetesNetworkPolicy media/relay";
            table.add_row([policy, "ingress rule 1, from 2, port http = 80/TCP", "1234567"]);
            table
        };
        let whole = arranged(wide(), None);
        assert_eq!(whole.lines().count(), 2, "{whole}");
        let narrow = arranged(wide(), Some(60));
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        for word in ["media/relay", "http", "1234567", "PACKETS"] {
            assert!(narrow.contains(word), "{word}:\n{narrow}");
        }
        assert_eq!(arranged(wide(), Some(200)), whole);
    }

    #[test]
    fn a_result_has_three_forms() {
        let report = Report { value: json!({"a": [1, "x"]}), text: "words".into() };
        assert_eq!(render(&report, Format::Table).unwrap(), "words");
        assert_eq!(render(&report, Format::Json).unwrap(), "{\n  \"a\": [\n    1,\n    \"x\"\n  ]\n}");
        assert_eq!(render(&report, Format::Yaml).unwrap(), "a:\n- 1\n- x");
    }

    #[test]
    fn objects_and_outcomes_have_names() {
        let calicos = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "a"},
        });
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}});
        let named = |value| render(&Report { value, text: String::new() }, Format::Name).unwrap();
        assert_eq!(named(pod.clone()), "pod/b");
        assert_eq!(
            named(json!({"kind": "List", "items": [calicos, pod]})),
            "networkpolicy.projectcalico.org/a\npod/b"
        );
        assert_eq!(
            named(json!([{"kind": "NetworkPolicy", "name": "c", "outcome": "created"}])),
            "networkpolicy/c"
        );
        assert_eq!(named(json!({"kind": "List", "items": []})), "");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (ms, text) in
            [(5, "5ms"), (59_999, "59s"), (61_000, "1m1s"), (3_660_000, "1h1m"), (90_000_000, "1d1h")]
        {
            assert_eq!(duration(ms), text);
        }
    }
}
