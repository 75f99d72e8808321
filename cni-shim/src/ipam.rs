//! `vswitch-ipam`: addresses from the agent's pools, for any network plugin that delegates to it.

use rscni_plugin::cni::Cni;
use rscni_plugin::error::Error as CniError;
use rscni_plugin::types::{Args, CNIResult, IpConfig};

use crate::agent::Agent;
use crate::cni_args::CniArgs;
use crate::config::IpamConf;
use crate::error::{CODE_AGENT, CODE_DIFFERS, During};
use crate::names::AttachmentId;
use crate::network::{agent_ready, valid_attachments};
use crate::runtime;

/// The IPAM plugin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ipam;

impl Cni for Ipam {
    fn add(&self, args: Args) -> Result<CNIResult, CniError> {
        let conf = IpamConf::read(args.config())?;
        let pod = CniArgs::parse(args.args().unwrap_or_default())?;
        let id = attachment(&args)?;
        runtime().during(|| "start")?.block_on(async {
            let mut agent = Agent::connect(&conf.agent_socket).await?;
            let addresses = agent.assign(&id, &args.config().name, &pod).await?;
            result(&addresses)
        })
    }

    fn del(&self, args: Args) -> Result<(), CniError> {
        let conf = IpamConf::read(args.config())?;
        let id = attachment(&args)?;
        runtime()
            .during(|| "start")?
            .block_on(async { Agent::connect(&conf.agent_socket).await?.release(&id).await })
    }

    fn check(&self, args: Args) -> Result<(), CniError> {
        let conf = IpamConf::read(args.config())?;
        let id = attachment(&args)?;
        let held = runtime()
            .during(|| "start")?
            .block_on(async { Agent::connect(&conf.agent_socket).await?.check_addresses(&id).await })?;
        compare(&held, args.config().prev_result.as_ref())
    }

    fn status(&self, args: Args) -> Result<(), CniError> {
        let conf = IpamConf::read(args.config())?;
        runtime().during(|| "start")?.block_on(agent_ready(&conf.agent_socket))
    }

    fn gc(&self, args: Args) -> Result<(), CniError> {
        let conf = IpamConf::read(args.config())?;
        let valid = valid_attachments(&args)?;
        let network = &args.config().name;
        runtime().during(|| "start")?.block_on(async {
            Agent::connect(&conf.agent_socket).await?.collect_garbage(network, &valid).await
        })
    }
}

fn attachment(args: &Args) -> Result<AttachmentId, CniError> {
    // The library has refused an invocation without these.
    let container = args.container_id().ok_or_else(|| CniError::missing_env(&["CNI_CONTAINERID"]))?;
    let ifname = args.ifname().ok_or_else(|| CniError::missing_env(&["CNI_IFNAME"]))?;
    Ok(AttachmentId::new(container.to_string(), ifname.to_string()))
}

/// The result of an IPAM plugin: each address as a host of its own; interface and routes are the network plugin's.
fn result(addresses: &[String]) -> Result<CNIResult, CniError> {
    let ips: Result<Vec<_>, CniError> = addresses
        .iter()
        .map(|text| {
            let address: std::net::IpAddr = text.parse().map_err(|_| {
                let details = format!("addresses: {text:?} is not an address");
                CniError::Custom(CODE_AGENT, "vswitch-agent's answer makes no sense".to_owned(), details)
            })?;
            Ok(IpConfig { interface: None, address: address.into(), gateway: None })
        })
        .collect();
    Ok(CNIResult { ips: ips?, ..CNIResult::default() })
}

/// Every address held must be in the result of ADD, when the network plugin passes that on.
fn compare(held: &[String], previous: Option<&CNIResult>) -> Result<(), CniError> {
    let Some(previous) = previous else { return Ok(()) };
    let reported: Vec<_> = previous.ips.iter().map(|ip| ip.address.addr().to_string()).collect();
    match held.iter().find(|address| !reported.contains(address)) {
        None => Ok(()),
        Some(address) => {
            let details =
                format!("prevResult: has {}, and not {address}, which is assigned", reported.join(", "));
            Err(CniError::Custom(CODE_DIFFERS, "addresses differ from what was assigned".to_owned(), details))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_hosts() {
        let given = result(&["10.0.0.1".into(), "fd00::1".into()]).unwrap();
        let text: Vec<_> = given.ips.iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(text, ["10.0.0.1/32", "fd00::1/128"]);
        assert_eq!(u32::from(&result(&["10.0.0.1/24".into()]).unwrap_err()), CODE_AGENT);
    }

    #[test]
    fn check_compares_with_the_result_of_add() {
        let previous: CNIResult = serde_json::from_str(r#"{"ips":[{"address":"10.0.0.1/32"}]}"#).unwrap();
        assert!(compare(&["10.0.0.1".into()], Some(&previous)).is_ok());
        assert!(compare(&["10.0.0.1".into()], None).is_ok());
        assert!(compare(&["10.0.0.2".into()], Some(&previous)).is_err());
    }
}
