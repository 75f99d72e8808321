//! DPDK's own measurements of its tables: dpdk-test-fib (`rte_fib`, `rte_fib6`) and dpdk-test-acl (`rte_acl`). They read the
//! routes, rules and packets from files, and say how many cycles of the time stamp counter each look-up took.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::{IpNet, Ipv4Net};
use tempfile::TempDir;

use super::{find, folder};
use crate::{Error, Result};

const PACKAGE: &str = "dpdk-dev";
/// How wide its vectors may be: without this nothing uses AVX-512, however it is asked for.
const WIDEST: &str = "--force-max-simd-bitwidth=512";

/// How a look-up is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Without vectors.
    Scalar,
    /// With AVX-512.
    Avx512,
}

/// A rule as `rte_acl` has them here: any source port, UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AclRule {
    /// Where it may be from.
    pub source: Ipv4Net,
    /// Where it may go.
    pub destination: Ipv4Net,
    /// The destination port.
    pub port: u16,
}

/// A packet as `rte_acl` is asked about it here: UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AclPacket {
    /// Its source.
    pub source: Ipv4Addr,
    /// Its destination.
    pub destination: Ipv4Addr,
    /// Its source port and destination port.
    pub ports: (u16, u16),
}

/// One of the programs, with the files it reads.
#[derive(Debug)]
pub struct Dpdk {
    peer: &'static str,
    program: PathBuf,
    files: TempDir,
    core: usize,
    /// What it may take, in MiB; no huge pages are asked for.
    memory: usize,
    arguments: Vec<String>,
    /// What it writes of the cycles of a look-up: before the figure, and after it.
    told: (&'static str, &'static str),
}

impl Dpdk {
    /// `rte_fib` (DIR-24-8), or `rte_fib6` (trie) when the prefixes are of IPv6, with entries of four bytes. Each prefix comes
    /// with its next hop. The addresses are looked up one after the other, 64 at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Unmet`] when it is not installed, [`Error::Setup`].
    pub fn fib(core: usize, routes: &[(IpNet, u32)], addresses: &[IpAddr]) -> Result<Self> {
        let v6 = routes.iter().any(|(net, _)| matches!(net, IpNet::V6(_)));
        let peer = if v6 { "rte_fib6" } else { "rte_fib" };
        let mut this = Self::new(peer, "dpdk-test-fib", core, ("AVG FIB lookup", ""))?;
        let routes_file = this.file("routes", routes.iter().map(|(net, hop)| format!("{net} {hop}")))?;
        let addresses_file = this.file("addresses", addresses.iter().map(ToString::to_string))?;
        // A prefix beyond the first 24 bits takes a table of 256 entries for each further 8 bits at most.
        let (tables, memory) = if v6 { (routes.len() * 4, 500 + routes.len() / 100) } else { (1000, 1000) };
        this.memory = memory;
        this.arguments = if v6 { vec!["-6".to_owned()] } else { Vec::new() };
        let options = [
            ("-f", routes_file),
            ("-t", addresses_file),
            ("-n", routes.len().to_string()),
            ("-l", addresses.len().to_string()),
            ("-g", tables.max(256).to_string()),
            ("-e", "4".to_owned()),
        ];
        this.arguments.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        Ok(this)
    }

    /// `rte_acl`: which rule a packet meets, 64 packets at a time, all of them `times` times.
    ///
    /// # Errors
    ///
    /// [`Error::Unmet`] when it is not installed, [`Error::Setup`].
    pub fn acl(core: usize, rules: &[AclRule], packets: &[AclPacket], times: usize) -> Result<Self> {
        let mut this = Self::new("rte_acl", "dpdk-test-acl", core, ("search_ip5tuples", " cycles/pkt"))?;
        let rules_file = this.file("rules", rules.iter().map(AclRule::line))?;
        let packets_file = this.file("packets", packets.iter().map(AclPacket::line))?;
        this.memory = 1000;
        let options = [
            ("rulesf", rules_file),
            ("tracef", packets_file),
            ("rulenum", (rules.len() + 1).to_string()),
            ("tracenum", packets.len().to_string()),
            ("tracestep", "64".to_owned()),
            ("bldcat", "1".to_owned()),
            // Otherwise it writes what each packet meets, and that is what takes the time.
            ("verbose", "0".to_owned()),
            ("iter", times.to_string()),
        ];
        this.arguments = options.map(|(name, value)| format!("--{name}={value}")).to_vec();
        Ok(this)
    }

