//! The truth tables: found, told apart by what a line holds, and checked in every way.

mod conformance;
mod cyclonus;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::Value;

pub(crate) use cyclonus::COMES_ABOUT_EVERY;

use crate::reference::{Flow, Reference};
use crate::report::{Report, Way};
use crate::scene::Scene;
use crate::switch::{Switch, judge_sides};

/// The folder with the tables. None: there is none, which is said loudly and allowed where none was promised.
pub(crate) fn folder() -> Option<PathBuf> {
    let promised = std::env::var_os("VSWITCH_CASES").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/netpol");
    let folder = promised.clone().unwrap_or_else(beside);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(promised.is_none(), "VSWITCH_CASES is {}, which is no folder", folder.display());
    eprintln!("SKIPPED: no truth tables at {}", folder.display());
    None
}

/// The tables of a folder, in the order of their names.
pub(crate) fn tables(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension() == Some(OsStr::new("jsonl"))).collect();
    files.sort();
    files
}

/// Checks one table, on all cores.
pub(crate) fn check(path: &Path) {
    let start = Instant::now();
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut report = Report::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(line) = lines.get(number) else { return report };
            report.cases += 1;
            check_case(number, serde_json::from_str(line).unwrap(), &mut report);
        }
    };
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().for_each(|worker| report.add(worker.join().unwrap()));
    });
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    report.finish(&name, start.elapsed());
}

fn check_case(number: usize, case: Value, report: &mut Report) {
    if case.get("steps").is_some() {
        cyclonus::check(number, serde_json::from_value(case).unwrap(), report);
    } else {
        conformance::check(&serde_json::from_value(case).unwrap(), report);
    }
}

/// Judges every probe of a scene by the slow reference.
pub(crate) fn check_reference(scene: &Scene, report: &mut Report) {
    let reference = Reference::read(&scene.objects);
    for probe in &scene.probes {
        let got = reference.judge(&Flow::of(probe, &scene.ends));
        judge_sides(report, Way::Reference, scene, probe, got.map(|verdict| verdict.allowed));
    }
}

/// Judges every probe of a scene by all ways, on a switch that has seen nothing else.
pub(crate) fn check_alone(scene: &Scene, report: &mut Report) {
    let mut switch = check_judged(scene, report);
    switch.send(Way::Packets, scene, report);
}

/// Judges every probe of a scene by all ways but packets.
pub(crate) fn check_judged(scene: &Scene, report: &mut Report) -> Switch {
    check_reference(scene, report);
    let mut switch = Switch::default();
    switch.apply(&scene.objects);
    switch.judge(scene, report);
    switch
}
