//! `get` of what the engine has: flows, counters, drops, policies, ports, routes, tunnels.

use serde_json::{Map, Value, json};
use tonic::transport::Channel;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::engine::{
    Counters, DropCounter, EngineStatus, Flow, FlowCounters, FrameCounters, GetCountersRequest,
    GetStatusRequest, ListFlowsRequest, PortCounters, TunnelStatus,
};

use super::Failure;
use super::cli::Get;
use super::output::{Report, duration, facts, table};
use super::protocol::{Protocol, Service, protocol_name};

/// Something of the engine's that can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Flows,
    Counters,
    Drops,
    Policies,
    Ports,
    Routes,
    Tunnels,
}

impl Noun {
    pub(super) const ALL: [Self; 7] =
        [Self::Flows, Self::Counters, Self::Drops, Self::Policies, Self::Ports, Self::Routes, Self::Tunnels];

    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "flow" | "flows" => Self::Flows,
            "counter" | "counters" => Self::Counters,
            "drop" | "drops" => Self::Drops,
            "policy" | "policies" => Self::Policies,
            "port" | "ports" => Self::Ports,
            "route" | "routes" => Self::Routes,
            "tunnel" | "tunnels" => Self::Tunnels,
            _ => return None,
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Counters => "counters",
            Self::Drops => "drops",
            Self::Policies => "policies",
            Self::Ports => "ports",
            Self::Routes => "routes",
            Self::Tunnels => "tunnels",
        }
    }

    /// Whether `get` may be given one port's or policy's name.
    pub(super) const fn has_names(self) -> bool {
        matches!(self, Self::Counters | Self::Policies | Self::Ports)
    }

    /// Whether `get` may be given an address and a limit.
    pub(super) const fn has_addresses(self) -> bool {
        matches!(self, Self::Flows | Self::Routes)
    }
}

pub(super) async fn get(
    engine: &mut EngineClient<Channel>,
    noun: Noun,
    get: &Get,
) -> Result<Report, Failure> {
    let name = get.names.first().map(String::as_str);
    match noun {
        Noun::Flows => {
            let address = get.address.map(|address| address.to_string()).unwrap_or_default();
            let request = ListFlowsRequest { limit: get.limit.unwrap_or(0), address };
            let mut stream = engine.list_flows(request).await?.into_inner();
            let mut flows = Vec::new();
            while let Some(flow) = stream.message().await? {
                flows.push(flow);
            }
            Ok(flows_report(&flows))
        }
        Noun::Counters => {
            counters_report(engine.get_counters(GetCountersRequest {}).await?.into_inner(), name)
        }
        Noun::Drops => Ok(drops_report(&engine.get_counters(GetCountersRequest {}).await?.into_inner())),
        Noun::Policies => super::policies::policies(engine, name).await,
        Noun::Ports => ports_report(&engine.get_status(GetStatusRequest {}).await?.into_inner(), name),
        Noun::Routes => super::routes::get(engine, get).await,
        Noun::Tunnels => Ok(tunnels_report(&engine.get_status(GetStatusRequest {}).await?.into_inner())),
    }
}

fn flows_report(flows: &[Flow]) -> Report {
    let value = flows.iter().map(|flow| {
        json!({
            "worker": flow.worker,
            "source": flow.source, "destination": flow.destination,
            "protocol": protocol_name(flow.protocol),
            "sourcePort": flow.source_port, "destinationPort": flow.destination_port,
            "state": flow.state,
            "packets": flow.packets_original, "bytes": flow.bytes_original,
            "packetsReply": flow.packets_reply, "bytesReply": flow.bytes_reply,
            "idleMs": flow.idle_ms,
            "sourceIdentity": flow.source_identity, "destinationIdentity": flow.destination_identity,
            "egressRule": flow.egress_rule, "ingressRule": flow.ingress_rule,
            "generation": flow.generation,
        })
    });
    let rows = flows.iter().map(|flow| {
        let (protocol, destination_port) = match (u8::try_from(flow.protocol), flow.destination_port) {
            // The message is told beside the protocol.
            (Ok(number @ (1 | 58)), message) => {
                (Service { protocol: Protocol(number), port: message as u16 }.to_string(), 0)
            }
            (_, port) => (protocol_name(flow.protocol), port),
        };
        [
            protocol,
            end(&flow.source, flow.source_port),
            end(&flow.destination, destination_port),
            flow.state.clone(),
            flow.packets_original.to_string(),
            flow.packets_reply.to_string(),
            duration(flow.idle_ms),
            flow.worker.to_string(),
        ]
    });
    let header = ["proto", "from", "to", "state", "packets", "replies", "idle", "worker"];
    Report { value: value.collect(), text: table(header, rows) }
}

