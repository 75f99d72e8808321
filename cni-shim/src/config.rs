//! The network configuration on standard input, checked: what is in it is meant, so what we do not do is refused.

use std::path::PathBuf;

use rscni_plugin::error::Error as CniError;
use rscni_plugin::types::{Dns, NetConf};
use serde_json::Value;
use vswitch_model::api::AGENT_SOCKET;
use vswitch_model::limits::{MTU_MAX, MTU_MIN};

/// The configuration of `vswitch-cni`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConf {
    /// Name of the network, `name`.
    pub name: String,
    /// MTU of pods in bytes, `mtu`; None: what the agent says.
    pub mtu: Option<u16>,
    /// The agent's socket, `agentSocket`.
    pub agent_socket: PathBuf,
    /// File name of the IPAM plugin, `ipam.type`.
    pub ipam: String,
    /// What pods are told about name servers, `dns`.
    pub dns: Option<Dns>,
}

/// The configuration of `vswitch-ipam`: the part of its own, whatever network plugin the rest is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpamConf {
    /// The agent's socket, `ipam.agentSocket`, else the network's `agentSocket`.
    pub agent_socket: PathBuf,
}

impl NetworkConf {
    /// Checks `conf`. Code 7: a field is missing or wrong; code 2: one is unknown or asks for what we do not do.
    pub fn read(conf: &NetConf) -> Result<Self, CniError> {
        refuse_unknown("", &["mtu", "agentSocket"], conf.custom.keys())?;
        refuse_capabilities(conf)?;
        if conf.ip_masq == Some(true) {
            return Err(unsupported("ipMasq: not done by this plugin; leave it out"));
        }
        let ipam = conf
            .ipam
            .as_ref()
            .ok_or_else(|| invalid("ipam: missing; {\"type\": \"vswitch-ipam\"} will do"))?;
        if ipam.r#type.is_empty() || ipam.r#type.contains('/') || ipam.r#type.starts_with('.') {
            return Err(invalid(format!("ipam.type: {:?} is not the file name of a plugin", ipam.r#type)));
        }
        Ok(Self {
            name: conf.name.clone(),
            mtu: conf.custom.get("mtu").map(mtu).transpose()?.flatten(),
            agent_socket: socket("agentSocket", conf.custom.get("agentSocket"))?
                .unwrap_or_else(default_socket),
            ipam: ipam.r#type.clone(),
            dns: conf.dns.clone(),
        })
    }
}

impl IpamConf {
    /// Checks the part of `conf` that is ours.
    pub fn read(conf: &NetConf) -> Result<Self, CniError> {
        let ipam = conf
            .ipam
            .as_ref()
            .ok_or_else(|| invalid("ipam: missing; {\"type\": \"vswitch-ipam\"} will do"))?;
        refuse_unknown("ipam.", &["agentSocket"], ipam.custom.keys())?;
        let own = socket("ipam.agentSocket", ipam.custom.get("agentSocket"))?;
        let networks = socket("agentSocket", conf.custom.get("agentSocket"))?;
        Ok(Self { agent_socket: own.or(networks).unwrap_or_else(default_socket) })
    }
}

/// Keys that begin with `cni.dev/` are the specification's own.
fn refuse_unknown<'a>(
    outer: &str,
    known: &[&str],
    keys: impl Iterator<Item = &'a String>,
) -> Result<(), CniError> {
    let mut unknown: Vec<_> =
        keys.filter(|key| !known.contains(&key.as_str()) && !key.starts_with("cni.dev/")).collect();
    unknown.sort();
    match unknown.first() {
        None => Ok(()),
        Some(key) => {
            Err(unsupported(format!("{outer}{key}: unknown field; known here: {}", known.join(", "))))
        }
    }
}

/// A runtime puts into `runtimeConfig` what `capabilities` say the plugin can do. This one has none so far.
fn refuse_capabilities(conf: &NetConf) -> Result<(), CniError> {
    let declared = conf.capabilities.iter().flatten().filter(|(_, on)| **on).map(|(name, _)| name);
    if let Some(name) = declared.min() {
        return Err(unsupported(format!("capabilities.{name}: this plugin does not have it; leave it out")));
    }
    let Some(runtime) = &conf.runtime_config else { return Ok(()) };
    if !runtime.port_mappings.is_empty() {
        return Err(unsupported("runtimeConfig.portMappings: not done by this plugin"));
    }
    match runtime.custom.iter().filter(|(_, value)| !is_empty(value)).map(|(name, _)| name).min() {
        None => Ok(()),
        Some(name) => Err(unsupported(format!("runtimeConfig.{name}: not done by this plugin"))),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// 0 is what people write for "choose for me".
fn mtu(value: &Value) -> Result<Option<u16>, CniError> {
    let range = u64::from(MTU_MIN)..=u64::from(MTU_MAX);
    match value.as_u64() {
        Some(0) => Ok(None),
        Some(mtu) if range.contains(&mtu) => {
            Ok(Some(u16::try_from(mtu).expect("the range ends far below what 16 bits hold")))
        }
        _ => Err(invalid(format!("mtu: {value} is not a number of bytes from {MTU_MIN} to {MTU_MAX}"))),
    }
}

fn socket(field: &str, value: Option<&Value>) -> Result<Option<PathBuf>, CniError> {
    match value {
        None => Ok(None),
        Some(Value::String(path)) if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
        Some(other) => {
            Err(invalid(format!("{field}: {other} is not an absolute path such as {AGENT_SOCKET}")))
        }
    }
}

fn default_socket() -> PathBuf {
    PathBuf::from(AGENT_SOCKET)
}

fn invalid(problem: impl Into<String>) -> CniError {
    CniError::InvalidNetworkConfig(problem.into())
}

fn unsupported(problem: impl Into<String>) -> CniError {
    CniError::UnsupportedNetworkConfiguration(problem.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn conf(fields: &str) -> NetConf {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"pods","type":"vswitch-cni"{fields}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    const IPAM: &str = r#","ipam":{"type":"vswitch-ipam"}"#;

    #[test]
    fn the_least_configuration_is_enough() {
        let read = NetworkConf::read(&conf(IPAM)).unwrap();
        assert_eq!((read.mtu, &*read.ipam), (None, "vswitch-ipam"));
        assert_eq!(read.agent_socket, Path::new("/run/vswitch/agent.sock"));
    }

    #[test]
    fn every_field_counts() {
        let all = format!(
            r#"{IPAM},"mtu":1450,"agentSocket":"/run/a.sock","dns":{{"nameservers":["10.0.0.10"]}},"args":{{"cni":{{}}}},
               "prevResult":{{"ips":[]}},"runtimeConfig":{{"portMappings":[]}},"capabilities":{{"portMappings":false}},
               "cni.dev/valid-attachments":[],"cni.dev/attachments":[]"#
        );
        let read = NetworkConf::read(&conf(&all)).unwrap();
        assert_eq!((read.mtu, read.agent_socket.to_str()), (Some(1450), Some("/run/a.sock")));
        assert_eq!(read.dns.unwrap().nameservers, ["10.0.0.10"]);
    }

    #[test]
    fn what_is_wrong_or_not_done_is_refused_by_name() {
        for (fields, code, named) in [
            (r#","mtu":1450"#, 7, "ipam"),
            (r#","ipam":{"type":"../evil"}"#, 7, "ipam.type"),
            (r#","ipam":{"type":"vswitch-ipam"},"mtu":100"#, 7, "mtu"),
            (r#","ipam":{"type":"vswitch-ipam"},"mtu":"1500""#, 7, "mtu"),
            (r#","ipam":{"type":"vswitch-ipam"},"agentSocket":"agent.sock""#, 7, "agentSocket"),
            (r#","ipam":{"type":"vswitch-ipam"},"bridge":"cni0""#, 2, "bridge"),
            (r#","ipam":{"type":"vswitch-ipam"},"ipMasq":true"#, 2, "ipMasq"),
            (
                r#","ipam":{"type":"vswitch-ipam"},"capabilities":{"bandwidth":true}"#,
                2,
                "capabilities.bandwidth",
            ),
            (r#","ipam":{"type":"x"},"runtimeConfig":{"mac":"02:00:00:00:00:01"}"#, 2, "runtimeConfig.mac"),
            (
                r#","ipam":{"type":"x"},"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":2}]}"#,
                2,
                "runtimeConfig.portMappings",
            ),
        ] {
            let error = NetworkConf::read(&conf(fields)).unwrap_err();
            assert_eq!(u32::from(&error), code, "{fields}: {error}");
            assert!(error.details().starts_with(named), "{fields}: {error}");
        }
    }

    #[test]
    fn ipam_looks_at_its_own_part() {
        let bridge = r#","bridge":"cni0","ipam":{"type":"vswitch-ipam","agentSocket":"/run/b.sock"}"#;
        assert_eq!(IpamConf::read(&conf(bridge)).unwrap().agent_socket, Path::new("/run/b.sock"));
        let ours = r#","agentSocket":"/run/a.sock","ipam":{"type":"vswitch-ipam"}"#;
        assert_eq!(IpamConf::read(&conf(ours)).unwrap().agent_socket, Path::new("/run/a.sock"));
        let error =
            IpamConf::read(&conf(r#","ipam":{"type":"vswitch-ipam","subnet":"10.0.0.0/8"}"#)).unwrap_err();
        assert!(error.details().starts_with("ipam.subnet"), "{error}");
        assert!(IpamConf::read(&conf("")).is_err());
    }
}
