//! `vsctl`: the command line of the vSwitch. Objects and explanations come from the agent; flows, counters and traces
//! from the engine.
//!
//! With `--output json` or `yaml` each verb prints one value:
//!
//! | verb | value |
//! |---|---|
//! | `apply`, `delete` | list of `{kind, namespace, name, outcome, note}` |
//! | `get KIND`, of several names, too | `{kind: "List", apiVersion: "v1", items: [object, ...]}` |
//! | `get KIND NAME`, `get KIND/NAME` | the object |
//! | `get flows` | list of `{source, destination, protocol, sourcePort, destinationPort, state, packets, ...}` |
//! | `get counters` | `{ports: [...], drops: {reason: packets}, flows: {...}, frames: {...}, stages: {stage: packets}}` |
//! | `get drops` | `{total, reasons: {reason: packets}, ports: {port: {reason: packets}}}` |
//! | `get policies` | list of `{rule, policy, position, action, standing, flows, packets, bytes, deniedPackets, ...}` |
//! | `get domains` | `{names: [{name, address, ttlLeftMs, server, policies}, ...], unknown: [{pattern, policies}, ...]}` |
//! | `get ports`, `get tunnels` | list of what the engine has |
//! | `describe` | `{object, facts: {name: [value, ...]}}` |
//! | `status` | `{agent: {...}, engine: {...}}`, each `{error}` when it does not answer |
//! | `version` | `{vsctl, agent, engine}` |
//! | `explain` | `{allowed, from, to, service, sourcePort, egress, ingress, walk, walkError}` |
//! | `flow-log` | one `{source, destination, allowed, egress, ingress, loggedBy, stagedEgress, ...}` a flow |
//! | `diff` | `{flows, changes: [{from, to, service, flows, allowedNow, allowedThen, reason}, ...]}` |
//! | `explain -f` | `{allowed, from, to, service, sourcePort, egress, ingress, tables, notes}` |
//! | `trace` | one `{timeNs, worker, inPort, packet, length, head, steps, outPort, dropReason, lost}` a packet |

mod cli;
mod columns;
mod decode;
mod diff;
mod domains;
mod engine;
mod explain;
mod files;
mod flow_log;
mod labels;
mod names;
mod objects;
mod offline;
mod output;
mod policies;
mod protocol;
mod routes;
mod settings;
mod status;
mod targets;
mod trace;
mod version;

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use tonic::transport::Channel;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::{MESSAGE_SIZE_MAX, connect};

pub use cli::{Cli, Format};
use cli::{Get, Verb};
use output::print;

use crate::object::Kind;

/// Exit code of `explain` for a flow that is denied.
pub const EXIT_DENIED: u8 = 3;
/// Exit code of a command line that makes no sense, as clap has it.
const EXIT_USAGE: u8 = 2;
/// Exit codes of `diff`, as kubectl has them.
const EXIT_DIFFERS: u8 = 1;
const EXIT_DIFF_FAILED: u8 = 2;

/// Why a verb failed, in words for whoever typed it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

impl From<vswitch_model::api::Unreachable> for Failure {
    fn from(unreachable: vswitch_model::api::Unreachable) -> Self {
        Self(unreachable.to_string())
    }
}

impl From<tonic::Status> for Failure {
    /// The servers word their errors for people: the field, what it held, what would be right.
    fn from(status: tonic::Status) -> Self {
        match status.message() {
            "" => Self(status.code().description().to_owned()),
            message => Self(message.to_owned()),
        }
    }
}

