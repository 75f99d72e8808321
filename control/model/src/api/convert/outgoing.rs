//! Values to messages: always possible.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::api::engine as pb;
use crate::{
    Action, Attachment, Change, Delta, DesiredState, Dscp, Encapsulation, Generation, Identity, IdentityId,
    IdentityKind, IdentitySet, Local, NextHop, Policy, Port, PortMatch, Rule, Standing, Subject, Tier,
    TierDefault, Tunnel, VxlanNetwork,
};

/// The request that leads an engine to `generation`: by a delta from `base` where there is one, else by the whole state.
#[must_use]
pub fn apply_request(
    generation: Generation,
    base: Option<(Generation, &DesiredState)>,
    to: &DesiredState,
) -> pb::ApplyRequest {
    match base {
        Some((base, from)) => delta_request(generation, base, from.changes_to(to)),
        None => {
            let change = pb::apply_request::Change::Full(to.clone().into());
            pb::ApplyRequest { generation: generation.0, change: Some(change) }
        }
    }
}

/// The request that leads an engine from `base` to `generation` by these changes.
#[must_use]
pub fn delta_request(generation: Generation, base: Generation, changes: Vec<Change>) -> pb::ApplyRequest {
    let change = pb::apply_request::Change::Delta(Delta { base, changes }.into());
    pb::ApplyRequest { generation: generation.0, change: Some(change) }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

// ---- parts ----

impl From<Local> for pb::Local {
    fn from(local: Local) -> Self {
        let (model, dscp) = match local.dscp {
            Dscp::Inherit => (pb::DscpModel::Inherit, 0),
            Dscp::Uniform => (pb::DscpModel::Uniform, 0),
            Dscp::Pipe(dscp) => (pb::DscpModel::Pipe, dscp.into()),
        };
        Self {
            node: local.node,
            underlay_v4: text(local.underlay_v4),
            underlay_v6: text(local.underlay_v6),
            networks: local.networks.into_iter().map(Into::into).collect(),
            dscp_model: model.into(),
            dscp,
            vxlan_from_pods: local.pod_tunnels.vxlan,
            ipip_from_pods: local.pod_tunnels.ipip,
            host_addresses: local.host_addresses.iter().map(ToString::to_string).collect(),
            host_routes: local.host_routes.iter().map(ToString::to_string).collect(),
            host_mtu: local.host_mtu.into(),
            ..Self::default()
        }
    }
}

impl From<VxlanNetwork> for pb::VxlanNetwork {
    fn from(network: VxlanNetwork) -> Self {
        let VxlanNetwork { vni, port, mac_v4, mac_v6 } = network;
        Self { vni: vni.get(), port: port.into(), mac_v4: mac_v4.to_string(), mac_v6: mac_v6.to_string() }
    }
}

impl From<Identity> for pb::Identity {
    fn from(identity: Identity) -> Self {
        let kind = match identity.kind {
            IdentityKind::World => pb::IdentityKind::World,
            IdentityKind::LocalNode => pb::IdentityKind::LocalNode,
            IdentityKind::Node => pb::IdentityKind::Node,
            IdentityKind::Pod => pb::IdentityKind::Pod,
        };
        Self { id: identity.id.0, kind: kind.into(), description: identity.description }
    }
}

impl From<IdentitySet> for pb::IdentitySet {
    fn from(set: IdentitySet) -> Self {
        Self { id: set.id.0, members: set.members.into_iter().map(|id| id.0).collect() }
    }
}

impl From<Policy> for pb::Policy {
    fn from(policy: Policy) -> Self {
        let rules = policy.rules.into_iter().map(Into::into).collect();
        let standing = pb::Standing::from(policy.standing).into();
        let end = policy.end.map(|end| pb::PolicyEnd { id: end.id.0, position: end.position });
        Self { id: policy.id.0, name: policy.name, rules, standing, end }
    }
}

impl From<Standing> for pb::Standing {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Enforced => Self::Enforced,
            Standing::Staged => Self::Staged,
            Standing::StagedRemoval => Self::StagedRemoval,
        }
    }
}

impl From<Action> for pb::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Deny => Self::Deny,
            Action::Pass => Self::Pass,
            Action::Log => Self::Log,
        }
    }
}

impl From<Rule> for pb::Rule {
    fn from(rule: Rule) -> Self {
        Self {
            id: rule.id.0,
            action: pb::Action::from(rule.action).into(),
            peers: rule.peers.map(|set| set.0),
            not_peers: rule.not_peers.map(|set| set.0),
            subjects: rule.subjects.map(|set| set.0),
            not_subjects: rule.not_subjects.map(|set| set.0),
            ports: rule.ports.into_iter().map(Into::into).collect(),
            source_ports: rule.source_ports.into_iter().map(Into::into).collect(),
            position: rule.position,
        }
    }
}

impl From<PortMatch> for pb::PortMatch {
    fn from(range: PortMatch) -> Self {
        Self { protocol: range.protocol.into(), first: range.first.into(), last: range.last.into() }
    }
}

