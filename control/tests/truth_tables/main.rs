//! Truth tables that nobody on the project wrote, and three ways to a verdict that all have to agree with them: a slow
//! reference that reads the objects itself, the class tables the engine compiles, and packets that go through the whole
//! walk on memory ports.
//!
//! The tables are every `*.jsonl` of the folder `VSWITCH_CASES`, or `../shared/cases/netpol` beside the repository; where
//! they are absent the test says so and passes, unless `VSWITCH_CASES` is set.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod cases;
mod large;
mod netpol;
mod random;
mod reference;
mod report;
mod scene;
mod switch;

use std::collections::BTreeSet;
use std::time::Instant;

use report::Report;

#[test]
fn every_table_in_every_way() {
    let Some(folder) = cases::folder() else { return };
    let tables = cases::tables(&folder);
    assert!(!tables.is_empty(), "no *.jsonl in {}", folder.display());
    if cases::COMES_ABOUT_EVERY > 1 {
        let every = cases::COMES_ABOUT_EVERY;
        eprintln!(
            "debug build: each state alone; as it comes about 1 in {every} of the cases of one step, the rest in release"
        );
    }
    for table in tables {
        cases::check(&table);
    }
}

#[test]
fn every_netpol_spec_of_upstream() {
    let start = Instant::now();
    let mut report = Report::default();
    let mut covered = vec![(netpol::end_ports().to_owned(), "`api.rs`")];
    for (file, spec) in netpol::specs() {
        for is_ipv4 in [true, false] {
            report.cases += 1;
            spec.run(is_ipv4, &mut report);
        }
        covered.push((spec.name, file));
    }
    let listed = netpol::listed();
    assert_eq!(listed.len(), 50, "as many as upstream has");
    for (name, here) in &listed {
        let file = covered.iter().find(|(spec, _)| spec == name).map(|(_, file)| *file);
        // One that is nobody's scenario says so in words.
        assert!(
            file == Some(here) || (file.is_none() && here.starts_with("no API server")),
            "{name}: {file:?}"
        );
    }
    let names: BTreeSet<&str> = listed.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), listed.len(), "each once");
    assert!(
        covered.iter().all(|(name, _)| names.contains(name.as_str())),
        "none that upstream does not have"
    );
    assert_eq!(covered.len(), 49, "all but one have a scenario");
    report.finish("upstream's Netpol specs, in both families", start.elapsed());
}

#[test]
fn what_is_large_is_not_wrong() {
    let start = Instant::now();
    let mut report = Report::default();
    large::check(&mut report);
    report.finish("large policies", start.elapsed());
}

#[test]
fn random_policies_of_all_kinds() {
    let start = Instant::now();
    let mut report = Report::default();
    random::check(&mut report);
    eprintln!("VSWITCH_SEED={} VSWITCH_PROBES={}", random::seed(), random::probes_wanted());
    report.finish("random policies of all kinds", start.elapsed());
}
