//! Calls: SIPp in a caller's and a relay's namespace, with G.711 media both ways.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::AtPath;
use crate::netns::Netns;
use crate::process::Daemon;
use crate::{Error, Result};

/// Where SIP is spoken.
pub const SIP_PORT: u16 = 5060;
/// First port of media, at both ends. Each call has its own, four apart.
pub const MEDIA_PORT_FIRST: u16 = 20_000;
/// Last port of media.
pub const MEDIA_PORT_LAST: u16 = 24_999;
/// The recording: seven seconds of G.711 A-law, from Debian's sip-tester.
pub const RECORDING: &str = "/usr/share/sip-tester/g711a.pcap";

const CALLER: &str = include_str!("../../veth/sipp/caller.xml");
const RELAY: &str = include_str!("../../veth/sipp/relay.xml");

/// What calls to make.
#[derive(Debug, Clone)]
pub struct Calls {
    /// How many.
    pub total: u32,
    /// How many at once, at most.
    pub at_once: u32,
    /// New calls a second, at most.
    pub per_second: u32,
    /// When to give up.
    pub limit: Duration,
}

/// One end of the calls.
#[derive(Debug, Clone)]
pub struct End<'a> {
    /// Its namespace.
    pub netns: &'a Netns,
    /// Its address.
    pub address: IpAddr,
}

/// What SIPp counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Calls begun.
    pub begun: u64,
    /// Calls that ended as they should.
    pub succeeded: u64,
    /// Calls that did not.
    pub failed: u64,
    /// The most calls at once.
    pub at_once: u64,
}

/// A pair of SIPp processes.
#[derive(Debug)]
pub struct Running {
    caller: Daemon,
    relay: Option<Daemon>,
    statistics: PathBuf,
    limit: Duration,
}

/// Starts the calls; files go to `folder`.
pub fn start(calls: &Calls, caller: &End<'_>, relay: &End<'_>, folder: &Path) -> Result<Running> {
    let answering = answer(relay, folder)?;
    let mut running = call(calls, caller, relay.address, folder)?;
    running.relay = Some(answering);
    Ok(running)
}

/// Starts SIPp at the called end, answering until it is stopped.
pub fn answer(relay: &End<'_>, folder: &Path) -> Result<Daemon> {
    let mut command = sipp(relay, RELAY, folder, "relay")?;
    let daemon = Daemon::start(&mut command, &folder.join("relay.log"))?;
    wait_listening(relay)?;
    Ok(daemon)
}

/// Starts SIPp at the calling end only.
pub fn call(calls: &Calls, caller: &End<'_>, to: IpAddr, folder: &Path) -> Result<Running> {
    let statistics = folder.join("caller.csv");
    // SIPp appends.
    let _not_there = std::fs::remove_file(&statistics);
    let mut command = sipp(caller, CALLER, folder, "caller")?;
    let limit = calls.limit.as_secs();
    command.args(["-m", &calls.total.to_string(), "-l", &calls.at_once.to_string()]);
    command.args(["-r", &calls.per_second.to_string(), "-fd", "1"]);
    command
        .args(["-timeout", &format!("{limit}s"), "-timeout_error", "-trace_stat", "-stf"])
        .arg(&statistics);
    command.arg(format!("{}:{SIP_PORT}", bracketed(to)));
    let caller = Daemon::start(&mut command, &folder.join("caller.log"))?;
    Ok(Running { caller, relay: None, statistics, limit: calls.limit })
}

impl Running {
    /// Whether calls are still being made.
    pub fn is_running(&mut self) -> bool {
        self.caller.check().is_ok()
    }

    /// Calls there are right now, as SIPp last wrote it down.
    #[must_use]
    pub fn calls_now(&self) -> u64 {
        let text = std::fs::read_to_string(&self.statistics).unwrap_or_default();
        let Some((head, rows)) = table(&text) else { return 0 };
        rows.last().and_then(|row| cell(&head, row, "CurrentCall")).unwrap_or(0)
    }

    /// Waits for the end of all calls.
    pub fn finish(mut self) -> Result<Outcome> {
        // SIPp's own limit comes first; its exit status says "a call failed", which its statistics say better.
        self.caller.wait(self.limit + Duration::from_secs(20))?;
        if let Some(mut relay) = self.relay.take() {
            relay.kill();
        }
        let text = std::fs::read_to_string(&self.statistics).at(&self.statistics)?;
        parse(&text).ok_or_else(|| {
            Error::other(format!(
                "{}: not SIPp's statistics; it said: {}",
                self.statistics.display(),
                self.caller.log_end()
            ))
        })
    }
}

fn sipp(end: &End<'_>, scenario: &str, folder: &Path, name: &str) -> Result<std::process::Command> {
    let file = folder.join(format!("{name}.xml"));
    std::fs::write(&file, scenario.replace("MEDIA", RECORDING)).at(&file)?;
    let address = end.address.to_string();
    let mut command = end.netns.command("sipp");
    command.current_dir(folder).arg("-sf").arg(file);
    command.args(["-i", &address, "-mi", &address, "-p", &SIP_PORT.to_string()]);
    command.args(["-mp", &MEDIA_PORT_FIRST.to_string(), "-nostdin", "-skip_rlimit"]);
    Ok(command)
}

fn wait_listening(end: &End<'_>) -> Result<()> {
    crate::command::wait_for("SIPp to listen", Duration::from_secs(5), || {
        let sockets = end.netns.run("ss -Hlun")?;
        let port = format!(":{SIP_PORT} ");
        if sockets.contains(&port) { Ok(()) } else { Err(Error::other("no socket yet")) }
    })
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn table(text: &str) -> Option<(Vec<&str>, Vec<Vec<&str>>)> {
    let mut rows = text.lines().map(|line| line.split(';').collect::<Vec<_>>());
    let head = rows.next()?;
    Some((head, rows.collect()))
}

fn cell(head: &[&str], row: &[&str], column: &str) -> Option<u64> {
    let index = head.iter().position(|name| *name == column)?;
    row.get(index)?.trim().parse().ok()
}

fn parse(text: &str) -> Option<Outcome> {
    let (head, rows) = table(text)?;
    let last = rows.last()?;
    Some(Outcome {
        begun: cell(&head, last, "TotalCallCreated")?,
        succeeded: cell(&head, last, "SuccessfulCall(C)")?,
        failed: cell(&head, last, "FailedCall(C)")?,
        at_once: rows.iter().filter_map(|row| cell(&head, row, "CurrentCall")).max()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_by_column() {
        let text = "StartTime;CurrentCall;TotalCallCreated;SuccessfulCall(C);FailedCall(C);\nx;7;8;1;0;\nx;0;11;9;2;\n";
        assert_eq!(parse(text), Some(Outcome { begun: 11, succeeded: 9, failed: 2, at_once: 7 }));
        assert_eq!(parse(""), None);
        assert_eq!(parse("StartTime;\nx;\n"), None);
    }

    #[test]
    fn both_scenarios_play_the_recording() {
        assert_eq!((CALLER.matches("\"MEDIA\"").count(), RELAY.matches("\"MEDIA\"").count()), (1, 1));
    }
}
