//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use vswitch_model::api::{AGENT_SOCKET, ENGINE_SOCKET};

use super::labels::Selector;
use super::protocol::{Protocol, Service};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 an error; 2 a command line that makes no sense.
`status`: 1 also when the agent, its store or the engine is away, or the engine is not in step.
`explain`: 0 the flow is allowed; 3 it is denied.
`diff`: 0 no flow would get another verdict; 1 some would; 2 an error.
`version`: 1 also when the agent or the engine is away.";

/// Shows, changes and explains the vSwitch of a node.
#[derive(Debug, Parser)]
#[command(name = "vsctl", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Socket of vswitch-agent.
    #[arg(long, global = true, env = "VSWITCH_AGENT_SOCKET", default_value = AGENT_SOCKET, value_name = "PATH")]
    pub agent_socket: PathBuf,
    /// Socket of vswitchd.
    #[arg(long, global = true, env = "VSWITCH_ENGINE_SOCKET", default_value = ENGINE_SOCKET, value_name = "PATH")]
    pub engine_socket: PathBuf,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON value; `trace` and `flow-log` print one a line.
    Json,
    /// The same as YAML; `trace` and `flow-log` print one document after the other.
    Yaml,
    /// The same as table, which always has all columns.
    Wide,
    /// Objects of `get`, `apply` and `delete` as KIND/NAME, one a line.
    Name,
}

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DryRun {
    /// It is.
    None,
    /// Nothing is: the agent checks, and says what would be.
    Server,
    /// The same: nothing can be checked without the agent.
    Client,
}

