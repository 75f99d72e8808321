//! Hosts with a network stack of their own (smoltcp) talk through the walk: on one node, across two with VXLAN between
//! them, and with the node itself. Time is simulated: nothing waits for a clock.

// The whole crate is a test.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod net;
mod way;

use net::Net;
use vswitch_datapath::testing::world::{A, B, C, HOST, v4, v6};

/// Enough to fill windows and to wrap nothing.
const TRANSFER: usize = 200_000;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn pings_are_answered_on_a_node_and_across_nodes() {
    for (from, to) in
        [((1, A), (1, B)), ((1, A), (2, B)), ((2, A), (1, A)), ((1, HOST), (1, B)), ((1, B), (1, HOST))]
    {
        for address in [v4(to.0, to.1), v6(to.0, to.1)] {
            let mut net = Net::new(&[from, to]);
            for length in [0, 56, 1200] {
                assert!(net.ping(from, address, &pattern(length)), "{from:?} to {address}, {length} bytes");
            }
            assert_eq!(net.drops(), Vec::<String>::new());
        }
    }
}

#[test]
fn tcp_carries_every_byte_once() {
    let pairs =
        [((1, A), (1, B)), ((1, A), (2, B)), ((2, A), (1, B)), ((1, HOST), (1, B)), ((2, B), (2, HOST))];
    for (from, to) in pairs {
        for address in [v4(to.0, to.1), v6(to.0, to.1)] {
            let mut net = Net::new(&[from, to]);
            let sent = pattern(TRANSFER);
            let received = net.transfer(from, to, (address, 80), &sent);
            assert_eq!(received.len(), sent.len(), "{from:?} to {address}");
            assert!(received == sent, "{from:?} to {address}: bytes differ");
            assert_eq!(net.drops(), Vec::<String>::new());
        }
    }
}

#[test]
fn both_ends_close_and_the_flow_ends() {
    let mut net = Net::new(&[(1, A), (2, B)]);
    net.transfer((1, A), (2, B), (v4(2, B), 80), b"short");
    assert_eq!(net.flows(1), 1);
    net.wait_s(3 * 60);
    assert_eq!((net.flows(1), net.flows(2)), (0, 0));
}

#[test]
fn udp_is_admitted_by_its_port() {
    for across in [1, 2] {
        for address in [v4(across, B), v6(across, B)] {
            let mut net = Net::new(&[(1, A), (across, B)]);
            let open = net.datagram((1, A), (across, B), (address, 5004), b"media");
            assert_eq!(open.as_deref(), Some(&b"media"[..]));
            let closed = net.datagram((1, A), (across, B), (address, 6000), b"media");
            assert_eq!(closed, None);
            let [drops] = &net.drops()[..] else { panic!("{:?}", net.drops()) };
            assert!(drops.contains("drop policy-ingress 1"), "{drops}");
        }
    }
}

#[test]
fn a_stranger_connects_to_nobody() {
    for (from, to, reason) in [((1, C), (1, B), "policy-egress"), ((2, C), (1, B), "policy-egress")] {
        let mut net = Net::new(&[from, to]);
        assert_eq!(net.transfer(from, to, (v4(to.0, to.1), 80), b"let me in"), b"");
        let drops = net.drops();
        assert!(!drops.is_empty() && drops.iter().all(|drop| drop.contains(reason)), "{drops:?}");
        assert_eq!(net.flows(1) + net.flows(2), 0);
    }
}

#[test]
fn a_policy_that_changes_ends_a_connection_in_the_middle() {
    let mut net = Net::new(&[(1, A), (2, B)]);
    let open = net.transfer((1, A), (2, B), (v4(2, B), 80), b"before");
    assert_eq!(open, b"before");
    let world = net.world(2);
    for policy in world.desired.policies.values_mut() {
        policy.rules.clear();
    }
    world.recompile();
    assert_eq!(net.transfer((1, A), (2, B), (v4(2, B), 80), b"after"), b"");
}

/// Buffers that fill, so that windows close and are probed, and such as need scaled windows.
#[test]
fn no_window_is_in_the_way_of_hosts_on_bad_ways() {
    let mut whole = 0;
    for (buffer, length) in [(4096, 60_000), (300_000, 400_000)] {
        for seed in 1..=4 {
            for (from, to) in [((1, A), (1, B)), ((1, A), (2, B))] {
                let mut net = Net::troubled(&[from, to], seed * 0x9e37_79b9, buffer);
                let sent = pattern(length);
                let received = net.transfer(from, to, (v4(to.0, to.1), 80), &sent);
                assert!(sent.starts_with(&received), "seed {seed}, buffer {buffer}: bytes differ");
                whole += usize::from(received.len() == length);
                assert_eq!(net.drops(), Vec::<String>::new(), "seed {seed}, buffer {buffer}");
            }
        }
    }
    // smoltcp waits for ever when it is not told that a closed window opened: two of these end so, and no frame was dropped.
    assert!(whole >= 14, "{whole} of 16 transfers were whole");
}
