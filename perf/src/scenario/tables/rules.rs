//! Verdicts of new flows.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use vswitch_datapath::policy::{FlowPorts, PolicyDirection, PolicyQuestion};
use vswitch_datapath::tables::{Denied, Judgement, Leaf, Question, Revision, Tables};
use vswitch_datapath::{BATCH, CompileInputs, PortIndex, compile};
use vswitch_model::{DropReason, Generation, RuleId};

use super::note_of_peer;
use super::turns::{Peer, take_turns, time_each};
use crate::peer::dpdk::{AclPacket, AclRule, Code, Dpdk};
use crate::scenario::instructions::counted::{ports, underlay};
use crate::session::Session;
use crate::workload::shape::{Ask, Policies, Ruled, Shape};
use crate::workload::{Family, count};
use crate::{Error, Result};

const UDP: u8 = 17;
/// The source port of all flows.
const SOURCE_PORT: u16 = 40_000;
/// Verdicts of a round.
const VERDICTS: usize = 1 << 20;
/// The same with `--quick`.
const VERDICTS_QUICK: usize = 1 << 17;
/// Of more rules `rte_acl` makes no table in any time one would wait for.
const ACL_RULES_MAX: usize = 10_000;

/// So many rules: each a CIDR and a port of its own, on all pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) rules: usize,
}

impl Case {
    pub(super) fn name(self) -> String {
        format!("verdict/v4/rules-{}", count(self.rules as u64))
    }

    pub(super) fn is_wanted(self, session: &Session) -> bool {
        session.wants(&self.name())
    }
}

/// Measures one size, beside the peers.
pub(super) fn run(session: &mut Session, case: Case) -> Result<()> {
    let name = case.name();
    session.step(&name)?;
    let ruled = Policies { shape: Shape::Blocks, family: Family::V4, count: case.rules }.make();
    let tables = compiled(&ruled)?;
    let flows = Flows::of(&ruled, &tables)?;
    let least = if session.config.quick { VERDICTS_QUICK } else { VERDICTS };
    let count = flows.asked.len();
    let dpdk = peer(session, case, &ruled, &flows, least);
    let peers = || -> Vec<Peer<'_>> { dpdk.iter().flat_map(peers).collect() };
    take_turns(session, &name, "verdict", || time_each(count, least, || flows.verdicts(&tables)), peers())?;
    session.advance();
    take_turns(session, &name, "judge", || time_each(count, least, || flows.judge(&tables)), peers())?;
    session.advance();
    Ok(())
}

fn compiled(ruled: &Ruled) -> Result<Tables> {
    let ports = ports(&ruled.node);
    let underlay = underlay(&ruled.node, &ports);
    let (generation, revision) = (Generation(1), Revision(1));
    let inputs =
        CompileInputs { generation, revision, desired: &ruled.desired, ports: &ports, underlay: &underlay };
    compile(&inputs).map_err(|error| Error::setup("compile tables", error))
}

/// First packets of flows from peers to pods, which policy allows.
struct Flows {
    asked: Vec<Ask>,
    /// By flow: source and destination.
    addresses: (Vec<u32>, Vec<u32>),
    questions: Vec<PolicyQuestion>,
}

impl Flows {
    fn of(ruled: &Ruled, tables: &Tables) -> Result<Self> {
        let (mut asked, mut sources, mut destinations) = (Vec::new(), Vec::new(), Vec::new());
        let mut questions = Vec::new();
        for ask in &ruled.asks {
            let IpAddr::V4(peer) = ask.peer else { continue };
            let (source, destination) = (peer.to_bits(), pod(ruled, ask).to_bits());
            let [subject, peer] = [destination, source].map(|end| tables.lookup_v4(end).identity);
            let ports = FlowPorts { protocol: UDP, destination: ask.port, source: SOURCE_PORT };
            if tables.policy.ingress(subject, peer, ports).allow {
                asked.push(*ask);
                sources.push(source);
                destinations.push(destination);
                questions.push(PolicyQuestion { subject, peer, ports });
            }
        }
        if asked.len() * 2 < ruled.asks.len() {
            let problem = format!("only {} of {} rules allow theirs", asked.len(), ruled.asks.len());
            return Err(Error::setup("ask policy", problem));
        }
        Ok(Self { asked, addresses: (sources, destinations), questions })
    }

    /// What policy says, who the ends are being known.
    fn verdicts(&self, tables: &Tables) {
        for chunk in self.questions.chunks(BATCH) {
            let mut allowed = 0;
            tables.policy.verdicts(PolicyDirection::Ingress, chunk.iter().copied(), |_, verdict| {
                allowed += u32::from(verdict.allow);
            });
            std::hint::black_box(allowed);
        }
    }

