//! What makes a desired state whole: all of it, or what a change may have broken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::{Policy, Rule, Subject};
use crate::port::{Port, PortName};
use crate::route::{Dscp, Encapsulation, NextHop, Tunnel};
use crate::state::Local;
use crate::touched::Touched;
use crate::{DesiredState, IdentityId, IdentitySet, Invalid, RuleId, limits};

impl DesiredState {
    /// Whether the state is whole and within the limits of [`crate::limits`].
    pub fn check(&self) -> Result<(), Invalid> {
        self.check_limits()?;
        self.sets.values().try_for_each(|set| self.check_set(set))?;
        let mut rules = BTreeSet::new();
        self.policies.values().try_for_each(|policy| self.check_policy(policy, &mut rules))?;
        self.subjects.values().try_for_each(|subject| self.check_subject(subject))?;
        self.check_ports()?;
        self.prefixes.iter().try_for_each(|(prefix, identity)| self.check_prefix(prefix, *identity))?;
        self.routes.iter().try_for_each(|(prefix, next_hop)| self.check_route(prefix, next_hop))?;
        self.check_local()?;
        self.tunnels.values().try_for_each(|tunnel| self.check_tunnel(tunnel))
    }

    /// The same of a state that was whole before the things of `touched` were set or removed: these are looked at, and
    /// whatever refers to what was removed. Of several things that are wrong it may name another than [`Self::check`].
    pub fn check_touched(&self, touched: &Touched) -> Result<(), Invalid> {
        self.check_limits()?;
        touched.sets.iter().filter_map(|id| self.sets.get(id)).try_for_each(|set| self.check_set(set))?;
        self.check_touched_policies(touched)?;
        let subjects = touched.subjects.iter().filter_map(|id| self.subjects.get(id));
        subjects.into_iter().try_for_each(|subject| self.check_subject(subject))?;
        if !touched.ports.is_empty() {
            self.check_ports()?;
        }
        let prefixes = touched.prefixes.iter().filter_map(|prefix| self.prefixes.get_key_value(prefix));
        prefixes.into_iter().try_for_each(|(prefix, identity)| self.check_prefix(prefix, *identity))?;
        let routes = touched.routes.iter().filter_map(|prefix| self.routes.get_key_value(prefix));
        routes.into_iter().try_for_each(|(prefix, next_hop)| self.check_route(prefix, next_hop))?;
        if touched.local {
            // A network that is not there any more may be a tunnel's.
            self.check_local()?;
            self.tunnels.values().try_for_each(|tunnel| self.check_tunnel(tunnel))?;
        } else {
            let tunnels = touched.tunnels.iter().filter_map(|id| self.tunnels.get(id));
            tunnels.into_iter().try_for_each(|tunnel| self.check_tunnel(tunnel))?;
        }
        self.check_removed(touched)
    }

    fn check_touched_policies(&self, touched: &Touched) -> Result<(), Invalid> {
        let mut rules = BTreeSet::new();
        let policies = touched.policies.iter().filter_map(|id| self.policies.get(id));
        policies.into_iter().try_for_each(|policy| self.check_policy(policy, &mut rules))?;
        if rules.is_empty() {
            return Ok(());
        }
        let others = self.policies.values().filter(|policy| !touched.policies.contains(&policy.id));
        for (policy, (rule, _)) in others.flat_map(|policy| policy.places().map(move |rule| (policy, rule))) {
            if rules.contains(&rule) {
                return Err(rule_number(policy, rule));
            }
        }
        Ok(())
    }

    /// That nothing refers to what is not there any more.
    fn check_removed(&self, touched: &Touched) -> Result<(), Invalid> {
        let gone: Vec<_> = touched.identities.iter().filter(|id| !self.knows(**id)).collect();
        if !gone.is_empty() {
            for set in self.sets.values() {
                if let Some(member) = gone.iter().find(|id| set.members.binary_search(id).is_ok()) {
                    return Err(unknown(format!("sets[{}].members", set.id.0), "identity", member));
                }
            }
            let named = gone.iter().filter_map(|id| self.subjects.get(*id));
            named.into_iter().try_for_each(|subject| self.check_subject(subject))?;
            self.prefixes.iter().try_for_each(|(prefix, identity)| self.check_prefix(prefix, *identity))?;
        }
        if touched.sets.iter().any(|id| !self.sets.contains_key(id)) {
            self.policies.values().try_for_each(|policy| self.check_sets_of(policy))?;
        }
        if touched.policies.iter().any(|id| !self.policies.contains_key(id)) {
            self.subjects.values().try_for_each(|subject| self.check_subject(subject))?;
        }
        if touched.ports.iter().any(|name| !self.ports.contains_key(name))
            || touched.tunnels.iter().any(|id| !self.tunnels.contains_key(id))
        {
            self.routes.iter().try_for_each(|(prefix, next_hop)| self.check_route(prefix, next_hop))?;
        }
        Ok(())
    }