/// Runs one command. Results go to standard output, errors to standard error.
#[must_use]
pub fn run(cli: &Cli) -> ExitCode {
    if let Verb::Completions { shell } = &cli.verb {
        clap_complete::generate(*shell, &mut Cli::command(), "vsctl", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    output::fit_terminal();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(error.to_string()))
        .and_then(|runtime| runtime.block_on(dispatch(cli)));
    done.unwrap_or_else(|failure| {
        eprintln!("vsctl: {failure}");
        if matches!(cli.verb, Verb::Diff(_)) { ExitCode::from(EXIT_DIFF_FAILED) } else { ExitCode::FAILURE }
    })
}

/// Why a command line makes no sense, where clap does not see it.
fn senseless(cli: &Cli) -> Option<String> {
    let has_names = match &cli.verb {
        Verb::Apply(_) | Verb::Delete(_) => true,
        Verb::Get(get) => {
            let kind = &get.kind;
            !domains::is_noun(kind) && !settings::is_noun(kind) && engine::Noun::parse(kind).is_none()
        }
        _ => false,
    };
    if cli.output == Format::Name && !has_names {
        return Some("--output name is for objects, of get, apply and delete".to_owned());
    }
    let Verb::Get(get) = &cli.verb else { return None };
    if get.watch {
        return Some(
            "--watch is not supported; `watch vsctl get ...` shows it again and again, and `vsctl flow-log` and \
             `vsctl trace` what happens as it does"
                .to_owned(),
        );
    }
    if domains::is_noun(&get.kind) {
        return domains::problem(get).map(str::to_owned);
    }
    if settings::is_noun(&get.kind) {
        return settings::problem(get).map(str::to_owned);
    }
    match engine::Noun::parse(&get.kind) {
        Some(noun) => engine_get_problem(get, noun),
        None if get.address.is_some() || get.limit.is_some() => {
            Some("--address and --limit are for flows and routes".to_owned())
        }
        None => None,
    }
}

async fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    if let Some(problem) = senseless(cli) {
        eprintln!("vsctl: {problem}");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let report = match &cli.verb {
        Verb::Apply(apply) => objects::apply(&mut agent(&cli.agent_socket).await?, apply).await?,
        Verb::Describe(describe) => objects::describe(&mut agent(&cli.agent_socket).await?, describe).await?,
        Verb::Diff(diff) => {
            let mut engine = engine_client(&cli.engine_socket).await?;
            let mut agent = agent(&cli.agent_socket).await?;
            let (report, differs) = diff::diff(&mut agent, &mut engine, diff).await?;
            print(&report, cli.output)?;
            return Ok(if differs { ExitCode::from(EXIT_DIFFERS) } else { ExitCode::SUCCESS });
        }
        Verb::Delete(delete) => objects::delete(&mut agent(&cli.agent_socket).await?, delete).await?,
        Verb::Get(get) if domains::is_noun(&get.kind) => {
            let name = get.names.first().map(String::as_str);
            domains::get(&mut agent(&cli.agent_socket).await?, name).await?
        }
        Verb::Get(get) if settings::is_noun(&get.kind) => {
            let (report, is_whole) = settings::settings(&cli.agent_socket, &cli.engine_socket).await;
            print(&report, cli.output)?;
            return Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Verb::Get(get) => match engine::Noun::parse(&get.kind) {
            Some(noun) => engine::get(&mut engine_client(&cli.engine_socket).await?, noun, get).await?,
            None => objects::get(&mut agent(&cli.agent_socket).await?, get).await?,
        },
        Verb::Version { client } => {
            let (report, is_whole) = version::version(&cli.agent_socket, &cli.engine_socket, *client).await;
            print(&report, cli.output)?;
            return Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Verb::Status => {
            let (report, healthy) = status::status(&cli.agent_socket, &cli.engine_socket).await;
            print(&report, cli.output)?;
            return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Verb::Explain(explain) => {
            let (report, allowed) = if explain.filename.is_empty() {
                explain::explain(&mut agent(&cli.agent_socket).await?, explain).await?
            } else {
                offline::explain(explain)?
            };
            print(&report, cli.output)?;
            return Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DENIED) });
        }
        Verb::Trace(trace) => {
            trace::trace(&mut engine_client(&cli.engine_socket).await?, trace, cli.output).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Verb::FlowLog(asked) => {
            let mut engine = engine_client(&cli.engine_socket).await?;
            // Without an agent the log has no names of pods of other nodes, and is a log all the same.
            let agent = agent(&cli.agent_socket).await.ok();
            flow_log::flow_log(&mut engine, agent, asked, cli.output).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Completions { .. } => return Ok(ExitCode::SUCCESS),
    };
    print(&report, cli.output)?;
    Ok(ExitCode::SUCCESS)
}

/// An error that names the agent's kinds and the engine's.
fn known_kind(kind: &str) -> Result<(), Failure> {
    let engines = engine::Noun::ALL.map(engine::Noun::name).join(", ");
    let unknown = |invalid| {
        Failure(format!(
            "{invalid}; of the engine: {engines}; and domains, settings. What Calico has in FelixConfiguration is in agent.toml and \
             vswitchd.toml"
        ))
    };
    kind.parse::<Kind>().map(drop).map_err(|invalid: vswitch_model::Invalid| unknown(invalid.to_string()))
}

/// Why this `get` makes no sense for something of the engine's.
fn engine_get_problem(get: &Get, noun: engine::Noun) -> Option<String> {
    let noun_name = noun.name();
    if get.namespace.is_some() || get.all_namespaces {
        return Some(format!("{noun_name} have no namespace: leave out --namespace and --all-namespaces"));
    }
    if !noun.has_addresses() && (get.address.is_some() || get.limit.is_some()) {
        return Some("--address and --limit are for flows and routes".to_owned());
    }
    if get.selector.is_some() {
        return Some(format!("{noun_name} have no labels: --selector is for objects"));
    }
    match get.names.as_slice() {
        [] => None,
        _ if !noun.has_names() => Some(format!("{noun_name} have no names to choose by")),
        [_] => None,
        _ => Some(format!("{noun_name}: one name, or none for all")),
    }
}

async fn agent(socket: &Path) -> Result<AgentClient<Channel>, Failure> {
    let client = AgentClient::new(connect("vswitch-agent", socket).await?);
    Ok(client.max_decoding_message_size(MESSAGE_SIZE_MAX).max_encoding_message_size(MESSAGE_SIZE_MAX))
}

async fn engine_client(socket: &Path) -> Result<EngineClient<Channel>, Failure> {
    let client = EngineClient::new(connect("vswitchd", socket).await?);
    Ok(client.max_decoding_message_size(MESSAGE_SIZE_MAX))
}
