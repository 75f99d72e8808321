mod oracle;

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
    Flow::new(&NewFlow {
        key,
        orientation,
        in_port: PortIndex(3),
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
    flow.in_port = PortIndex(port as u16);
    flow
}

fn answered(mut flow: Flow) -> Flow {
    flow.state = FlowState::Udp { replied: true };
    flow
}

#[expect(clippy::needless_pass_by_value, reason = "flows are made where they are put in")]
fn insert(table: &mut FlowTable, flow: Flow) -> Result<FlowIndex, FlowTableFull> {
    let hash = table.hash(&flow.key);
    table.insert(hash, &flow)
}

/// The line of a flow that is alone in its table.
fn line(table: &mut FlowTable) -> &mut Line {
    let (index, _) = table.iter().next().unwrap();
    table.line(index).unwrap()
}

/// A table with this flow, and nothing else.
fn alone(flow: Flow) -> FlowTable {
    let mut table = FlowTable::new(1, 7);
    insert(&mut table, flow).unwrap();
    table
}

/// What a table of one flow tells of it.
fn told(table: &FlowTable) -> Flow {
    table.iter().next().unwrap().1
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
fn a_gib_holds_twelve_million_flows() {
    assert_eq!(size_of::<FlowKey>(), 40);
    let mut table = FlowTable::new(1 << 16, 1);
    let each = |table: &FlowTable| table.memory_bytes() as f64 / table.capacity() as f64;
    insert(&mut table, udp(1, Now(0))).unwrap();
    assert!(((1u64 << 30) as f64) / each(&table) >= 12e6, "{}", each(&table));
    let before = table.memory_bytes();
    let (key, orientation) = FlowKey::v6(1, 5060, 2, 5060, 17);
    insert(&mut table, flow(key, orientation, TcpFlags::default(), Now(0)).unwrap()).unwrap();
    assert_eq!(table.memory_bytes() - before, 2 * 24, "records up to the last of IPv6");
    let followed = FlowTable::new(1 << 16, 1).following_windows();
    assert_eq!(followed.memory_bytes() - before, 24 << 16);
}

#[test]
fn a_flow_is_told_as_it_was_put() {
    let (v4, v6) = (FlowKey::v4(9, 5, 3, 7, 6), FlowKey::v6(u128::MAX - 5, 9, 1 << 90, 7, 6));
    let mut table = FlowTable::new(8, 1);
    for (key, orientation) in [v4, v6] {
        for (turn, state) in
            [TcpState::Reset(Direction::Reply), TcpState::Established].into_iter().enumerate()
        {
            let put = Flow {
                key,
                revision: Revision((1 << 40) + turn as u64),
                adjacencies: [AdjacencyIndex(u32::MAX), AdjacencyIndex(3)],
                in_port: PortIndex(500),
                orientation,
                state: FlowState::Tcp(state),
                is_revoked: turn == 1,
                last_seen: Now(77 << 20),
                packets: [(1 << 48) - 1, 5 << 32],
                bytes: [u64::MAX, 1 << 50],
                created: Now(70 << 20),
                identities: [IdentityId(u32::MAX), IdentityId(2)],
                egress: RuleId(7),
                ingress: RuleId(u32::MAX),
            };
            insert(&mut table, put.clone()).unwrap();
            let told = table.get(find(&table, &key).unwrap()).unwrap();
            assert_eq!(format!("{told:?}"), format!("{put:?}"));
        }
    }
    assert_eq!(table.len(), 2);
}

#[test]
fn an_old_flow_stays_old_when_it_is_changed() {
    let day = 86_400 * SECOND;
    let mut table = alone(answered(udp(1, Now(0))));
    for hours in 0..120 * 24 {
        let now = Now(hours * day / 24);
        line(&mut table).see(now);
        assert_eq!(table.expire(now, 1), 0);
        if [27 * 24, 60 * 24].contains(&hours) {
            table.update(FlowIndex(0), |flow| flow.revision = Revision(hours)).unwrap();
        }
        let age = now.since(told(&table).created) / day;
        assert!(age == (hours / 24).min(25) || hours / 24 == 25, "{age} days at {hours} h");
    }
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
        let place = index.place(hash, record).unwrap();
        index.free(place);
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
    assert_eq!(tcp(&[(Original, fin_ack), (Reply, fin_ack)]), [Ok(FinSent), Ok(Closing)]);
    // One end alone never makes a connection of it.
    assert_eq!(
        tcp(&[(Original, SYN), (Original, fin_ack), (Original, ACK), (Original, SYN)]),
        [Ok(SynSent), Ok(FinSent), Ok(FinSent), Ok(SynSent)]
    );
    assert_eq!(
        tcp(&[(Original, ACK), (Original, fin_ack), (Reply, ACK)])[1..],
        [Ok(FinSent), Ok(HalfClosed(Original))]
    );
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
    assert_eq!(after(&[(Original, TcpFlags::FIN)]), Ok(FinSent));
    assert_eq!(after(&[(Original, ACK), (Reply, TcpFlags::RST)]), Ok(Reset(Reply)));
    assert!(Reset(Original).timeout_s() < PickedUp.timeout_s());
}

#[test]
fn a_connection_that_is_over_is_opened_anew() {
    let (key, orientation) = FlowKey::v4(1, 1000, 2, 80, 6);
    let mut table = alone(flow(key, orientation, SYN, Now(0)).unwrap());
    let line = line(&mut table);
    use Direction::{Original, Reply};
    assert!(!line.is_reopened_by(Original, SYN), "a SYN sent again");
    assert!(!line.is_reopened_by(Reply, SYN), "both at once");
    line.advance(Reply, TcpFlags::RST, 40, Now(1)).unwrap();
    for direction in [Original, Reply] {
        assert!(line.is_reopened_by(direction, SYN));
        assert!(!line.is_reopened_by(direction, SYN.and(ACK)) && !line.is_reopened_by(direction, ACK));
    }
    // The reset was a stranger's: the ends go on, and nothing stops them.
    line.advance(Original, ACK, 40, Now(2)).unwrap();
    assert_eq!(told(&table).state, FlowState::Tcp(TcpState::Reset(Reply)));
}

#[test]
fn a_line_takes_a_segment_as_its_state_does() {
    for first in [SYN, ACK, TcpFlags::FIN.and(ACK)] {
        for seed in 0..64u32 {
            let (key, orientation) = FlowKey::v4(1, 1000, 2, 80, 6);
            let mut table = alone(flow(key, orientation, first, Now(0)).unwrap());
            let mut state = TcpState::first(first).unwrap();
            for step in 0..12u32 {
                let random = (seed * 31 + step).wrapping_mul(0x9e37_79b9) >> 16;
                let direction = if random & 1 == 0 { Direction::Original } else { Direction::Reply };
                let flags =
                    [ACK, ACK, SYN, SYN.and(ACK), TcpFlags::FIN.and(ACK), TcpFlags::RST, TcpFlags(0), ACK];
                let flags = flags[(random >> 1) as usize % flags.len()];
                assert_eq!(
                    line(&mut table).is_reopened_by(direction, flags),
                    state.is_reopened_by(direction, flags)
                );
                let next = state.next(direction, flags);
                assert_eq!(line(&mut table).advance(direction, flags, 40, Now(0)), next.map(|_| ()));
                state = next.unwrap_or(state);
                assert_eq!(told(&table).state, FlowState::Tcp(state));
            }
        }
    }
}

#[test]
fn a_refused_segment_changes_nothing() {
    let (key, orientation) = FlowKey::v4(1, 1000, 2, 80, 6);
    let mut table = alone(flow(key, orientation, ACK, Now(0)).unwrap());
    let refused = line(&mut table).advance(Direction::Reply, SYN, 40, Now(5 * SECOND));
    assert_eq!(refused, Err(DropReason::TcpStateInvalid));
    let flow = told(&table);
    assert_eq!(
        (flow.state, flow.last_seen, flow.packets),
        (FlowState::Tcp(TcpState::PickedUp), Now(0), [0, 0])
    );
}

#[test]
fn times_depend_on_the_state() {
    let mut table = alone(udp(1, Now(0)));
    let is_expired = |table: &mut FlowTable, now| {
        assert_eq!(line(table).is_expired(now), told(table).is_expired(now));
        line(table).is_expired(now)
    };
    let later = 3_000_000;
    line(&mut table).count(Direction::Original, 200);
    assert!(!is_expired(&mut table, Now(30 * SECOND)) && is_expired(&mut table, Now(30 * SECOND + later)));
    line(&mut table).advance(Direction::Reply, TcpFlags::default(), 100, Now(10 << 30)).unwrap();
    let end = (10 << 30) + 180 * SECOND;
    assert!(!is_expired(&mut table, Now(end)) && is_expired(&mut table, Now(end + later)));
    assert!(!is_expired(&mut table, Now(0)), "a clock that is behind expires nothing");
    let flow = told(&table);
    assert_eq!((flow.packets, flow.bytes), ([1, 1], [200, 100]));
    assert_eq!(flow.policy_ports().destination, 5060);
}

#[test]
fn no_time_is_shorter_than_the_shortest() {
    use TcpState::{Closing, Established, FinSent, HalfClosed, PickedUp, Reset, SynReceived, SynSent};
    let ended = [HalfClosed(Direction::Reply), Closing, Reset(Direction::Original)];
    let tcp =
        [SynSent, SynReceived, PickedUp, FinSent, Established].into_iter().chain(ended).map(FlowState::Tcp);
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
