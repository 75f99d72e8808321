//! The agent, over its socket.

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rscni_plugin::error::Error as CniError;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use vswitch_model::PortKind;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::agent::{
    self as pb, AssignAddressesRequest, AttachRequest, Attachment, CheckAddressesRequest, CheckRequest,
    ChoosePortRequest, CollectGarbageRequest, DetachRequest, ReadyReply, ReadyRequest,
    ReleaseAddressesRequest,
};
use vswitch_model::api::connect;

use crate::cni_args::CniArgs;
use crate::error::{CODE_AGENT, CODE_DIFFERS};
use crate::names::AttachmentId;

/// How long the agent may wait for a pod's policy to be in force.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long any call may take: the agent's own deadline comes first.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to vswitch-agent.
pub struct Agent {
    client: AgentClient<Channel>,
    socket: PathBuf,
}

impl Agent {
    /// Connects. Code 11: nobody answers there.
    pub async fn connect(socket: &Path) -> Result<Self, CniError> {
        let channel = connect("vswitch-agent", socket).await;
        let channel = channel.map_err(|unreachable| CniError::TryAgainLater(unreachable.to_string()))?;
        Ok(Self { client: AgentClient::new(channel), socket: socket.to_owned() })
    }

    /// Whether an attach would be served, and the MTU of this node's pods.
    pub async fn ready(&mut self) -> Result<ReadyReply, CniError> {
        let socket = self.socket.clone();
        call(&socket, "ready", self.client.ready(ReadyRequest {})).await
    }

    /// Attaches, and returns when the pod's policy is in force.
    pub async fn attach(&mut self, mut request: AttachRequest) -> Result<(), CniError> {
        request.timeout_ms = attach_timeout_ms();
        let socket = self.socket.clone();
        call(&socket, "attach", self.client.attach(timed(request))).await.map(drop)
    }

    /// The kind of port a pod with these addresses is to have.
    pub async fn choose_port(&mut self, pod: &CniArgs, addresses: &[IpAddr]) -> Result<PortKind, CniError> {
        let socket = self.socket.clone();
        let request = timed(ChoosePortRequest {
            namespace: pod.pod_namespace.clone(),
            pod: pod.pod_name.clone(),
            uid: pod.pod_uid.clone(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            timeout_ms: attach_timeout_ms(),
        });
        let reply = call(&socket, "choose port", self.client.choose_port(request)).await?;
        Ok(match reply.kind() {
            pb::PortKind::Veth => PortKind::Veth,
            pb::PortKind::Tun => PortKind::Tun,
        })
    }

    /// Detaches what there is to detach; whether there was something.
    pub async fn detach(&mut self, id: &AttachmentId) -> Result<bool, CniError> {
        let socket = self.socket.clone();
        let request = timed(DetachRequest { attachment: Some(message(id)) });
        call(&socket, "detach", self.client.detach(request)).await.map(|reply| reply.existed)
    }

    /// Compares what the agent holds with what ADD reported.
    pub async fn check(&mut self, request: CheckRequest) -> Result<(), CniError> {
        let socket = self.socket.clone();
        call(&socket, "check", self.client.check(timed(request))).await.map(drop)
    }

    /// Removes attachments to `network`, and addresses for it, of all containers that are not in `valid`.
    pub async fn collect_garbage(&mut self, network: &str, valid: &[AttachmentId]) -> Result<(), CniError> {
        let socket = self.socket.clone();
        let valid = valid.iter().map(message).collect();
        let request = timed(CollectGarbageRequest { valid, network: network.to_owned() });
        call(&socket, "collect garbage", self.client.collect_garbage(request)).await.map(drop)
    }

    /// Assigns addresses, or finds those assigned before: text without prefix length.
    pub async fn assign(
        &mut self,
        id: &AttachmentId,
        network: &str,
        pod: &CniArgs,
    ) -> Result<Vec<String>, CniError> {
        let socket = self.socket.clone();
        let request = timed(AssignAddressesRequest {
            attachment: Some(message(id)),
            namespace: pod.pod_namespace.clone(),
            pod: pod.pod_name.clone(),
            requested: Vec::new(),
            network: network.to_owned(),
        });
        let reply = call(&socket, "assign addresses", self.client.assign_addresses(request)).await?;
        Ok(reply.addresses)
    }

    /// Gives the attachment's addresses back.
    pub async fn release(&mut self, id: &AttachmentId) -> Result<(), CniError> {
        let socket = self.socket.clone();
        let request = timed(ReleaseAddressesRequest { attachment: Some(message(id)) });
        call(&socket, "release addresses", self.client.release_addresses(request)).await.map(drop)
    }

    /// The addresses the attachment holds.
    pub async fn check_addresses(&mut self, id: &AttachmentId) -> Result<Vec<String>, CniError> {
        let socket = self.socket.clone();
        let request = timed(CheckAddressesRequest { attachment: Some(message(id)) });
        let reply = call(&socket, "check addresses", self.client.check_addresses(request)).await?;
        Ok(reply.addresses)
    }
}

/// The attachment as the agent's API has it.
#[must_use]
pub fn message(id: &AttachmentId) -> Attachment {
    Attachment { container_id: id.container.clone(), ifname: id.ifname.clone() }
}

fn attach_timeout_ms() -> u32 {
    u32::try_from(ATTACH_TIMEOUT.as_millis()).expect("a few seconds fit 32 bits")
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

async fn call<T>(
    socket: &Path,
    what: &str,
    reply: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CniError> {
    match tokio::time::timeout(CALL_TIMEOUT, reply).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(refusal(socket, what, &status)),
        Err(_) => Err(CniError::TryAgainLater(format!(
            "vswitch-agent ({}) {what}: no answer within {} s",
            socket.display(),
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

/// What passes by itself is code 11; what does not, one of ours.
fn refusal(socket: &Path, what: &str, status: &Status) -> CniError {
    let text = format!("vswitch-agent ({}) {what}: {}", socket.display(), status.message());
    // Only what the agent did not say itself has a cause: the connection broke, because it was stopped or killed.
    if std::error::Error::source(status).is_some() {
        return CniError::TryAgainLater(format!("{text}: the agent went away meanwhile"));
    }
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Cancelled => CniError::TryAgainLater(text),
        Code::NotFound | Code::FailedPrecondition => {
            CniError::Custom(CODE_DIFFERS, "pod network differs from what was set up".to_owned(), text)
        }
        _ => CniError::Custom(CODE_AGENT, "vswitch-agent refused".to_owned(), text),
    }
}