    /// Who the ends are, the ways to them, and what policy says: all that the walk asks of the tables.
    fn judge(&self, tables: &Tables) {
        let nothing =
            Denied { reason: DropReason::PolicyIngress, rule: RuleId::NO_RULE_MATCHED, marks: [None; 2] };
        let mut judged: [Result<Judgement, Denied>; BATCH] = [Err(nothing); BATCH];
        let uplink = tables.ports().next().map_or(PortIndex(0), |(index, _)| index);
        let (sources, destinations) = &self.addresses;
        let ends = sources.chunks(BATCH).zip(destinations.chunks(BATCH));
        for ((sources, destinations), questions) in ends.zip(self.questions.chunks(BATCH)) {
            let mut leaves = [[Leaf::default(); BATCH]; 2];
            tables.lookup_v4_batch(sources, &mut leaves[0]);
            tables.lookup_v4_batch(destinations, &mut leaves[1]);
            let mut flows = [Question {
                in_port: uplink,
                source: Leaf::default(),
                destination: Leaf::default(),
                ports: FlowPorts::to(UDP, 0),
            }; BATCH];
            for (number, (flow, question)) in flows.iter_mut().zip(questions).enumerate() {
                let [source, destination] = [leaves[0][number], leaves[1][number]];
                *flow = Question { in_port: uplink, source, destination, ports: question.ports };
            }
            tables.judge_batch(&flows[..questions.len()], &mut judged);
            std::hint::black_box(&judged);
        }
    }
}

fn pod(ruled: &Ruled, ask: &Ask) -> Ipv4Addr {
    ruled.node.pods.get(usize::from(ask.pod)).map_or(Ipv4Addr::UNSPECIFIED, |pod| pod.v4)
}

fn peer(session: &mut Session, case: Case, ruled: &Ruled, flows: &Flows, least: usize) -> Option<Dpdk> {
    let name = format!("{}: without rte_acl", case.name());
    if case.rules > ACL_RULES_MAX {
        session.note(format!("{}: {name}: it is asked of {ACL_RULES_MAX} rules at most", super::NAME));
        return None;
    }
    let rules = acl_rules(ruled);
    let packets: Vec<AclPacket> = flows
        .asked
        .iter()
        .zip(&flows.addresses.0)
        .map(|(ask, source)| AclPacket {
            source: Ipv4Addr::from_bits(*source),
            destination: pod(ruled, ask),
            ports: (SOURCE_PORT, ask.port),
        })
        .collect();
    let times = least.div_ceil(packets.len().max(1));
    note_of_peer(session, &name, Dpdk::acl(super::core(), &rules, &packets, times))
}

/// The same rules, with the CIDR that each is of, for all pods at once.
fn acl_rules(ruled: &Ruled) -> Vec<AclRule> {
    let state = &ruled.desired;
    let destination = around(ruled.node.pods.iter().map(|pod| pod.v4));
    let net_of: std::collections::HashMap<_, _> =
        state.prefixes.iter().map(|(net, identity)| (*identity, *net)).collect();
    let mut rules = Vec::new();
    for rule in state.policies.values().flat_map(|policy| &policy.rules) {
        let members = rule.peers.and_then(|set| state.sets.get(&set)).map(|set| &set.members);
        for net in members.into_iter().flatten().filter_map(|member| net_of.get(member)) {
            if let IpNet::V4(source) = net {
                let ports = rule.ports.iter().map(|ports| ports.first);
                rules.extend(ports.map(|port| AclRule { source: *source, destination, port }));
            }
        }
    }
    rules
}

/// The smallest network that all of them are in.
fn around(addresses: impl Iterator<Item = Ipv4Addr> + Clone) -> Ipv4Net {
    let all = addresses.clone().fold(u32::MAX, |all, address| all & address.to_bits());
    let any = addresses.fold(0, |any, address| any | address.to_bits());
    let length = (all ^ any).leading_zeros() as u8;
    Ipv4Net::new(Ipv4Addr::from_bits(all), length).map_or(Ipv4Net::default(), |net| net.trunc())
}

fn peers(dpdk: &Dpdk) -> impl Iterator<Item = Peer<'_>> {
    let codes = [("rte_acl", Code::Scalar), ("rte_acl-avx512", Code::Avx512)];
    codes.into_iter().map(move |(name, code)| Peer { name, run: Box::new(move || dpdk.run(code)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_asked_of_the_same_rules() {
        let ruled = Policies { shape: Shape::Blocks, family: Family::V4, count: 100 }.make();
        let rules = acl_rules(&ruled);
        assert_eq!(rules.len(), 100);
        let flows = Flows::of(&ruled, &compiled(&ruled).unwrap()).unwrap();
        for (ask, source) in flows.asked.iter().zip(&flows.addresses.0) {
            let (source, pod) = (Ipv4Addr::from_bits(*source), pod(&ruled, ask));
            let meets = |rule: &&AclRule| {
                rule.source.contains(&source) && rule.destination.contains(&pod) && rule.port == ask.port
            };
            assert!(rules.iter().any(|rule| meets(&rule)), "{ask:?}");
        }
    }

    #[test]
    fn the_smallest_network_around_addresses() {
        let around = |list: &[&str]| around(list.iter().map(|it| it.parse().unwrap())).to_string();
        assert_eq!(around(&["10.0.0.1", "10.0.0.2"]), "10.0.0.0/30");
        assert_eq!(around(&["10.0.0.1"]), "10.0.0.1/32");
        assert_eq!(around(&["10.0.0.1", "10.1.255.9"]), "10.0.0.0/15");
    }
}
