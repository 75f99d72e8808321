//! A configuration as a file would have it, with what was left open filled in.

use std::fmt::Write as _;
use std::path::Path;

use toml::Value;
use vswitch_model::Dscp;

use super::{Config, StoreConfig};
use crate::agent::Settings;

/// A field of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The table it is of; empty: none.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its value, as the file has it.
    pub value: String,
}

impl Config {
    /// The file that says what this one comes to on this node.
    #[must_use]
    pub fn shown(&self, settings: &Settings) -> String {
        let mut lines = String::new();
        let mut before = "";
        for Field { table, name, value } in self.fields(settings) {
            if table != before {
                let _ = write!(lines, "\n[{table}]\n");
                before = table;
            }
            let _ = writeln!(lines, "{name} = {value}");
        }
        let underlay = &settings.underlay;
        let is_alone = underlay.ipv4.is_none() && underlay.ipv6.is_none();
        if is_alone { lines + "\n# no underlay: the node is alone\n" } else { lines }
    }

    /// What it comes to on this node, field by field, those of no table first.
    #[must_use]
    pub fn fields(&self, settings: &Settings) -> Vec<Field> {
        let path = |path: &Path| text(&path.display().to_string());
        let list = |items: Vec<String>| Value::from(items).to_string();
        let lines = vec![
            ("node", text(&settings.node)),
            ("pod_mtu", settings.pod_mtu.to_string()),
            ("pod_port", text(settings.pod_port.as_str())),
            ("vni", settings.vni.get().to_string()),
            ("vxlan_port", settings.vxlan_port.to_string()),
            ("flannel_port", settings.flannel_port.to_string()),
            (
                "dscp",
                match settings.dscp {
                    Dscp::Inherit => text("inherit"),
                    Dscp::Uniform => text("uniform"),
                    Dscp::Pipe(dscp) => dscp.to_string(),
                },
            ),
            ("vxlan_from_pods", settings.pod_tunnels.vxlan.to_string()),
            ("ipip_from_pods", settings.pod_tunnels.ipip.to_string()),
            ("cool_down_s", settings.cool_down.as_secs().to_string()),
            ("names_file", path(&self.names_file)),
            ("dns_servers", list(self.dns_servers.iter().map(ToString::to_string).collect())),
            ("api_socket", path(&self.api_socket)),
            ("engine_socket", path(&self.engine_socket)),
            ("log", text(&self.log)),
        ];
        let store = match &self.store {
            StoreConfig::Embedded(file) => vec![("embedded", path(file))],
            StoreConfig::Etcd { endpoints, prefix } => {
                vec![("etcd", list(endpoints.clone())), ("etcd_prefix", text(prefix))]
            }
        };
        let net = |net: String| text(&net);
        let underlay = &settings.underlay;
        let ipv4 = underlay.ipv4.map(|it| ("ipv4", net(it.to_string())));
        let ipv6 = underlay.ipv6.map(|it| ("ipv6", net(it.to_string())));
        let of = |table: &'static str, lines: Vec<(&'static str, String)>| {
            lines.into_iter().map(move |(name, value)| Field { table, name, value })
        };
        of("", lines)
            .chain(of("store", store))
            .chain(of("underlay", ipv4.into_iter().chain(ipv6).collect()))
            .collect()
    }
}

fn text(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use vswitch_model::PodTunnels;

    use super::*;
    use crate::agent::Underlay;

    fn settings(underlay: Underlay) -> Settings {
        let config = Config::default();
        Settings {
            node: "n1".into(),
            underlay,
            pod_mtu: 1450,
            pod_port: config.pod_port,
            vni: config.vni,
            vxlan_port: 4790,
            flannel_port: 8473,
            dscp: Dscp::Uniform,
            pod_tunnels: PodTunnels { vxlan: false, ipip: true },
            engine_socket: config.engine_socket,
            cool_down: config.cool_down,
            names_file: None,
            dns_servers: Vec::new(),
            shown: Vec::new(),
        }
    }

    #[test]
    fn what_is_shown_is_a_file_that_says_the_same() {
        let underlay = Underlay { ipv4: "192.0.2.1/24".parse().ok(), ipv6: "2001:db8::1/64".parse().ok() };
        let store =
            StoreConfig::Etcd { endpoints: vec!["http://192.0.2.10:2379".into()], prefix: "/a/".into() };
        let dns_servers = vec!["10.96.0.10/32".parse().unwrap()];
        let config = Config { store, dns_servers, log: "info,flow=off".into(), ..Config::default() };
        let shown = config.shown(&settings(underlay));
        let read = Config::parse(Path::new("agent.toml"), &shown).unwrap_or_else(|e| panic!("{e}\n{shown}"));
        let expected = Config {
            node: Some("n1".into()),
            pod_mtu: Some(1450),
            vxlan_port: 4790,
            flannel_port: 8473,
            dscp: Dscp::Uniform,
            pod_tunnels: PodTunnels { vxlan: false, ipip: true },
            underlay: read.underlay.clone(),
            ..config
        };
        assert_eq!(read, expected, "{shown}");
        assert_eq!(read.underlay.addresses, underlay, "{shown}");
    }

    #[test]
    fn a_node_alone_is_said_to_be() {
        let shown = Config::default().shown(&settings(Underlay::default()));
        assert!(shown.ends_with("# no underlay: the node is alone\n"), "{shown}");
        assert!(Config::parse(Path::new("agent.toml"), &shown).is_ok(), "{shown}");
    }
}