/// `10.0.0.1:5060`, `[fd00::1]:5060`; without a port where there is none.
pub(super) fn end(address: &str, port: u32) -> String {
    match (port, address.contains(':')) {
        (0, _) => address.to_owned(),
        (_, true) => format!("[{address}]:{port}"),
        (_, false) => format!("{address}:{port}"),
    }
}

fn counters_report(mut counters: Counters, name: Option<&str>) -> Result<Report, Failure> {
    if let Some(name) = name {
        counters.ports.retain(|port| port.name == name);
        let port = counters.ports.first().ok_or_else(|| no_port(name))?;
        let text = [port_table(&counters.ports), drop_table(&port.drops)].join("\n\n");
        return Ok(Report { value: port_value(port), text });
    }
    let stages: Map<_, _> =
        counters.stages.iter().map(|stage| (stage.stage.clone(), stage.packets.into())).collect();
    let (flows, frames) = (counters.flows.unwrap_or_default(), counters.frames.unwrap_or_default());
    let value = json!({
        "ports": counters.ports.iter().map(port_value).collect::<Vec<_>>(),
        "drops": drop_value(&counters.drops),
        "flows": flows_value(&flows),
        "frames": frames_value(&frames),
        "stages": stages,
    });
    let mut text = vec![port_table(&counters.ports), drop_table(&counters.drops)];
    text.push(table(
        ["stage", "packets"],
        counters.stages.iter().map(|stage| [stage.stage.clone(), stage.packets.to_string()]),
    ));
    text.push(facts(&[("flows", flows_words(&flows)), ("frames", frames_words(&frames))]));
    Ok(Report { value, text: text.join("\n\n") })
}

fn port_value(port: &PortCounters) -> Value {
    json!({
        "name": port.name, "role": port.role, "workload": port.workload,
        "rxPackets": port.rx_packets, "rxBytes": port.rx_bytes, "rxLost": port.rx_lost,
        "txPackets": port.tx_packets, "txBytes": port.tx_bytes,
        "drops": drop_value(&port.drops),
    })
}

fn port_table(ports: &[PortCounters]) -> String {
    let rows = ports.iter().map(|port| {
        [
            port.name.clone(),
            port.role.clone(),
            port.workload.clone(),
            port.rx_packets.to_string(),
            port.rx_bytes.to_string(),
            port.tx_packets.to_string(),
            port.tx_bytes.to_string(),
            port.drops.iter().map(|drop| drop.packets).sum::<u64>().to_string(),
            port.rx_lost.to_string(),
        ]
    });
    table(["port", "role", "workload", "rx", "rx bytes", "tx", "tx bytes", "dropped", "lost"], rows)
}

fn flows_value(flows: &FlowCounters) -> Value {
    json!({
        "current": flows.current, "capacity": flows.capacity, "created": flows.created, "expired": flows.expired,
        "refused": flows.refused, "evicted": flows.evicted, "revalidated": flows.revalidated,
        "currentOfWorkers": flows.current_of_workers,
    })
}

fn flows_words(flows: &FlowCounters) -> String {
    let workers = flows.current_of_workers.len().max(1);
    // Each worker has a table of its own: what is free in another's is of no use to it.
    let each = match &flows.current_of_workers[..] {
        [] | [_] => String::new(),
        several => {
            let several: Vec<_> = several.iter().map(u64::to_string).collect();
            format!(" ({} of {} each)", several.join(", "), flows.capacity / workers as u64)
        }
    };
    format!(
        "{} of {}{each}; created {}, expired {}, evicted {}, refused {}, revalidated {}",
        flows.current,
        flows.capacity,
        flows.created,
        flows.expired,
        flows.evicted,
        flows.refused,
        flows.revalidated
    )
}

