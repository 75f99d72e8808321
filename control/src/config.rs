//! The configuration file of `vswitch-agent`.
//!
//! TOML, every field optional; an agent with an empty file is a node with a store of its own. An error names the file,
//! the line, the field and what would be right.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use toml::Spanned;
use vswitch_model::{Dscp, Invalid, PodTunnels, PortKind, PortName, Vni, api, limits};

mod shown;

use crate::agent::Underlay;
use crate::agent::underlay::Wish;
use crate::ipam;
use crate::object::{Node, Object, ObjectMeta};

/// Where the file is looked for when nobody says.
pub const DEFAULT_PATH: &str = "/etc/vswitch/agent.toml";
/// Where the embedded store is unless configured otherwise.
pub const DEFAULT_STORE: &str = "/var/lib/vswitch/store.redb";
/// Where what DNS has told is kept unless configured otherwise.
pub const DEFAULT_NAMES: &str = "/var/lib/vswitch/names.json";
/// What keys in etcd begin with unless configured otherwise.
pub const DEFAULT_PREFIX: &str = "/vswitch/";

/// Seconds an address may have to rest.
const COOL_DOWN_S: RangeInclusive<i64> = 0..=3600;

/// Where objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// In a file of this node.
    Embedded(PathBuf),
    /// In etcd.
    Etcd {
        /// Its members: `http://host:port`.
        endpoints: Vec<String>,
        /// What all keys begin with.
        prefix: String,
    },
}

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