    fn new(
        peer: &'static str,
        program: &str,
        core: usize,
        told: (&'static str, &'static str),
    ) -> Result<Self> {
        let program = find(peer, program, PACKAGE)?;
        Ok(Self { peer, program, files: folder()?, core, memory: 0, arguments: Vec::new(), told })
    }

    fn file(&self, name: &str, lines: impl Iterator<Item = String>) -> Result<String> {
        let path = self.files.path().join(name);
        let mut text = String::new();
        for line in lines {
            let _infallible = writeln!(text, "{line}");
        }
        std::fs::write(&path, text).map_err(|error| Error::setup("write a file for a peer", error))?;
        Ok(path.display().to_string())
    }

    /// What it takes of memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        (self.memory as u64) << 20
    }

    /// Runs it to its end: the cycles that a look-up took.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`], with what it wrote last, when it gives none: this machine may have no such vectors.
    pub fn run(&self, code: Code) -> Result<f64> {
        let outcome = self.command(code).output();
        let output = outcome.map_err(|error| Error::setup(format!("start {}", self.peer), error))?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        cycles(&text, self.told).ok_or_else(|| {
            let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
            let ended = output.status;
            Error::setup(format!("measure {} ({code:?})", self.peer), format!("{ended}: {last}"))
        })
    }

    fn command(&self, code: Code) -> Command {
        let mut command = Command::new(&self.program);
        for variable in ["XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"] {
            command.env(variable, self.files.path());
        }
        let (core, memory) = (self.core.to_string(), self.memory.to_string());
        command.args(["-l", &core, "--no-huge", "-m", &memory, "--no-pci", "--no-telemetry"]);
        command.args(["--file-prefix", "vswitch-perf", WIDEST, "--"]).args(&self.arguments);
        let is_fib = self.peer != "rte_acl";
        command.args(match (is_fib, code) {
            (true, Code::Scalar) if self.peer == "rte_fib6" => vec!["-v", "s"],
            (true, Code::Scalar) => vec!["-v", "s1"],
            (true, Code::Avx512) => vec!["-v", "v"],
            (false, Code::Scalar) => vec!["--alg=scalar"],
            (false, Code::Avx512) => vec!["--alg=avx512x32"],
        });
        command.stdin(Stdio::null()).current_dir(Path::new("/"));
        command
    }
}

impl AclRule {
    fn line(&self) -> String {
        let Self { source, destination, port } = self;
        format!("@{source} {destination} 0 : 65535 {port} : {port} 0x11/0xff")
    }
}

impl AclPacket {
    fn line(&self) -> String {
        let (source, destination) = (self.source.to_bits(), self.destination.to_bits());
        format!("{source} {destination} {} {} 17", self.ports.0, self.ports.1)
    }
}

/// The figure between these words.
fn cycles(text: &str, (before, after): (&str, &str)) -> Option<f64> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(before)?;
        let figure = if after.is_empty() { rest } else { rest.split(after).next()?.rsplit(", ").next()? };
        figure.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_they_write_is_read() {
        let text =
            "EAL: Detected CPU lcores: 2\nRandom lookup ips: 0\nAVG FIB lookup 51.6\nAVG FIB delete 40247";
        assert_eq!(cycles(text, ("AVG FIB lookup", "")), Some(51.6));
        let text = "search_ip5tuples  @lcore 0: 4 iterations, 262144 pkts, 1 categories, 95434924 cycles (0.03 sec), 364.06 cycles/pkt, 7663669.96 pkt/sec";
        assert_eq!(cycles(text, ("search_ip5tuples", " cycles/pkt")), Some(364.06));
        assert_eq!(cycles("Can not init lookup function", ("AVG FIB lookup", "")), None);
    }

    #[test]
    fn rules_and_packets_are_written_as_it_reads_them() {
        let [source, destination] = ["192.0.2.0/24", "10.0.0.0/8"].map(|net| net.parse().unwrap());
        let rule = AclRule { source, destination, port: 53 };
        assert_eq!(rule.line(), "@192.0.2.0/24 10.0.0.0/8 0 : 65535 53 : 53 0x11/0xff");
        let [source, destination] = ["192.0.2.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let packet = AclPacket { source, destination, ports: (40000, 53) };
        assert_eq!(packet.line(), "3221225985 167772162 40000 53 17");
    }
}