fn frames_value(frames: &FrameCounters) -> Value {
    json!({
        "total": frames.total, "free": frames.free, "receiving": frames.receiving,
        "transmitting": frames.transmitting, "inWorker": frames.in_worker, "unaccounted": frames.unaccounted,
    })
}

fn frames_words(frames: &FrameCounters) -> String {
    format!(
        "{}; free {}, receiving {}, transmitting {}, in workers {}, unaccounted {}",
        frames.total,
        frames.free,
        frames.receiving,
        frames.transmitting,
        frames.in_worker,
        frames.unaccounted
    )
}

fn drop_value(drops: &[DropCounter]) -> Value {
    let reasons: Map<_, _> = drops.iter().map(|drop| (drop.reason.clone(), drop.packets.into())).collect();
    reasons.into()
}

/// Reasons, the most frequent first.
fn drop_table(drops: &[DropCounter]) -> String {
    if drops.is_empty() {
        return "no drops".to_owned();
    }
    let mut sorted: Vec<_> = drops.iter().collect();
    sorted.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.reason.cmp(&b.reason)));
    table(
        ["drop reason", "packets"],
        sorted.iter().map(|drop| [drop.reason.clone(), drop.packets.to_string()]),
    )
}

fn drops_report(counters: &Counters) -> Report {
    let total: u64 = counters.drops.iter().map(|drop| drop.packets).sum();
    let dropping: Vec<_> = counters.ports.iter().filter(|port| !port.drops.is_empty()).collect();
    let ports: Map<_, _> = dropping.iter().map(|port| (port.name.clone(), drop_value(&port.drops))).collect();
    let value = json!({"total": total, "reasons": drop_value(&counters.drops), "ports": ports});
    let mut text = drop_table(&counters.drops);
    let rows: Vec<_> = dropping
        .iter()
        .flat_map(|port| {
            let row = |drop: &DropCounter| {
                [port.name.clone(), port.workload.clone(), drop.reason.clone(), drop.packets.to_string()]
            };
            port.drops.iter().map(row).collect::<Vec<_>>()
        })
        .collect();
    if !rows.is_empty() {
        text = format!("{text}\n\n{}", table(["port", "workload", "drop reason", "packets"], rows));
    }
    Report { value, text }
}

fn ports_report(status: &EngineStatus, name: Option<&str>) -> Result<Report, Failure> {
    let chosen: Vec<_> =
        status.ports.iter().filter(|port| name.is_none_or(|name| port.name == name)).collect();
    if let (Some(name), true) = (name, chosen.is_empty()) {
        return Err(no_port(name));
    }
    let values: Vec<_> = chosen
        .iter()
        .map(|port| {
            json!({
                "name": port.name, "role": port.role, "kind": port.kind, "worker": port.worker, "mac": port.mac,
                "addresses": port.addresses, "mtu": port.mtu, "workload": port.workload, "failure": port.failure,
                "hindrance": port.hindrance,
            })
        })
        .collect();
    let rows = chosen.iter().map(|port| {
        [
            port.name.clone(),
            port.role.clone(),
            port.kind.clone(),
            port.workload.clone(),
            port.addresses.join(","),
            port.mac.clone(),
            port.mtu.to_string(),
            port.worker.to_string(),
            match (port.failure.as_str(), port.hindrance.as_str()) {
                ("", "") => "open".to_owned(),
                ("", hindrance) => format!("open, {hindrance}"),
                (failure, _) => failure.to_owned(),
            },
        ]
    });
    let text =
        table(["port", "role", "kind", "workload", "addresses", "mac", "mtu", "worker", "state"], rows);
    let value = if name.is_some() { values.into_iter().next().unwrap_or_default() } else { values.into() };
    Ok(Report { value, text })
}

