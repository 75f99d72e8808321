//! What the CNI plugin asks for: attachments.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use vswitch_model::api::agent as pb;
use vswitch_model::{Attachment, Invalid, Mac, PortKind, PortName, limits};

use super::{addresses, attachment, invalid, network, text};
use crate::agent::Core;
use crate::agent::attach::{ATTACH_TIMEOUT, Expected, NETNS};
use crate::object::{Endpoint, EndpointSpec};

/// Longest an attach may be asked to wait.
const ATTACH_TIMEOUT_MAX: Duration = Duration::from_secs(300);

pub(super) async fn attach(core: &Arc<Core>, request: pb::AttachRequest) -> Result<pb::AttachReply, Status> {
    let within = within(request.timeout_ms);
    let endpoint = endpoint(request, &core.settings.node).map_err(invalid)?;
    let core = Arc::clone(core);
    // To its end, even when the caller goes away: half an attach is for nobody.
    let attached = tokio::spawn(async move { core.attach(endpoint, within).await }).await;
    let generation = attached.map_err(|e| Status::internal(format!("attach: {e}")))??;
    Ok(pb::AttachReply { generation: generation.0 })
}

pub(super) async fn choose_port(
    core: &Core,
    request: pb::ChoosePortRequest,
) -> Result<pb::ChoosePortReply, Status> {
    let uid = Some(request.uid.as_str()).filter(|uid| !uid.is_empty());
    let addresses = addresses(&request.addresses, "addresses").map_err(invalid)?;
    let within = within(request.timeout_ms);
    let (namespace, pod) = (request.namespace.as_str(), request.pod.as_str());
    let kind = core.choose_port(namespace, pod, uid, &addresses, within).await?;
    let kind = match kind {
        PortKind::Veth => pb::PortKind::Veth,
        PortKind::Tun => pb::PortKind::Tun,
    };
    Ok(pb::ChoosePortReply { kind: kind.into() })
}

pub(super) async fn detach(core: &Core, request: pb::DetachRequest) -> Result<pb::DetachReply, Status> {
    let (container_id, ifname) = attachment(request.attachment).map_err(invalid)?;
    let existed = core.detach(&container_id, &ifname).await?;
    Ok(pb::DetachReply { existed })
}

pub(super) async fn check(core: &Core, request: pb::CheckRequest) -> Result<pb::CheckReply, Status> {
    let (container_id, ifname) = attachment(request.attachment).map_err(invalid)?;
    let expected = Expected {
        container_id,
        ifname,
        host_interface: request.host_interface,
        mac: mac(&request.mac).map_err(invalid)?,
        addresses: addresses(&request.addresses, "addresses").map_err(invalid)?.into_iter().collect(),
    };
    core.check(&expected).await?;
    Ok(pb::CheckReply {})
}

pub(super) async fn collect_garbage(
    core: &Core,
    request: pb::CollectGarbageRequest,
) -> Result<pb::CollectGarbageReply, Status> {
    let network = network(request.network).map_err(invalid)?;
    if network.is_empty() {
        return Err(Status::invalid_argument("network: missing; garbage is collected of one network"));
    }
    let valid = request.valid.into_iter().enumerate();
    let valid =
        valid.map(|(i, one)| attachment(Some(one)).map_err(|e| invalid(e.within(&format!("valid[{i}]")))));
    let valid = valid.collect::<Result<BTreeSet<_>, _>>()?;
    let collected = core.collect_garbage(&network, &valid).await?;
    let removed = collected.removed.into_iter();
    Ok(pb::CollectGarbageReply {
        removed: removed.map(|(container_id, ifname)| pb::Attachment { container_id, ifname }).collect(),
        released: text(&collected.released),
    })
}

pub(super) fn ready(core: &Core) -> pb::ReadyReply {
    let reason = core.not_ready();
    pb::ReadyReply {
        ready: reason.is_none(),
        reason: reason.unwrap_or_default(),
        pod_mtu: core.settings.pod_mtu.into(),
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

/// The endpoint that a request asks for.
pub(in crate::agent) fn endpoint(request: pb::AttachRequest, node: &str) -> Result<Endpoint, Invalid> {
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