/// The file as written: every value with its place, so that a refusal can name the line.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    node: Option<Spanned<String>>,
    store: WrittenStore,
    underlay: WrittenUnderlay,
    pod_mtu: Option<Spanned<i64>>,
    pod_port: Option<Spanned<String>>,
    vni: Option<Spanned<i64>>,
    vxlan_port: Option<Spanned<i64>>,
    flannel_port: Option<Spanned<i64>>,
    dscp: Option<Spanned<toml::Value>>,
    vxlan_from_pods: bool,
    ipip_from_pods: bool,
    cool_down_s: Option<Spanned<i64>>,
    names_file: Option<Spanned<PathBuf>>,
    dns_servers: Option<Spanned<Vec<String>>>,
    api_socket: Option<Spanned<PathBuf>>,
    engine_socket: Option<Spanned<PathBuf>>,
    log: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenStore {
    embedded: Option<Spanned<PathBuf>>,
    etcd: Option<Spanned<Vec<String>>>,
    etcd_prefix: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenUnderlay {
    interface: Option<Spanned<String>>,
    ipv4: Option<Spanned<String>>,
    ipv6: Option<Spanned<String>>,
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

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
}

type Read<T> = Result<T, ConfigError>;

impl Reader<'_> {
    fn config(&self, written: Written) -> Read<Config> {
        let defaults = Config::default();
        Ok(Config {
            node: written.node.map(|node| self.node(node)).transpose()?,
            store: self.store(written.store)?,
            underlay: self.underlay(written.underlay)?,
            pod_mtu: written
                .pod_mtu
                .map(|mtu| self.number("pod_mtu", &mtu, limits::MTU_MIN.into()..=limits::MTU_MAX.into()))
                .transpose()?,
            pod_port: match written.pod_port {
                None => defaults.pod_port,
                Some(kind) => {
                    kind.as_ref().parse().map_err(|e: Invalid| self.refuse("pod_port", &kind, e.problem))?
                }
            },
            vni: match written.vni {
                None => defaults.vni,
                Some(vni) => {
                    let number: u32 = self.number("vni", &vni, 0..=Vni::MAX.into())?;
                    Vni::new(number).map_err(|e| self.refuse("vni", &vni, e.problem))?
                }
            },
            vxlan_port: match written.vxlan_port {
                None => defaults.vxlan_port,
                Some(port) => self.number("vxlan_port", &port, 1..=65535)?,
            },
            flannel_port: match written.flannel_port {
                None => defaults.flannel_port,
                Some(port) => self.number("flannel_port", &port, 1..=65535)?,
            },
            dscp: written.dscp.map(|dscp| self.dscp(&dscp)).transpose()?.unwrap_or_default(),
            pod_tunnels: PodTunnels { vxlan: written.vxlan_from_pods, ipip: written.ipip_from_pods },
            cool_down: match written.cool_down_s {
                None => defaults.cool_down,
                Some(seconds) => Duration::from_secs(self.number("cool_down_s", &seconds, COOL_DOWN_S)?),
            },
            names_file: self.path("names_file", written.names_file)?.unwrap_or(defaults.names_file),
            dns_servers: written
                .dns_servers
                .map(|servers| self.servers(&servers))
                .transpose()?
                .unwrap_or_default(),
            api_socket: self.path("api_socket", written.api_socket)?.unwrap_or(defaults.api_socket),
            engine_socket: self
                .path("engine_socket", written.engine_socket)?
                .unwrap_or(defaults.engine_socket),
            log: written.log.map(|log| self.log(log)).transpose()?.unwrap_or(defaults.log),
        })
    }

    /// A node's name is the name of its object.
    fn node(&self, written: Spanned<String>) -> Read<String> {
        let node = Node { metadata: ObjectMeta::named(written.as_ref()), ..Node::default() };
        match Object::from(node).validate() {
            Ok(()) => Ok(written.into_inner()),
            Err(error) => Err(self.refuse("node", &written, error.problem)),
        }
    }

    /// A word, or the code point of outer headers.
    fn dscp(&self, written: &Spanned<toml::Value>) -> Read<Dscp> {
        let read = match written.as_ref() {
            toml::Value::String(word) if word == "inherit" => Some(Dscp::Inherit),
            toml::Value::String(word) if word == "uniform" => Some(Dscp::Uniform),
            toml::Value::Integer(value) => u32::try_from(*value).ok().and_then(|v| Dscp::pipe(v).ok()),
            _ => None,
        };
        read.ok_or_else(|| {
            let problem = format!(
                "{} is neither \"inherit\" nor \"uniform\" nor a code point for outer headers, 0 to {}",
                written.as_ref(),
                Dscp::MAX
            );
            self.refuse("dscp", written, problem)
        })
    }

    /// Addresses or prefixes.
    fn servers(&self, written: &Spanned<Vec<String>>) -> Read<Vec<IpNet>> {
        let read = |text: &String| {
            let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            net.map_err(|_| {
                let problem = format!("\"{text}\": an address or a prefix, as 10.96.0.10, would be right");
                self.refuse("dns_servers", written, problem)
            })
        };
        written.as_ref().iter().map(read).collect()
    }

    fn store(&self, written: WrittenStore) -> Read<StoreConfig> {
        let WrittenStore { embedded, etcd, etcd_prefix } = written;
        if let (Some(_), Some(etcd)) = (&embedded, &etcd) {
            let problem = "there is store.embedded as well; one of them would be right".to_owned();
            return Err(self.refuse("store.etcd", etcd, problem));
        }
        let Some(etcd) = etcd else {
            if let Some(prefix) = etcd_prefix {
                let problem = "without store.etcd it means nothing; set that, or leave this out".to_owned();
                return Err(self.refuse("store.etcd_prefix", &prefix, problem));
            }
            let path = self.path("store.embedded", embedded)?.unwrap_or_else(|| DEFAULT_STORE.into());
            return Ok(StoreConfig::Embedded(path));
        };
        let is_endpoint = |text: &str| {
            let host_port = text.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':'));
            host_port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if etcd.as_ref().is_empty() {
            let problem = "is empty; a list such as [\"http://192.0.2.1:2379\"] would be right".to_owned();
            return Err(self.refuse("store.etcd", &etcd, problem));
        }
        if let Some(wrong) = etcd.as_ref().iter().find(|endpoint| !is_endpoint(endpoint)) {
            let problem =
                format!("\"{wrong}\": http://host:port would be right (https is not supported yet)");
            return Err(self.refuse("store.etcd", &etcd, problem));
        }
        let prefix = match etcd_prefix {
            None => DEFAULT_PREFIX.to_owned(),
            Some(prefix) if prefix.as_ref().starts_with('/') && prefix.as_ref().ends_with('/') => {
                prefix.into_inner()
            }
            Some(prefix) => {
                let problem =
                    format!("\"{}\": must begin and end with '/', as {DEFAULT_PREFIX}", prefix.as_ref());
                return Err(self.refuse("store.etcd_prefix", &prefix, problem));
            }
        };
        Ok(StoreConfig::Etcd { endpoints: etcd.into_inner(), prefix })
    }

    fn underlay(&self, written: WrittenUnderlay) -> Read<Wish> {
        let WrittenUnderlay { interface, ipv4, ipv6 } = written;
        if let (Some(interface), true) = (&interface, ipv4.is_some() || ipv6.is_some()) {
            let problem =
                "there are addresses as well; the interface or the addresses would be right".to_owned();
            return Err(self.refuse("underlay.interface", interface, problem));
        }
        let interface = match interface {
            None => None,
            Some(name) => match PortName::new(name.as_ref()) {
                Ok(_) => Some(name.into_inner()),
                Err(error) => return Err(self.refuse("underlay.interface", &name, error.problem)),
            },
        };
        let addresses = Underlay {
            ipv4: self.prefix::<Ipv4Net>("underlay.ipv4", ipv4, "192.0.2.1/24")?,
            ipv6: self.prefix::<Ipv6Net>("underlay.ipv6", ipv6, "2001:db8::1/64")?,
        };
        Ok(Wish { interface, addresses })
    }

    fn prefix<T: std::str::FromStr>(
        &self,
        field: &'static str,
        written: Option<Spanned<String>>,
        like: &str,
    ) -> Read<Option<T>> {
        let Some(written) = written else { return Ok(None) };
        let text = written.as_ref();
        let wrong = |_| {
            let problem = format!("\"{text}\": an address with its prefix length, as {like}, would be right");
            self.refuse(field, &written, problem)
        };
        text.parse().map(Some).map_err(wrong)
    }

    fn number<T: TryFrom<i64>>(
        &self,
        field: &'static str,
        written: &Spanned<i64>,
        range: RangeInclusive<i64>,
    ) -> Read<T> {
        let value = *written.as_ref();
        let fits = range.contains(&value).then(|| T::try_from(value).ok()).flatten();
        fits.ok_or_else(|| {
            let problem = format!("{value} is out of range: {} to {}", range.start(), range.end());
            self.refuse(field, written, problem)
        })
    }

    fn path(&self, field: &'static str, written: Option<Spanned<PathBuf>>) -> Read<Option<PathBuf>> {
        match written {
            Some(path) if !path.as_ref().is_absolute() => {
                let problem = format!("\"{}\": an absolute path would be right", path.as_ref().display());
                Err(self.refuse(field, &path, problem))
            }
            path => Ok(path.map(Spanned::into_inner)),
        }
    }

    fn log(&self, written: Spanned<String>) -> Read<String> {
        if let Some(word) = written.as_ref().split(',').find(|word| !is_directive(word)) {
            let problem = format!(
                "\"{word}\" is no level (error, warn, info, debug, trace or off); \"info\" or \"info,vswitch_control=debug\" \
                 would be right"
            );
            return Err(self.refuse("log", &written, problem));
        }
        match written.as_ref().parse::<tracing_subscriber::EnvFilter>() {
            Ok(_) => Ok(written.into_inner()),
            Err(error) => {
                let problem = format!(
                    "\"{}\": {error}; \"info\" or \"info,vswitch_control=debug\" would be right",
                    written.as_ref()
                );
                Err(self.refuse("log", &written, problem))
            }
        }
    }

    fn refuse<T>(&self, field: &'static str, at: &Spanned<T>, problem: String) -> ConfigError {
        let line = Some(line_of(self.text, at.span().start));
        ConfigError { file: self.file.to_owned(), line, field: Some(field), problem }
    }
}

/// Whether a part of `log` is a level, or says for what one counts. Any other word would be taken for something whose every line is
/// logged, and all others' none.
fn is_directive(word: &str) -> bool {
    word.contains(['=', '[']) || word.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

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
