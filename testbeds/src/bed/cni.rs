//! The container runtime's part: executing a CNI plugin as the specification tells (CNI 1.1, "Execution protocol").

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{failure, output};
use crate::netns::Netns;
use crate::topology::Pod;
use crate::{Error, Result};

/// The interface every pod gets.
pub const POD_INTERFACE: &str = "eth0";
/// The version of the specification we speak.
const VERSION: &str = "1.1.0";

/// A network of the runtime: its configuration list, as it would lie in /etc/cni/net.d, and where plugins are.
#[derive(Debug, Clone)]
pub struct Network {
    /// The namespace the plugins run in: the node's.
    pub node: Netns,
    /// Where plugins are: `CNI_PATH`.
    pub plugins: PathBuf,
    /// The configuration list.
    pub list: Value,
}

/// One attachment of one container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id: 64 hexadecimal digits, as containerd's.
    pub id: String,
    /// Its network namespace.
    pub netns: Netns,
    /// Whose it is.
    pub pod: Pod,
    /// What ADD answered.
    pub result: Option<Value>,
}

/// What a plugin said when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// The specification's error code.
    pub code: u64,
    /// Its message and details.
    pub text: String,
}

/// What a plugin answered: an error is one in the specification's form.
pub type Answer<T> = std::result::Result<T, CniError>;

impl Network {
    /// The network of a node's agent.
    #[must_use]
    pub fn new(node: &Netns, plugins: &Path, agent_socket: &Path) -> Self {
        let list = json!({
            "cniVersion": VERSION,
            "name": "vswitch",
            "plugins": [{
                "type": "vswitch-cni",
                "agentSocket": agent_socket,
                "ipam": { "type": "vswitch-ipam" },
            }],
        });
        Self { node: node.clone(), plugins: plugins.to_owned(), list }
    }

    /// The same with one more key in the plugin's configuration.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.list["plugins"][0][key] = value;
        self
    }

    /// ADD: the result is kept in the container.
    pub fn add(&self, container: &mut Container) -> Result<Answer<()>> {
        let answer = self.execute("ADD", container)?;
        Ok(answer.map(|result| container.result = Some(result)))
    }

    /// CHECK.
    pub fn check(&self, container: &Container) -> Result<Answer<()>> {
        Ok(self.execute("CHECK", container)?.map(drop))
    }

    /// DEL.
    pub fn delete(&self, container: &Container) -> Result<Answer<()>> {
        Ok(self.execute("DEL", container)?.map(drop))
    }

    /// The command that the runtime would execute, and what it would write to its standard input.
    #[must_use]
    pub fn command(&self, verb: &str, container: &Container) -> (std::process::Command, String) {
        let mut config = self.list["plugins"][0].clone();
        config["cniVersion"] = self.list["cniVersion"].clone();
        config["name"] = self.list["name"].clone();
        if let (Some(result), "CHECK" | "DEL") = (&container.result, verb) {
            config["prevResult"] = result.clone();
        }
        let plugin = config["type"].as_str().unwrap_or_default().to_owned();
        let pod = &container.pod;
        let mut command = self.node.command(self.plugins.join(plugin));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", container.netns.path())
            .env("CNI_IFNAME", POD_INTERFACE)
            .env("CNI_PATH", &self.plugins)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={}",
                    pod.namespace, pod.name, container.id
                ),
            );
        (command, config.to_string())
    }

    fn execute(&self, verb: &str, container: &Container) -> Result<Answer<Value>> {
        let (mut command, config) = self.command(verb, container);
        let output = output(&mut command, &config)?;
        let reply: Option<Value> = match output.stdout.as_slice() {
            [] => Some(Value::Null),
            text => serde_json::from_slice(text).ok(),
        };
        match reply {
            Some(reply) if output.status.success() => Ok(Ok(reply)),
            Some(reply) if reply["code"].is_u64() => {
                let words = [&reply["msg"], &reply["details"]].map(|part| part.as_str().unwrap_or_default());
                let code = reply["code"].as_u64().unwrap_or_default();
                Ok(Err(CniError { code, text: words.join(": ") }))
            }
            // Neither success nor an error in the specification's form.
            _ => Err(failure(&command, &output)),
        }
    }
}

impl Container {
    /// A container of a pod in a namespace; `number` makes its id differ from other containers of the pod.
    #[must_use]
    pub fn new(pod: &Pod, netns: Netns, number: u32) -> Self {
        let id: String = (0..4).map(|part| fnv1a(&format!("{} {number} {part}", netns.name()))).collect();
        Self { id, netns, pod: pod.clone(), result: None }
    }

    /// Its addresses, as ADD answered.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let result = self
            .result
            .as_ref()
            .ok_or_else(|| Error::other(format!("{} is not attached", self.pod.key())))?;
        let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        ips.iter()
            .map(|ip| {
                let text = ip["address"].as_str().unwrap_or_default();
                let address = text.split('/').next().unwrap_or_default().parse();
                address.map_err(|_| Error::other(format!("ADD answered the address {text:?}")))
            })
            .collect()
    }

    /// The host end's name, as ADD answered: the interface without a sandbox.
    #[must_use]
    pub fn host_interface(&self) -> Option<&str> {
        let interfaces = self.result.as_ref()?["interfaces"].as_array()?;
        let host = interfaces.iter().find(|i| i["sandbox"].as_str().unwrap_or_default().is_empty())?;
        host["name"].as_str()
    }
}

/// FNV-1a of a text, as 16 hexadecimal digits: ids that look random and are the same in every run.
fn fnv1a(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    fn container() -> Container {
        Container::new(&Topology::demo().pods[0], Netns::named("vsw-x-caller"), 1)
    }

    #[test]
    fn ids_are_as_containerds_and_differ() {
        let first = container();
        assert_eq!(first.id.len(), 64);
        assert!(first.id.bytes().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(first.id, Container::new(&first.pod, first.netns.clone(), 2).id);
    }

    #[test]
    fn the_plugin_gets_its_part_of_the_list_and_the_previous_result() {
        let network = Network::new(&Netns::named("n"), Path::new("/bin"), Path::new("/run/agent.sock"));
        let mut container = container();
        let (command, config) = network.command("ADD", &container);
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["type"], "vswitch-cni");
        assert_eq!(config["cniVersion"], VERSION);
        assert!(config.get("prevResult").is_none());
        let arguments = command.get_envs().find(|(key, _)| *key == "CNI_ARGS").unwrap().1.unwrap();
        assert!(arguments.to_str().unwrap().contains("K8S_POD_NAMESPACE=media;K8S_POD_NAME=caller"));
        container.result = Some(json!({"ips": [{"address": "10.44.0.1/32"}, {"address": "fd44::1/128"}]}));
        assert!(network.command("CHECK", &container).1.contains("prevResult"));
        assert_eq!(container.addresses().unwrap().len(), 2);
    }
}
