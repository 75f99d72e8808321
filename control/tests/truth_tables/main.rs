//! Truth tables that nobody on the project wrote, and three ways to a verdict that all have to agree with them: a slow
//! reference that reads the objects itself, the class tables the engine compiles, and packets that go through the whole
//! walk on memory ports.
//!
//! The tables are every `*.jsonl` of the folder `VSWITCH_CASES`, or `../shared/cases/netpol` beside the repository; where
//! they are absent the test says so and passes, unless `VSWITCH_CASES` is set.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod cases;
mod reference;
mod report;
mod scene;
mod switch;

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
