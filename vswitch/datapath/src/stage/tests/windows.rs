//! TCP segments and the windows of their connections.

use super::flows::answered;
use crate::WalkConfig;
use crate::flow::{Direction, FlowState, TcpState};
use crate::testing::World;
use crate::testing::frames::{self, Ends};
use crate::testing::world::{A, B, v4};

/// A connection of A to B that is open.
fn connected(world: &mut World) -> (Ends, Ends) {
    let client = world.ends(A, v4(1, B));
    let server = answered(world, client);
    let opening = [
        (A, client.tcp(9, 80, 2, &[])),
        (B, server.tcp(80, 9, 0x12, &[])),
        (A, client.tcp(9, 80, 0x10, &[])),
    ];
    assert_eq!(world.send_all(opening).len(), 3);
    world.moved();
    (client, server)
}

#[test]
fn a_segment_outside_of_the_window_ends_nothing() {
    let mut world = World::node(1);
    let (client, server) = connected(&mut world);
    for flags in [0x10, 0x11, 0x04, 0x14] {
        let forged = server.tcp_at(80, 9, flags, (0x4000_0000, 2), &[]);
        assert_eq!(world.send(B, &forged), [], "flags {flags}");
        assert_eq!(world.moved_ports(), ["b drop tcp-out-of-window 1", "b rx 1"], "flags {flags}");
    }
    let unsent = client.tcp_at(9, 80, 0x10, (2, 5000), b"more");
    assert_eq!(world.send(A, &unsent), []);
    assert_eq!(world.moved_ports(), ["a drop tcp-out-of-window 1", "a rx 1"]);
    // Old ones are for the other end to judge; they do not end it either, nor does a reset that may be a guess.
    for (flags, sequence) in [(0x11, 0xa000_0000), (0x04, 100)] {
        let old = server.tcp_at(80, 9, flags, (sequence, 2), &[]);
        assert_eq!(world.send(B, &old).len(), 1, "flags {flags}");
    }
    let flow = world.walk.flows().next().unwrap();
    assert_eq!((flow.state, flow.packets), (FlowState::Tcp(TcpState::Established), [2, 3]));
    assert_eq!(world.send(A, &client.tcp(9, 80, 0x10, b"more")).len(), 1);
    assert_eq!(world.send(B, &server.tcp_at(80, 9, 0x04, (2, 0), &[])).len(), 1);
    let flow = world.walk.flows().next().unwrap();
    assert_eq!(flow.state, FlowState::Tcp(TcpState::Reset(Direction::Reply)));
}

#[test]
fn a_liberal_walk_leaves_windows_to_both_ends() {
    let mut world = World::with_config(1, &WalkConfig { tcp_windows: false, ..WalkConfig::default() });
    let (client, server) = connected(&mut world);
    assert_eq!(world.send(A, &client.tcp_at(9, 80, 0x10, (0x4000_0000, 0x4000_0000), b"?")).len(), 1);
    assert_eq!(world.send(B, &server.tcp_at(80, 9, 0x04, (0x4000_0000, 0), &[])).len(), 1);
    let flow = world.walk.flows().next().unwrap();
    assert_eq!(flow.state, FlowState::Tcp(TcpState::Reset(Direction::Reply)));
}

#[test]
fn of_a_connection_in_fragments_no_window_is_known() {
    let mut world = World::node(1);
    let (client, server) = connected(&mut world);
    let long = frames::may_fragment(client.tcp(9, 80, 0x10, &[0x5a; 800]), 7);
    for piece in frames::cut_v4(&long, 400) {
        assert_eq!(world.send(A, &piece).len(), 1);
    }
    assert_eq!(world.send(B, &server.tcp_at(80, 9, 0x10, (2, 802), &[])).len(), 1);
}