    /// Whether the state is within the limits of [`crate::limits`].
    pub fn check_limits(&self) -> Result<(), Invalid> {
        let rules = self.policies.values().map(|policy| policy.places().count()).sum::<usize>();
        let matches = |rule: &Rule| rule.ports.len() + rule.source_ports.len();
        let matches = self.policies.values().flat_map(|p| &p.rules).map(matches).sum::<usize>();
        for (field, count, most) in [
            ("identities", self.identities.len(), limits::IDENTITIES_MAX),
            ("sets", self.sets.len(), limits::SETS_MAX),
            ("policies", self.policies.len(), limits::POLICIES_MAX),
            ("policies.rules", rules, limits::RULES_MAX),
            ("policies.rules.ports", matches, limits::PORT_MATCHES_MAX),
            ("tunnels", self.tunnels.len(), limits::TUNNELS_MAX),
            ("ports", self.ports.len(), limits::PORTS_MAX),
            ("prefixes", self.prefixes.len(), limits::PREFIXES_MAX),
            ("routes", self.routes.len(), limits::ROUTES_MAX),
        ] {
            if count > most {
                return Err(Invalid::new(
                    field,
                    format!("{count} of them, but at most {most} are supported"),
                ));
            }
        }
        Ok(())
    }

    fn check_set(&self, set: &IdentitySet) -> Result<(), Invalid> {
        let field = || format!("sets[{}].members", set.id.0);
        if !set.members.is_sorted_by(|a, b| a < b) {
            return Err(Invalid::new(field(), "must be ascending and unique"));
        }
        match set.members.iter().find(|id| !self.knows(**id)) {
            Some(member) => Err(unknown(field(), "identity", member)),
            None => Ok(()),
        }
    }

    /// `rules` are the numbers that others have; those of this policy are added.
    fn check_policy(&self, policy: &Policy, rules: &mut BTreeSet<RuleId>) -> Result<(), Invalid> {
        for (rule, _) in policy.places() {
            if rule.0 < RuleId::FIRST_ASSIGNED || !rules.insert(rule) {
                return Err(rule_number(policy, rule));
            }
        }
        for rule in &policy.rules {
            for (field, ports) in [("ports", &rule.ports), ("source ports", &rule.source_ports)] {
                if let Some(range) = ports.iter().find(|range| range.first > range.last) {
                    let problem = format!("{field} {}-{} are upside down", range.first, range.last);
                    return Err(Invalid::new(rule_field(policy, rule.id), problem));
                }
            }
        }
        self.check_sets_of(policy)
    }

    fn check_sets_of(&self, policy: &Policy) -> Result<(), Invalid> {
        for rule in &policy.rules {
            let sets = [rule.peers, rule.not_peers, rule.subjects, rule.not_subjects];
            if let Some(set) = sets.into_iter().flatten().find(|set| !self.sets.contains_key(set)) {
                return Err(unknown(rule_field(policy, rule.id), "set", &set.0));
            }
        }
        Ok(())
    }

    fn check_subject(&self, subject: &Subject) -> Result<(), Invalid> {
        let field = || format!("subjects[{}]", subject.identity);
        if !self.knows(subject.identity) {
            return Err(unknown(field(), "identity", &subject.identity));
        }
        let mut policies = subject.ingress.iter().chain(&subject.egress).flat_map(|tier| &tier.policies);
        match policies.find(|policy| !self.policies.contains_key(policy)) {
            Some(policy) => Err(unknown(field(), "policy", &policy.0)),
            None => Ok(()),
        }
    }

    /// All of them: an address may have been another's.
    fn check_ports(&self) -> Result<(), Invalid> {
        let mut owners: BTreeMap<IpAddr, &PortName> = BTreeMap::new();
        for port in self.ports.values() {
            check_port(port)?;
            for address in &port.addresses {
                if let Some(other) = owners.insert(*address, &port.name) {
                    let problem = format!("{address} already belongs to port {other}");
                    return Err(Invalid::new(format!("ports[{}].addresses", port.name), problem));
                }
            }
        }
        Ok(())
    }

    fn check_prefix(&self, prefix: &IpNet, identity: IdentityId) -> Result<(), Invalid> {
        if !self.knows(identity) {
            return Err(unknown(format!("prefixes[{prefix}]"), "identity", &identity));
        }
        check_bits(prefix)
    }

