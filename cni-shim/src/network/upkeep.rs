//! DEL, CHECK, GC and STATUS.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rscni_plugin::error::Error as CniError;
use rscni_plugin::types::{Args, CNIResult, Cmd};
use vswitch_model::api::agent::CheckRequest;
use vswitch_model::{Mac, PortKind};

use super::Invocation;
use crate::agent::{Agent, message};
use crate::config::NetworkConf;
use crate::delegate::Delegate;
use crate::error::CODE_DIFFERS;
use crate::kernel::links::Links;
use crate::kernel::netns::Netns;
use crate::kernel::tun;
use crate::names::{AttachmentId, alias_prefix, is_host_interface};
use crate::pod::Pod;

/// CNI DEL: the agent lets go of the port, the pair goes, the addresses are given back. Each is tried whatever became
/// of the others, and the first error is reported. Nothing left to delete is success; an agent that does not answer is
/// not, because then nobody knows: code 11, and the runtime repeats.
pub(super) async fn del(invocation: &Invocation<'_>) -> Result<(), CniError> {
    let detached = match Agent::connect(&invocation.conf.agent_socket).await {
        Ok(mut agent) => agent.detach(&invocation.id).await.map(drop),
        Err(error) => Err(error),
    };
    let deleted = delete_link(&invocation.id.host_interface()).await;
    let deleted = deleted.and(delete_tun(invocation));
    let released = match Delegate::find(&invocation.conf.ipam, invocation.args) {
        Ok(ipam) => ipam.call(Cmd::Del),
        Err(error) => Err(error),
    };
    detached.and(deleted).and(released)
}

/// Of a pod with a tun there is nothing outside of the pod. Without its namespace the device is gone as well.
fn delete_tun(invocation: &Invocation<'_>) -> Result<(), CniError> {
    let Some(path) = invocation.args.netns() else { return Ok(()) };
    match Netns::open(path)? {
        Some(netns) if !netns.is_current()? => Ok(tun::delete(&netns, &invocation.id.ifname)?),
        _ => Ok(()),
    }
}

async fn delete_link(name: &str) -> Result<(), CniError> {
    Links::open()?.delete(name).await?;
    Ok(())
}

/// CNI CHECK: the IPAM plugin, the pod's inside, the host end and the agent each still have what ADD reported.
pub(super) async fn check(invocation: &Invocation<'_>) -> Result<(), CniError> {
    let previous = invocation.args.config().prev_result.as_ref().ok_or_else(|| {
        CniError::InvalidNetworkConfig("prevResult: missing; CHECK needs the result of ADD".to_owned())
    })?;
    let pod = reported_pod(previous, &invocation.id)?;
    Delegate::find(&invocation.conf.ipam, invocation.args)?.call(Cmd::Check)?;
    let (netns, _) = invocation.netns()?;
    pod.check(&netns)?;
    let host = invocation.id.host_interface();
    if pod.kind == PortKind::Veth {
        check_host_end(&host).await?;
    }
    let mut agent = Agent::connect(&invocation.conf.agent_socket).await?;
    let request = CheckRequest {
        attachment: Some(message(&invocation.id)),
        host_interface: host,
        mac: pod.mac_text(),
        addresses: pod.addresses.iter().map(ToString::to_string).collect(),
    };
    agent.check(request).await
}

async fn check_host_end(name: &str) -> Result<(), CniError> {
    let link = Links::open()?.find(name).await?;
    let difference = match link {
        None => format!("the host end {name} is gone"),
        Some(link) if link.mac != Mac::GATEWAY => {
            format!("the host end {name} has the address {} and should have {}", link.mac, Mac::GATEWAY)
        }
        Some(link) if !link.up => format!("the host end {name} is down"),
        Some(_) => return Ok(()),
    };
    Err(CniError::Custom(CODE_DIFFERS, "pod network differs from what was set up".to_owned(), difference))
}

/// The pod's end as a result tells it. Other plugins of the chain may have added interfaces and addresses of theirs.
fn reported_pod(previous: &CNIResult, id: &AttachmentId) -> Result<Pod, CniError> {
    let wrong = |problem: String| CniError::InvalidNetworkConfig(format!("prevResult: {problem}"));
    let (index, interface) = previous
        .interfaces
        .iter()
        .enumerate()
        .find(|(_, interface)| interface.sandbox.is_some() && interface.name == id.ifname)
        .ok_or_else(|| wrong(format!("no interface {} with a sandbox", id.ifname)))?;
    let (kind, mac) = match interface.mac.as_str() {
        "" => (PortKind::Tun, Mac::default()),
        mac => {
            let mac = mac.parse().map_err(|error| wrong(format!("interfaces[{index}].mac: {error}")))?;
            (PortKind::Veth, mac)
        }
    };
    let ours = |ip: Option<u32>| ip.is_some_and(|ip| usize::try_from(ip) == Ok(index));
    let addresses: Vec<IpAddr> =
        previous.ips.iter().filter(|ip| ours(ip.interface)).map(|ip| ip.address.addr()).collect();
    if addresses.is_empty() {
        return Err(wrong(format!("no address of {}", id.ifname)));
    }
    Ok(Pod { ifname: id.ifname.clone(), kind, mac, mtu: interface.mtu, addresses })
}

