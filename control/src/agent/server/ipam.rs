//! What address management is asked for.

use tonic::Status;
use vswitch_model::api::agent as pb;

use super::{addresses, attachment, invalid, network, text};
use crate::agent::Core;
use crate::agent::attach::no_address;
use crate::ipam::{self, Handle};
use crate::object::AllowedUse;

pub(super) async fn assign_addresses(
    core: &Core,
    request: pb::AssignAddressesRequest,
) -> Result<pb::AssignAddressesReply, Status> {
    let (container_id, ifname) = attachment(request.attachment).map_err(invalid)?;
    let request = ipam::Request {
        handle: Handle::attachment(&container_id, &ifname),
        workload: format!("{}/{}", request.namespace, request.pod),
        network: network(request.network).map_err(invalid)?,
        purpose: AllowedUse::Workload,
        addresses: addresses(&request.requested, "requested").map_err(invalid)?,
    };
    let assigned = core.ipam.assign(&request).await.map_err(|e| no_address(&e))?;
    Ok(pb::AssignAddressesReply { addresses: text(&assigned) })
}

pub(super) async fn release_addresses(
    core: &Core,
    request: pb::ReleaseAddressesRequest,
) -> Result<pb::ReleaseAddressesReply, Status> {
    let (container_id, ifname) = attachment(request.attachment).map_err(invalid)?;
    let handle = Handle::attachment(&container_id, &ifname);
    let released = core.ipam.release(&handle).await.map_err(|e| no_address(&e))?;
    Ok(pb::ReleaseAddressesReply { released: text(&released) })
}

pub(super) async fn check_addresses(
    core: &Core,
    request: pb::CheckAddressesRequest,
) -> Result<pb::AssignAddressesReply, Status> {
    let (container_id, ifname) = attachment(request.attachment).map_err(invalid)?;
    let handle = Handle::attachment(&container_id, &ifname);
    let held = core.ipam.held_by(&handle).await.map_err(|e| no_address(&e))?;
    if held.is_empty() {
        return Err(Status::not_found(format!("{handle} holds no addresses")));
    }
    Ok(pb::AssignAddressesReply { addresses: text(&held) })
}
