//! `vswitch-cni`: attaches pods to the vSwitch.

mod add;
mod upkeep;

pub(crate) use upkeep::{agent_ready, valid_attachments};

use std::path::PathBuf;

use rscni_plugin::cni::Cni;
use rscni_plugin::error::Error as CniError;
use rscni_plugin::types::{Args, CNIResult};

use crate::cni_args::CniArgs;
use crate::config::NetworkConf;
use crate::error::During;
use crate::kernel::netns::Netns;
use crate::names::AttachmentId;
use crate::runtime;

/// The network plugin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Network;

impl Cni for Network {
    fn add(&self, args: Args) -> Result<CNIResult, CniError> {
        runtime().during(|| "start")?.block_on(add::add(&Invocation::read(&args)?))
    }

    fn del(&self, args: Args) -> Result<(), CniError> {
        runtime().during(|| "start")?.block_on(upkeep::del(&Invocation::read(&args)?))
    }

    fn check(&self, args: Args) -> Result<(), CniError> {
        runtime().during(|| "start")?.block_on(upkeep::check(&Invocation::read(&args)?))
    }

    fn status(&self, args: Args) -> Result<(), CniError> {
        let conf = NetworkConf::read(args.config())?;
        runtime().during(|| "start")?.block_on(upkeep::status(&conf, &args))
    }

    fn gc(&self, args: Args) -> Result<(), CniError> {
        let conf = NetworkConf::read(args.config())?;
        runtime().during(|| "start")?.block_on(upkeep::collect_garbage(&conf, &args))
    }
}

/// One ADD, DEL or CHECK: what it is about, checked.
struct Invocation<'a> {
    args: &'a Args,
    conf: NetworkConf,
    id: AttachmentId,
    pod: CniArgs,
}

impl<'a> Invocation<'a> {
    fn read(args: &'a Args) -> Result<Self, CniError> {
        let conf = NetworkConf::read(args.config())?;
        let pod = CniArgs::parse(args.args().unwrap_or_default())?;
        // The library has refused an invocation without these.
        let container = args.container_id().ok_or_else(|| CniError::missing_env(&["CNI_CONTAINERID"]))?;
        let ifname = args.ifname().ok_or_else(|| CniError::missing_env(&["CNI_IFNAME"]))?;
        let id = AttachmentId::new(container.to_string(), ifname.to_string());
        Ok(Self { args, conf, id, pod })
    }

    /// The pod's namespace, which has to be there and has to be another than ours.
    fn netns(&self) -> Result<(Netns, PathBuf), CniError> {
        let path = self.args.netns().ok_or_else(|| CniError::missing_env(&["CNI_NETNS"]))?;
        let netns = Netns::open(path)?.ok_or_else(|| {
            CniError::InvalidNetNS(format!("CNI_NETNS: {} is not a network namespace", path.display()))
        })?;
        if netns.is_current()? {
            let problem = format!("CNI_NETNS: {} is the plugin's own network namespace", path.display());
            return Err(CniError::InvalidNetNS(problem));
        }
        Ok((netns, path.clone()))
    }
}
