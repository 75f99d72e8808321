use std::collections::HashMap;

use proptest::prelude::*;
use vswitch_model::{DropReason, IdentityId, RuleId};

use super::index::Index;
use super::*;
use crate::PortIndex;
use crate::tables::{AdjacencyIndex, Judgement, Revision};

const SECOND: u64 = 1_000_000_000;

fn judgement() -> Judgement {
    Judgement {
        identities: [IdentityId(16), IdentityId(17)],
        adjacencies: [AdjacencyIndex(1), AdjacencyIndex(2)],
        egress: RuleId(20),
        marks: [None; 2],
        ingress: RuleId(21),
    }
}

fn flow(key: FlowKey, orientation: Orientation, flags: TcpFlags, now: Now) -> Result<Flow, DropReason> {
    let revision = Revision(1);
    let in_port = PortIndex(3);
    Flow::new(&NewFlow {
        key,
        orientation,
        in_port,
        reply_port: None,
        judgement: judgement(),
        revision,
        tcp_flags: flags,
        now,
    })
}

fn udp(client: u32, now: Now) -> Flow {
    let (key, orientation) = FlowKey::v4(client, 5060, 0x0a00_0001, 5060, 17);
    flow(key, orientation, TcpFlags::default(), now).unwrap()
}

/// The same flow, opened by a packet of this port.
fn by_port(mut flow: Flow, port: u32) -> Flow {
    flow.in_ports[0] = PortIndex(port as u16);
    flow
}

fn answered(mut flow: Flow) -> Flow {
    let seen = flow.last_seen;
    flow.advance(Direction::Reply, TcpFlags::default(), 1, seen).unwrap();
    flow
}

fn insert(table: &mut FlowTable, flow: Flow) -> Result<FlowIndex, FlowTableFull> {
    let hash = table.hash(&flow.key);
    table.insert(hash, flow)
}

fn find(table: &FlowTable, key: &FlowKey) -> Option<FlowIndex> {
    table.lookup(key, table.hash(key))
}

#[test]
fn a_key_is_the_same_both_ways_and_gives_its_ends_back() {
    let ends = [("10.0.0.1", 5), ("10.0.0.2", 4), ("10.0.0.1", 6)].map(|(a, p)| (a.parse().unwrap(), p));
    for (a, b) in [(ends[0], ends[1]), (ends[0], ends[2]), (ends[1], ends[0])] {
        let (there, from_a) = FlowKey::between(a, b, 17).unwrap();
        let (back, from_b) = FlowKey::between(b, a, 17).unwrap();
        assert_eq!((there, from_a), (back, from_b.reverse()));
        assert_eq!((there.source(from_a), there.source(from_b)), (a, b));
        assert_eq!((there.protocol(), there.is_v6()), (17, false));
        assert_ne!(there, FlowKey::between(a, b, 6).unwrap().0);
    }
    let low = 0x0a00_0001u32;
    assert_ne!(FlowKey::v4(low, 1, 2, 3, 17).0, FlowKey::v6(u128::from(low), 1, 2, 3, 17).0);
    assert!(FlowKey::between(ends[0], ("::1".parse().unwrap(), 1), 6).is_none());
}

#[test]
fn a_record_is_two_cache_lines() {
    assert_eq!(size_of::<Option<Flow>>(), 128);
    assert_eq!(size_of::<FlowKey>(), 40);
    let table = FlowTable::new(4096, 1);
    assert!((148..=164).contains(&(table.memory_bytes() / 4096)), "{}", table.memory_bytes() / 4096);
}

#[test]
fn a_table_takes_as_many_as_it_says_and_refuses_the_next() {
    for capacity in [1, 2, 3, 1000, 4096] {
        let mut table = FlowTable::new(capacity, 42);
        // By two ports: one alone may not have it all.
        let flows: Vec<Flow> =
            (0..capacity as u32).map(|client| answered(by_port(udp(client, Now(0)), client % 2))).collect();
        for flow in &flows {
            insert(&mut table, flow.clone()).unwrap();
        }
        assert_eq!((table.len(), table.capacity(), table.iter().count()), (capacity, capacity, capacity));
        assert_eq!(insert(&mut table, udp(u32::MAX, Now(SECOND))), Err(FlowTableFull));
        assert!(flows.iter().all(|flow| find(&table, &flow.key).is_some()), "the newcomer hurt nobody");
        // The clock hand makes room once the old ones are over.
        insert(&mut table, udp(u32::MAX, Now(181 * SECOND))).unwrap();
        let expired: usize =
            (0..capacity.div_ceil(16) + 1).map(|_| table.expire(Now(400 * SECOND), 16)).sum();
        assert!(expired >= 1);
        assert_eq!((table.len(), table.occupancy()), (0, (0, 0)));
    }
}

