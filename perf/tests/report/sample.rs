//! Made-up results of a full run, as a machine of two cores would give them.

use vswitch_perf::machine::{Hiccups, Machine};
use vswitch_perf::result::{Config, Measurement, ResultFile, SCHEMA, ratio_name};

/// Every scenario but `instructions`, which a report has to name as not measured.
pub(crate) fn full() -> ResultFile {
    let rows = [lockstep(), throughput(), latency(), calls(), engine(), policy(), others()].concat();
    ResultFile {
        schema: SCHEMA.to_owned(),
        commit: "5ea6418d20c1".to_owned(),
        machine: Machine {
            cpu: "Intel(R) Xeon(R) Processor @ 2.60GHz".to_owned(),
            cores: 2,
            kernel: "6.12.0-test".to_owned(),
            tsc_mhz: 2600.0,
            memory_gib: 23.5,
            rustc: "rustc 1.95.0 (59807616e 2026-04-14)".to_owned(),
            hiccups: (0..2)
                .map(|core| Hiccups { core, watched_ms: 100.0, lost_percent: 0.4, longest_us: 87.0 })
                .collect(),
            steal_percent: 1.3,
        },
        config: Config {
            scenarios: ["throughput", "lockstep", "latency"].map(str::to_owned).to_vec(),
            rounds: 5,
            started_s: 1_795_274_640,
            took_s: 571.0,
            seconds: vec![("engine".to_owned(), 90.0)],
            ..Config::default()
        },
        complete: true,
        results: rows,
        notes: vec![
            "peer ovs is missing: install openvswitch-switch".to_owned(),
            "a note with <b>markup</b> & \"quotes\" that must stay text: </script><script>alert(1)</script>"
                .to_owned(),
        ],
    }
}

/// Three rounds around a value.
fn around(scenario: &str, case: &str, metric: &str, unit: &str, value: f64) -> Measurement {
    Measurement::of_rounds(scenario, case, metric, unit, &[value * 0.97, value, value * 1.025])
}

const PEERS: [(&str, f64); 8] = [
    ("drop", 985.0),
    ("kernel", 1974.0),
    ("bare AF_XDP", 2081.0),
    ("conntrack", 2396.0),
    ("conntrack + 1000-element set", 2818.0),
    ("conntrack + 100 linear rules", 3876.0),
    ("conntrack + 1000 linear rules", 16685.0),
    ("kernel VXLAN", 3016.0),
];

fn with_peers(mut row: Measurement, rows: &mut Vec<Measurement>, times: bool, scale: f64) {
    let ours = row.value;
    for (peer, time) in PEERS {
        let value = if times { time * scale } else { 1000.0 / time * scale };
        row = row.beside(peer, value);
        let ratio = if times { value / ours } else { ours / value };
        rows.push(around(&row.scenario, &row.case, &ratio_name(peer, &row.metric), "1", ratio));
    }
    rows.push(row);
}

fn lockstep() -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (case, time) in
        [("plain/v4", 2190.0), ("plain/v6", 2230.0), ("vxlan/v4", 2320.0), ("policy-1k/v4", 2210.0)]
    {
        with_peers(around("lockstep", case, "packet", "ns", time), &mut rows, true, 1.0);
    }
    rows.push(
        around("lockstep", "vxlan/v6", "packet", "ns", 9000.0)
            .void_because(Some("the hypervisor took 31 % of the time".to_owned())),
    );
    rows
}

fn throughput() -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (case, rate) in [("plain/v4", 0.93), ("vxlan/v4", 0.81)] {
        with_peers(around("throughput", case, "ndr", "Mpps", rate), &mut rows, false, 1.6);
        with_peers(around("throughput", case, "pdr", "Mpps", rate * 1.2), &mut rows, false, 1.8);
    }
    rows
}

fn latency() -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (load, factor) in [(10, 1.0), (50, 1.6), (90, 6.0)] {
        for (noise, tail) in [("quiet", 1.0), ("busy", 5.0)] {
            for (metric, us) in [
                ("p50", 7.9),
                ("p90", 9.1),
                ("p99", 14.0),
                ("p99.9", 38.0),
                ("p99.99", 140.0),
                ("max", 610.0),
            ] {
                let us = us * factor * if metric == "p50" { 1.0 } else { tail };
                rows.push(
                    around("latency", &format!("load-{load}/{noise}/plain/v4"), metric, "us", us)
                        .beside("kernel", us * 1.4)
                        .beside("bare AF_XDP", us * 0.95)
                        .beside("testpmd", us * 1.25),
                );
            }
        }
    }
    rows
}

fn calls() -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (calls, jitter, loss) in [
        (10, 0.02, 0.0),
        (100, 0.03, 0.0),
        (300, 0.05, 0.0),
        (1000, 0.11, 0.0),
        (2000, 0.4, 0.0008),
        (4000, 2.2, 0.06),
    ] {
        let case = format!("relay/calls-{calls}");
        rows.push(
            around("calls", &case, "mos", "1", 4.38 - loss * 40.0).beside("kernel", 4.38 - loss * 44.0),
        );
        rows.push(around("calls", &case, "jitter", "ms", jitter).beside("kernel", jitter * 1.7));
        rows.push(around("calls", &case, "loss", "1", loss).beside("kernel", loss * 1.2));
        rows.push(around("calls", &case, "delay", "ms", 0.1 + jitter).beside("kernel", 0.13 + jitter));
    }
    rows.push(around("calls", "relay", "calls", "calls", 1650.0).beside("kernel", 1400.0));
    rows
}

