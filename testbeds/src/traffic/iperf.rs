//! Bulk streams by iperf3.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::command::{run, wait_for};
use crate::netns::Netns;
use crate::process::Daemon;
use crate::{Error, Result};

/// Where iperf3 listens.
const PORT: u16 = 5201;

/// iperf3 listening in a namespace, until dropped.
#[derive(Debug)]
pub struct Server {
    _daemon: Daemon,
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(netns: &Netns, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("iperf3-{}.log", netns.name()));
        let mut daemon = Daemon::start(netns.command("iperf3").args(["-s", "-p", &PORT.to_string()]), &log)?;
        wait_for("iperf3 to listen", Duration::from_secs(5), || {
            daemon.check()?;
            let listens = netns.run("ss -Hltn")?.contains(&format!(":{PORT} "));
            if listens { Ok(()) } else { Err(Error::other("no socket yet")) }
        })?;
        Ok(Self { _daemon: daemon })
    }
}

/// What a datagram stream came to.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Datagrams {
    /// What arrived, in Mbit/s of payload.
    pub mbit: f64,
    /// What did not, in percent of what was sent.
    pub lost_percent: f64,
    /// Jitter at the receiver, in milliseconds.
    pub jitter_ms: f64,
}

/// One TCP stream for so many seconds; what arrived, in Mbit/s.
pub fn tcp(from: &Netns, to: IpAddr, seconds: u32) -> Result<f64> {
    let report = client(from, to, seconds, &[])?;
    number(&report, "/end/sum_received/bits_per_second").map(|bits| bits / 1e6)
}

/// One stream of datagrams of `bytes` at `mbit` for so many seconds.
pub fn udp(from: &Netns, to: IpAddr, seconds: u32, mbit: u32, bytes: u32) -> Result<Datagrams> {
    let rate = format!("{mbit}M");
    let report = client(from, to, seconds, &["-u", "-b", &rate, "-l", &bytes.to_string()])?;
    let lost_percent = number(&report, "/end/sum/lost_percent")?;
    Ok(Datagrams {
        mbit: number(&report, "/end/sum/bits_per_second")? / 1e6 * (1.0 - lost_percent / 100.0),
        lost_percent,
        jitter_ms: number(&report, "/end/sum/jitter_ms")?,
    })
}

/// What TCP streams came to.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Streams {
    /// What arrived over all of them, in Mbit/s of payload.
    pub mbit: f64,
    /// Segments sent again.
    pub retransmits: u64,
}

/// So many TCP streams at once for so many seconds, by `iperf3`: a command that starts it where the client is to be.
pub fn streams(iperf3: Command, to: IpAddr, seconds: u32, streams: u32) -> Result<Streams> {
    let report = report(iperf3, to, seconds, &["-P", &streams.to_string()])?;
    Ok(Streams {
        mbit: number(&report, "/end/sum_received/bits_per_second")? / 1e6,
        retransmits: number(&report, "/end/sum_sent/retransmits")? as u64,
    })
}

fn client(from: &Netns, to: IpAddr, seconds: u32, more: &[&str]) -> Result<Value> {
    report(from.command("iperf3"), to, seconds, more)
}

fn report(mut command: Command, to: IpAddr, seconds: u32, more: &[&str]) -> Result<Value> {
    command.args(["-c", &to.to_string(), "-p", &PORT.to_string(), "-t", &seconds.to_string(), "-J"]);
    command.args(["--connect-timeout", "5000"]).args(more);
    let text = run(&mut command)?;
    serde_json::from_str(&text).map_err(|error| Error::other(format!("iperf3 -J: {error}")))
}

fn number(report: &Value, pointer: &str) -> Result<f64> {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.ok_or_else(|| Error::other(format!("iperf3's report has no {pointer}: {}", report["error"])))
}