#[test]
fn one_port_cannot_take_the_room_of_others() {
    let mut table = FlowTable::new(1000, 42);
    let call = answered(by_port(udp(0, Now(0)), 1));
    insert(&mut table, call.clone()).unwrap();
    for client in 1..20_000u32 {
        let now = Now(SECOND + u64::from(client) * 1000);
        // Refused where none of its own is among the few records that are looked at.
        let inserted = insert(&mut table, by_port(udp(client, now), 2));
        assert!(inserted.is_ok() || client > 750);
    }
    assert_eq!(table.len(), 1 + 750);
    assert!(table.take_evicted() > 10_000, "its own make room for it");
    // Others come in, answered or not, and stay whatever the flood does.
    for client in 30_000..30_249u32 {
        insert(&mut table, by_port(udp(client, Now(2 * SECOND)), 3)).unwrap();
    }
    for client in 40_000..50_000u32 {
        let _refused = insert(&mut table, by_port(udp(client, Now(3 * SECOND)), 2));
    }
    assert!(find(&table, &call.key).is_some());
    assert!((30_000..30_249).all(|client| find(&table, &udp(client, Now(0)).key).is_some()));
    assert_eq!(table.len(), 1000);
}

#[test]
fn answered_flows_give_way_to_nobody() {
    let mut table = FlowTable::new(1000, 42);
    for client in 0..750u32 {
        insert(&mut table, answered(by_port(udp(client, Now(0)), 2))).unwrap();
    }
    assert_eq!(
        insert(&mut table, by_port(udp(1000, Now(1)), 2)),
        Err(FlowTableFull),
        "all of one port's share"
    );
    for client in 2000..2250u32 {
        insert(&mut table, answered(by_port(udp(client, Now(0)), 3))).unwrap();
    }
    assert_eq!(insert(&mut table, by_port(udp(3000, Now(1)), 4)), Err(FlowTableFull), "all of the table");
    assert_eq!((table.len(), table.take_evicted()), (1000, 0));
    // What a removed flow held of its port's share is free again.
    let first = find(&table, &udp(0, Now(0)).key).unwrap();
    table.remove(first);
    insert(&mut table, by_port(udp(1000, Now(1)), 2)).unwrap();
}

#[test]
fn flows_that_collide_are_refused_and_nothing_is_lost() {
    let mut index = Index::new(1024);
    let hash = 0x1234_5678_9abc_def0;
    let fitted = (0..100).take_while(|record| index.insert(hash, *record, |_| hash)).count() as u32;
    assert_eq!(fitted, 16, "both buckets of one hash");
    for record in 0..fitted {
        assert_eq!(index.find(hash, |other| other == record), Some(record));
    }
    for record in 0..fitted {
        index.remove(hash, record);
        assert_eq!(index.find(hash, |other| other == record), None);
    }
    assert_eq!(index.occupancy(), (0, 0));
}

#[test]
fn the_seed_moves_flows_to_other_buckets() {
    let (a, b) = (FlowTable::new(1 << 10, 1), FlowTable::new(1 << 10, 2));
    let keys: Vec<FlowKey> = (0..1000).map(|client| udp(client, Now(0)).key).collect();
    assert!(keys.iter().filter(|key| a.hash(key) & 0xff == b.hash(key) & 0xff).count() < 50);
    let mut buckets = [0u32; 256];
    for key in &keys {
        buckets[a.hash(key) as usize & 0xff] += 1;
    }
    assert!(buckets.iter().all(|count| *count < 20), "consecutive addresses spread");
}

