//! Messages to values. A message is refused with the path of the field that is wrong; what converts may still refer to
//! what is not there, which [`DesiredState::check`] finds.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::api::engine as pb;
use crate::{
    Action, Attachment, Change, Delta, DesiredState, Dscp, Encapsulation, Generation, Identity, IdentityId,
    IdentityKind, IdentitySet, Invalid, Local, Mac, NextHop, PodTunnels, Policy, PolicyEnd, PolicyId, Port,
    PortMatch, PortName, Rule, RuleId, SetId, Standing, Subject, Tier, TierDefault, Tunnel, TunnelId, Vni,
    VxlanNetwork,
};

type Result<T> = std::result::Result<T, Invalid>;

// ---- small values ----

fn missing<T>(value: Option<T>, field: &str) -> Result<T> {
    value.ok_or_else(|| Invalid::new(field, "is missing"))
}

fn address(text: &str, field: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Invalid::new(field, format!("\"{text}\" is not an IP address")))
}

fn optional<T: std::str::FromStr>(text: &str, field: &str, what: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Invalid::new(field, format!("\"{text}\" is not {what}")))
}

fn prefix(text: &str, field: &str) -> Result<IpNet> {
    text.parse().map_err(|_| Invalid::new(field, format!("\"{text}\" is not a prefix such as 10.0.0.0/24")))
}

fn mac(text: &str, field: &str) -> Result<Mac> {
    text.parse().map_err(|error: Invalid| error.within(field))
}

fn narrow<T: TryFrom<u32>>(value: u32, field: &str, most: u32) -> Result<T> {
    T::try_from(value).map_err(|_| Invalid::new(field, format!("{value} is out of range: 0 to {most}")))
}

fn port_name(text: String, field: &str) -> Result<PortName> {
    PortName::new(text).map_err(|error| error.within(field))
}

fn each<M, T>(messages: Vec<M>, field: &str, convert: impl Fn(M) -> Result<T>) -> Result<Vec<T>> {
    let one = |(index, message)| convert(message).map_err(|error| error.within(&format!("{field}[{index}]")));
    messages.into_iter().enumerate().map(one).collect()
}

/// A map of what `messages` hold. Two with one key are refused: the second would silently replace the first.
fn keyed<M, K: Ord, T>(
    messages: Vec<M>,
    field: &str,
    convert: impl Fn(M) -> Result<T>,
    key: impl Fn(&T) -> K,
) -> Result<BTreeMap<K, T>> {
    let mut map = BTreeMap::new();
    for (index, value) in each(messages, field, convert)?.into_iter().enumerate() {
        if map.insert(key(&value), value).is_some() {
            return Err(Invalid::new(format!("{field}[{index}]"), "has the same key as one before it"));
        }
    }
    Ok(map)
}

// ---- parts ----

impl TryFrom<pb::Local> for Local {
    type Error = Invalid;

    fn try_from(mut message: pb::Local) -> Result<Self> {
        Ok(Self {
            underlay_v4: optional::<Ipv4Addr>(&message.underlay_v4, "underlay_v4", "an IPv4 address")?,
            underlay_v6: optional::<Ipv6Addr>(&message.underlay_v6, "underlay_v6", "an IPv6 address")?,
            networks: networks_of(&mut message)?,
            dscp: match pb::DscpModel::try_from(message.dscp_model) {
                Ok(pb::DscpModel::Inherit) => Dscp::Inherit,
                Ok(pb::DscpModel::Uniform) => Dscp::Uniform,
                Ok(pb::DscpModel::Pipe) => Dscp::pipe(message.dscp).map_err(|error| error.within("dscp"))?,
                Err(_) => return Err(Invalid::new("dscp_model", "is unknown")),
            },
            pod_tunnels: PodTunnels { vxlan: message.vxlan_from_pods, ipip: message.ipip_from_pods },
            host_addresses: each(message.host_addresses, "host_addresses", |text| address(&text, ""))?,
            host_routes: each(message.host_routes, "host_routes", |text| prefix(&text, ""))?,
            host_mtu: narrow(message.host_mtu, "host_mtu", 65_535)?,
            node: message.node,
        })
    }
}

