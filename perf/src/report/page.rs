//! The page around the sections: head, tiles, machine, tables, raw data.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::data::Run;
use super::raw::raw;
use super::sections::{SCENARIOS, Section, sections, unit_in_words};
use super::svg::{escape, short};
use crate::machine::{Hiccups, Machine};
use crate::result::{Measurement, ResultFile};
use crate::table::number;

/// One self-contained page of these result files, each with its name.
///
/// # Panics
/// When there is no file.
#[must_use]
pub fn html(files: &[(String, ResultFile)]) -> String {
    let runs = Run::of(files);
    let mut body = String::new();
    let mut links: Vec<(String, String)> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let prefix = if index == 0 { String::new() } else { format!("run{}-", index + 1) };
        let title =
            if runs.len() > 1 { format!("Run {} of {}", index + 1, runs.len()) } else { String::new() };
        body += &chapter(run, &prefix, &title, &mut links);
    }
    links.push(("raw".to_owned(), "Raw data".to_owned()));
    body += &raw(files);
    let nav: String = links
        .iter()
        .map(|(id, title)| format!("<a href=\"#{}\">{}</a>", escape(id), escape(title)))
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\"><title>vswitch-perf {}</title><style>{}</style></head>\
         <body><header><h1>vswitch-perf</h1><nav>{nav}</nav></header><main>{body}</main></body></html>\n",
        escape(runs[0].commit()),
        include_str!("style.css")
    )
}

fn chapter(run: &Run<'_>, prefix: &str, title: &str, links: &mut Vec<(String, String)>) -> String {
    let mut html = String::new();
    if !title.is_empty() {
        let _ = write!(html, "<h2 class=\"run\">{}</h2>", escape(title));
    }
    html += &told(run);
    html += &tiles(run);
    let mut all = vec![machine(run, prefix)];
    all.extend(sections(run, prefix));
    all.extend(missing(run, prefix));
    all.extend(notes(run, prefix));
    all.push(tables(run, prefix));
    for Section { id, title: heading, body } in all {
        let (anchor, shown) = (escape(&id), escape(&heading));
        let _ = write!(html, "<section id=\"{anchor}\"><h2>{shown}</h2>{body}</section>");
        let link = if prefix.is_empty() { heading } else { format!("{heading} ({title})") };
        links.push((id, link));
    }
    html
}

/// Of what build, when, how, and what is wrong with it.
fn told(run: &Run<'_>) -> String {
    let mut html = String::from("<p class=\"told\">");
    let _ = write!(html, "Commit <code>{}</code>", escape(run.commit()));
    for (name, file) in &run.files {
        let config = &file.config;
        let set = if config.quick {
            ", quick"
        } else if config.full {
            ", full"
        } else {
            ""
        };
        let _ = write!(
            html,
            " · {} <span>{}{set}, {}{:.0} s</span>",
            escape(name),
            date(config.started_s),
            rounds(&file.results),
            config.took_s
        );
    }
    html += "</p>";
    for (name, file) in &run.files {
        if !file.complete {
            let _ = write!(
                html,
                "<p class=\"warning\">{} is not complete: it was interrupted, or a scenario failed. What is here is what there was by then.</p>",
                escape(name)
            );
        }
    }
    let void = run.rows.iter().filter(|row| row.void.is_some()).count();
    if void > 0 {
        let _ = write!(
            html,
            "<p class=\"warning\">{void} of {} figures are void. They are struck through in the tables, with the reason, and in no plot.</p>",
            run.rows.len()
        );
    }
    html
}

/// `3 to 9 rounds, `: on how many figures rest. Empty: the file does not say.
fn rounds(rows: &[Measurement]) -> String {
    let known = || rows.iter().map(|row| row.rounds).filter(|rounds| *rounds > 0);
    match (known().min(), known().max()) {
        (Some(1), Some(1)) => "1 round, ".to_owned(),
        (Some(least), Some(most)) if least == most => format!("{least} rounds, "),
        (Some(least), Some(most)) => format!("{least} to {most} rounds, "),
        _ => String::new(),
    }
}