#[test]
fn a_batch_finds_what_single_lookups_find() {
    let mut table = FlowTable::new(500, 9);
    for client in 0..500 {
        insert(&mut table, by_port(udp(client, Now(0)), client % 2)).unwrap();
    }
    let keys: Vec<FlowKey> = (450..514).map(|client| udp(client, Now(0)).key).collect();
    let hashes: Vec<u64> = keys.iter().map(|key| table.hash(key)).collect();
    let mut found = vec![Some(FlowIndex(7)); keys.len()];
    table.lookup_batch(&keys, &hashes, &mut found);
    for (key, found) in keys.iter().zip(&found) {
        assert_eq!(*found, find(&table, key));
    }
    assert_eq!(found.iter().flatten().count(), 50);
}

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;

fn tcp(steps: &[(Direction, TcpFlags)]) -> Vec<Result<TcpState, DropReason>> {
    let Some(((_, first), rest)) = steps.split_first() else { return Vec::new() };
    let mut states = vec![TcpState::first(*first)];
    for (direction, flags) in rest {
        let last = *states.iter().rev().flatten().next().unwrap();
        states.push(last.next(*direction, *flags));
    }
    states
}

#[test]
fn tcp_opens_talks_and_closes() {
    use Direction::{Original, Reply};
    use TcpState::*;
    let (syn_ack, fin_ack, rst) = (SYN.and(ACK), TcpFlags::FIN.and(ACK), TcpFlags::RST);
    let invalid = Err(DropReason::TcpStateInvalid);
    let open = [(Original, SYN), (Reply, syn_ack), (Original, ACK)];
    assert_eq!(tcp(&open), [Ok(SynSent), Ok(SynReceived), Ok(Established)]);
    let close = [
        open.as_slice(),
        &[(Reply, ACK), (Reply, fin_ack), (Original, ACK), (Original, fin_ack), (Reply, ACK)],
    ]
    .concat();
    assert_eq!(
        tcp(&close)[3..],
        [Ok(Established), Ok(HalfClosed(Reply)), Ok(HalfClosed(Reply)), Ok(Closing), Ok(Closing)]
    );
    // Sent twice is not closed twice.
    let twice = [open.as_slice(), &[(Original, fin_ack), (Original, fin_ack)]].concat();
    assert_eq!(tcp(&twice).last(), Some(&Ok(HalfClosed(Original))));
    assert_eq!(tcp(&[open.as_slice(), &[(Reply, rst)]].concat()).last(), Some(&Ok(Reset(Reply))));
    // A responder cannot open a connection under the originator's verdict, nor can one be made of an answer.
    assert_eq!(tcp(&[open.as_slice(), &[(Reply, SYN)]].concat()).last(), Some(&invalid));
    assert_eq!(tcp(&[(Original, syn_ack)]), [invalid]);
    assert_eq!(tcp(&[(Original, rst)]), [invalid]);
    assert_eq!(tcp(&[(Original, TcpFlags(0))]), [invalid]);
    // Both at once.
    assert_eq!(
        tcp(&[(Original, SYN), (Reply, SYN), (Original, syn_ack), (Reply, syn_ack), (Original, ACK)]).last(),
        Some(&Ok(Established))
    );
    // In the middle.
    assert_eq!(
        tcp(&[(Original, ACK), (Original, ACK), (Reply, ACK)]),
        [Ok(PickedUp), Ok(PickedUp), Ok(Established)]
    );
    assert_eq!(tcp(&[(Original, fin_ack), (Reply, fin_ack)]), [Ok(HalfClosed(Original)), Ok(Closing)]);
}

#[test]
fn a_reset_that_was_none_ends_nothing() {
    use Direction::{Original, Reply};
    use TcpState::*;
    let open = [(Original, SYN), (Reply, SYN.and(ACK)), (Original, ACK), (Original, TcpFlags::RST)];
    let after = |more: &[(Direction, TcpFlags)]| *tcp(&[&open[..], more].concat()).last().unwrap();
    assert_eq!(after(&[(Reply, ACK), (Reply, TcpFlags::FIN)]), Ok(Reset(Original)), "not heard of it yet");
    assert_eq!(after(&[(Original, ACK)]), Ok(PickedUp));
    assert_eq!(after(&[(Original, ACK), (Reply, ACK)]), Ok(Established));
    assert_eq!(after(&[(Original, TcpFlags::FIN)]), Ok(HalfClosed(Original)));
    assert_eq!(after(&[(Original, ACK), (Reply, TcpFlags::RST)]), Ok(Reset(Reply)));
    assert!(Reset(Original).timeout_s() < PickedUp.timeout_s());
}