impl From<Subject> for pb::Subject {
    fn from(subject: Subject) -> Self {
        Self {
            identity: subject.identity.0,
            ingress: subject.ingress.into_iter().map(Into::into).collect(),
            egress: subject.egress.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Tier> for pb::Tier {
    fn from(tier: Tier) -> Self {
        let default = match tier.default {
            TierDefault::Deny => pb::TierDefault::Deny,
            TierDefault::Pass => pb::TierDefault::Pass,
        };
        let policies = tier.policies.into_iter().map(|id| id.0).collect();
        Self { name: tier.name, policies, default: default.into() }
    }
}

impl From<Tunnel> for pb::Tunnel {
    fn from(tunnel: Tunnel) -> Self {
        let encapsulation = match tunnel.encapsulation {
            Encapsulation::Vxlan { vni, port, remote_mac } => pb::tunnel::Encapsulation::Vxlan(pb::Vxlan {
                vni: vni.get(),
                port: port.into(),
                remote_mac: remote_mac.to_string(),
            }),
            Encapsulation::IpIp => pb::tunnel::Encapsulation::IpIp(pb::IpIp {}),
        };
        Self {
            id: tunnel.id.0,
            node: tunnel.node,
            remote: tunnel.remote.to_string(),
            encapsulation: Some(encapsulation),
        }
    }
}

impl From<Port> for pb::Port {
    fn from(port: Port) -> Self {
        let attachment = match port.attachment {
            Attachment::Veth { interface, netns } => pb::port::Attachment::Veth(pb::Veth {
                interface: interface.into(),
                netns: netns.unwrap_or_default(),
            }),
            Attachment::Tun { interface, netns } => {
                pb::port::Attachment::Tun(pb::Tun { interface: interface.into(), netns })
            }
        };
        Self {
            name: port.name.into(),
            attachment: Some(attachment),
            mac: port.mac.to_string(),
            addresses: port.addresses.iter().map(ToString::to_string).collect(),
            mtu: port.mtu.into(),
            workload: port.workload,
        }
    }
}

fn prefix_message((prefix, identity): (IpNet, IdentityId)) -> pb::Prefix {
    pb::Prefix { prefix: prefix.to_string(), identity: identity.0 }
}

fn route_message((prefix, next_hop): (IpNet, NextHop)) -> pb::Route {
    let next_hop = match next_hop {
        NextHop::Port(name) => pb::route::NextHop::Port(name.into()),
        NextHop::Tunnel(id) => pb::route::NextHop::Tunnel(id.0),
        NextHop::Direct(address) => pb::route::NextHop::Direct(address.to_string()),
        NextHop::Host => pb::route::NextHop::Host(pb::Host {}),
        NextHop::Unreachable => pb::route::NextHop::Unreachable(pb::Unreachable {}),
    };
    pb::Route { prefix: prefix.to_string(), next_hop: Some(next_hop) }
}

// ---- the whole ----

impl From<DesiredState> for pb::DesiredState {
    fn from(state: DesiredState) -> Self {
        fn all<K, V, M: From<V>>(map: BTreeMap<K, V>) -> Vec<M> {
            map.into_values().map(M::from).collect()
        }
        Self {
            local: state.local.map(Into::into),
            identities: all(state.identities),
            sets: all(state.sets),
            policies: all(state.policies),
            subjects: all(state.subjects),
            tunnels: all(state.tunnels),
            ports: all(state.ports),
            prefixes: state.prefixes.into_iter().map(prefix_message).collect(),
            routes: state.routes.into_iter().map(route_message).collect(),
        }
    }
}

impl From<Delta> for pb::Delta {
    fn from(delta: Delta) -> Self {
        Self { base: delta.base.0, changes: delta.changes.into_iter().map(Into::into).collect() }
    }
}

impl From<Change> for pb::Change {
    fn from(change: Change) -> Self {
        use pb::change::Step;
        let step = match change {
            Change::SetLocal(local) => Step::SetLocal(local.into()),
            Change::SetIdentity(identity) => Step::SetIdentity(identity.into()),
            Change::SetSet(set) => Step::SetSet(set.into()),
            Change::SetPolicy(policy) => Step::SetPolicy(policy.into()),
            Change::SetSubject(subject) => Step::SetSubject(subject.into()),
            Change::SetTunnel(tunnel) => Step::SetTunnel(tunnel.into()),
            Change::SetPort(port) => Step::SetPort(port.into()),
            Change::SetPrefix(prefix, identity) => Step::SetPrefix(prefix_message((prefix, identity))),
            Change::SetRoute(prefix, next_hop) => Step::SetRoute(route_message((prefix, next_hop))),
            Change::RemoveRoute(prefix) => Step::RemoveRoute(prefix.to_string()),
            Change::RemovePrefix(prefix) => Step::RemovePrefix(prefix.to_string()),
            Change::RemovePort(name) => Step::RemovePort(name.into()),
            Change::RemoveTunnel(id) => Step::RemoveTunnel(id.0),
            Change::RemoveSubject(id) => Step::RemoveSubject(id.0),
            Change::RemovePolicy(id) => Step::RemovePolicy(id.0),
            Change::RemoveSet(id) => Step::RemoveSet(id.0),
            Change::RemoveIdentity(id) => Step::RemoveIdentity(id.0),
        };
        Self { step: Some(step) }
    }
}