fn tunnels_report(status: &EngineStatus) -> Report {
    let value = status.tunnels.iter().map(|tunnel| {
        json!({
            "id": tunnel.id, "node": tunnel.node, "remote": tunnel.remote, "nextHopMac": tunnel.next_hop_mac,
            "encapsulation": tunnel.encapsulation, "uplink": tunnel.uplink, "unresolved": tunnel.unresolved,
            "carries": tunnel.carries, "direct": tunnel.direct, "pathMtu": path_mtu(tunnel),
        })
    });
    let rows = status.tunnels.iter().map(|tunnel| {
        let state = match (tunnel.next_hop_mac.as_str(), tunnel.unresolved.as_str()) {
            ("", "") => "unresolved".to_owned(),
            ("", why) => format!("unresolved: {why}"),
            _ => "resolved".to_owned(),
        };
        [
            tunnel.node.clone(),
            tunnel.remote.clone(),
            tunnel.encapsulation.clone(),
            used_for(tunnel),
            path_words(tunnel),
            tunnel.uplink.clone(),
            tunnel.next_hop_mac.clone(),
            state,
        ]
    });
    let header = ["node", "remote", "encapsulation", "carries", "path mtu", "uplink", "next hop", "state"];
    Report { value: value.collect(), text: table(header, rows) }
}

/// Which families go by a tunnel, and which go to its remote address without its headers.
fn used_for(tunnel: &TunnelStatus) -> String {
    let direct = tunnel.direct.iter().map(|family| format!("{family} without it"));
    let said: Vec<_> = tunnel.carries.iter().cloned().chain(direct).collect();
    if said.is_empty() { "nothing".to_owned() } else { said.join(", ") }
}

fn path_mtu(tunnel: &TunnelStatus) -> Value {
    match tunnel.path_mtu {
        0 => Value::Null,
        mtu => json!({"mtu": mtu, "saidBy": tunnel.path_mtu_by, "forMs": tunnel.path_mtu_ms}),
    }
}

/// What a router said a path takes.
fn path_words(tunnel: &TunnelStatus) -> String {
    match tunnel.path_mtu {
        0 => String::new(),
        mtu => format!("{mtu} by {}, {} more", tunnel.path_mtu_by, duration(tunnel.path_mtu_ms)),
    }
}

fn no_port(name: &str) -> Failure {
    Failure(format!("no port {name}; `vsctl get ports` lists them"))
}

#[cfg(test)]
mod tests {
    use vswitch_model::api::engine::{PortStatus, StageCounter};

    use super::*;

    fn drops(pairs: &[(&str, u64)]) -> Vec<DropCounter> {
        pairs
            .iter()
            .map(|(reason, packets)| DropCounter { reason: (*reason).into(), packets: *packets })
            .collect()
    }

    fn counters() -> Counters {
        let port = |name: &str, dropped: &[(&str, u64)]| PortCounters {
            name: name.into(),
            role: "pod".into(),
            workload: "media/relay".into(),
            rx_packets: 10,
            rx_bytes: 1000,
            tx_packets: 9,
            tx_bytes: 900,
            drops: drops(dropped),
            rx_lost: 1,
        };
        Counters {
            ports: vec![port("vsw1", &[("policy-denied", 3)]), port("vsw2", &[])],
            drops: drops(&[("no-route", 1), ("policy-denied", 3)]),
            flows: Some(FlowCounters {
                current: 2,
                capacity: 8,
                created: 5,
                expired: 3,
                refused: 0,
                revalidated: 1,
                evicted: 6,
                current_of_workers: vec![2, 0],
            }),
            frames: Some(FrameCounters {
                total: 4,
                free: 1,
                receiving: 1,
                transmitting: 1,
                in_worker: 1,
                unaccounted: 0,
            }),
            stages: vec![StageCounter { stage: "parse".into(), packets: 10 }],
        }
    }

    #[test]
    fn flows_show_both_ends() {
        let flow = Flow {
            source: "fd00::1".into(),
            destination: "10.0.0.2".into(),
            protocol: 17,
            source_port: 5060,
            destination_port: 5061,
            state: "replied".into(),
            packets_original: 7,
            packets_reply: 8,
            idle_ms: 1500,
            ..Flow::default()
        };
        let report = flows_report(&[flow]);
        let expected = "PROTO  FROM            TO             STATE    PACKETS  REPLIES  IDLE  WORKER\n\
                        udp    [fd00::1]:5060  10.0.0.2:5061  replied  7        8        1s    0";
        assert_eq!(report.text, expected);
        assert_eq!(
            (&report.value[0]["protocol"], &report.value[0]["packetsReply"]),
            (&json!("udp"), &json!(8))
        );
        assert_eq!(end("10.0.0.1", 0), "10.0.0.1");
    }

