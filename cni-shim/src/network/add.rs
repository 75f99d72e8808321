//! ADD: addresses, the veth pair, the pod's inside, the agent; for a pod with a tun the agent first, since the engine makes
//! the device. Whatever fails, what was done before is undone.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use rscni_plugin::error::Error as CniError;
use rscni_plugin::types::{CNIResult, Cmd, Dns, Interface, IpConfig, Route};
use vswitch_model::api::agent::{self as pb, AttachRequest};
use vswitch_model::limits::{ADDRESSES_PER_PORT_MAX, MTU_MAX, MTU_MIN};
use vswitch_model::{Mac, PortKind};

use super::Invocation;
use crate::agent::{Agent, message};
use crate::delegate::Delegate;
use crate::kernel::links::{Links, VethPair, host_prefix};
use crate::kernel::netns::Netns;
use crate::kernel::{sysctl, tun};
use crate::names::host_alias;
use crate::pod::{Pod, gateway_of};

/// A step that may have left something, in the order of [`Workshop::build`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Addresses,
    Veth,
    Tun,
    Attached,
}

/// What one ADD works with.
struct Workshop<'a> {
    invocation: &'a Invocation<'a>,
    netns: &'a Netns,
    links: Links,
    ipam: Delegate,
    host: String,
    mtu: u32,
    steps: Vec<Step>,
}

/// CNI ADD. When it returns, the pod is attached and its policy is in force, or nothing of it is left.
pub(super) async fn add(invocation: &Invocation<'_>) -> Result<CNIResult, CniError> {
    let (netns, netns_path) = invocation.netns()?;
    let ipam = Delegate::find(&invocation.conf.ipam, invocation.args)?;
    let mut agent = Agent::connect(&invocation.conf.agent_socket).await?;
    let mtu = mtu(invocation, &mut agent).await?;
    let mut workshop = Workshop {
        invocation,
        netns: &netns,
        links: Links::open()?,
        ipam,
        host: invocation.id.host_interface(),
        mtu,
        steps: Vec::new(),
    };
    workshop.clear_stale(&mut agent).await?;
    match workshop.build(&mut agent, &netns_path).await {
        Ok(result) => Ok(result),
        Err(first) => {
            workshop.undo(&mut agent).await;
            Err(first)
        }
    }
}

/// The configured MTU, else the one the agent has for this node. Code 11: the agent would not serve an attach.
async fn mtu(invocation: &Invocation<'_>, agent: &mut Agent) -> Result<u32, CniError> {
    let ready = agent.ready().await?;
    if !ready.ready {
        return Err(CniError::TryAgainLater(format!("vswitch-agent is not ready: {}", ready.reason)));
    }
    match invocation.conf.mtu {
        Some(mtu) => Ok(u32::from(mtu)),
        None if (u32::from(MTU_MIN)..=u32::from(MTU_MAX)).contains(&ready.pod_mtu) => Ok(ready.pod_mtu),
        None => Err(CniError::TryAgainLater(format!(
            "vswitch-agent gives pods an MTU of {}; from {MTU_MIN} to {MTU_MAX} would do",
            ready.pod_mtu
        ))),
    }
}

