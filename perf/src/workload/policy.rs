//! Policy of N rules, of which the traffic matches the last.
//!
//! All pods of the node are of one kind, and all rules apply to them: half of them to what they receive, half to what
//! they send. A policy has ten rules. A rule names a set of three CIDRs (or kinds of pods elsewhere) and one of 64 lists
//! of ports; only the last rule of each direction lets those the traffic is with, the world and the node's pods, use
//! [`ALLOWED_PORTS`]. Every tenth set also holds them, with other ports, so that whoever goes through the rules one by one
//! must look at them.
//!
//! The engine's tables hold harder policies than these, such as 100k rules with a CIDR and a port of their own. They do
//! not hold one in which sets overlap so, at random, that there are more than 4 million different rows of verdicts (what a
//! kind of pods says to a kind of peers) or 2 million different nodes of them, nor one for which compiling would look
//! more than 67 million times at a rule for a peer or at a stretch of ports for a row: the limits in `policy/limits.rs` of
//! the datapath.

use ipnet::IpNet;
use vswitch_model::{
    Action, DesiredState, Identity, IdentityId, IdentityKind, IdentitySet, Policy, PolicyId, PortMatch, Rule,
    RuleId, SetId, Standing, Subject, Tier, TierDefault,
};

use super::node::{WORKLOAD, WORLD};

/// TCP and UDP destination ports that the last rule allows.
pub const ALLOWED_PORTS: std::ops::RangeInclusive<u16> = 5000..=5999;
/// A port that no rule names; so it is denied where there are rules.
pub const DENIED_PORT: u16 = 7;
/// In which protocols: TCP and UDP.
pub const ALLOWED: [u8; 2] = [6, 17];

/// Rules of a policy.
const PER_POLICY: usize = 10;
/// Different lists of ports.
const PORT_LISTS: usize = 64;
/// Number of the first identity of a CIDR.
const FIRST_CIDR: u32 = 64;
/// Who the traffic is with, and the set of them.
const PEERS: [IdentityId; 2] = [WORKLOAD, WORLD];
const PEERS_SET: SetId = SetId(0);

/// How many rules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(pub usize);

impl Rules {
    /// Most: the CIDRs of the sets are /24s of 10.64.0.0/10, one for ten rules.
    pub const MAX: usize = 160_000;

    /// Adds the policies to a state. 0: no policy at all, nothing is isolated. One rule would speak of one direction only:
    /// the least are two.
    ///
    /// # Panics
    /// Beyond [`Self::MAX`].
    pub fn add_to(self, state: &mut DesiredState) {
        let Self(rules) = self;
        assert!(rules <= Self::MAX, "at most {} rules can be made", Self::MAX);
        if rules == 0 {
            return;
        }
        let cidrs = (rules / PER_POLICY).max(4);
        (0..cidrs).for_each(|number| add_cidr(state, number));
        add_sets(state, cidrs);
        let peers = IdentitySet { id: PEERS_SET, members: PEERS.to_vec() };
        state.sets.insert(peers.id, peers);
        let egress = rules / 2;
        let mut subject = Subject { identity: WORKLOAD, ingress: Vec::new(), egress: Vec::new() };
        for (direction, count, first, tiers) in [
            ("ingress", rules.max(2) - egress.max(1), 0, &mut subject.ingress),
            ("egress", egress.max(1), rules, &mut subject.egress),
        ] {
            let policies = add_policies(state, direction, count, first, cidrs);
            *tiers = vec![Tier { name: "kubernetes".to_owned(), policies, default: TierDefault::Deny }];
        }
        state.subjects.insert(subject.identity, subject);
    }
}

/// The identity of /24 number `number` of 10.64.0.0/10, and of a /64 likewise; every eighth is a kind of pods instead.
fn add_cidr(state: &mut DesiredState, number: usize) {
    let id = IdentityId(FIRST_CIDR + number as u32);
    let [high, low] = (number as u16).to_be_bytes();
    let nets = [format!("10.{}.{low}.0/24", 64 + high), format!("fd20:0:0:{number:x}::/64")];
    let (kind, description) = if number % 8 == 7 {
        (IdentityKind::Pod, format!("pod team-{} {{app=app-{number}}}", number / 8))
    } else {
        (IdentityKind::World, format!("cidr {}", nets[0]))
    };
    state.identities.insert(id, Identity { id, kind, description });
    for net in nets.iter().filter_map(|net| net.parse::<IpNet>().ok()) {
        state.prefixes.insert(net, id);
    }
}

/// Set s holds the CIDRs s, s + 1 and s + 7; every tenth the traffic's peers besides.
fn add_sets(state: &mut DesiredState, cidrs: usize) {
    for number in 0..cidrs {
        let member = |step: usize| IdentityId(FIRST_CIDR + ((number + step) % cidrs) as u32);
        let mut members = vec![member(0), member(1), member(7)];
        if number % 10 == 9 {
            members.extend(PEERS);
        }
        members.sort_unstable();
        members.dedup();
        let id = SetId(1 + number as u32);
        state.sets.insert(id, IdentitySet { id, members });
    }
}

fn add_policies(
    state: &mut DesiredState,
    direction: &str,
    count: usize,
    first: usize,
    cidrs: usize,
) -> Vec<PolicyId> {
    let rules: Vec<Rule> = (0..count).map(|n| rule(direction, n, count, first + n, cidrs)).collect();
    let first = state.policies.len() as u32 + 1;
    let policies = rules.chunks(PER_POLICY).zip(first..).map(|(rules, number)| {
        let name = format!("NetworkPolicy default/{direction}-{number}");
        Policy { id: PolicyId(number), name, standing: Standing::Enforced, rules: rules.to_vec(), end: None }
    });
    let policies: Vec<Policy> = policies.collect();
    let ids = policies.iter().map(|policy| policy.id).collect();
    state.policies.extend(policies.into_iter().map(|policy| (policy.id, policy)));
    ids
}

/// Rule `n` of `count` of a direction; `number` tells it from those of the other.
fn rule(direction: &str, n: usize, count: usize, number: usize, cidrs: usize) -> Rule {
    let last = n + 1 == count;
    let (peers, ports) = if last {
        let (first, last) = (*ALLOWED_PORTS.start(), *ALLOWED_PORTS.end());
        (PEERS_SET, ALLOWED.map(|protocol| PortMatch { protocol, first, last }).to_vec())
    } else {
        (SetId(1 + (n % cidrs) as u32), port_list(n % PORT_LISTS))
    };
    let id = RuleId(RuleId::FIRST_ASSIGNED + number as u32);
    let position = format!("{direction} rule {}", n % PER_POLICY + 1);
    Rule { peers: Some(peers), ports, ..Rule::new(id, Action::Allow, position) }
}

/// A service port in TCP; every fourth list a range in UDP besides.
fn port_list(number: usize) -> Vec<PortMatch> {
    let port = 8000 + number as u16 * 10;
    let mut list = vec![PortMatch { protocol: 6, first: port, last: port }];
    if number.is_multiple_of(4) {
        let first = 20_000 + number as u16 * 100;
        list.push(PortMatch { protocol: 17, first, last: first + 99 });
    }
    list
}