/// The figures one asks for first.
fn tiles(run: &Run<'_>) -> String {
    let wanted = [
        ("throughput", "ndr", "No-drop rate"),
        ("lockstep", "packet", "One packet, lockstep"),
        ("engine", "packet", "One packet, engine"),
        ("latency", "p99.9", "Latency, p99.9"),
        ("calls", "calls", "Calls at once"),
        ("bulk", "goodput", "Bulk transfer"),
    ];
    let base = crate::workload::Case::BASE.name();
    let mut html = String::new();
    for (scenario, metric, title) in wanted {
        let mut rows: Vec<&Measurement> = run.usable(scenario).filter(|row| row.metric == metric).collect();
        rows.sort_by_key(|row| row.case != base);
        let Some(row) = rows.first() else { continue };
        let mut peers: Vec<&String> = row.peers.keys().collect();
        // Plain kernel forwarding is what everyone knows.
        peers.sort_by_key(|peer| *peer != "kernel");
        let ratio = peers.first().and_then(|peer| Some((peer, run.ratio(row, peer)?.0)));
        let ratio = ratio.map_or(String::new(), |(peer, value)| format!("{value:.2}× {}", escape(peer)));
        let unit = if row.unit == "calls" { "" } else { unit_in_words(&row.unit) };
        let _ = write!(
            html,
            "<div class=\"tile\"><span>{title}</span><b>{} <small>{}</small></b><em>{ratio}</em><i>{}</i></div>",
            short(row.value),
            escape(unit),
            escape(&row.case)
        );
    }
    if html.is_empty() {
        return html;
    }
    let sign = if html.contains('×') {
        "<p class=\"sign\">1.2× kernel: 1.2 times as good as the kernel in the same rounds. Below 1 the peer is better.</p>"
    } else {
        ""
    };
    format!("<div class=\"tiles\">{html}</div>{sign}")
}

fn machine(run: &Run<'_>, prefix: &str) -> Section {
    let machine = run.machine();
    // What differs from run to run is told of each.
    let of_each = |told: &dyn Fn(&Machine) -> String| {
        let each = run.files.iter().map(|(name, file)| match &run.files[..] {
            [_] => told(&file.machine),
            _ => format!("{name}: {}", told(&file.machine)),
        });
        each.collect::<Vec<_>>().join("\n")
    };
    let steal = of_each(&|machine| format!("{:.1} %", machine.steal_percent));
    let mut facts = vec![
        ("Processor", machine.cpu.clone()),
        ("Cores", machine.cores.to_string()),
        ("Memory", format!("{} GiB", machine.memory_gib)),
        ("Kernel", format!("Linux {}", machine.kernel)),
        ("Time stamp counter", crate::table::tsc(machine)),
        ("Compiler", machine.rustc.clone()),
        ("Taken by the hypervisor", steal),
    ];
    let core = |core: &Hiccups| {
        let Hiccups { core, lost_percent, longest_us, .. } = core;
        format!("core {core}: {lost_percent:.1} % lost, longest gap {longest_us:.0} µs")
    };
    let cores = of_each(&|machine| machine.hiccups.iter().map(core).collect::<Vec<_>>().join("\n"));
    facts.push(("Hiccups while nothing ran", cores));
    let mut body = String::from("<dl class=\"facts\">");
    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_empty()) {
        let _ = write!(body, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(fact));
    }
    body += "</dl>";
    Section { id: format!("{prefix}machine"), title: "Machine".to_owned(), body }
}

fn missing(run: &Run<'_>, prefix: &str) -> Option<Section> {
    let has = |scenario: &str| run.rows.iter().any(|row| row.scenario == scenario);
    let missing: Vec<_> = SCENARIOS.iter().filter(|(name, ..)| !has(name)).collect();
    let items: String = missing
        .iter()
        .map(|(name, _, about)| format!("<li><code>{name}</code> {}</li>", escape(about)))
        .collect();
    let section = Section {
        id: format!("{prefix}missing"),
        title: "Not measured".to_owned(),
        body: format!("<ul>{items}</ul>"),
    };
    (!missing.is_empty()).then_some(section)
}