impl Workshop<'_> {
    /// An ADD that was killed half way left its host end: take that apart first. Plugins such as host-local refuse a
    /// second ADD of the same container, so the addresses go as well.
    async fn clear_stale(&self, agent: &mut Agent) -> Result<(), CniError> {
        let id = &self.invocation.id;
        let has_veth = self.links.find(&self.host).await?.is_some();
        if !has_veth && !tun::is_in(self.netns, &id.ifname)? {
            return Ok(());
        }
        let attached = agent.detach(id).await?;
        if has_veth {
            self.links.delete(&self.host).await?;
        } else if attached {
            tun::delete(self.netns, &id.ifname)?;
        } else {
            // Another network's.
            return Ok(());
        }
        self.ipam.call(Cmd::Del)
    }

    async fn build(&mut self, agent: &mut Agent, netns_path: &Path) -> Result<CNIResult, CniError> {
        // A plugin that failed may have done part of its work: it is undone like one that succeeded.
        self.steps.push(Step::Addresses);
        let given = self.ipam.add()?;
        let addresses = usable_addresses(&given)?;

        let id = &self.invocation.id;
        let kind = agent.choose_port(&self.invocation.pod, &addresses).await?;
        let pod = Pod {
            ifname: id.ifname.clone(),
            kind,
            mac: if kind == PortKind::Tun { Mac::default() } else { id.pod_mac() },
            mtu: Some(self.mtu),
            addresses,
        };
        self.refuse_second_interface()?;
        if kind == PortKind::Tun {
            self.steps.push(Step::Tun);
            self.attach(agent, &pod, netns_path).await?;
            pod.set_up(self.netns)?;
        } else {
            self.make_veth(&pod).await?;
            pod.set_up(self.netns)?;
            self.attach(agent, &pod, netns_path).await?;
        }
        Ok(self.result(&pod, netns_path, given.dns))
    }

    async fn attach(&mut self, agent: &mut Agent, pod: &Pod, netns_path: &Path) -> Result<(), CniError> {
        self.steps.push(Step::Attached);
        let kind = match pod.kind {
            PortKind::Veth => pb::PortKind::Veth,
            PortKind::Tun => pb::PortKind::Tun,
        };
        let request = AttachRequest {
            attachment: Some(message(&self.invocation.id)),
            namespace: self.invocation.pod.pod_namespace.clone(),
            pod: self.invocation.pod.pod_name.clone(),
            uid: self.invocation.pod.pod_uid.clone(),
            netns: netns_path.display().to_string(),
            host_interface: self.host.clone(),
            mac: pod.mac_text(),
            addresses: pod.addresses.iter().map(ToString::to_string).collect(),
            mtu: self.mtu,
            timeout_ms: 0,
            network: self.invocation.conf.name.clone(),
            kind: kind.into(),
        };
        agent.attach(request).await
    }

    fn refuse_second_interface(&self) -> Result<(), CniError> {
        let name = &self.invocation.id.ifname;
        let taken = self.netns.run(|| std::fs::exists(format!("/proc/sys/net/ipv4/conf/{name}")))?;
        if taken.unwrap_or(false) {
            let problem = format!("CNI_IFNAME: the pod has an interface {name} already");
            return Err(CniError::InvalidEnvValue(problem));
        }
        Ok(())
    }

    async fn make_veth(&mut self, pod: &Pod) -> Result<(), CniError> {
        let id = &self.invocation.id;
        self.steps.push(Step::Veth);
        let pair = VethPair {
            host: &self.host,
            host_mac: Mac::GATEWAY,
            host_alias: &host_alias(&self.invocation.conf.name, id),
            pod: &id.ifname,
            pod_mac: pod.mac,
            mtu: self.mtu,
        };
        self.links.add_veth(&pair, self.netns).await?;
        // While no engine has the host end, the kernel would take what the pod sends, past every policy. Strict
        // reverse path filtering makes it refuse: pods are routed to by the host port, never by this interface.
        for (family, key, value) in
            [("ipv6", "disable_ipv6", "1"), ("ipv4", "forwarding", "0"), ("ipv4", "rp_filter", "1")]
        {
            sysctl::set(family, &self.host, key, value)?;
        }
        self.links.set_up_silent(&self.host).await?;
        Ok(())
    }

    /// Takes apart what was made, last first. The first error is what the runtime hears of; these go to the log.
    async fn undo(&mut self, agent: &mut Agent) {
        while let Some(step) = self.steps.pop() {
            let (what, undone) = match step {
                Step::Attached => ("to detach", agent.detach(&self.invocation.id).await.map(drop)),
                Step::Veth => (
                    "to delete the interface",
                    self.links.delete(&self.host).await.map(drop).map_err(CniError::from),
                ),
                Step::Tun => (
                    "to delete the interface",
                    tun::delete(self.netns, &self.invocation.id.ifname).map_err(CniError::from),
                ),
                Step::Addresses => ("to give the addresses back", self.ipam.call(Cmd::Del)),
            };
            if let Err(error) = undone {
                eprintln!("vswitch-cni: failed {what} after a failed ADD: {error}");
            }
        }
    }

    fn result(&self, pod: &Pod, netns: &Path, dns: Option<Dns>) -> CNIResult {
        let interface = |name: &str, mac: String, sandbox: Option<String>| Interface {
            name: name.to_owned(),
            mac,
            mtu: Some(self.mtu),
            sandbox,
            socket_path: None,
            pci_id: None,
        };
        let has_host_end = pod.kind == PortKind::Veth;
        let ips = pod.addresses.iter().map(|address| IpConfig {
            interface: Some(u32::from(has_host_end)),
            address: IpNet::from(*address),
            gateway: has_host_end.then(|| gateway_of(*address)),
        });
        let default_routes = pod.routes().into_iter().filter(|route| route.destination.prefix_len() == 0);
        let routes = default_routes.map(|route| Route {
            dst: route.destination,
            gw: route.gateway,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        });
        let host_end = has_host_end.then(|| interface(&self.host, Mac::GATEWAY.to_string(), None));
        let own = interface(&pod.ifname, pod.mac_text(), Some(netns.display().to_string()));
        CNIResult {
            interfaces: host_end.into_iter().chain([own]).collect(),
            ips: ips.collect(),
            routes: routes.collect(),
            dns: self.invocation.conf.dns.clone().or(dns),
        }
    }
}

