//! The agent API: messages in, checked and handed on; answers out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use vswitch_model::api::agent as pb;
use vswitch_model::{Attachment, Invalid, Mac, PortKind, PortName, limits};

use super::Core;
use super::attach::{ATTACH_TIMEOUT, Expected, NETNS, no_address};
use crate::ipam::{self, Handle};
use crate::object::{AllowedUse, Endpoint, EndpointSpec};

/// Longest container id that makes a name of an object; longest name of a network.
const NAME_MAX: usize = 200;
/// Longest an attach may be asked to wait.
const ATTACH_TIMEOUT_MAX: Duration = Duration::from_secs(300);

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
        let request = request.into_inner();
        let within = within(request.timeout_ms);
        let endpoint = endpoint(request, &self.core.settings.node).map_err(invalid)?;
        let core = Arc::clone(&self.core);
        // To its end, even when the caller goes away: half an attach is for nobody.
        let attached = tokio::spawn(async move { core.attach(endpoint, within).await }).await;
        let generation = attached.map_err(|e| Status::internal(format!("attach: {e}")))??;
        Ok(Response::new(pb::AttachReply { generation: generation.0 }))
    }

    async fn choose_port(&self, request: Request<pb::ChoosePortRequest>) -> Answer<pb::ChoosePortReply> {
        let request = request.into_inner();
        let uid = Some(request.uid.as_str()).filter(|uid| !uid.is_empty());
        let addresses = addresses(&request.addresses, "addresses").map_err(invalid)?;
        let within = within(request.timeout_ms);
        let (namespace, pod) = (request.namespace.as_str(), request.pod.as_str());
        let kind = self.core.choose_port(namespace, pod, uid, &addresses, within).await?;
        let kind = match kind {
            PortKind::Veth => pb::PortKind::Veth,
            PortKind::Tun => pb::PortKind::Tun,
        };
        Ok(Response::new(pb::ChoosePortReply { kind: kind.into() }))
    }

    async fn detach(&self, request: Request<pb::DetachRequest>) -> Answer<pb::DetachReply> {
        let (container_id, ifname) = attachment(request.into_inner().attachment).map_err(invalid)?;
        let existed = self.core.detach(&container_id, &ifname).await?;
        Ok(Response::new(pb::DetachReply { existed }))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Answer<pb::CheckReply> {
        let request = request.into_inner();
        let (container_id, ifname) = attachment(request.attachment).map_err(invalid)?;
        let expected = Expected {
            container_id,
            ifname,
            host_interface: request.host_interface,
            mac: mac(&request.mac).map_err(invalid)?,
            addresses: addresses(&request.addresses, "addresses").map_err(invalid)?.into_iter().collect(),
        };
        self.core.check(&expected).await?;
        Ok(Response::new(pb::CheckReply {}))
    }

    async fn collect_garbage(
        &self,
        request: Request<pb::CollectGarbageRequest>,
    ) -> Answer<pb::CollectGarbageReply> {
        let request = request.into_inner();
        let network = network(request.network).map_err(invalid)?;
        if network.is_empty() {
            return Err(Status::invalid_argument("network: missing; garbage is collected of one network"));
        }
        let valid = request.valid.into_iter().enumerate();
        let valid = valid
            .map(|(i, one)| attachment(Some(one)).map_err(|e| invalid(e.within(&format!("valid[{i}]")))));
        let valid = valid.collect::<Result<BTreeSet<_>, _>>()?;
        let collected = self.core.collect_garbage(&network, &valid).await?;
        let removed = collected.removed.into_iter();
        Ok(Response::new(pb::CollectGarbageReply {
            removed: removed.map(|(container_id, ifname)| pb::Attachment { container_id, ifname }).collect(),
            released: text(&collected.released),
        }))
    }

    async fn ready(&self, _: Request<pb::ReadyRequest>) -> Answer<pb::ReadyReply> {
        let reason = self.core.not_ready();
        Ok(Response::new(pb::ReadyReply {
            ready: reason.is_none(),
            reason: reason.unwrap_or_default(),
            pod_mtu: self.core.settings.pod_mtu.into(),
        }))
    }

    async fn assign_addresses(
        &self,
        request: Request<pb::AssignAddressesRequest>,
    ) -> Answer<pb::AssignAddressesReply> {
        let request = request.into_inner();
        let (container_id, ifname) = attachment(request.attachment).map_err(invalid)?;
        let request = ipam::Request {
            handle: Handle::attachment(&container_id, &ifname),
            workload: format!("{}/{}", request.namespace, request.pod),
            network: network(request.network).map_err(invalid)?,
            purpose: AllowedUse::Workload,
            addresses: addresses(&request.requested, "requested").map_err(invalid)?,
        };
        let assigned = self.core.ipam.assign(&request).await.map_err(|e| no_address(&e))?;
        Ok(Response::new(pb::AssignAddressesReply { addresses: text(&assigned) }))
    }

    async fn release_addresses(
        &self,
        request: Request<pb::ReleaseAddressesRequest>,
    ) -> Answer<pb::ReleaseAddressesReply> {
        let (container_id, ifname) = attachment(request.into_inner().attachment).map_err(invalid)?;
        let handle = Handle::attachment(&container_id, &ifname);
        let released = self.core.ipam.release(&handle).await.map_err(|e| no_address(&e))?;
        Ok(Response::new(pb::ReleaseAddressesReply { released: text(&released) }))
    }

    async fn check_addresses(
        &self,
        request: Request<pb::CheckAddressesRequest>,
    ) -> Answer<pb::AssignAddressesReply> {
        let (container_id, ifname) = attachment(request.into_inner().attachment).map_err(invalid)?;
        let handle = Handle::attachment(&container_id, &ifname);
        let held = self.core.ipam.held_by(&handle).await.map_err(|e| no_address(&e))?;
        if held.is_empty() {
            return Err(Status::not_found(format!("{handle} holds no addresses")));
        }
        Ok(Response::new(pb::AssignAddressesReply { addresses: text(&held) }))
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

/// How long an attach may take.
fn within(timeout_ms: u32) -> Duration {
    match timeout_ms {
        0 => ATTACH_TIMEOUT,
        ms => Duration::from_millis(ms.into()).min(ATTACH_TIMEOUT_MAX),
    }
}

/// The Ethernet address of a request; of a tun, which has none, zeros.
fn mac(text: &str) -> Result<Mac, Invalid> {
    if text.is_empty() { Ok(Mac::default()) } else { text.parse().map_err(|e: Invalid| e.within("mac")) }
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

/// The endpoint that a request asks for.
pub(super) fn endpoint(request: pb::AttachRequest, node: &str) -> Result<Endpoint, Invalid> {
    let (container_id, interface) = attachment(request.attachment)?;
    if request.namespace.is_empty() != request.pod.is_empty() {
        return Err(Invalid::new("pod", "a pod has a namespace and a name; what is no pod has neither"));
    }
    let port = PortName::new(request.host_interface).map_err(|e| e.within("host_interface"))?;
    let attachment = match pb::PortKind::try_from(request.kind) {
        Ok(pb::PortKind::Veth) => Attachment::Veth { interface: port.clone(), netns: None },
        Ok(pb::PortKind::Tun) if request.netns.is_empty() => {
            return Err(Invalid::new("netns", "missing; a tun is made in there"));
        }
        Ok(pb::PortKind::Tun) => {
            let interface = PortName::new(&interface).map_err(|e| e.within("attachment.ifname"))?;
            Attachment::Tun { interface, netns: request.netns.clone() }
        }
        Err(_) => return Err(Invalid::new("kind", format!("{} is no kind of port", request.kind))),
    };
    let mac = mac(&request.mac)?;
    if !attachment.allows(mac) {
        return Err(Invalid::new("mac", format!("{mac} cannot be a pod's address")));
    }
    let addresses = addresses(&request.addresses, "addresses")?;
    if addresses.is_empty() || addresses.len() > limits::ADDRESSES_PER_PORT_MAX {
        let problem = format!("{} of them: 1 to {}", addresses.len(), limits::ADDRESSES_PER_PORT_MAX);
        return Err(Invalid::new("addresses", problem));
    }
    let cannot = |a: &&IpAddr| a.is_unspecified() || a.is_multicast() || a.is_loopback();
    if let Some(address) = addresses.iter().find(cannot) {
        return Err(Invalid::new("addresses", format!("{address} cannot be a pod's address")));
    }
    if addresses.iter().collect::<BTreeSet<_>>().len() < addresses.len() {
        return Err(Invalid::new("addresses", "one of them is there twice"));
    }
    let range = limits::MTU_MIN..=limits::MTU_MAX;
    let mtu = u16::try_from(request.mtu).ok().filter(|mtu| range.contains(mtu)).ok_or_else(|| {
        let problem = format!("{} is out of range: {} to {}", request.mtu, range.start(), range.end());
        Invalid::new("mtu", problem)
    })?;
    let mut endpoint = Endpoint::new(EndpointSpec {
        node: node.to_owned(),
        namespace: request.namespace,
        pod: request.pod,
        pod_uid: (!request.uid.is_empty()).then_some(request.uid),
        container_id,
        interface,
        network: network(request.network)?,
        attachment,
        port,
        mac,
        addresses,
        mtu,
    });
    if !request.netns.is_empty() {
        endpoint.metadata.annotations.insert(NETNS.to_owned(), request.netns);
    }
    Ok(endpoint)
}
