//! A desired state in the making: pods, peers, sets, rules by number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use vswitch_model::{
    Action, Change, DesiredState, Identity, IdentityId, IdentityKind, IdentitySet, NextHop, Policy, PolicyId,
    PortMatch, Rule, RuleId, SetId, Standing, Subject, Tier, TierDefault,
};

use super::{Ask, PODS, Ruled};
use crate::workload::routes::inside;
use crate::workload::{Family, Node, Numbers};

/// Identities of the pods, then of their peers.
const FIRST_POD: u32 = 64;
const FIRST_PEER: u32 = 1024;
/// Rules of a policy that is one of many.
const PER_POLICY: usize = 10;
/// UDP.
const PROTOCOL: u8 = 17;

pub(super) struct Maker {
    family: Family,
    node: Node,
    state: DesiredState,
    asks: Vec<Ask>,
    pub(super) numbers: Numbers,
    rules: Vec<Rule>,
    next_rule: u32,
    next_set: u32,
    next_policy: u32,
    /// By pod: its policies, in order.
    applying: Vec<Vec<PolicyId>>,
}

impl Maker {
    pub(super) fn new(family: Family) -> Self {
        let node = Node::in_memory(PODS, 1).without_vxlan();
        let state = node.desired();
        let mut maker = Self {
            family,
            node,
            state,
            asks: Vec::new(),
            numbers: Numbers::new(5),
            rules: Vec::new(),
            next_rule: RuleId::FIRST_ASSIGNED,
            next_set: 0,
            next_policy: 1,
            applying: vec![Vec::new(); PODS],
        };
        maker.add_pods();
        maker.add_routes();
        maker
    }

    fn set(&mut self, change: Change) {
        self.state.apply(change);
    }

    fn add_pods(&mut self) {
        for (number, pod) in self.node.pods.clone().iter().enumerate() {
            let id = IdentityId(FIRST_POD + number as u32);
            let description = format!("pod default {{app=app-{number}}}");
            self.set(Change::SetIdentity(Identity { id, kind: IdentityKind::Pod, description }));
            for address in [IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)] {
                self.set(Change::SetPrefix(address.into(), id));
            }
        }
    }

    /// To the peers of [`Self::peer`]: by the other node, as they are.
    fn add_routes(&mut self) {
        let Some(remote) = self.node.uplink.as_ref().and_then(|uplink| uplink.peers.first().cloned()) else {
            return;
        };
        for (net, family) in [("10.64.0.0/10", Family::V4), ("fd20::/48", Family::V6)] {
            if let Ok(net) = net.parse::<IpNet>() {
                self.set(Change::SetRoute(net, NextHop::Direct(remote.address(family))));
            }
        }
    }

    /// Peer number `number`, below 16384: a /24 of 10.64.0.0/10, or a /64 of fd20::/48.
    pub(super) fn peer(&mut self, number: usize) -> IdentityId {
        let [high, low] = (number as u16).to_be_bytes();
        let net = match self.family {
            Family::V4 => IpNet::new(Ipv4Addr::new(10, 64 + high, low, 0).into(), 24),
            Family::V6 => IpNet::new(Ipv6Addr::new(0xfd20, 0, 0, number as u16, 0, 0, 0, 0).into(), 64),
        };
        let id = self.identity(number);
        if let Ok(net) = net {
            self.cidr(id, net);
        }
        id
    }

    /// The identity of peer number `number`.
    pub(super) fn identity(&mut self, number: usize) -> IdentityId {
        let id = IdentityId(FIRST_PEER + number as u32);
        let description = format!("cidrs of peer {number}");
        self.set(Change::SetIdentity(Identity { id, kind: IdentityKind::World, description }));
        id
    }

    pub(super) fn cidr(&mut self, id: IdentityId, net: IpNet) {
        self.set(Change::SetPrefix(net, id));
    }

    /// An address of peer number `number` of [`Self::peer`].
    pub(super) fn address(&mut self, number: usize) -> IpAddr {
        let [high, low] = (number as u16).to_be_bytes();
        let host = 1 + self.numbers.below(250) as u8;
        match self.family {
            Family::V4 => Ipv4Addr::new(10, 64 + high, low, host).into(),
            Family::V6 => Ipv6Addr::new(0xfd20, 0, 0, number as u16, 0, 0, 0, host.into()).into(),
        }
    }

    pub(super) fn cidrs(&self, count: usize) -> Vec<IpNet> {
        crate::workload::random_prefixes(self.family, count)
    }

    /// An address of a CIDR.
    pub(super) fn within(&mut self, net: &IpNet) -> IpAddr {
        inside(net, self.numbers.next_bits())
    }

    pub(super) fn set_of(&mut self, mut members: Vec<IdentityId>) -> SetId {
        members.sort_unstable();
        members.dedup();
        let id = SetId(self.next_set);
        self.next_set += 1;
        self.set(Change::SetSet(IdentitySet { id, members }));
        id
    }

    /// One more rule of the policy in the making.
    pub(super) fn rule(&mut self, action: Action, peers: SetId, ports: &[(u16, u16)]) {
        let ports =
            ports.iter().map(|(first, last)| PortMatch { protocol: PROTOCOL, first: *first, last: *last });
        let id = RuleId(self.next_rule);
        self.next_rule += 1;
        let position = format!("ingress rule {}", self.rules.len() + 1);
        self.rules.push(Rule {
            peers: Some(peers),
            ports: ports.collect(),
            ..Rule::new(id, action, position)
        });
    }

    /// Whether the rules in the making are as many as a policy has that is one of many.
    pub(super) fn is_full(&self) -> bool {
        self.rules.len() >= PER_POLICY
    }

    /// Ends the policy in the making: it applies to these pods. Nothing, when there are no rules.
    pub(super) fn policy(&mut self, pods: impl IntoIterator<Item = usize>) {
        if self.rules.is_empty() {
            return;
        }
        let (id, rules) = (PolicyId(self.next_policy), std::mem::take(&mut self.rules));
        self.next_policy += 1;
        let name = format!("NetworkPolicy default/policy-{}", id.0);
        self.set(Change::SetPolicy(Policy { id, name, standing: Standing::Enforced, rules, end: None }));
        for pod in pods {
            self.applying[pod].push(id);
        }
    }

    pub(super) fn ask(&mut self, pod: usize, peer: IpAddr, port: u16) {
        self.asks.push(Ask { pod: pod as u16, peer, port });
    }

    pub(super) fn finish(mut self) -> Ruled {
        for (number, policies) in std::mem::take(&mut self.applying).into_iter().enumerate() {
            if policies.is_empty() {
                continue;
            }
            let tier = Tier { name: "kubernetes".to_owned(), policies, default: TierDefault::Deny };
            let identity = pod_identity(number);
            self.set(Change::SetSubject(Subject { identity, ingress: vec![tier], egress: Vec::new() }));
        }
        // Fisher and Yates: neighbours among the asks are none among the rules.
        for last in (1..self.asks.len()).rev() {
            self.asks.swap(last, self.numbers.below(last as u64 + 1) as usize);
        }
        Ruled { node: self.node, desired: self.state, asks: self.asks }
    }
}

/// The identity of pod number `number`.
pub(super) fn pod_identity(number: usize) -> IdentityId {
    IdentityId(FIRST_POD + number as u32)
}
