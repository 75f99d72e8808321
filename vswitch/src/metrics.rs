//! Prometheus metrics over HTTP: `GET /metrics`, in the OpenMetrics text format.
//!
//! All names start with `vswitch_`. Nothing is counted here: a scrape reads what the workers count anyway.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vswitch_datapath::Stage;
use vswitch_model::DropReason;

use crate::api::{PortNumbers, port_numbers};
use crate::engine::Shared;

/// Longest request that is read, in bytes.
const REQUEST_MAX: usize = 8192;
/// How long a client may take to ask and to listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens for scrapers.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("metrics: cannot listen at {address}: {error}"))
}

/// Answers scrapers, for ever.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A client that is slow or breaks off is its own problem.
                    tokio::time::timeout(PATIENCE, answer(stream, shared)).await.ok();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a scraper could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics")) => {
            let text =
                tokio::task::spawn_blocking(move || text(shared)).await.map_err(std::io::Error::other)?;
            ("200 OK", text)
        }
        (Some(b"GET"), _) => ("404 Not Found", "there is only /metrics here\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET is answered\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// All metrics of now.
#[must_use]
pub fn text(shared: Arc<Shared>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { shared }));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        // Writing to a string does not fail; an encoder that says so has a bug.
        Err(error) => format!("# {error}\n# EOF\n"),
    }
}

struct Scrape {
    shared: Arc<Shared>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

/// One family of metrics: its samples, each with its labels.
fn family<M: EncodeMetric, L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    samples: impl IntoIterator<Item = (L, M)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, sample) in samples {
        sample.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, u64)>,
) -> fmt::Result {
    let samples = samples.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
    family(encoder, (name, help, MetricType::Counter), samples)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, i64)>,
) -> fmt::Result {
    let samples = samples.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
    family(encoder, (name, help, MetricType::Gauge), samples)
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ports = port_numbers(&self.shared);
        encode_ports(&mut encoder, &ports)?;
        self.encode_workers(&mut encoder)?;
        self.encode_engine(&mut encoder)
    }
}

fn labels(port: &PortNumbers) -> Vec<(&'static str, String)> {
    vec![("port", port.name.to_string()), ("role", port.role.to_owned()), ("workload", port.workload.clone())]
}

fn encode_ports(encoder: &mut DescriptorEncoder<'_>, ports: &[PortNumbers]) -> fmt::Result {
    type Number = (&'static str, &'static str, fn(&PortNumbers) -> u64);
    let numbers: [Number; 12] = [
        ("vswitch_port_receive_packets", "Packets received.", |port| port.counts.rx.0),
        ("vswitch_port_receive_bytes", "Bytes received.", |port| port.counts.rx.1),
        ("vswitch_port_transmit_packets", "Packets sent.", |port| port.counts.sent()),
        ("vswitch_port_transmit_bytes", "Bytes sent.", |port| port.counts.tx.1),
        ("vswitch_port_receive_ring_full", "Packets lost because the worker was too slow.", |port| {
            port.statistics.map_or(0, |statistics| statistics.receive_ring_full)
        }),
        ("vswitch_port_fill_ring_empty", "Packets lost for want of a frame to receive into.", |port| {
            port.statistics.map_or(0, |statistics| statistics.fill_ring_empty)
        }),
        ("vswitch_port_receive_dropped", "Packets the kernel dropped before the engine saw them.", |port| {
            port.statistics.map_or(0, |statistics| statistics.receive_dropped)
        }),
        ("vswitch_port_kicks", "System calls to send or to wake.", |port| {
            port.statistics.map_or(0, |statistics| statistics.kicks)
        }),
        ("vswitch_port_kicks_repeated", "Of these, repeated because the kernel was busy.", |port| {
            port.statistics.map_or(0, |statistics| statistics.kicks_repeated)
        }),
        ("vswitch_port_frames_exhausted", "Times the pool had no frame for the port.", |port| {
            port.statistics.map_or(0, |statistics| statistics.frames_exhausted)
        }),
        ("vswitch_port_transmit_refused", "Packets the kernel refused after it had taken them.", |port| {
            port.statistics.map_or(0, |statistics| statistics.transmit_refused)
        }),
        (
            "vswitch_port_invalid_descriptors",
            "Descriptors refused as invalid: a bug if there are any.",
            |port| port.statistics.map_or(0, |statistics| statistics.invalid_descriptors),
        ),
    ];
    for (name, help, number) in numbers {
        counter(encoder, name, help, ports.iter().map(|port| (labels(port), number(port))))?;
    }
    let drops = ports.iter().flat_map(|port| {
        DropReason::ALL.iter().zip(&port.counts.drops).filter(|(_, packets)| **packets > 0).map(
            |(reason, packets)| {
                let mut labels = labels(port);
                labels.push(("reason", reason.key().to_owned()));
                (labels, *packets)
            },
        )
    });
    counter(encoder, "vswitch_port_drops", "Packets that ended, by reason.", drops)
}

