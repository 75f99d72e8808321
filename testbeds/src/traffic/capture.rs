//! Captures: tcpdump on an interface, and reading what it wrote.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pcap_file::TsResolution;
use pcap_file::pcap::PcapReader;

use crate::command::wait_until;
use crate::error::AtPath;
use crate::netns::Netns;
use crate::process::Daemon;
use crate::{Error, Result};

/// How long nothing is written before a capture is whole.
const SILENCE: Duration = Duration::from_millis(1500);

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Daemon,
    file: PathBuf,
}

impl Capture {
    /// Begins to capture on an interface, the first `bytes` of each frame; `filter` as tcpdump's (empty: all).
    pub fn start(netns: &Netns, interface: &str, filter: &str, bytes: u32, file: &Path) -> Result<Self> {
        let mut command = netns.command("tcpdump");
        // A large buffer, so that nothing is lost while the machine is busy; -U writes each frame at once.
        command.args([
            "-i",
            interface,
            "-n",
            "-U",
            "-B",
            "16384",
            "-Z",
            "root",
            "-s",
            &bytes.to_string(),
            "-w",
        ]);
        command.arg(file).args(filter.split_whitespace());
        let log = file.with_extension("log");
        // The log is appended to, and is how we know that it listens.
        let _not_there = std::fs::remove_file(&log);
        let mut tcpdump = Daemon::start(&mut command, &log)?;
        wait_until("tcpdump to listen", Duration::from_secs(10), || {
            tcpdump.check().is_err() || tcpdump.log_end().contains("listening on")
        })?;
        tcpdump.check()?;
        Ok(Self { tcpdump, file: file.to_owned() })
    }

    /// Ends it once nothing more is being written, and gives the file. The kernel hands frames over in blocks, one that
    /// is not full after a second (libpcap's timeout, as tcpdump sets it): a shorter silence says nothing.
    pub fn stop(mut self) -> Result<PathBuf> {
        let (mut length, mut changed) = (None, Instant::now());
        wait_until("the capture to be written", Duration::from_secs(20), || {
            let before = length;
            length = std::fs::metadata(&self.file).ok().map(|file| file.len());
            if length != before {
                changed = Instant::now();
            }
            changed.elapsed() > SILENCE
        })?;
        self.tcpdump.stop(Duration::from_secs(5))?;
        Ok(self.file.clone())
    }
}

/// Calls `body` with the time and the bytes of each frame of a capture. A cut last frame ends it.
pub fn each_frame(path: &Path, mut body: impl FnMut(Duration, &[u8])) -> Result<()> {
    let file = File::open(path).at(path)?;
    let wrong = |error| Error::other(format!("{}: {error}", path.display()));
    let mut reader = PcapReader::new(BufReader::new(file)).map_err(wrong)?;
    let fraction_ns = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    // Raw, since the checked form refuses frames that were longer than what was kept of them.
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.map_err(wrong)?;
        let time = Duration::new(u64::from(packet.ts_sec), packet.ts_frac.saturating_mul(fraction_ns));
        body(time, &packet.data);
    }
    Ok(())
}
