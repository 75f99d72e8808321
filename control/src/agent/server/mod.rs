//! The agent API: messages in, checked and handed on; answers out.

use std::net::IpAddr;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use vswitch_model::api::agent as pb;
use vswitch_model::{Invalid, PortName};

use super::Core;

mod cni;
mod ipam;

#[cfg(test)]
pub(super) use cni::endpoint;

/// Longest container id that makes a name of an object; longest name of a network.
const NAME_MAX: usize = 200;

/// The agent API of one agent.
#[derive(Clone)]
pub struct Service {
    core: Arc<Core>,
}

impl Service {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl pb::agent_server::Agent for Service {
    async fn attach(&self, request: Request<pb::AttachRequest>) -> Answer<pb::AttachReply> {
        cni::attach(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn choose_port(&self, request: Request<pb::ChoosePortRequest>) -> Answer<pb::ChoosePortReply> {
        cni::choose_port(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn detach(&self, request: Request<pb::DetachRequest>) -> Answer<pb::DetachReply> {
        cni::detach(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Answer<pb::CheckReply> {
        cni::check(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn collect_garbage(
        &self,
        request: Request<pb::CollectGarbageRequest>,
    ) -> Answer<pb::CollectGarbageReply> {
        cni::collect_garbage(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn ready(&self, _: Request<pb::ReadyRequest>) -> Answer<pb::ReadyReply> {
        Ok(Response::new(cni::ready(&self.core)))
    }

    async fn assign_addresses(
        &self,
        request: Request<pb::AssignAddressesRequest>,
    ) -> Answer<pb::AssignAddressesReply> {
        ipam::assign_addresses(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn release_addresses(
        &self,
        request: Request<pb::ReleaseAddressesRequest>,
    ) -> Answer<pb::ReleaseAddressesReply> {
        ipam::release_addresses(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn check_addresses(
        &self,
        request: Request<pb::CheckAddressesRequest>,
    ) -> Answer<pb::AssignAddressesReply> {
        ipam::check_addresses(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn apply(&self, request: Request<pb::ApplyObjectsRequest>) -> Answer<pb::ApplyObjectsReply> {
        self.core.apply(request.into_inner()).await.map(Response::new)
    }

    async fn list(&self, request: Request<pb::ListObjectsRequest>) -> Answer<pb::ListObjectsReply> {
        self.core.list(request.into_inner()).await.map(Response::new)
    }

    async fn delete(&self, request: Request<pb::DeleteObjectsRequest>) -> Answer<pb::DeleteObjectsReply> {
        self.core.delete(request.into_inner()).await.map(Response::new)
    }

    async fn describe(&self, request: Request<pb::DescribeRequest>) -> Answer<pb::DescribeReply> {
        self.core.describe(request.into_inner()).await.map(Response::new)
    }

    async fn get_status(&self, _: Request<pb::GetAgentStatusRequest>) -> Answer<pb::AgentStatus> {
        Ok(Response::new(self.core.status().await))
    }

    async fn list_names(&self, _: Request<pb::ListNamesRequest>) -> Answer<pb::ListNamesReply> {
        Ok(Response::new(self.core.names.list()))
    }

    async fn explain(&self, request: Request<pb::ExplainFlowRequest>) -> Answer<pb::ExplainFlowReply> {
        self.core.explain(request.into_inner()).await.map(Response::new)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn invalid(error: Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

fn text(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Sandbox and interface. The id's form is CNI 1.1's ("Parameters").
fn attachment(message: Option<pb::Attachment>) -> Result<(String, String), Invalid> {
    let message = message.ok_or_else(|| Invalid::new("attachment", "missing"))?;
    if message.container_id.is_empty() || !is_cni_word(&message.container_id) {
        let id = &message.container_id;
        let problem =
            format!("{id:?} is not a container id: 1 to {NAME_MAX} letters, digits, '_', '.' and '-'");
        return Err(Invalid::new("attachment.container_id", problem));
    }
    PortName::new(&message.ifname).map_err(|e| e.within("attachment.ifname"))?;
    Ok((message.container_id, message.ifname))
}

/// The name of a CNI network, or nothing. The form is CNI 1.1's ("Network configuration format").
fn network(name: String) -> Result<String, Invalid> {
    if is_cni_word(&name) {
        return Ok(name);
    }
    let problem = format!("{name:?} is not a network: at most {NAME_MAX} letters, digits, '_', '.' and '-'");
    Err(Invalid::new("network", problem))
}

fn is_cni_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.len() <= NAME_MAX && text.chars().all(allowed)
}

fn addresses(texts: &[String], field: &str) -> Result<Vec<IpAddr>, Invalid> {
    let read = |(index, text): (usize, &String)| {
        let wrong = |_| Invalid::new(format!("{field}[{index}]"), format!("{text:?} is not an address"));
        text.parse().map_err(wrong)
    };
    texts.iter().enumerate().map(read).collect()
}