/// The networks, or the one of a state that an older version saved.
fn networks_of(message: &mut pb::Local) -> Result<Vec<VxlanNetwork>> {
    if !message.networks.is_empty() || message.vxlan_port == 0 {
        return each(std::mem::take(&mut message.networks), "networks", VxlanNetwork::try_from);
    }
    Ok(vec![VxlanNetwork {
        vni: Vni::new(message.vni).map_err(|error| error.within("vni"))?,
        port: narrow(message.vxlan_port, "vxlan_port", 65_535)?,
        mac_v4: mac(&message.vtep_mac_v4, "vtep_mac_v4")?,
        mac_v6: mac(&message.vtep_mac_v6, "vtep_mac_v6")?,
    }])
}

impl TryFrom<pb::VxlanNetwork> for VxlanNetwork {
    type Error = Invalid;

    fn try_from(message: pb::VxlanNetwork) -> Result<Self> {
        Ok(Self {
            vni: Vni::new(message.vni).map_err(|error| error.within("vni"))?,
            port: narrow(message.port, "port", 65_535)?,
            mac_v4: mac(&message.mac_v4, "mac_v4")?,
            mac_v6: mac(&message.mac_v6, "mac_v6")?,
        })
    }
}

impl TryFrom<pb::Identity> for Identity {
    type Error = Invalid;

    fn try_from(message: pb::Identity) -> Result<Self> {
        let kind = match message.kind() {
            pb::IdentityKind::World => IdentityKind::World,
            pb::IdentityKind::LocalNode => IdentityKind::LocalNode,
            pb::IdentityKind::Node => IdentityKind::Node,
            pb::IdentityKind::Pod => IdentityKind::Pod,
            pb::IdentityKind::Unspecified => return Err(Invalid::new("kind", "is missing or unknown")),
        };
        Ok(Self { id: IdentityId(message.id), kind, description: message.description })
    }
}

impl From<pb::IdentitySet> for IdentitySet {
    fn from(message: pb::IdentitySet) -> Self {
        Self { id: SetId(message.id), members: message.members.into_iter().map(IdentityId).collect() }
    }
}

impl TryFrom<pb::Policy> for Policy {
    type Error = Invalid;

    fn try_from(message: pb::Policy) -> Result<Self> {
        let rules = each(message.rules, "rules", Rule::try_from)?;
        let standing = match pb::Standing::try_from(message.standing) {
            Ok(pb::Standing::Enforced) => Standing::Enforced,
            Ok(pb::Standing::Staged) => Standing::Staged,
            Ok(pb::Standing::StagedRemoval) => Standing::StagedRemoval,
            Err(_) => return Err(Invalid::new("standing", "is unknown")),
        };
        let end = message.end.map(|end| PolicyEnd { id: RuleId(end.id), position: end.position });
        Ok(Self { id: PolicyId(message.id), name: message.name, standing, rules, end })
    }
}

impl TryFrom<pb::Rule> for Rule {
    type Error = Invalid;

    fn try_from(message: pb::Rule) -> Result<Self> {
        let action = match message.action() {
            pb::Action::Allow => Action::Allow,
            pb::Action::Deny => Action::Deny,
            pb::Action::Pass => Action::Pass,
            pb::Action::Log => Action::Log,
            pb::Action::Unspecified => return Err(Invalid::new("action", "is missing or unknown")),
        };
        Ok(Self {
            id: RuleId(message.id),
            action,
            peers: message.peers.map(SetId),
            not_peers: message.not_peers.map(SetId),
            subjects: message.subjects.map(SetId),
            not_subjects: message.not_subjects.map(SetId),
            ports: each(message.ports, "ports", PortMatch::try_from)?,
            source_ports: each(message.source_ports, "source_ports", PortMatch::try_from)?,
            position: message.position,
        })
    }
}

