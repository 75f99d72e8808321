//! The configuration file of `vswitch-agent`.
//!
//! TOML, every field optional; an agent with an empty file is a node with a store of its own. An error names the file,
//! the line, the field and what would be right.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use vswitch_model::{Dscp, PodTunnels, PortKind, Vni, api};

mod read;
mod shown;
mod store;

pub use shown::Field;
pub use store::{DEFAULT_PREFIX, DEFAULT_STORE, StoreConfig};

use self::read::{Reader, Written, line_of};
use crate::agent::underlay::Wish;
use crate::ipam;

/// Where the file is looked for when nobody says.
pub const DEFAULT_PATH: &str = "/etc/vswitch/agent.toml";
/// Where what DNS has told is kept unless configured otherwise.
pub const DEFAULT_NAMES: &str = "/var/lib/vswitch/names.json";

/// One agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's name. None: its host name.
    pub node: Option<String>,
    /// Where objects are kept.
    pub store: StoreConfig,
    /// How the other nodes reach this one, as far as somebody said.
    pub underlay: Wish,
    /// MTU of pods. None: what the underlay leaves.
    pub pod_mtu: Option<u16>,
    /// The kind of pods' ports, where neither a pod nor its pool says.
    pub pod_port: PortKind,
    /// The VXLAN network of the cluster.
    pub vni: Vni,
    /// Its UDP port.
    pub vxlan_port: u16,
    /// The UDP port of flannel's VXLAN, for nodes that run flannel.
    pub flannel_port: u16,
    /// What becomes of the DSCP through tunnels.
    pub dscp: Dscp,
    /// Which tunnel packets pods may send of their own.
    pub pod_tunnels: PodTunnels,
    /// How long an address rests before it is assigned again.
    pub cool_down: Duration,
    /// Where what DNS has told of names is kept.
    pub names_file: PathBuf,
    /// Whose answers count as DNS. Empty: those of any server that policy lets pods ask.
    pub dns_servers: Vec<IpNet>,
    /// Unix socket of the agent API.
    pub api_socket: PathBuf,
    /// Where vswitchd listens.
    pub engine_socket: PathBuf,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,vswitch_control=debug`.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            store: StoreConfig::Embedded(DEFAULT_STORE.into()),
            underlay: Wish::default(),
            pod_mtu: None,
            pod_port: PortKind::default(),
            vni: Vni::CALICO,
            vxlan_port: 4789,
            flannel_port: 8472,
            dscp: Dscp::Inherit,
            pod_tunnels: PodTunnels::default(),
            cool_down: ipam::COOL_DOWN,
            names_file: DEFAULT_NAMES.into(),
            dns_servers: Vec::new(),
            api_socket: api::AGENT_SOCKET.into(),
            engine_socket: api::ENGINE_SOCKET.into(),
            log: "info".to_owned(),
        }
    }
}

/// Why a configuration is refused. Prints as `FILE:LINE: FIELD: problem`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from 1, when one is to blame.
    pub line: Option<usize>,
    /// The field, when one is to blame.
    pub field: Option<&'static str>,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if let Some(field) = self.field {
            write!(f, " {field}:")?;
        }
        write!(f, " {}", self.problem)
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: None,
            field: None,
            problem: format!("cannot be read: {error}; `--config FILE` names another"),
        })?;
        Self::parse(file, &text)
    }

    /// The same for a text that is already here; `file` is only named in errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let written: Written = toml::from_str(text).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: error.span().map(|span| line_of(text, span.start)),
            field: None,
            problem: error.message().replace('\n', "; "),
        })?;
        Reader { file, text }.config(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Underlay;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("agent.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_is_a_node_with_a_store_of_its_own() {
        assert_eq!(parse(""), Ok(Config::default()));
    }

    #[test]
    fn everything_can_be_said() {
        let text = r#"
            node = "n1"
            pod_mtu = 1400
            pod_port = "tun"
            vni = 7
            vxlan_port = 8472
            flannel_port = 8473
            dscp = 46
            vxlan_from_pods = true
            ipip_from_pods = true
            cool_down_s = 5
            names_file = "/run/names.json"
            dns_servers = ["10.96.0.10", "fd00::/64"]
            api_socket = "/run/a.sock"
            engine_socket = "/run/e.sock"
            log = "debug"
            [store]
            etcd = ["http://192.0.2.1:2379", "http://[2001:db8::2]:2379"]
            etcd_prefix = "/other/"
            [underlay]
            ipv4 = "192.0.2.1/24"
            ipv6 = "2001:db8::1/64"
        "#;
        let expected = Config {
            node: Some("n1".into()),
            store: StoreConfig::Etcd {
                endpoints: vec!["http://192.0.2.1:2379".into(), "http://[2001:db8::2]:2379".into()],
                prefix: "/other/".into(),
            },
            underlay: Wish {
                interface: None,
                addresses: Underlay {
                    ipv4: "192.0.2.1/24".parse().ok(),
                    ipv6: "2001:db8::1/64".parse().ok(),
                },
            },
            pod_mtu: Some(1400),
            pod_port: PortKind::Tun,
            vni: Vni::new(7).unwrap(),
            vxlan_port: 8472,
            flannel_port: 8473,
            dscp: Dscp::Pipe(46),
            pod_tunnels: PodTunnels { vxlan: true, ipip: true },
            cool_down: Duration::from_secs(5),
            names_file: "/run/names.json".into(),
            dns_servers: vec!["10.96.0.10/32".parse().unwrap(), "fd00::/64".parse().unwrap()],
            api_socket: "/run/a.sock".into(),
            engine_socket: "/run/e.sock".into(),
            log: "debug".into(),
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn a_refusal_names_line_and_field() {
        for (text, expected) in [
            ("nodes = \"n1\"", "agent.toml:1: unknown field `nodes`"),
            ("\n[store]\nredis = 1", "agent.toml:3: unknown field `redis`"),
            ("vni = \"7\"", "agent.toml:1: invalid type: string \"7\""),
            ("node = \"N_1\"", "agent.toml:1: node: \"N_1\" is not a name"),
            ("\nvni = 16777216", "agent.toml:2: vni: 16777216 is out of range: 0 to 16777215"),
            ("vxlan_port = 0", "agent.toml:1: vxlan_port: 0 is out of range: 1 to 65535"),
            ("dscp = 64", "agent.toml:1: dscp: 64 is neither \"inherit\" nor \"uniform\" nor a code point"),
            ("\ndscp = \"pipe\"", "agent.toml:2: dscp: \"pipe\" is neither \"inherit\""),
            ("pod_mtu = 9000", "agent.toml:1: pod_mtu: 9000 is out of range: 1280 to 1600"),
            ("log = \"verbose\"", "agent.toml:1: log: \"verbose\" is no level (error, warn, "),
            ("pod_port = \"tap\"", "agent.toml:1: pod_port: \"tap\" is no kind of port: veth or tun"),
            (
                "dns_servers = [\"dns\"]",
                "agent.toml:1: dns_servers: \"dns\": an address or a prefix, as 10.96.0.10",
            ),
            ("cool_down_s = -1", "agent.toml:1: cool_down_s: -1 is out of range"),
            ("api_socket = \"a.sock\"", "agent.toml:1: api_socket: \"a.sock\": an absolute path"),
            ("log = \"a=b=c\"", "agent.toml:1: log: \"a=b=c\""),
            (
                "[store]\nembedded = \"/a\"\netcd = [\"http://a:1\"]",
                "agent.toml:3: store.etcd: there is store.embedded",
            ),
            ("[store]\netcd = []", "agent.toml:2: store.etcd: is empty"),
            (
                "[store]\netcd = [\"https://a:1\"]",
                "agent.toml:2: store.etcd: \"https://a:1\": http://host:port",
            ),
            ("[store]\netcd_prefix = \"/a/\"", "agent.toml:2: store.etcd_prefix: without store.etcd"),
            (
                "[underlay]\nipv4 = \"192.0.2.1\"",
                "agent.toml:2: underlay.ipv4: \"192.0.2.1\": an address with its",
            ),
            (
                "[underlay]\ninterface = \"a b\"",
                "agent.toml:2: underlay.interface: \"a b\" is not an interface name",
            ),
            (
                "[underlay]\ninterface = \"a\"\nipv4 = \"192.0.2.1/24\"",
                "agent.toml:2: underlay.interface: there are",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::read(Path::new("/nonexistent/agent.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/agent.toml: cannot be read"), "{error}");
    }
}
