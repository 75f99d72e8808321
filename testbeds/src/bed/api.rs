//! The two APIs of a node, for code that does not wait in several places at once.

use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::{MESSAGE_SIZE_MAX, agent, connect, engine};

use crate::{Error, Result};

/// Speaks to one vswitchd. Every call connects anew, so an engine that was restarted is reached as well.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
    runtime: Runtime,
}

/// Speaks to one vswitch-agent.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    runtime: Runtime,
}

macro_rules! calls {
    ($client:ident, $server:literal, $($(#[doc = $text:literal])+ $name:ident($request:ty) -> $reply:ty;)+) => {
        $(
            $(#[doc = $text])+
            pub fn $name(&self, request: $request) -> Result<$reply> {
                self.runtime.block_on(async {
                    let channel = connect($server, &self.socket).await.map_err(|error| Error::other(error.to_string()))?;
                    let mut client = $client::new(channel).max_decoding_message_size(MESSAGE_SIZE_MAX);
                    let reply = client.$name(request).await;
                    reply.map(tonic::Response::into_inner).map_err(|status| {
                        Error::other(format!("{}: {:?}: {}", $server, status.code(), status.message()))
                    })
                })
            }
        )+
    };
}

impl Engine {
    /// The engine that listens on this socket.
    pub fn at(socket: &Path) -> Result<Self> {
        Ok(Self { socket: socket.to_owned(), runtime: runtime()? })
    }

    calls! { EngineClient, "vswitchd",
        /// Changes the desired state.
        apply(engine::ApplyRequest) -> engine::ApplyReply;
        /// The desired state it has.
        get_state(engine::GetStateRequest) -> engine::GetStateReply;
        /// How it is.
        get_status(engine::GetStatusRequest) -> engine::EngineStatus;
        /// All counters.
        get_counters(engine::GetCountersRequest) -> engine::Counters;
        /// What it would do with a packet.
        explain(engine::ExplainRequest) -> engine::ExplainReply;
    }

    /// How it is.
    pub fn status(&self) -> Result<engine::EngineStatus> {
        self.get_status(engine::GetStatusRequest {})
    }

    /// All counters.
    pub fn counters(&self) -> Result<engine::Counters> {
        self.get_counters(engine::GetCountersRequest {})
    }

    /// How many packets were dropped for this reason, over all ports.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let counters = self.counters()?;
        Ok(counters.drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.packets).sum())
    }

    /// The flows it has, at most 10000.
    pub fn flows(&self) -> Result<Vec<engine::Flow>> {
        self.runtime.block_on(async {
            let failed = |status: tonic::Status| Error::other(format!("vswitchd: {}", status.message()));
            let channel =
                connect("vswitchd", &self.socket).await.map_err(|error| Error::other(error.to_string()))?;
            let request = engine::ListFlowsRequest { limit: 10_000, address: String::new() };
            let mut stream =
                EngineClient::new(channel).list_flows(request).await.map_err(failed)?.into_inner();
            let mut flows = Vec::new();
            while let Some(flow) = stream.message().await.map_err(failed)? {
                flows.push(flow);
            }
            Ok(flows)
        })
    }
}

impl Agent {
    /// The agent that listens on this socket.
    pub fn at(socket: &Path) -> Result<Self> {
        Ok(Self { socket: socket.to_owned(), runtime: runtime()? })
    }

    calls! { AgentClient, "vswitch-agent",
        /// Whether an attach would be served now.
        ready(agent::ReadyRequest) -> agent::ReadyReply;
        /// Writes objects.
        apply(agent::ApplyObjectsRequest) -> agent::ApplyObjectsReply;
        /// Reads objects.
        list(agent::ListObjectsRequest) -> agent::ListObjectsReply;
        /// Removes objects.
        delete(agent::DeleteObjectsRequest) -> agent::DeleteObjectsReply;
        /// How it is.
        get_status(agent::GetAgentStatusRequest) -> agent::AgentStatus;
        /// Why would a packet pass or not.
        explain(agent::ExplainFlowRequest) -> agent::ExplainFlowReply;
    }

    /// Writes the objects of a YAML text.
    pub fn apply_yaml(&self, text: &str) -> Result<Vec<agent::ObjectResult>> {
        let document = agent::Document { file: "-".to_owned(), text: text.to_owned() };
        let request = agent::ApplyObjectsRequest {
            documents: vec![document],
            namespace: String::new(),
            dry_run: false,
        };
        Ok(self.apply(request)?.results)
    }

    /// Removes the objects that a YAML text names.
    pub fn delete_yaml(&self, text: &str) -> Result<Vec<agent::ObjectResult>> {
        let document = agent::Document { file: "-".to_owned(), text: text.to_owned() };
        let request = agent::DeleteObjectsRequest { documents: vec![document], ..Default::default() };
        Ok(self.delete(request)?.results)
    }

    /// All objects of a kind, as JSON.
    pub fn objects(&self, kind: &str) -> Result<Vec<serde_json::Value>> {
        let request = agent::ListObjectsRequest {
            kind: kind.to_owned(),
            namespace: String::new(),
            all_namespaces: true,
            name: String::new(),
        };
        let objects = self.list(request)?.objects;
        objects
            .iter()
            .map(|text| serde_json::from_str(text).map_err(|error| Error::other(format!("{kind}: {error}"))))
            .collect()
    }

    /// How it is.
    pub fn status(&self) -> Result<agent::AgentStatus> {
        self.get_status(agent::GetAgentStatusRequest {})
    }
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::other(format!("cannot start an event loop: {error}")))
}