    #[test]
    fn counters_are_whole_or_one_ports() {
        let all = counters_report(counters(), None).unwrap();
        assert_eq!(all.value["drops"], json!({"no-route": 1, "policy-denied": 3}));
        assert_eq!(
            (&all.value["frames"]["unaccounted"], &all.value["stages"]["parse"]),
            (&json!(0), &json!(10))
        );
        assert!(
            all.text.contains(
                "flows:   2 of 8 (2, 0 of 4 each); created 5, expired 3, evicted 6, refused 0, revalidated 1"
            ),
            "{}",
            all.text
        );
        assert!(
            all.text.contains("vsw1  pod   media/relay  10  1000      9   900       3        1"),
            "{}",
            all.text
        );
        let one = counters_report(counters(), Some("vsw2")).unwrap();
        assert_eq!((&one.value["name"], &one.value["rxLost"]), (&json!("vsw2"), &json!(1)));
        assert!(one.text.ends_with("no drops"), "{}", one.text);
        assert!(counters_report(counters(), Some("eth9")).is_err());
    }

    #[test]
    fn drops_come_most_frequent_first() {
        let report = drops_report(&counters());
        let expected = "DROP REASON    PACKETS\npolicy-denied  3\nno-route       1\n\n\
                        PORT  WORKLOAD     DROP REASON    PACKETS\nvsw1  media/relay  policy-denied  3";
        assert_eq!(report.text, expected);
        assert_eq!(
            report.value,
            json!({"total": 4, "reasons": {"no-route": 1, "policy-denied": 3}, "ports": {"vsw1": {"policy-denied": 3}}})
        );
        assert_eq!(drops_report(&Counters::default()).text, "no drops");
    }

    #[test]
    fn ports_and_tunnels_say_what_is_wrong_with_them() {
        let port = |name: &str, failure: &str| PortStatus {
            name: name.into(),
            role: "pod".into(),
            kind: "af_xdp".into(),
            mac: "02:00:00:00:00:01".into(),
            addresses: vec!["10.0.0.1".into(), "fd00::1".into()],
            mtu: 1450,
            failure: failure.into(),
            ..PortStatus::default()
        };
        let tunnel = TunnelStatus {
            id: 1,
            node: "n2".into(),
            remote: "192.0.2.2".into(),
            encapsulation: "ipip".into(),
            unresolved: "its uplink eth0 has no carrier".into(),
            carries: vec!["IPv4".into()],
            direct: vec!["IPv6".into()],
            path_mtu: 1400,
            path_mtu_by: "192.0.2.9".into(),
            path_mtu_ms: 90_000,
            ..TunnelStatus::default()
        };
        let plain = TunnelStatus { node: "n3".into(), remote: "192.0.2.3".into(), ..TunnelStatus::default() };
        let status = EngineStatus {
            ports: vec![
                port("vsw1", ""),
                port("vsw2", "no such interface"),
                PortStatus { hindrance: "no carrier".into(), ..port("eth0", "") },
            ],
            tunnels: vec![tunnel, plain],
            ..EngineStatus::default()
        };
        let report = ports_report(&status, None).unwrap();
        assert!(report.text.lines().nth(1).unwrap().ends_with("open"), "{}", report.text);
        assert!(report.text.lines().nth(2).unwrap().ends_with("no such interface"), "{}", report.text);
        assert!(report.text.lines().nth(3).unwrap().ends_with("open, no carrier"), "{}", report.text);
        assert_eq!(ports_report(&status, Some("vsw2")).unwrap().value["failure"], "no such interface");
        assert!(ports_report(&status, Some("vsw3")).is_err());
        let report = tunnels_report(&status);
        let lines: Vec<_> = report.text.lines().collect();
        assert!(
            lines[1].contains("IPv4, IPv6 without it  1400 by 192.0.2.9, 1m30s more  -")
                && lines[1].ends_with("unresolved: its uplink eth0 has no carrier"),
            "{}",
            report.text
        );
        assert!(lines[2].contains("nothing  ") && lines[2].ends_with("unresolved"), "{}", report.text);
        assert_eq!(report.value[0]["pathMtu"], json!({"mtu": 1400, "saidBy": "192.0.2.9", "forMs": 90_000}));
        assert_eq!(report.value[1]["pathMtu"], Value::Null);
    }
}
