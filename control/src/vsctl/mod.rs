//! `vsctl`: the command line of the vSwitch. Objects and explanations come from the agent; flows, counters and traces
//! from the engine.
//!
//! With `--output json` or `yaml` each verb prints one value:
//!
//! | verb | value |
//! |---|---|
//! | `apply`, `delete` | list of `{kind, namespace, name, outcome, note}` |
//! | `get KIND` | `{kind: "List", apiVersion: "v1", items: [object, ...]}` |
//! | `get KIND NAME` | the object |
//! | `get flows` | list of `{source, destination, protocol, sourcePort, destinationPort, state, packets, ...}` |
//! | `get counters` | `{ports: [...], drops: {reason: packets}, flows: {...}, frames: {...}, stages: {stage: packets}}` |
//! | `get drops` | `{total, reasons: {reason: packets}, ports: {port: {reason: packets}}}` |
//! | `get policies` | list of `{rule, policy, position, action, standing, flows, packets, bytes, deniedPackets, ...}` |
//! | `get domains` | `{names: [{name, address, ttlLeftMs, server, policies}, ...], unknown: [{pattern, policies}, ...]}` |
//! | `get ports`, `get tunnels` | list of what the engine has |
//! | `describe` | `{object, facts: {name: [value, ...]}}` |
//! | `status` | `{agent: {...}, engine: {...}}`, each `{error}` when it does not answer |
//! | `explain` | `{allowed, from, to, service, egress, ingress, walk, walkError}` |
//! | `flow-log` | one `{source, destination, allowed, egress, ingress, loggedBy, stagedEgress, ...}` a flow |
//! | `diff` | `{flows, changes: [{from, to, service, flows, allowedNow, allowedThen, reason}, ...]}` |
//! | `explain -f` | `{allowed, from, to, service, egress, ingress, tables, notes}` |
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
mod names;
mod objects;
mod offline;
mod output;
mod policies;
mod protocol;
mod status;
mod trace;

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
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(error.to_string()))
        .and_then(|runtime| runtime.block_on(dispatch(cli)));
    done.unwrap_or_else(|failure| {
        eprintln!("vsctl: {failure}");
        ExitCode::FAILURE
    })
}

async fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    let report = match &cli.verb {
        Verb::Apply(apply) => objects::apply(&mut agent(&cli.agent_socket).await?, apply).await?,
        Verb::Describe(describe) => objects::describe(&mut agent(&cli.agent_socket).await?, describe).await?,
        Verb::Diff(diff) => {
            let mut engine = engine_client(&cli.engine_socket).await?;
            diff::diff(&mut agent(&cli.agent_socket).await?, &mut engine, diff).await?
        }
        Verb::Delete(delete) => objects::delete(&mut agent(&cli.agent_socket).await?, delete).await?,
        Verb::Get(get) if domains::is_noun(&get.kind) => {
            if let Some(problem) = domains::problem(get) {
                eprintln!("vsctl: {problem}");
                return Ok(ExitCode::from(EXIT_USAGE));
            }
            domains::get(&mut agent(&cli.agent_socket).await?, get.name.as_deref()).await?
        }
        Verb::Get(get) => match engine::Noun::parse(&get.kind) {
            Some(noun) => {
                if let Some(problem) = engine_get_problem(get, noun) {
                    eprintln!("vsctl: {problem}");
                    return Ok(ExitCode::from(EXIT_USAGE));
                }
                engine::get(&mut engine_client(&cli.engine_socket).await?, noun, get).await?
            }
            None if get.address.is_some() || get.limit.is_some() => {
                eprintln!("vsctl: --address and --limit are for flows");
                return Ok(ExitCode::from(EXIT_USAGE));
            }
            None => {
                known_kind(&get.kind)?;
                objects::get(&mut agent(&cli.agent_socket).await?, get).await?
            }
        },
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
    let unknown = |invalid| Failure(format!("{invalid}, and of the engine: {engines}"));
    kind.parse::<Kind>().map(drop).map_err(|invalid: vswitch_model::Invalid| unknown(invalid.to_string()))
}

/// Why this `get` makes no sense for something of the engine's.
fn engine_get_problem(get: &Get, noun: engine::Noun) -> Option<String> {
    let noun_name = noun.name();
    if get.namespace.is_some() || get.all_namespaces {
        return Some(format!("{noun_name} have no namespace: leave out --namespace and --all-namespaces"));
    }
    if noun != engine::Noun::Flows && (get.address.is_some() || get.limit.is_some()) {
        return Some("--address and --limit are for flows".to_owned());
    }
    if get.name.is_some() && !noun.has_names() {
        return Some(format!("{noun_name} have no names to choose by"));
    }
    None
}

async fn agent(socket: &Path) -> Result<AgentClient<Channel>, Failure> {
    let client = AgentClient::new(connect("vswitch-agent", socket).await?);
    Ok(client.max_decoding_message_size(MESSAGE_SIZE_MAX).max_encoding_message_size(MESSAGE_SIZE_MAX))
}

async fn engine_client(socket: &Path) -> Result<EngineClient<Channel>, Failure> {
    let client = EngineClient::new(connect("vswitchd", socket).await?);
    Ok(client.max_decoding_message_size(MESSAGE_SIZE_MAX))
}