impl Scrape {
    fn encode_workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Number = (&'static str, &'static str, fn(&crate::worker::Handle) -> u64);
        let numbers: [Number; 7] = [
            ("vswitch_worker_turns", "Turns of the worker's loop.", |worker| worker.status.turns.get()),
            ("vswitch_worker_turns_idle", "Turns in which no packet came.", |worker| {
                worker.status.turns_idle.get()
            }),
            ("vswitch_worker_sleeps", "Times the worker slept for want of packets.", |worker| {
                worker.status.sleeps.get()
            }),
            ("vswitch_flows_created", "Flows created.", |worker| worker.counters.flows_created.get()),
            ("vswitch_flows_expired", "Flows that ended by their timeout.", |worker| {
                worker.counters.flows_expired.get()
            }),
            ("vswitch_flows_revoked", "Flows that newer tables deny.", |worker| {
                worker.counters.flows_revoked.get()
            }),
            (
                "vswitch_flows_evicted",
                "Flows never answered, or revoked, that made room for newer ones.",
                |worker| worker.counters.flows_evicted.get(),
            ),
        ];
        let workers = &self.shared.workers;
        let label = |worker: &crate::worker::Handle| vec![("worker", worker.config.number.to_string())];
        for (name, help, number) in numbers {
            counter(encoder, name, help, workers.iter().map(|worker| (label(worker), number(worker))))?;
        }
        let flows = workers.iter().map(|worker| (label(worker), worker.status.flows() as i64));
        gauge(encoder, "vswitch_flows", "Flows followed now.", flows)?;
        let capacity = workers.iter().map(|worker| (label(worker), worker.config.walk.flows as i64));
        gauge(encoder, "vswitch_flows_capacity", "Flows that can be followed at once.", capacity)?;
        let answers = workers.iter().flat_map(|worker| {
            let dns = &worker.counters.dns;
            let outcomes = [
                ("told", &dns.told),
                ("lost", &dns.lost),
                ("too-long", &dns.too_long),
                ("unreleased", &dns.unreleased),
            ];
            outcomes.map(|(outcome, count)| {
                let mut labels = label(worker);
                labels.push(("outcome", outcome.to_owned()));
                (labels, count.get())
            })
        });
        let help = "Answers of DNS to watched pods; those unreleased were told as well, and held in vain.";
        counter(encoder, "vswitch_dns_answers", help, answers)?;
        let stages = Stage::ALL.iter().map(|stage| {
            let packets = workers.iter().map(|worker| worker.counters.stage(*stage)).sum();
            (vec![("stage", stage.key().to_owned())], packets)
        });
        counter(encoder, "vswitch_stage_packets", "Packets a stage has handled.", stages)
    }

    fn encode_engine(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let shared = &self.shared;
        let snapshot = shared.snapshot.load();
        let frames = shared.umem.account(shared.frames_held());
        let places = [
            ("free", frames.free),
            ("receiving", frames.fill),
            ("transmitting", frames.transmit),
            ("worker", frames.held),
            ("unaccounted", frames.leaked),
        ];
        let places = places.map(|(place, count)| (vec![("place", place.to_owned())], count as i64));
        gauge(encoder, "vswitch_frames", "Frames by where they are.", places)?;
        let paths = snapshot.facts.paths.iter();
        let paths = paths.map(|(remote, path)| (vec![("remote", remote.to_string())], i64::from(path.mtu)));
        gauge(encoder, "vswitch_path_mtu_bytes", "What routers said that paths to nodes take.", paths)?;
        let hindered = snapshot.hindered_uplinks();
        let hindered =
            hindered.map(|(name, why)| (vec![("port", name.to_string()), ("why", why.to_owned())], 1));
        gauge(encoder, "vswitch_uplink_hindered", "1: an open uplink that can carry nothing.", hindered)?;
        let gauges = [
            ("vswitch_generation_desired", "What control wants.", snapshot.generation.0 as i64),
            (
                "vswitch_generation_in_force",
                "What every worker runs.",
                shared.generation_in_force(&snapshot).0 as i64,
            ),
            (
                "vswitch_ports_failed",
                "Ports that should be open and are not.",
                snapshot.ports.failed.len() as i64,
            ),
            (
                "vswitch_state_unsaved",
                "1: the state could not be saved.",
                snapshot.save_error.is_some().into(),
            ),
            (
                "vswitch_state_restored",
                "1: restored from disk, not confirmed since.",
                snapshot.restored.into(),
            ),
            ("vswitch_tables_bytes", "Memory of routes and policy.", snapshot.tables.memory_bytes() as i64),
        ];
        for (name, help, value) in gauges {
            ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}
