//! The demo: calls over two nodes with policy on, a stranger kept out, bulk streams, pings; and a report of it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bed::{Bed, Settings};
use crate::command::{output, wait_until};
use crate::netns::Netns;
use crate::report::{EngineLines, PingLine, PortLine, Report};
use crate::run::{Run, exclusive};
use crate::topology::Topology;
use crate::traffic::capture::{self, Capture};
use crate::traffic::ping::{Ping, ping};
use crate::traffic::rtp::{self, Jitter};
use crate::traffic::{iperf, probe, sipp};
use crate::{Error, Result};

/// Policies of the demo, besides what its topology tells.
const POLICIES: &str = include_str!("../veth/manifests/policies.yaml");
const CALLER: &str = "media/caller";
const RELAY: &str = "media/relay";
const STRANGER: &str = "guest/stranger";
const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
/// Datagrams the stranger sends to media ports, besides calling.
const STRANGER_DATAGRAMS: u16 = 200;
/// Exit status of `vsctl explain` for a packet that would not pass.
const EXPLAIN_DENIED: i32 = 3;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run's id.
    pub id: String,
    /// Whether kernels forward in place of our engines: a yardstick, without policy.
    pub kernel: bool,
    /// Calls to make.
    pub calls: u32,
    /// Calls at once, at most.
    pub calls_at_once: u32,
    /// Seconds of each bulk stream.
    pub stream_seconds: u32,
    /// Whether all is left standing.
    pub keep: bool,
}

/// Does it. Says on standard error what it is at.
pub fn run(options: &Options) -> Result<Report> {
    let start = Instant::now();
    let say = |text: &str| eprintln!("[{:5.1} s] {text}", start.elapsed().as_secs_f64());
    if Run::stands(&options.id)? {
        return Err(Error::other(format!(
            "a run called {} stands already; take it away with {}, or choose another --id",
            options.id,
            take_away(&options.id)
        )));
    }
    // Tests of this machine that measure wait for us, and we for them.
    let _alone = exclusive()?;
    say("building two nodes and six pods");
    let topology = if options.kernel { Topology::demo().on_kernel() } else { Topology::demo() };
    let mut bed = Bed::up(&options.id, topology, Settings::default())?;
    if !options.kernel {
        let policies = bed.file("policies.yaml");
        std::fs::write(&policies, POLICIES)
            .map_err(|source| Error::File { path: policies.clone(), source })?;
        bed.apply_file(&policies)?;
        for node in ["node1", "node2"] {
            bed.node_mut(node)?.wait_in_force()?;
        }
    }

    let mut report = Report::default();
    say(&format!("{} calls, {} at once, G.711 both ways", options.calls, options.calls_at_once));
    calls(&bed, options, &mut report)?;
    say("bulk streams");
    streams(&bed, options.stream_seconds, &mut report)?;
    say("pings of all sizes");
    pings(&bed, &mut report)?;
    say("reading the engines' counters");
    engines(&mut bed, options.keep, &mut report)?;

    report.ok = report.failures.is_empty();
    report.seconds = start.elapsed().as_secs_f64();
    if options.keep {
        bed.keep();
        eprint!("{}", worth_trying(&bed)?);
    }
    Ok(report)
}

fn calls(bed: &Bed, options: &Options, report: &mut Report) -> Result<()> {
    let folder = bed.file("calls");
    std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
    let (caller, relay) = (&bed.pod(CALLER)?.netns, &bed.pod(RELAY)?.netns);
    let (caller_address, relay_address) = (bed.address(CALLER, V4)?, bed.address(RELAY, V4)?);
    rtp::watch(caller, &[])?;
    rtp::watch(relay, &bed.pod(STRANGER)?.addresses()?)?;
    let media = format!("udp portrange {}-{}", sipp::MEDIA_PORT_FIRST, sipp::MEDIA_PORT_LAST);
    let capture = Capture::start(relay, "eth0", &media, 64, &folder.join("relay.pcap"))?;

    let recording_packets = packets_of(Path::new(sipp::RECORDING))?;
    let waves = options.calls.div_ceil(options.calls_at_once.max(1));
    let calls = sipp::Calls {
        total: options.calls,
        at_once: options.calls_at_once,
        per_second: 10,
        limit: Duration::from_secs(30 + u64::from(waves) * 15),
    };
    let mut running = sipp::start(
        &calls,
        &sipp::End { netns: caller, address: caller_address },
        &sipp::End { netns: relay, address: relay_address },
        &folder,
    )?;
    if !options.kernel {
        // While the relay is busy answering those it should answer.
        wait_until("calls to be under way", calls.limit, || {
            running.calls_now() > 0 || !running.is_running()
        })?;
        stranger(bed, &folder, report)?;
    }
    let outcome = running.finish()?;
    report.calls = outcome.succeeded + outcome.failed;
    report.calls_failed = outcome.failed;
    report.calls_at_once = outcome.at_once;

    let (at_caller, at_relay) = settled(caller, relay)?;
    report.rtp_sent = at_caller.sent + at_relay.sent;
    report.rtp_received = at_caller.received + at_relay.received;
    report.rtp_lost = report.rtp_sent.saturating_sub(report.rtp_received);
    report.denied_delivered = at_relay.unwelcome;
    let jitter = Jitter::of_capture(&capture.stop()?, relay_address)?.summary();
    (report.jitter_ms, report.jitter_ms_max) = (jitter.mean_ms, jitter.max_ms);

    report.expect(report.calls == u64::from(options.calls), "not all calls were made");
    report.expect(report.calls_failed == 0, format!("{} calls failed", report.calls_failed));
    report.expect(
        report.rtp_lost == 0,
        format!("{} RTP packets were lost: caller {at_caller:?}, relay {at_relay:?}", report.rtp_lost),
    );
    let planned = 2 * report.calls * recording_packets;
    report.expect(
        report.rtp_sent == planned,
        format!("{} RTP packets were sent, not {planned}", report.rtp_sent),
    );
    report.expect(jitter.streams > 0, "the capture at the relay holds no RTP");
    report.expect(
        report.denied_delivered == 0,
        format!("{} packets of the stranger arrived at the relay", report.denied_delivered),
    );
    Ok(())
}