#[test]
fn a_connection_that_is_over_is_opened_anew() {
    let (key, orientation) = FlowKey::v4(1, 1000, 2, 80, 6);
    let mut flow = flow(key, orientation, SYN, Now(0)).unwrap();
    use Direction::{Original, Reply};
    assert!(!flow.is_reopened_by(Original, SYN), "a SYN sent again");
    assert!(!flow.is_reopened_by(Reply, SYN), "both at once");
    flow.advance(Reply, TcpFlags::RST, 40, Now(1)).unwrap();
    for direction in [Original, Reply] {
        assert!(flow.is_reopened_by(direction, SYN));
        assert!(!flow.is_reopened_by(direction, SYN.and(ACK)) && !flow.is_reopened_by(direction, ACK));
    }
    // The reset was a stranger's: the ends go on, and nothing stops them.
    flow.advance(Original, ACK, 40, Now(2)).unwrap();
}

#[test]
fn a_refused_segment_changes_nothing() {
    let (key, orientation) = FlowKey::v4(1, 1000, 2, 80, 6);
    let mut flow = flow(key, orientation, ACK, Now(0)).unwrap();
    assert_eq!(flow.advance(Direction::Reply, SYN, 40, Now(5)), Err(DropReason::TcpStateInvalid));
    assert_eq!(
        (flow.state, flow.last_seen, flow.packets),
        (FlowState::Tcp(TcpState::PickedUp), Now(0), [0, 0])
    );
}

#[test]
fn times_depend_on_the_state() {
    let mut flow = udp(1, Now(0));
    flow.count(Direction::Original, 200);
    assert!(!flow.is_expired(Now(30 * SECOND)) && flow.is_expired(Now(30 * SECOND + 1)));
    flow.advance(Direction::Reply, TcpFlags::default(), 100, Now(10 * SECOND)).unwrap();
    assert!(!flow.is_expired(Now(190 * SECOND)) && flow.is_expired(Now(190 * SECOND + 1)));
    assert!(!flow.is_expired(Now(0)), "a clock that is behind expires nothing");
    assert_eq!((flow.packets, flow.bytes), ([1, 1], [200, 100]));
    assert_eq!(flow.policy_ports().destination, 5060);
}

#[test]
fn no_time_is_shorter_than_the_shortest() {
    use TcpState::{Closing, Established, HalfClosed, PickedUp, Reset, SynReceived, SynSent};
    let ended = [HalfClosed(Direction::Reply), Closing, Reset(Direction::Original)];
    let tcp = [SynSent, SynReceived, PickedUp, Established].into_iter().chain(ended).map(FlowState::Tcp);
    let others = [false, true].into_iter().flat_map(|replied| {
        [
            FlowState::Udp { replied },
            FlowState::Icmp { replied },
            FlowState::Sctp { replied },
            FlowState::Other { replied },
        ]
    });
    assert!(tcp.chain(others).all(|state| state.timeout_s() >= Flow::SHORTEST_S));
    assert_eq!(FlowState::Tcp(Reset(Direction::Reply)).timeout_s(), Flow::SHORTEST_S);
}

/// What a table is, told simply.
#[derive(Default)]
struct Oracle {
    flows: HashMap<FlowKey, Told>,
}

/// Who opened a flow, by which port, when it was last seen, in seconds, and whether it was answered.
#[derive(Debug, Clone, Copy)]
struct Told {
    opener: Orientation,
    port: u32,
    seen: u64,
    answered: bool,
}

impl Oracle {
    /// Protocol 47 is kept 60 s, once answered 600 s.
    fn expire(&mut self, second: u64) {
        self.flows.retain(|_, flow| second - flow.seen <= if flow.answered { 600 } else { 60 });
    }

    fn held(&self, port: u32) -> usize {
        self.flows.values().filter(|flow| flow.port == port).count()
    }

    fn has_room(&self, capacity: usize, port: u32) -> bool {
        self.flows.len() < capacity && self.held(port) < capacity - capacity / 4
    }