impl TryFrom<pb::PortMatch> for PortMatch {
    type Error = Invalid;

    fn try_from(message: pb::PortMatch) -> Result<Self> {
        Ok(Self {
            protocol: narrow(message.protocol, "protocol", 255)?,
            first: narrow(message.first, "first", 65_535)?,
            last: narrow(message.last, "last", 65_535)?,
        })
    }
}

impl TryFrom<pb::Subject> for Subject {
    type Error = Invalid;

    fn try_from(message: pb::Subject) -> Result<Self> {
        Ok(Self {
            identity: IdentityId(message.identity),
            ingress: each(message.ingress, "ingress", Tier::try_from)?,
            egress: each(message.egress, "egress", Tier::try_from)?,
        })
    }
}

impl TryFrom<pb::Tier> for Tier {
    type Error = Invalid;

    fn try_from(message: pb::Tier) -> Result<Self> {
        let default = match message.default() {
            pb::TierDefault::Deny => TierDefault::Deny,
            pb::TierDefault::Pass => TierDefault::Pass,
            pb::TierDefault::Unspecified => return Err(Invalid::new("default", "is missing or unknown")),
        };
        let policies = message.policies.into_iter().map(PolicyId).collect();
        Ok(Self { name: message.name, policies, default })
    }
}

impl TryFrom<pb::Tunnel> for Tunnel {
    type Error = Invalid;

    fn try_from(message: pb::Tunnel) -> Result<Self> {
        let encapsulation = match missing(message.encapsulation, "encapsulation")? {
            pb::tunnel::Encapsulation::Vxlan(vxlan) => Encapsulation::Vxlan {
                vni: Vni::new(vxlan.vni).map_err(|error| error.within("vxlan.vni"))?,
                port: narrow(vxlan.port, "vxlan.port", 65_535)?,
                remote_mac: mac(&vxlan.remote_mac, "vxlan.remote_mac")?,
            },
            pb::tunnel::Encapsulation::IpIp(pb::IpIp {}) => Encapsulation::IpIp,
        };
        let remote = address(&message.remote, "remote")?;
        Ok(Self { id: TunnelId(message.id), node: message.node, remote, encapsulation })
    }
}

impl TryFrom<pb::Port> for Port {
    type Error = Invalid;

    fn try_from(message: pb::Port) -> Result<Self> {
        let attachment = match missing(message.attachment, "attachment")? {
            pb::port::Attachment::Veth(veth) => Attachment::Veth {
                interface: port_name(veth.interface, "veth.interface")?,
                netns: Some(veth.netns).filter(|path| !path.is_empty()),
            },
            pb::port::Attachment::Tun(tun) if tun.netns.is_empty() => {
                return Err(Invalid::new("tun.netns", "missing"));
            }
            pb::port::Attachment::Tun(tun) => {
                Attachment::Tun { interface: port_name(tun.interface, "tun.interface")?, netns: tun.netns }
            }
        };
        Ok(Self {
            name: port_name(message.name, "name")?,
            attachment,
            mac: mac(&message.mac, "mac")?,
            addresses: each(message.addresses, "addresses", |text| address(&text, ""))?,
            mtu: narrow(message.mtu, "mtu", 65_535)?,
            workload: message.workload,
        })
    }
}

fn prefix_of(message: &pb::Prefix) -> Result<(IpNet, IdentityId)> {
    Ok((prefix(&message.prefix, "prefix")?, IdentityId(message.identity)))
}

fn route_of(message: pb::Route) -> Result<(IpNet, NextHop)> {
    let next_hop = match missing(message.next_hop, "next_hop")? {
        pb::route::NextHop::Port(name) => NextHop::Port(port_name(name, "port")?),
        pb::route::NextHop::Tunnel(id) => NextHop::Tunnel(TunnelId(id)),
        pb::route::NextHop::Direct(text) => NextHop::Direct(address(&text, "direct")?),
        pb::route::NextHop::Host(_) => NextHop::Host,
        pb::route::NextHop::Unreachable(_) => NextHop::Unreachable,
    };
    Ok((prefix(&message.prefix, "prefix")?, next_hop))
}