fn notes(run: &Run<'_>, prefix: &str) -> Option<Section> {
    let all: BTreeSet<&String> = run.files.iter().flat_map(|(_, file)| &file.notes).collect();
    let items: String = all.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    let section = Section {
        id: format!("{prefix}notes"),
        title: "Notes".to_owned(),
        body: format!("<ul>{items}</ul>"),
    };
    (!all.is_empty()).then_some(section)
}

/// All figures: a table for each scenario.
fn tables(run: &Run<'_>, prefix: &str) -> Section {
    let mut body = String::new();
    let mut scenarios: Vec<&str> = Vec::new();
    for row in &run.rows {
        if !scenarios.contains(&&*row.scenario) {
            scenarios.push(&row.scenario);
        }
    }
    for scenario in scenarios {
        let rows: Vec<&Measurement> = run.rows.iter().filter(|row| row.scenario == scenario).collect();
        let _ = write!(
            body,
            "<details><summary>{} <span>{} figures</span></summary><div class=\"scroll\">{}</div></details>",
            escape(scenario),
            rows.len(),
            table(&rows)
        );
    }
    Section { id: format!("{prefix}figures"), title: "All figures".to_owned(), body }
}

fn table(rows: &[&Measurement]) -> String {
    let peers: BTreeSet<&String> = rows.iter().flat_map(|row| row.peers.keys()).collect();
    let mut html = String::from(
        "<table><thead><tr><th>case</th><th>metric</th><th>unit</th><th class=\"n\">ours</th><th class=\"n\">low</th><th class=\"n\">high</th><th class=\"n\">rounds</th>",
    );
    for peer in &peers {
        let _ = write!(html, "<th class=\"n\">{}</th>", escape(peer));
    }
    html += "</tr></thead><tbody>";
    let mut before = "";
    for row in rows {
        let case = if row.case == before { String::new() } else { escape(&row.case) };
        let first = if row.case == before { "" } else { " class=\"first\"" };
        before = &row.case;
        let (open, close) = if row.void.is_some() { ("<s>", "</s>") } else { ("", "") };
        let _ = write!(html, "<tr{first}><td>{case}</td><td>{}", escape(&row.metric));
        if let Some(why) = &row.void {
            let _ = write!(html, " <em>void: {}</em>", escape(why));
        }
        let _ = write!(html, "</td><td>{}</td>", escape(&row.unit));
        for value in [row.value, row.low, row.high] {
            let _ = write!(html, "<td class=\"n\">{open}{}{close}</td>", number(value));
        }
        let rounds = if row.rounds == 0 { String::new() } else { row.rounds.to_string() };
        let _ = write!(html, "<td class=\"n\">{rounds}</td>");
        for peer in &peers {
            let value = row.peers.get(*peer).map_or(String::new(), |value| number(*value));
            let _ = write!(html, "<td class=\"n\">{open}{value}{close}</td>");
        }
        html += "</tr>";
    }
    html + "</tbody></table>"
}

/// Seconds since 1970 as `2026-11-21 15:04 UTC`.
fn date(seconds: u64) -> String {
    // Days to a date: Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + later;
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{date:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_took_is_told_of_each_file() {
        let file = |steal_percent| ResultFile {
            schema: crate::result::SCHEMA.to_owned(),
            commit: "a".to_owned(),
            machine: Machine { steal_percent, ..Machine::default() },
            config: crate::result::Config::default(),
            complete: true,
            results: Vec::new(),
            notes: Vec::new(),
        };
        let files = [("one.json".to_owned(), file(1.0)), ("two.json".to_owned(), file(2.0))];
        let told = machine(&Run::of(&files)[0], "").body;
        assert!(told.contains("one.json: 1.0 %\ntwo.json: 2.0 %"), "{told}");
        let told = machine(&Run::of(&files[..1])[0], "").body;
        assert!(told.contains("<dd>1.0 %</dd>"), "{told}");
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_274_640), "2026-11-21 15:24 UTC");
    }
}