/// The counters of both ends, once all that was sent has arrived and nothing more does; what is still missing after a second
/// is lost. The silence is for what should not arrive at all: of that nobody knows how much is on its way.
fn settled(caller: &Netns, relay: &Netns) -> Result<(rtp::Count, rtp::Count)> {
    let mut last = (rtp::count(caller)?, rtp::count(relay)?);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        let now = (rtp::count(caller)?, rtp::count(relay)?);
        let (at_caller, at_relay) = &now;
        let missing = (at_caller.sent + at_relay.sent).saturating_sub(at_caller.received + at_relay.received);
        if now == last && missing == 0 {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// The stranger calls the relay, and sends datagrams to its media ports.
fn stranger(bed: &Bed, folder: &Path, report: &mut Report) -> Result<()> {
    let folder = folder.join("stranger");
    std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
    let netns = &bed.pod(STRANGER)?.netns;
    let relay = bed.address(RELAY, V4)?;
    let calls = sipp::Calls { total: 5, at_once: 5, per_second: 5, limit: Duration::from_secs(4) };
    let end = sipp::End { netns, address: bed.address(STRANGER, V4)? };
    let running = sipp::call(&calls, &end, relay, &folder)?;
    let socket = probe::udp_socket(netns, SocketAddr::new(V4, 0))?;
    for n in 0..STRANGER_DATAGRAMS {
        // The stranger's own kernel may tell it that it is not wanted; it goes on.
        let _refused = socket.send_to(b"let me in", (relay, sipp::MEDIA_PORT_FIRST + n));
    }
    let outcome = running.finish()?;
    report.denied_attempts = outcome.begun + u64::from(STRANGER_DATAGRAMS);
    report.expect(outcome.begun > 0, "the stranger made no calls");
    report.expect(outcome.succeeded == 0, format!("{} of the stranger's calls succeeded", outcome.succeeded));

    let port = format!("{}/udp", sipp::SIP_PORT);
    let mut explain = bed.node("node2")?.vsctl_command(&["explain", STRANGER, RELAY, &port])?;
    let explained = output(&mut explain, "")?;
    report.denied_by = String::from_utf8_lossy(&explained.stdout).trim().to_owned();
    report.expect(
        explained.status.code() == Some(EXPLAIN_DENIED)
            && report.denied_by.contains("NetworkPolicy media/relay"),
        format!(
            "`vsctl explain` does not tell of NetworkPolicy media/relay ({}): {}",
            explained.status,
            String::from_utf8_lossy(&explained.stderr).trim()
        ),
    );
    Ok(())
}

fn streams(bed: &Bed, seconds: u32, report: &mut Report) -> Result<()> {
    let folder = bed.file("streams");
    std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
    let near = &bed.pod("bulk/near")?.netns;
    let host = bed.netns("node1")?;
    let ways = [(near, "bulk/beside"), (near, "bulk/far"), (host, "bulk/near")];
    let mut tcp = [0.0; 3];
    let mut udp = [iperf::Datagrams::default(); 3];
    for (way, (from, to)) in ways.into_iter().enumerate() {
        let pod = &bed.pod(to)?.netns;
        let address = bed.address(to, V4)?;
        // A stream that does not run at all is a finding, not the end of the demo.
        let server = iperf::Server::start(pod, &folder)?;
        match iperf::tcp(from, address, seconds) {
            Ok(mbit) => tcp[way] = mbit,
            Err(error) => report.failures.push(format!("TCP to {to}: {error}")),
        }
        // Anew: between two tests iperf3 closes its socket for a moment, and refuses whoever comes then.
        drop(server);
        let _server = iperf::Server::start(pod, &folder)?;
        match iperf::udp(from, address, seconds, 50, 1200) {
            Ok(datagrams) => udp[way] = datagrams,
            Err(error) => report.failures.push(format!("UDP to {to}: {error}")),
        }
        report.expect(tcp[way] > 0.0, format!("no TCP to {to}"));
        report.expect(udp[way].mbit > 0.0, format!("no UDP to {to}"));
    }
    let [same_node, across_nodes, to_host] = tcp;
    report.tcp_mbit = crate::report::Ways { same_node, across_nodes, host: to_host };
    let [same_node, across_nodes, to_host] = udp;
    report.udp = crate::report::Ways { same_node, across_nodes, host: to_host };
    Ok(())
}

fn pings(bed: &Bed, report: &mut Report) -> Result<()> {
    let near = &bed.pod("bulk/near")?.netns;
    let mtu = u32::from(bed.topology.pod_mtu);
    let ways = [
        ("same_node", near, "bulk/beside"),
        ("across_nodes", near, "bulk/far"),
        ("host", bed.netns("node1")?, "bulk/near"),
    ];
    for (way, from, to) in ways {
        for (family, headers, address) in [(4, 28, bed.address(to, V4)?), (6, 48, bed.address(to, V6)?)] {
            let fits = mtu - headers;
            let kinds =
                [(0, true), (56, true), (fits, true), (fits + 1, true), (fits + 1, false), (3 * mtu, false)];
            for (payload, dont_fragment) in kinds {
                let what = Ping { dont_fragment, ..Ping::to(address).payload(payload) };
                let pinged = ping(from, &what)?;
                let ok = if payload > fits && dont_fragment {
                    pinged.received == 0 && pinged.mtu == Some(mtu)
                } else {
                    pinged.received == what.count
                };
                let line = PingLine {
                    way,
                    family,
                    payload,
                    dont_fragment,
                    sent: pinged.sent,
                    received: pinged.received,
                    mtu: pinged.mtu,
                    ok,
                };
                report.expect(ok, format!("ping: {line:?}"));
                report.pings.push(line);
            }
        }
    }
    Ok(())
}

fn engines(bed: &mut Bed, keep: bool, report: &mut Report) -> Result<()> {
    let names: Vec<_> = bed.nodes().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let node = bed.node_mut(name)?;
        let counters = node.engine()?.counters()?;
        let ports = counters.ports.iter().map(|port| PortLine {
            port: port.name.clone(),
            to: if port.workload.is_empty() { port.role.clone() } else { port.workload.clone() },
            rx_packets: port.rx_packets,
            tx_packets: port.tx_packets,
            rx_lost: port.rx_lost,
        });
        let drops = counters.drops.iter().map(|drop| (drop.reason.clone(), drop.packets));
        let flows = counters.flows.map_or(0, |flows| flows.created);
        let lines = EngineLines { ports: ports.collect(), drops: drops.collect(), flows };
        report.engines.insert(name.clone(), lines);
        // An engine that is to go on is asked while it runs; the others give their last account.
        let leaked = if keep {
            counters.frames.map(|frames| frames.unaccounted)
        } else {
            node.stop_engine()?.get("frames_leaked").and_then(serde_json::Value::as_i64)
        };
        let leaked = leaked
            .ok_or_else(|| Error::other(format!("vswitchd of {name} did not account for its frames")))?;
        *report.frames_leaked.get_or_insert(0) += leaked;
        report.expect(leaked == 0, format!("vswitchd of {name} leaked {leaked} frames"));
    }
    Ok(())
}

fn packets_of(recording: &Path) -> Result<u64> {
    let mut packets = 0;
    capture::each_frame(recording, |_, _| packets += 1)?;
    Ok(packets)
}

/// Five commands for somebody who has the whole thing standing before them.
/// The command that takes a run away.
fn take_away(id: &str) -> String {
    let id = if id == "demo" { String::new() } else { format!(" --id {id}") };
    format!("testbeds/veth/demo.sh --down{id}")
}

fn worth_trying(bed: &Bed) -> Result<String> {
    if bed.nodes().next().is_none() {
        return Ok(String::new());
    }
    let (node1, node2) = (bed.node("node1")?, bed.node("node2")?);
    let typed = |node: &crate::bed::node::VswitchNode, words: &[&str]| -> Result<String> {
        Ok(crate::command::line(&node.vsctl_command(words)?))
    };
    let pod = bed.pod("bulk/near")?.netns.name();
    let far = bed.address("bulk/far", V4)?;
    Ok(format!(
        "\nAll of it stands. Five commands worth trying:\n  {}\n  {}\n  {}\n  {}\n  {}\nand what takes it away:\n  {}\n",
        typed(node1, &["status"])?,
        typed(node2, &["explain", STRANGER, RELAY, "5060/udp"])?,
        typed(node2, &["get", "drops"])?,
        typed(node1, &["trace"])?,
        format_args!("ip netns exec {pod} ping -c 3 {far}"),
        take_away(bed.id()),
    ))
}
