//! The file as written, checked field by field.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use toml::Spanned;
use vswitch_model::{Dscp, Invalid, PodTunnels, PortName, Vni, limits};

use super::store::WrittenStore;
use super::{Config, ConfigError};
use crate::agent::Underlay;
use crate::agent::underlay::Wish;
use crate::object::{Node, Object, ObjectMeta};

/// Seconds an address may have to rest.
const COOL_DOWN_S: RangeInclusive<i64> = 0..=3600;

/// The file as written: every value with its place, so that a refusal can name the line.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
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
struct WrittenUnderlay {
    interface: Option<Spanned<String>>,
    ipv4: Option<Spanned<String>>,
    ipv6: Option<Spanned<String>>,
}

/// What a refusal names.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

pub(super) type Read<T> = Result<T, ConfigError>;

impl Reader<'_> {
    pub(super) fn config(&self, written: Written) -> Read<Config> {
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

    pub(super) fn path(
        &self,
        field: &'static str,
        written: Option<Spanned<PathBuf>>,
    ) -> Read<Option<PathBuf>> {
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

    pub(super) fn refuse<T>(&self, field: &'static str, at: &Spanned<T>, problem: String) -> ConfigError {
        let line = Some(line_of(self.text, at.span().start));
        ConfigError { file: self.file.to_owned(), line, field: Some(field), problem }
    }
}

/// Whether a part of `log` is a level, or says for what one counts. Any other word would be taken for something whose every line is
/// logged, and all others' none.
fn is_directive(word: &str) -> bool {
    word.contains(['=', '[']) || word.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
}

pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}
