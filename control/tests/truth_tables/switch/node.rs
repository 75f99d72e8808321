//! One node: what is calculated for it, the tables compiled from that, and a walk with its flows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use vswitch_control::calc::{CalcConfig, Inputs, Numbering, calculate};
use vswitch_datapath::policy::{FlowPorts, PolicyDirection, Verdict, View, oracle};
use vswitch_datapath::tables::{Revision, Role};
use vswitch_datapath::{
    CompileInputs, Counters, Hop, Output, Packet, PortFacts, PortIndex, PortMap, Tables, Underlay, VecBuffer,
    Walk, WalkConfig, compile,
};
use vswitch_model::{DesiredState, Generation, IdentityId, Mac, PortName};

use crate::scene::node_address;

/// The port to the other nodes.
pub(super) const UPLINK: PortIndex = PortIndex(0);
/// The port to the node's kernel.
pub(super) const HOST: PortIndex = PortIndex(1);
/// Ports a node may ever have in a case.
const PORTS_MAX: u16 = 64;
/// Nodes a case may have.
const NODES_MAX: usize = 8;

pub(super) struct Node {
    number: usize,
    numbering: Numbering,
    state: DesiredState,
    /// None: before the first state.
    tables: Option<Tables>,
    ports: PortMap,
    pub(super) walk: Walk,
    pub(super) out: Output<VecBuffer>,
    identities: BTreeMap<IpAddr, IdentityId>,
}

impl Node {
    pub(super) fn new(number: usize) -> Self {
        let facts = |index, role, mac, mtu| PortFacts {
            index,
            role,
            mac,
            mtu,
            finishes_checksums: false,
            takes_large: false,
        };
        let ports = PortMap::from([
            (port_name("uplink"), facts(UPLINK, Role::Uplink, uplink_mac(number), 1550)),
            (port_name("host"), facts(HOST, Role::Host, Mac::GATEWAY, 1450)),
        ]);
        let counters = Arc::new(Counters::new(usize::from(PORTS_MAX)));
        let config = WalkConfig { flows: 4096, fragments: 64, ..WalkConfig::default() };
        Self {
            number,
            numbering: Numbering::default(),
            state: DesiredState::default(),
            tables: None,
            ports,
            walk: Walk::new(&config, counters),
            out: Output::new(0),
            identities: BTreeMap::new(),
        }
    }

    /// Goes over to what these objects come to.
    pub(super) fn apply(&mut self, inputs: &Inputs, name: &str, revision: u64) {
        let calculated = calculate(inputs, name, &CalcConfig::default(), &mut self.numbering);
        assert_eq!(calculated.problems, [] as [&str; 0]);
        self.state = calculated.state;
        self.state.check().unwrap();
        for port in self.state.ports.keys() {
            let index = PortIndex(u16::try_from(self.ports.len()).unwrap());
            assert!(index.0 < PORTS_MAX, "a case with so many pods on a node");
            let role = Role::Pod;
            let facts = PortFacts {
                index,
                role,
                mac: Mac::GATEWAY,
                mtu: 1450,
                finishes_checksums: false,
                takes_large: false,
            };
            // A port keeps its number for good, as a pod that stays keeps its flows.
            self.ports.entry(port.clone()).or_insert(facts);
        }
        self.tables = Some(compiled(&self.state, &self.ports, &self.underlay(), revision));
        self.identities.clear();
        for (prefix, identity) in &self.state.prefixes {
            if prefix.prefix_len() == prefix.max_prefix_len() {
                self.identities.insert(prefix.addr(), *identity);
            }
        }
    }

    /// Every other node is a hop away on the uplink.
    fn underlay(&self) -> Underlay {
        let hop = |number| Hop {
            port: UPLINK,
            dst_mac: uplink_mac(number),
            src_mac: uplink_mac(self.number),
            mtu: 1550,
            weight: 1,
            on_link: true,
        };
        let others = (0..NODES_MAX).filter(|number| *number != self.number);
        let hops = others.map(|number| (node_address(number), vec![hop(number)])).collect();
        Underlay { hops, local_addresses: [node_address(self.number)].into(), ..Underlay::default() }
    }

    /// The class tables' verdict, which has to be that of the state read rule by rule.
    pub(super) fn verdict(
        &self,
        view: View,
        direction: PolicyDirection,
        own: IpAddr,
        other: IpAddr,
        ports: FlowPorts,
    ) -> Verdict {
        let (own, other) = (self.identity(own), self.identity(other));
        let policy = &self.tables().policy;
        let verdict = match (view, policy.staged()) {
            (View::Staged, Some(staged)) => staged.verdict(direction, own, other, ports),
            // Nothing is staged: it stays as it is.
            _ => policy.verdict(direction, own, other, ports),
        };
        let by_rules = oracle::verdict_in(view, &self.state, direction, own, other, ports);
        assert_eq!(verdict, by_rules, "the tables, and the state read rule by rule");
        verdict
    }

    fn tables(&self) -> &Tables {
        self.tables.as_ref().expect("a state was applied")
    }

    fn identity(&self, address: IpAddr) -> IdentityId {
        self.identities.get(&address).copied().unwrap_or_else(|| {
            let prefixes = self.state.prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
            let longest = prefixes.max_by_key(|(prefix, _)| prefix.prefix_len());
            longest.map_or(IdentityId::UNKNOWN, |(_, identity)| *identity)
        })
    }

    /// Policy and position of the rule that decided, without what the state says besides where one rule became many.
    pub(super) fn name_of_rule(&self, verdict: Verdict) -> (&str, &str) {
        let policies = self.state.policies.values();
        let mut rules = policies.flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
        rules.find(|(_, rule)| rule.id == verdict.rule).map_or(("", ""), |(policy, rule)| {
            let besides = [", port ", ", source port ", ", service port "];
            let end = besides.iter().filter_map(|text| rule.position.find(text)).min();
            (policy.name.as_str(), &rule.position[..end.unwrap_or(rule.position.len())])
        })
    }

    /// The port and the Ethernet address of the pod that has this address.
    pub(super) fn pod(&self, address: IpAddr) -> Option<(PortIndex, Mac)> {
        let port = self.state.ports.values().find(|port| port.addresses.contains(&address))?;
        Some((self.ports[&port.name].index, port.mac))
    }

    /// Walks packets; those that leave are in `out.tx`.
    pub(super) fn process(&mut self, packets: &mut Vec<Packet<VecBuffer>>, now: vswitch_datapath::Now) {
        let tables = self.tables.as_ref().expect("a state was applied");
        self.walk.process(tables, now, packets, &mut self.out);
        self.out.dropped.clear();
    }
}

fn compiled(desired: &DesiredState, ports: &PortMap, underlay: &Underlay, revision: u64) -> Tables {
    let (generation, revision) = (Generation(revision), Revision(revision));
    compile(&CompileInputs { generation, revision, desired, ports, underlay }).unwrap()
}

fn port_name(name: &str) -> PortName {
    PortName::new(name).unwrap()
}

pub(super) fn uplink_mac(number: usize) -> Mac {
    Mac([2, 0, 0, 0, 0xff, u8::try_from(number).unwrap()])
}