impl DryRun {
    pub(super) const fn is_dry(self) -> bool {
        !matches!(self, Self::None)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write objects from files: all are checked before any is written.
    Apply(Apply),
    /// List objects, what the engine has (flows, counters, drops, policies, ports, routes, tunnels), the
    /// domains DNS told of, or the settings.
    Get(Get),
    /// One object, and what the agent knows beside it.
    Describe(Describe),
    /// Delete objects, by name or by the files they came from.
    Delete(Delete),
    /// How the agent and the engine are.
    Status,
    /// The versions of vsctl, agent and engine.
    Version {
        /// That of vsctl alone.
        #[arg(long)]
        client: bool,
    },
    /// Why would the first packet of a flow pass, or not.
    Explain(Explain),
    /// Which flows that exist now would get another verdict if files were applied. Writes nothing.
    Diff(Diff),
    /// What the engine does with packets, as they pass.
    Trace(Trace),
    /// New flows that are denied or that a rule logs, as they begin, at a bounded rate.
    FlowLog(FlowLog),
    /// A completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// A file, a folder (its .yaml, .yml and .json), or - for standard input.
    #[arg(short, long = "filename", required = true, value_name = "PATH")]
    pub(super) filename: Vec<String>,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// Check only, write nothing.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "server")]
    pub(super) dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    /// A kind such as networkpolicy, ippool, pod, node, namespace, endpoint, block; or flows, counters, drops,
    /// policies (what their rules did), ports, routes, tunnels; or domains (names of policies, and what DNS told of them),
    /// settings (what the agent and the engine were configured with).
    #[arg(value_name = "KIND|KIND/NAME")]
    pub(super) kind: String,
    /// Objects; for counters and ports, one port; for policies, one by its whole name: "NetworkPolicy media/relay".
    #[arg(value_name = "NAME|KIND/NAME")]
    pub(super) names: Vec<String>,
    /// Only objects with labels like these: app=relay,tier!=test,env in (a, b),!old.
    #[arg(short = 'l', long)]
    pub(super) selector: Option<Selector>,
    /// Not supported: it is there to say so.
    #[arg(short, long, hide = true)]
    pub(super) watch: bool,
    /// Namespace to look in [default: default].
    #[arg(short, long, conflicts_with = "all_namespaces")]
    pub(super) namespace: Option<String>,
    /// Look in all namespaces.
    #[arg(short = 'A', long, conflicts_with = "names")]
    pub(super) all_namespaces: bool,
    /// Flows with this address at either end; of routes the one that leads there.
    #[arg(long)]
    pub(super) address: Option<IpAddr>,
    /// At most so many flows or routes [default: 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct Describe {
    /// Kind of the object, or the object as KIND/NAME.
    #[arg(value_name = "KIND|KIND/NAME")]
    pub(super) kind: String,
    /// Its name.
    pub(super) name: Option<String>,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Kind of the objects, or objects as KIND/NAME.
    #[arg(required_unless_present = "filename", value_name = "KIND|KIND/NAME")]
    pub(super) kind: Option<String>,
    /// Their names.
    #[arg(value_name = "NAME|KIND/NAME")]
    pub(super) names: Vec<String>,
    /// Namespace of the objects, or of objects in files that name none.
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// Delete what these name: a file, a folder, or - for standard input.
    #[arg(short, long = "filename", value_name = "PATH", conflicts_with_all = ["kind", "names"])]
    pub(super) filename: Vec<String>,
    /// Also pools whose addresses are in use, namespaces with pods, tiers with policies, and pods that are attached.
    #[arg(long)]
    pub(super) force: bool,
    /// Check only, delete nothing.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "server")]
    pub(super) dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Where the flow begins: namespace/pod, pod, node/name, or an address.
    pub(super) from: String,
    /// Where it goes.
    pub(super) to: String,
    /// Destination port and protocol: 5060/udp, 443/tcp, 80 (TCP), icmp or echo-request/icmp, 3.1/icmp (type 3, code 1).
    #[arg(value_name = "PORT/PROTO")]
    pub(super) service: Service,
    /// Ask these in place of the agent, which need not be there: a file, a folder, or - for standard input. Pods in them
    /// that have no address are given one.
    #[arg(short, long = "filename", value_name = "PATH")]
    pub(super) filename: Vec<String>,
    /// Namespace of FROM and TO that name none, and of objects in files that name none.
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// Family, when both ends have both.
    #[arg(long, value_name = "4|6", value_parser = clap::value_parser!(u32).range(4..=6))]
    pub(super) family: Option<u32>,
    /// Source port. Without it: one that no rule names; when a rule depends on it, that is said.
    #[arg(long, value_name = "PORT")]
    pub(super) source_port: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// A file, a folder (its .yaml, .yml and .json), or - for standard input.
    #[arg(short, long = "filename", required = true, value_name = "PATH")]
    pub(super) filename: Vec<String>,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// As if what they name were deleted instead.
    #[arg(long)]
    pub(super) delete: bool,
    /// At most so many flows.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
}

#[derive(Debug, Args)]
pub(super) struct Trace {
    /// Packets from this address.
    #[arg(long)]
    pub(super) source: Option<IpAddr>,
    /// Packets to this address.
    #[arg(long)]
    pub(super) destination: Option<IpAddr>,
    /// Packets from or to this address.
    #[arg(long)]
    pub(super) address: Option<IpAddr>,
    /// tcp, udp, sctp, icmp, icmpv6 or a number.
    #[arg(long)]
    pub(super) protocol: Option<Protocol>,
    /// Packets from or to this transport port.
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// Packets that come in by this port of the switch.
    #[arg(long)]
    pub(super) in_port: Option<String>,
    /// Only packets that are dropped.
    #[arg(long)]
    pub(super) drops: bool,
    /// Stop after so many packets.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
    /// Stop after so many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    pub(super) seconds: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct FlowLog {
    /// Flows with this address at either end.
    #[arg(long)]
    pub(super) address: Option<IpAddr>,
    /// Only flows that are denied.
    #[arg(long)]
    pub(super) denied: bool,
    /// Stop after so many flows.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_whole() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let parses = |line: &str| Cli::try_parse_from(line.split_whitespace()).is_ok();
        for line in [
            "vsctl get netpol -A",
            "vsctl get netpol relay -n media -o json",
            "vsctl get pods a b -l app=relay",
            "vsctl get pod/a netpol/b -o name",
            "vsctl get pods -o wide",
            "vsctl describe pod/a",
            "vsctl delete netpol relay",
            "vsctl delete netpol relay other --dry-run",
            "vsctl delete netpol/relay --dry-run=server",
            "vsctl apply -f a.yaml --dry-run=client",
            "vsctl version --client",
            "vsctl delete -f a.yaml -f -",
            "vsctl explain media/relay 10.0.0.1 5060/udp --family 4",
            "vsctl diff -f a.yaml --delete --limit 10",
            "vsctl explain -f cluster -f policies.yaml a b icmp",
            "vsctl explain caller media/relay 5060/udp -n media",
            "vsctl trace --drops --protocol udp --for 5",
            "vsctl flow-log --denied --address 10.0.0.1 --limit 5",
            "vsctl completions bash",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in [
            "vsctl",
            "vsctl get",
            "vsctl get netpol relay -A",
            "vsctl get netpol -A -n media",
            "vsctl delete",
            "vsctl delete netpol relay -f a.yaml",
            "vsctl get pods -l a=b=c",
            "vsctl apply -f a.yaml --dry-run=maybe",
            "vsctl describe pod a b",
            "vsctl apply",
            "vsctl explain a b",
            "vsctl diff a.yaml",
            "vsctl explain a b 70000/udp",
            "vsctl trace --limit 0",
            "vsctl flow-log --limit 0",
            "vsctl status -o xml",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