fn engine() -> Vec<Measurement> {
    let mut rows = Vec::new();
    let stages = [
        ("begin", 1.0),
        ("receive", 19.0),
        ("source", 2.0),
        ("parse", 24.0),
        ("lookup", 41.0),
        ("state", 11.0),
        ("nat", 14.0),
        ("policy", 6.0),
        ("encap", 17.0),
        ("transmit", 21.0),
        ("flush", 1.5),
    ];
    for (way, extra) in [("local", 0.8), ("vxlan", 1.0), ("from-vxlan", 1.1)] {
        for family in ["v4", "v6"] {
            for (flows, growth) in [("1", 0.9), ("10k", 1.0), ("1M", 1.5), ("10M", 1.72)] {
                let case = format!("known-flow/{family}/{way}/flows-{flows}/rules-1k");
                let mut total = 0.0;
                for (stage, cycles) in stages {
                    let cycles = cycles * extra * if stage == "lookup" { growth * growth } else { 1.0 };
                    total += cycles;
                    rows.push(around("engine", &case, &format!("stage/{stage}"), "cycles", cycles));
                }
                rows.push(around("engine", &case, "packet", "cycles", total));
                rows.push(around("engine", &case, "packet", "ns", total / 2.6));
                rows.push(around("engine", &case, "rate", "Mpps", 2600.0 / total));
            }
        }
    }
    let base = "known-flow/v4/vxlan/flows-10k";
    for (rest, cycles) in [
        ("rules-0", 150.0),
        ("rules-100", 152.0),
        ("rules-10k", 158.0),
        ("rules-100k", 161.0),
        ("rules-1k/routes-1M", 232.0),
        ("rules-1k/batch-1", 410.0),
        ("rules-1k/batch-8", 190.0),
        ("rules-1k/batch-64", 149.0),
    ] {
        rows.push(around("engine", &format!("{base}/{rest}"), "packet", "cycles", cycles));
    }
    rows.push(around("engine", "new-flow/v4/vxlan/rules-1k", "rate", "M/s", 2.9));
    rows
}

fn policy() -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (rules, growth) in [("100", 1.0), ("1k", 1.02), ("10k", 1.3), ("100k", 1.9)] {
        let table = format!("policies/v4/rules-{rules}");
        rows.push(around("policy", &table, "policy-tables", "bytes", 3e4 * growth * growth));
        rows.push(around("policy", &table, "compile", "ms", 2.0 * growth));
        for (spread, share) in [("of-64", 0.05), ("of-all", 1.0)] {
            let (case, growth) = (format!("{table}/{spread}"), 1.0 + (growth - 1.0) * share);
            rows.push(around("policy", &case, "miss", "cycles", 900.0 * growth));
            if rules != "100" {
                rows.push(around("policy", &case, "miss-growth", "1", growth));
            }
        }
    }
    let label = "label/pods-10k/policies-1k/remote";
    for (metric, ms) in [("agent", 7.0), ("part/calculate", 6.0), ("engine", 5.0), ("label", 12.0)] {
        rows.push(around("policy", label, metric, "ms", ms));
    }
    rows
}

fn others() -> Vec<Measurement> {
    let mut rows = vec![
        around("bulk", "node/streams-1", "goodput", "Gbit/s", 9.4).beside("kernel", 24.0),
        around("bulk", "vxlan/streams-1", "goodput", "Gbit/s", 6.2).beside("kernel VXLAN", 8.1),
        around("game", "tick-64/players-1000", "burst-loss", "1", 0.0),
        around("game", "tick-64/players-10000", "burst-loss", "1", 0.002),
        around("game", "tick-128/players-1000", "burst-loss", "1", 0.0),
        around("game", "tick-64/players-1000", "tick-jitter", "us", 12.0),
        around("game", "tick-64/players-10000", "tick-jitter", "us", 96.0),
        around("churn", "policy-100k", "lost", "packets", 0.0),
        around("churn", "policy-100k", "in-force", "ms", 340.0),
        around("churn", "routes-1M", "in-force", "ms", 1210.0),
        around("churn", "policy-100k", "worst-delay", "us", 480.0),
    ];
    for (pods, rate) in [(1, 0.92), (10, 0.91), (50, 0.89), (100, 0.86), (250, 0.79)] {
        rows.push(around("pods", &format!("poll-busy/pods-{pods}"), "rate", "Mpps", rate));
        rows.push(around("pods", &format!("poll-adaptive/pods-{pods}"), "rate", "Mpps", rate * 0.97));
        rows.push(around(
            "pods",
            &format!("poll-adaptive/pods-{pods}"),
            "idle-cost",
            "%",
            0.2 + f64::from(pods) * 0.01,
        ));
        rows.push(around("pods", &format!("poll-busy/pods-{pods}"), "idle-cost", "%", 100.0));
    }
    rows
}
