//! Runs this program under callgrind, and reads what it wrote.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::counted::{PACKETS, PARTS, cases};
use crate::session::Session;
use crate::{Error, Result};

/// What makes the C library choose the same string functions on every processor: those of x86-64's first generation.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-RTM";

/// Instructions a packet of each case, in their order.
///
/// # Errors
///
/// [`Error::Unmet`] without valgrind; [`Error::Setup`]; [`Error::Interrupted`].
pub fn count(session: &Session) -> Result<Vec<(String, f64)>> {
    let folder = tempfile::tempdir().map_err(|error| Error::setup("make a folder", error))?;
    let binary = std::env::current_exe().map_err(|error| Error::setup("find this program", error))?;
    let valgrind = crate::peer::find("callgrind", "valgrind", "valgrind").map_err(|_| {
        Error::Unmet("instructions are counted by valgrind: apt-get install valgrind".to_owned())
    })?;
    // It goes when we do, and what a terminal sends to all of us is ours to answer.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(valgrind)
        .args([
            "--vgdb=no",
            "--tool=callgrind",
            "--quiet",
            "--toggle-collect=*Worker*step_at*",
            "--dump-line=no",
        ])
        .arg("--dump-after=*instructions*counted*end_of_part*")
        .arg(format!("--callgrind-out-file={}", folder.path().join("out").display()))
        .arg(binary)
        .arg("count-instructions")
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| Error::setup("start valgrind", error))?;
    let cases = cases();
    loop {
        match child.try_wait().map_err(|error| Error::setup("wait for valgrind", error))? {
            Some(status) if status.success() => break,
            Some(status) => {
                let mut said = String::new();
                if let Some(mut stderr) = child.stderr.take() {
                    std::io::Read::read_to_string(&mut stderr, &mut said).ok();
                }
                return Err(Error::setup(
                    "count instructions under valgrind",
                    format!("{status}: {}", said.trim()),
                ));
            }
            None => {
                let parts = std::fs::read_dir(folder.path()).map_or(0, Iterator::count);
                let name = cases.get(parts / PARTS).map_or("end", |case| &case.name);
                if let Err(interrupted) = session.step(name) {
                    child.kill().and_then(|()| child.wait()).ok();
                    return Err(interrupted);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    let part = |number: usize| total(&folder.path().join(format!("out.{number}")));
    let of_case = |(number, name): (usize, String)| {
        let first = number * PARTS + 1;
        Ok((name, per_packet(part(first + 1)?, part(first + 2)?)))
    };
    cases.into_iter().map(|case| case.name).enumerate().map(of_case).collect()
}

/// From what [`PACKETS`] packets took and what twice as many took: what is the same in both is not the packets'.
fn per_packet(once: u64, twice: u64) -> f64 {
    (twice as f64 - once as f64) / PACKETS as f64
}

/// The line `totals:` of a file callgrind wrote.
fn total(file: &Path) -> Result<u64> {
    let failed = |problem: String| Error::File { file: file.to_owned(), problem };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    total_of(&text).ok_or_else(|| failed("no line `totals: NUMBER`: not what callgrind writes".to_owned()))
}

fn total_of(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_in_what_callgrind_writes() {
        let text =
            "# callgrind format\nversion: 1\nevents: Ir\nsummary: 12\n\nfn=(1) main\n0 12\ntotals: 12\n";
        assert_eq!(total_of(text), Some(12));
        assert_eq!(total_of("events: Ir\n"), None);
    }

    #[test]
    fn what_both_runs_have_in_common_is_not_the_packets() {
        assert!((per_packet(1000 + 300 * PACKETS, 1000 + 600 * PACKETS) - 300.0).abs() < 1e-9);
    }
}