    /// Those that may go for a newcomer by `port`: the oldest that were never answered, and its own only when it has
    /// all of its share.
    fn victims(&self, capacity: usize, own_only: bool, port: u32) -> Vec<FlowKey> {
        if self.has_room(capacity, port) {
            return Vec::new();
        }
        let may_go = |flow: &Told| !flow.answered && (!own_only || flow.port == port);
        let oldest = self.flows.values().filter(|flow| may_go(flow)).map(|flow| flow.seen).min();
        let oldest = |flow: &Told| may_go(flow) && Some(flow.seen) == oldest;
        self.flows.iter().filter(|(_, flow)| oldest(flow)).map(|(key, _)| *key).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u32, bool),
    Packet(u32, bool),
    Remove(u32),
    Wait(u64),
    Expire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0u32..60;
    let step = prop_oneof![
        6 => (client.clone(), any::<bool>()).prop_map(|(c, back)| Step::Insert(c, back)),
        4 => (client.clone(), any::<bool>()).prop_map(|(c, back)| Step::Packet(c, back)),
        2 => client.prop_map(Step::Remove),
        1 => (1u64..40).prop_map(Step::Wait),
        1 => Just(Step::Expire),
    ];
    proptest::collection::vec(step, 1..300)
}

fn key_of(client: u32, back: bool) -> (FlowKey, Orientation) {
    let (a, b) = ((client * 7, 9), (1000, 53));
    let (from, to) = if back { (b, a) } else { (a, b) };
    FlowKey::v4(from.0, from.1, to.0, to.1, 47)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_table_agrees_with_a_map(steps in steps(), capacity in 1usize..50, seed in any::<u64>()) {
        let mut table = FlowTable::new(capacity, seed);
        let mut oracle = Oracle::default();
        let mut second = 0u64;
        for step in steps {
            match step {
                Step::Insert(client, back) => {
                    let ((key, opener), port) = (key_of(client, back), client % 3);
                    let flow = by_port(flow(key, opener, TcpFlags::default(), Now(second * SECOND)).unwrap(), port);
                    let known = oracle.flows.contains_key(&key);
                    let mut victims = Vec::new();
                    if !known && !oracle.has_room(capacity, port) {
                        let own_only = oracle.held(port) >= capacity - capacity / 4;
                        // Fewer records than the budget: making room looks at all of them.
                        oracle.expire(second);
                        victims = oracle.victims(capacity, own_only, port);
                    }
                    let inserted = insert(&mut table, flow);
                    let gone: Vec<_> = victims.iter().filter(|key| find(&table, key).is_none()).collect();
                    prop_assert_eq!(gone.len(), usize::from(!victims.is_empty()));
                    oracle.flows.retain(|key, _| !gone.contains(&key));
                    if known || oracle.has_room(capacity, port) {
                        prop_assert!(inserted.is_ok());
                        oracle.flows.insert(key, Told { opener, port, seen: second, answered: false });
                    } else {
                        prop_assert_eq!(inserted, Err(FlowTableFull));
                    }
                }
                Step::Packet(client, back) => {
                    let (key, orientation) = key_of(client, back);
                    let found = find(&table, &key);
                    prop_assert_eq!(found.is_some(), oracle.flows.contains_key(&key));
                    if let (Some(index), Some(told)) = (found, oracle.flows.get_mut(&key)) {
                        let flow = table.get_mut(index).unwrap();
                        let direction = flow.direction(orientation);
                        prop_assert_eq!(direction == Direction::Original, told.opener == orientation);
                        flow.advance(direction, TcpFlags::default(), 1, Now(second * SECOND)).unwrap();
                        told.seen = second;
                        told.answered |= direction == Direction::Reply;
                    }
                }
                Step::Remove(client) => {
                    let (key, _) = key_of(client, false);
                    let removed = find(&table, &key).and_then(|index| table.remove(index));
                    prop_assert_eq!(removed.map(|flow| flow.key), oracle.flows.remove(&key).map(|_| key));
                }
                Step::Wait(seconds) => second += seconds,
                Step::Expire => {
                    let before = oracle.flows.len();
                    oracle.expire(second);
                    prop_assert_eq!(table.expire(Now(second * SECOND), capacity), before - oracle.flows.len());
                }
            }
            prop_assert_eq!(table.len(), oracle.flows.len());
            prop_assert_eq!(table.occupancy().0, oracle.flows.len());
        }
        for (index, flow) in table.iter() {
            prop_assert_eq!(find(&table, &flow.key), Some(index));
            prop_assert!(oracle.flows.contains_key(&flow.key));
        }
    }
}