/// The addresses of an IPAM plugin's result.
///
/// Their prefix length does not matter: a pod has no neighbours but its router. For the same reason every route is
/// covered by the default route; only one that asks for an attribute of its own is something we do not do.
fn usable_addresses(given: &CNIResult) -> Result<Vec<IpAddr>, CniError> {
    for route in &given.routes {
        let attributes = [
            ("mtu", route.mtu),
            ("advmss", route.advmss),
            ("priority", route.priority),
            ("table", route.table),
            ("scope", route.scope),
        ];
        if let Some((name, _)) = attributes.iter().find(|(_, value)| value.is_some()) {
            return Err(CniError::UnsupportedNetworkConfiguration(format!(
                "ipam: route to {}: {name} is not done by this plugin; leave it out",
                route.dst
            )));
        }
    }
    let addresses: Vec<_> = given.ips.iter().map(|ip| ip.address.addr().to_canonical()).collect();
    let wrong = |problem: String| Err(CniError::InvalidNetworkConfig(format!("ipam: {problem}")));
    if addresses.is_empty() {
        return wrong("the plugin gave no address".to_owned());
    }
    if addresses.len() > ADDRESSES_PER_PORT_MAX {
        return wrong(format!("{} addresses; a pod has at most {ADDRESSES_PER_PORT_MAX}", addresses.len()));
    }
    for (n, address) in addresses.iter().enumerate() {
        let special = match address {
            IpAddr::V4(v4) => {
                v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_link_local()
            }
            IpAddr::V6(v6) => {
                v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()
            }
        };
        if special || addresses[..n].contains(address) {
            return wrong(format!(
                "{address}/{} is no address for a pod, or is given twice",
                host_prefix(*address)
            ));
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(ips: &[&str], routes: &str) -> CNIResult {
        let ips: Vec<_> = ips.iter().map(|ip| format!(r#"{{"address":"{ip}"}}"#)).collect();
        serde_json::from_str(&format!(r#"{{"ips":[{}],"routes":[{routes}]}}"#, ips.join(","))).unwrap()
    }

    #[test]
    fn any_plugins_addresses_are_taken_without_their_prefix() {
        let result = given(
            &["10.1.2.3/24", "fd00::3/64"],
            r#"{"dst":"0.0.0.0/0"},{"dst":"10.0.0.0/8","gw":"10.1.2.1"}"#,
        );
        let expected: [IpAddr; 2] = ["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()];
        assert_eq!(usable_addresses(&result).unwrap(), expected);
    }

    #[test]
    fn what_no_pod_can_have_is_refused() {
        for ips in
            [&[][..], &["0.0.0.0/0"], &["127.0.0.1/8"], &["224.0.0.1/4"], &["fe80::1/64"], &["10.0.0.1/8"; 2]]
        {
            assert_eq!(u32::from(&usable_addresses(&given(ips, "")).unwrap_err()), 7, "{ips:?}");
        }
        let many: Vec<_> = (1..=17).map(|n| format!("10.0.0.{n}/24")).collect();
        assert!(usable_addresses(&given(&many.iter().map(String::as_str).collect::<Vec<_>>(), "")).is_err());
    }

    #[test]
    fn a_route_with_attributes_is_refused_by_name() {
        let error =
            usable_addresses(&given(&["10.0.0.1/8"], r#"{"dst":"0.0.0.0/0","table":7}"#)).unwrap_err();
        assert_eq!(u32::from(&error), 2);
        assert!(error.details().contains("table"), "{error}");
    }
}