/// CNI STATUS. Code 50: an ADD would not be served, and why.
pub(super) async fn status(conf: &NetworkConf, args: &Args) -> Result<(), CniError> {
    agent_ready(&conf.agent_socket).await?;
    Delegate::find(&conf.ipam, args)?.call(Cmd::Status)
}

/// Whether the agent would serve an attach; code 50 if not.
pub(crate) async fn agent_ready(socket: &std::path::Path) -> Result<(), CniError> {
    let unavailable = |error: CniError| CniError::PluginNotAvailable(error.details().to_owned());
    let mut agent = Agent::connect(socket).await.map_err(unavailable)?;
    let ready = agent.ready().await.map_err(unavailable)?;
    if ready.ready {
        Ok(())
    } else {
        Err(CniError::PluginNotAvailable(format!("vswitch-agent is not ready: {}", ready.reason)))
    }
}

/// CNI GC: everything of this network goes that belongs to no valid attachment. All of it is tried; all that failed is
/// reported.
pub(super) async fn collect_garbage(conf: &NetworkConf, args: &Args) -> Result<(), CniError> {
    let valid = valid_attachments(args)?;
    let mut failed = Vec::new();
    let agents = match Agent::connect(&conf.agent_socket).await {
        Ok(mut agent) => agent.collect_garbage(&conf.name, &valid).await,
        Err(error) => Err(error),
    };
    failed.extend(agents.err());
    failed.extend(delete_stale_links(&conf.name, &valid).await);
    let ipam = Delegate::find(&conf.ipam, args).and_then(|ipam| ipam.call(Cmd::Gc));
    failed.extend(ipam.err());
    match failed.len() {
        0 | 1 => failed.pop().map_or(Ok(()), Err),
        _ => {
            let all: Vec<_> = failed.iter().map(ToString::to_string).collect();
            Err(CniError::Custom(u32::from(&failed[0]), failed[0].msg().to_owned(), all.join("; ")))
        }
    }
}

/// The attachments GC is to keep. Without a list nothing is known to be garbage.
pub(crate) fn valid_attachments(args: &Args) -> Result<Vec<AttachmentId>, CniError> {
    let valid = args.config().valid_attachments.as_ref().ok_or_else(|| {
        CniError::InvalidNetworkConfig("cni.dev/valid-attachments: missing; GC needs the list".to_owned())
    })?;
    Ok(valid
        .iter()
        .map(|attachment| AttachmentId::new(&attachment.container_id, &attachment.ifname))
        .collect())
}

async fn delete_stale_links(network: &str, valid: &[AttachmentId]) -> Vec<CniError> {
    let keep: BTreeSet<_> = valid.iter().map(AttachmentId::host_interface).collect();
    let prefix = alias_prefix(network);
    let stale = async || -> Result<Vec<CniError>, CniError> {
        let links = Links::open()?;
        let mut failed = Vec::new();
        for link in links.list().await? {
            let ours = is_host_interface(&link.name)
                && link.alias.as_ref().is_some_and(|alias| alias.starts_with(&prefix));
            if ours && !keep.contains(&link.name) {
                failed.extend(links.delete(&link.name).await.err().map(CniError::from));
            }
        }
        Ok(failed)
    };
    stale().await.unwrap_or_else(|error| vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = r#"{"interfaces":[{"name":"vsw0","mac":"ee:ee:ee:ee:ee:ee"},
        {"name":"eth0","mac":"02:00:00:00:00:01","mtu":1450,"sandbox":"/run/netns/a"},
        {"name":"wg0","mac":"","sandbox":"/run/netns/a"}],
        "ips":[{"interface":1,"address":"10.0.0.1/32"},{"interface":2,"address":"10.9.0.1/32"},{"address":"10.8.0.1/32"}]}"#;

    #[test]
    fn check_looks_at_its_own_part_of_a_chains_result() {
        let previous: CNIResult = serde_json::from_str(RESULT).unwrap();
        let pod = reported_pod(&previous, &AttachmentId::new("c", "eth0")).unwrap();
        assert_eq!((pod.mac.to_string().as_str(), pod.mtu), ("02:00:00:00:00:01", Some(1450)));
        assert_eq!(pod.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let tun = reported_pod(&previous, &AttachmentId::new("c", "wg0")).unwrap();
        assert_eq!((tun.kind, tun.mac), (PortKind::Tun, Mac::default()));
        for ifname in ["eth1", "vsw0"] {
            let error = reported_pod(&previous, &AttachmentId::new("c", ifname)).unwrap_err();
            assert_eq!(u32::from(&error), 7, "{ifname}");
        }
    }
}
