//! Packets of no known flow when there is no time for them all.

use crate::testing::World;
use crate::testing::frames::Ends;
use crate::testing::world::{A, B, C, v4};

/// UDP packets of flows by number.
fn flows(ends: Ends, numbers: std::ops::Range<u16>) -> impl Iterator<Item = Vec<u8>> {
    numbers.map(move |number| ends.udp(number, 5000, &[]))
}

#[test]
fn some_of_each_port_are_judged_in_a_turn_and_known_flows_go_on() {
    let mut world = World::node(1);
    let (client, server) = (world.ends(A, v4(1, B)), world.ends(B, v4(1, A)));
    world.send_all(flows(client, 0..4).map(|frame| (A, frame)));
    world.moved_ports();
    world.walk.limit_newcomers(Some(2));
    // Two batches of one turn.
    for numbers in [0..7, 7..9] {
        world.send_all(flows(client, numbers.clone()).map(|frame| (A, frame)));
        world.send_all(flows(server, numbers).map(|frame| (B, frame)).take(1));
    }
    let expected = ["a drop worker-behind 3", "a rx 9", "a tx 2", "b rx 2", "b tx 6", "flows created 4"];
    assert_eq!(world.moved_ports(), expected);
    world.walk.limit_newcomers(Some(2));
    assert_eq!(
        world.send_all(flows(client, 4..9).map(|frame| (A, frame))).len(),
        4,
        "the next turn has two more"
    );
    world.walk.limit_newcomers(None);
    assert_eq!(world.send_all(flows(client, 0..60).map(|frame| (A, frame))).len(), 60);
}

#[test]
fn who_is_refused_so_costs_no_table_a_question() {
    let mut world = World::node(1);
    world.walk.limit_newcomers(Some(0));
    // Policy would deny it, and count that for a rule; the table would be full.
    let stranger = world.ends(C, v4(1, B));
    assert_eq!(world.send(C, &stranger.tcp(9, 80, 2, &[])), []);
    assert_eq!(world.moved(), ["c drop worker-behind 1", "c rx 1", "stage flow-miss 1", "stage parse 1"]);
}