    fn check_route(&self, prefix: &IpNet, next_hop: &NextHop) -> Result<(), Invalid> {
        let field = || format!("routes[{prefix}]");
        match next_hop {
            NextHop::Port(name) if !self.ports.contains_key(name) => Err(unknown(field(), "port", name)),
            NextHop::Tunnel(id) if !self.tunnels.contains_key(id) => Err(unknown(field(), "tunnel", id)),
            _ => check_bits(prefix),
        }
    }

    fn check_local(&self) -> Result<(), Invalid> {
        let Some(Local { networks, dscp, .. }) = &self.local else { return Ok(()) };
        if let Dscp::Pipe(dscp) = dscp {
            Dscp::pipe(u32::from(*dscp)).map_err(|error| error.within("local.dscp"))?;
        }
        if networks.len() > limits::VXLAN_NETWORKS_MAX {
            let problem = format!(
                "{} of them, but at most {} are supported",
                networks.len(),
                limits::VXLAN_NETWORKS_MAX
            );
            return Err(Invalid::new("local.networks", problem));
        }
        for (index, network) in networks.iter().enumerate() {
            let refuse = |problem: &str| Err(Invalid::new(format!("local.networks[{index}]"), problem));
            if network.port == 0 {
                return refuse("nothing comes to UDP port 0: 1 to 65535");
            }
            let earlier = &networks[..index];
            if earlier.iter().any(|other| (other.vni, other.port) == (network.vni, network.port)) {
                return refuse("has the same VNI and port as one before it");
            }
        }
        Ok(())
    }

    fn check_tunnel(&self, tunnel: &Tunnel) -> Result<(), Invalid> {
        let field = |name: &str| format!("tunnels[{}].{name}", tunnel.id);
        if tunnel.remote.is_unspecified() || tunnel.remote.is_multicast() || tunnel.remote.is_loopback() {
            let problem = format!("{} cannot be a node's address", tunnel.remote);
            return Err(Invalid::new(field("remote"), problem));
        }
        let Some(local) = &self.local else { return Ok(()) };
        match &tunnel.encapsulation {
            Encapsulation::Vxlan { vni, port, .. } if local.network(*vni, *port).is_none() => {
                let problem = format!("this node has no end of vxlan {vni} port {port} (local.networks)");
                Err(Invalid::new(field("encapsulation"), problem))
            }
            Encapsulation::Vxlan { .. } | Encapsulation::IpIp => Ok(()),
        }
    }

    fn knows(&self, identity: IdentityId) -> bool {
        identity == IdentityId::UNKNOWN || self.identities.contains_key(&identity)
    }
}

fn check_port(port: &Port) -> Result<(), Invalid> {
    let field = |name: &str| format!("ports[{}].{name}", port.name);
    if !(limits::MTU_MIN..=limits::MTU_MAX).contains(&port.mtu) {
        let range = format!("{} to {}", limits::MTU_MIN, limits::MTU_MAX);
        return Err(Invalid::new(field("mtu"), format!("{} is out of range: {range}", port.mtu)));
    }
    if !port.attachment.allows(port.mac) {
        return Err(Invalid::new(field("mac"), format!("{} cannot be a pod's address", port.mac)));
    }
    if port.addresses.is_empty() || port.addresses.len() > limits::ADDRESSES_PER_PORT_MAX {
        let range = format!("1 to {}", limits::ADDRESSES_PER_PORT_MAX);
        return Err(Invalid::new(field("addresses"), format!("{} of them: {range}", port.addresses.len())));
    }
    let wrong =
        |address: &&IpAddr| address.is_unspecified() || address.is_multicast() || address.is_loopback();
    match port.addresses.iter().find(wrong) {
        Some(address) => {
            Err(Invalid::new(field("addresses"), format!("{address} cannot be a pod's address")))
        }
        None => Ok(()),
    }
}

fn check_bits(prefix: &IpNet) -> Result<(), Invalid> {
    if prefix.trunc() == *prefix {
        return Ok(());
    }
    let problem = format!("{prefix} has bits set beyond its length; {} would be right", prefix.trunc());
    Err(Invalid::new("prefix", problem))
}

fn rule_field(policy: &Policy, rule: RuleId) -> String {
    format!("policies[{}].rules[{rule}]", policy.name)
}

fn rule_number(policy: &Policy, rule: RuleId) -> Invalid {
    Invalid::new(rule_field(policy, rule), "the rule's number is reserved or used twice")
}

fn unknown(field: String, kind: &str, key: &impl std::fmt::Display) -> Invalid {
    Invalid::new(field, format!("refers to {kind} {key}, which is not there"))
}