// ---- the whole ----

impl TryFrom<pb::DesiredState> for DesiredState {
    type Error = Invalid;

    fn try_from(message: pb::DesiredState) -> Result<Self> {
        let local = message.local.map(Local::try_from).transpose().map_err(|error| error.within("local"))?;
        Ok(Self {
            local,
            identities: keyed(message.identities, "identities", Identity::try_from, |v| v.id)?,
            sets: keyed(message.sets, "sets", |m| Ok(m.into()), |v: &IdentitySet| v.id)?,
            policies: keyed(message.policies, "policies", Policy::try_from, |v| v.id)?,
            subjects: keyed(message.subjects, "subjects", Subject::try_from, |v| v.identity)?,
            tunnels: keyed(message.tunnels, "tunnels", Tunnel::try_from, |v| v.id)?,
            ports: keyed(message.ports, "ports", Port::try_from, |v| v.name.clone())?,
            prefixes: keyed(message.prefixes, "prefixes", |m| prefix_of(&m), |v| v.0)?
                .into_values()
                .collect(),
            routes: keyed(message.routes, "routes", route_of, |v| v.0)?.into_values().collect(),
        })
    }
}

impl TryFrom<pb::Delta> for Delta {
    type Error = Invalid;

    fn try_from(message: pb::Delta) -> Result<Self> {
        Ok(Self {
            base: Generation(message.base),
            changes: each(message.changes, "changes", Change::try_from)?,
        })
    }
}

impl TryFrom<pb::Change> for Change {
    type Error = Invalid;

    fn try_from(message: pb::Change) -> Result<Self> {
        use pb::change::Step;
        let named = |field: &'static str| move |error: Invalid| error.within(field);
        Ok(match missing(message.step, "step")? {
            Step::SetLocal(local) => Self::SetLocal(local.try_into().map_err(named("set_local"))?),
            Step::SetIdentity(identity) => {
                Self::SetIdentity(identity.try_into().map_err(named("set_identity"))?)
            }
            Step::SetSet(set) => Self::SetSet(set.into()),
            Step::SetPolicy(policy) => Self::SetPolicy(policy.try_into().map_err(named("set_policy"))?),
            Step::SetSubject(subject) => Self::SetSubject(subject.try_into().map_err(named("set_subject"))?),
            Step::SetTunnel(tunnel) => Self::SetTunnel(tunnel.try_into().map_err(named("set_tunnel"))?),
            Step::SetPort(port) => Self::SetPort(port.try_into().map_err(named("set_port"))?),
            Step::SetPrefix(message) => {
                let (prefix, identity) = prefix_of(&message).map_err(named("set_prefix"))?;
                Self::SetPrefix(prefix, identity)
            }
            Step::SetRoute(message) => {
                let (prefix, next_hop) = route_of(message).map_err(named("set_route"))?;
                Self::SetRoute(prefix, next_hop)
            }
            Step::RemoveRoute(text) => Self::RemoveRoute(prefix(&text, "remove_route")?),
            Step::RemovePrefix(text) => Self::RemovePrefix(prefix(&text, "remove_prefix")?),
            Step::RemovePort(name) => Self::RemovePort(port_name(name, "remove_port")?),
            Step::RemoveTunnel(id) => Self::RemoveTunnel(TunnelId(id)),
            Step::RemoveSubject(id) => Self::RemoveSubject(IdentityId(id)),
            Step::RemovePolicy(id) => Self::RemovePolicy(PolicyId(id)),
            Step::RemoveSet(id) => Self::RemoveSet(SetId(id)),
            Step::RemoveIdentity(id) => Self::RemoveIdentity(IdentityId(id)),
        })
    }
}
