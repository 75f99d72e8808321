//! What a demo has found: as one JSON object, and as text.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::traffic::iperf::Datagrams;

/// The three ways bulk traffic goes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Ways<T> {
    /// Pod to pod on one node.
    pub same_node: T,
    /// Pod to pod on two nodes.
    pub across_nodes: T,
    /// The node to one of its pods.
    pub host: T,
}

/// Pings of one size one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PingLine {
    /// Which way: a field of [`Ways`].
    pub way: &'static str,
    /// 4 or 6.
    pub family: u8,
    /// Bytes of payload.
    pub payload: u32,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
    /// Echo requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// The MTU the sender was told, when the packet was larger.
    pub mtu: Option<u32>,
    /// Whether that is as it should be.
    pub ok: bool,
}

/// One port's packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortLine {
    /// The port's name.
    pub port: String,
    /// What it leads to: a pod, `uplink`, `host`.
    pub to: String,
    /// Packets in.
    pub rx_packets: u64,
    /// Packets out.
    pub tx_packets: u64,
    /// Packets lost before the engine saw them.
    pub rx_lost: u64,
}

/// What one engine has counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EngineLines {
    /// By port.
    pub ports: Vec<PortLine>,
    /// By reason.
    pub drops: BTreeMap<String, u64>,
    /// Flows it has followed.
    pub flows: u64,
}

/// What a demo has found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Whether all is as it should be.
    pub ok: bool,
    /// What is not.
    pub failures: Vec<String>,
    /// Calls made.
    pub calls: u64,
    /// Calls that did not end as they should.
    pub calls_failed: u64,
    /// The most calls at once.
    pub calls_at_once: u64,
    /// RTP packets sent, by both ends of all calls.
    pub rtp_sent: u64,
    /// RTP packets that arrived, at both ends of all calls.
    pub rtp_received: u64,
    /// The difference.
    pub rtp_lost: u64,
    /// Interarrival jitter at the relay (RFC 3550), the mean over all streams, in milliseconds.
    pub jitter_ms: f64,
    /// The largest that any stream had at any time.
    pub jitter_ms_max: f64,
    /// Calls and datagrams that the stranger tried.
    pub denied_attempts: u64,
    /// Packets of the stranger's that arrived at the relay.
    pub denied_delivered: u64,
    /// What explains that, as `vsctl explain` tells it.
    pub denied_by: String,
    /// Frames that the engines could not account for when they stopped, over all nodes.
    pub frames_leaked: Option<i64>,
    /// One TCP stream, in Mbit/s.
    pub tcp_mbit: Ways<f64>,
    /// One stream of datagrams.
    pub udp: Ways<Datagrams>,
    /// Pings of all sizes.
    pub pings: Vec<PingLine>,
    /// What the engines counted, by node.
    pub engines: BTreeMap<String, EngineLines>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Report {
    /// Notes a failure unless the condition holds.
    pub fn expect(&mut self, holds: bool, failure: impl Into<String>) {
        if !holds {
            self.failures.push(failure.into());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Calls     {} made, {} failed, {} at once",
            self.calls, self.calls_failed, self.calls_at_once
        )?;
        writeln!(
            f,
            "RTP       {} sent, {} received, {} lost; jitter {:.2} ms (worst {:.2} ms)",
            self.rtp_sent, self.rtp_received, self.rtp_lost, self.jitter_ms, self.jitter_ms_max
        )?;
        writeln!(
            f,
            "Stranger  {} attempts, {} packets delivered",
            self.denied_attempts, self.denied_delivered
        )?;
        for line in self.denied_by.lines() {
            writeln!(f, "            {line}")?;
        }
        let tcp = &self.tcp_mbit;
        let (near, far, host) = (tcp.same_node, tcp.across_nodes, tcp.host);
        writeln!(f, "TCP       {near:.0} Mbit/s same node, {far:.0} across nodes, {host:.0} node to pod")?;
        for (way, udp) in [
            ("same node", self.udp.same_node),
            ("across nodes", self.udp.across_nodes),
            ("node to pod", self.udp.host),
        ] {
            writeln!(f, "UDP       {way}: {:.1} Mbit/s, {:.2} % lost", udp.mbit, udp.lost_percent)?;
        }
        let good = self.pings.iter().filter(|ping| ping.ok).count();
        writeln!(f, "Pings     {good} of {} kinds as they should be", self.pings.len())?;
        for ping in &self.pings {
            let fragments = if ping.dont_fragment { ", unfragmented" } else { "" };
            let told = ping.mtu.map(|mtu| format!(", told MTU {mtu}")).unwrap_or_default();
            writeln!(
                f,
                "            {} IPv{} {:>5} bytes{fragments}: {}/{} answered{told}{}",
                ping.way,
                ping.family,
                ping.payload,
                ping.received,
                ping.sent,
                if ping.ok { "" } else { "  <-- WRONG" }
            )?;
        }
        for (node, engine) in &self.engines {
            writeln!(f, "Engine    {node}: {} flows", engine.flows)?;
            for port in &engine.ports {
                writeln!(
                    f,
                    "            {:<16} {:<16} in {:>9}  out {:>9}  lost before {:>6}",
                    port.port, port.to, port.rx_packets, port.tx_packets, port.rx_lost
                )?;
            }
            for (reason, packets) in &engine.drops {
                writeln!(f, "            dropped, {reason}: {packets}")?;
            }
        }
        if let Some(leaked) = self.frames_leaked {
            writeln!(f, "Frames    {leaked} leaked")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED    {failure}")?;
        }
        writeln!(
            f,
            "{} in {:.0} s",
            if self.ok { "All as it should be" } else { "Not as it should be" },
            self.seconds
        )
    }
}
