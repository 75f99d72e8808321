//! Truth tables that nobody on the project wrote, and three ways to a verdict that all have to agree with them: a slow
//! reference that reads the objects itself, the class tables the engine compiles, and packets that go through the whole
//! walk on memory ports.
//!
//! The tables are every `*.jsonl` of the folder `VSWITCH_CASES`, or `../shared/cases/netpol` beside the repository; where
//! they are absent the test says so and passes, unless `VSWITCH_CASES` is set.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod cases;
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
    let (start, specs) = (Instant::now(), netpol::specs());
    let names: BTreeSet<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names.len() + netpol::ELSEWHERE.len(), 50, "each of upstream's specs once");
    let mut report = Report::default();
    for spec in &specs {
        for is_ipv4 in [true, false] {
            report.cases += 1;
            spec.run(is_ipv4, &mut report);
        }
    }
    for (spec, covered) in netpol::ELSEWHERE {
        eprintln!("{spec}: {covered}");
    }
    report.finish("upstream's Netpol specs, in both families", start.elapsed());
}

#[test]
fn random_policies_of_all_kinds() {
    let start = Instant::now();
    let mut report = Report::default();
    random::check(&mut report);
    eprintln!("VSWITCH_SEED={} VSWITCH_PROBES={}", random::seed(), random::probes_wanted());
    report.finish("random policies of all kinds", start.elapsed());
}
