//! The table beside a map with the same timeouts.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

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
    packets: [u64; 2],
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

/// Of IPv4 or IPv6; some of those differ in one part of an address alone, whichever it is.
fn key_of(client: u32, back: bool) -> (FlowKey, Orientation) {
    let (ours, place) = (client / 4 * 7, client % 4 * 40);
    let (a, b) = ((u128::from(ours) << place.min(96), 9), (1000, 53));
    let (from, to) = if back { (b, a) } else { (a, b) };
    if place == 0 {
        FlowKey::v4(from.0 as u32, from.1, to.0 as u32, to.1, 47)
    } else {
        FlowKey::v6(from.0, from.1, to.0, to.1, 47)
    }
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
                        let told = Told { opener, port, seen: second, answered: false, packets: [0; 2] };
                        oracle.flows.insert(key, told);
                    } else {
                        prop_assert_eq!(inserted, Err(FlowTableFull));
                    }
                }
                Step::Packet(client, back) => {
                    let (key, orientation) = key_of(client, back);
                    let found = find(&table, &key);
                    prop_assert_eq!(found.is_some(), oracle.flows.contains_key(&key));
                    if let (Some(index), Some(told)) = (found, oracle.flows.get_mut(&key)) {
                        let flow = table.line(index).unwrap();
                        let direction = flow.direction(orientation);
                        prop_assert_eq!(direction == Direction::Original, told.opener == orientation);
                        flow.advance(direction, TcpFlags::default(), 1, Now(second * SECOND)).unwrap();
                        told.packets[direction as usize] += 1;
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
            let told = oracle.flows[&flow.key];
            prop_assert_eq!((flow.orientation, flow.packets), (told.opener, told.packets));
            prop_assert_eq!(flow.bytes, told.packets);
            prop_assert_eq!((flow.in_port, flow.state.is_answered()), (PortIndex(told.port as u16), told.answered));
            prop_assert!(Now(told.seen * SECOND).since(flow.last_seen) < 1 << 20);
        }
    }
}

/// Numbers that look random.
fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as u32
}

/// A flow of both families' that goes by one of many ports, and that nobody makes room with.
fn kept(client: u32, now: Now) -> Flow {
    let mut flow = flow(key_of(client, false).0, Orientation::FromLow, TcpFlags::default(), now).unwrap();
    flow.state = FlowState::Other { replied: true };
    by_port(flow, client % 64)
}

#[test]
fn a_table_that_is_full_goes_on_like_a_map() {
    const CAPACITY: usize = 10_000;
    for seed in [1, 2, 3] {
        let (mut table, mut numbers) = (FlowTable::new(CAPACITY, seed), seed);
        let mut flows: HashMap<FlowKey, FlowIndex> = HashMap::new();
        let mut clients: Vec<u32> = Vec::new();
        let mut next = 1000;
        for step in 0..100_000 {
            // One of the last hundred goes, another comes: never is a newcomer refused that there is a record for.
            if flows.len() == CAPACITY || flows.len() > CAPACITY - 100 && random(&mut numbers) & 1 == 0 {
                let gone = clients.swap_remove(random(&mut numbers) as usize % clients.len());
                let (key, _) = key_of(gone, true);
                assert_eq!(find(&table, &key), flows.remove(&key));
                table.remove(find(&table, &key).unwrap()).unwrap();
                assert_eq!(find(&table, &key), None);
            } else {
                next += 1;
                let flow = kept(next, Now(0));
                let key = flow.key;
                flows.insert(key, insert(&mut table, flow).unwrap());
                clients.push(next);
            }
            if step % 64 == 0 && !clients.is_empty() {
                let key = key_of(clients[random(&mut numbers) as usize % clients.len()], true).0;
                assert_eq!(find(&table, &key), flows.get(&key).copied());
            }
        }
        assert!(table.len() > CAPACITY - 200);
        assert_eq!(table.occupancy().0, flows.len());
        assert!(flows.iter().all(|(key, index)| find(&table, key) == Some(*index)));
        assert!(table.iter().all(|(index, flow)| flows.get(&flow.key) == Some(&index)));
        // Full to the last record.
        while flows.len() < CAPACITY {
            next += 1;
            flows.insert(key_of(next, false).0, insert(&mut table, kept(next, Now(0))).unwrap());
        }
        assert_eq!(insert(&mut table, kept(next + 1, Now(0))), Err(FlowTableFull));
        assert_eq!(table.expire(Now(601 * SECOND), CAPACITY), CAPACITY);
        assert_eq!((table.len(), table.occupancy()), (0, (0, 0)));
    }
}
