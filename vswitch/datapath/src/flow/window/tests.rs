use super::*;
use Direction::{Original, Reply};
use Standing::{Aside, Outside, Within};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const FIN: u8 = 1;

/// First numbers close to where they wrap.
const CLIENT: u32 = u32::MAX - 700;
const SERVER: u32 = 0x7fff_ff00;

fn segment(flags: u8, sequence: u32, acknowledgement: u32, length: u16) -> TcpSegment<'static> {
    TcpSegment { flags: TcpFlags(flags), sequence, acknowledgement, window: 1000, length, options: &[] }
}

fn with_options(segment: TcpSegment<'static>, options: &'static [u8]) -> TcpSegment<'static> {
    TcpSegment { options, ..segment }
}

/// After the three segments of the opening; windows are of 1000 bytes, unscaled.
fn opened() -> Windows {
    let mut windows = Windows::of(&segment(SYN, CLIENT, 0, 0));
    assert_eq!(windows.take(Reply, &segment(SYN | ACK, SERVER, CLIENT.wrapping_add(1), 0)), Within);
    assert_eq!(windows.take(Original, &segment(ACK, CLIENT.wrapping_add(1), SERVER + 1, 0)), Within);
    windows
}

/// What one segment is to a connection just opened; numbers count from the first ones behind the SYNs.
fn judged(direction: Direction, flags: u8, sequence: i32, acknowledgement: i32, length: u16) -> Standing {
    let (client, server) = (CLIENT.wrapping_add(1), SERVER + 1);
    let (own, other) = if direction == Original { (client, server) } else { (server, client) };
    let number = |first: u32, offset: i32| first.wrapping_add_signed(offset);
    opened().take(direction, &segment(flags, number(own, sequence), number(other, acknowledgement), length))
}

#[test]
fn what_lies_in_the_window_belongs_to_the_connection() {
    for direction in [Original, Reply] {
        for (flags, sequence, length) in [
            (ACK, 0, 1000),
            (ACK | FIN, 0, 0),
            // The last byte of the window, and a probe of one that is closed.
            (ACK, 999, 1),
            (ACK, 1000, 1),
            // Keep-alives, without and with a byte (RFC 9293, section 3.8.4).
            (ACK, -1, 0),
            (ACK, -1, 1),
            (RST, 0, 0),
            (RST | ACK, 0, 0),
        ] {
            assert_eq!(judged(direction, flags, sequence, 0, length), Within, "{flags} {sequence} {length}");
        }
        // A stack that acknowledges nothing in a reset it marks so.
        assert_eq!(judged(direction, RST | ACK, 0, -5000, 0), Within);
    }
}

#[test]
fn what_lies_beyond_it_does_not() {
    for direction in [Original, Reply] {
        for flags in [ACK, ACK | FIN, RST, RST | ACK] {
            for beyond in [1001, 70_000, 0x3fff_ffff, 0x7fff_0000] {
                assert_eq!(judged(direction, flags, beyond, 0, 0), Outside, "{flags} {beyond}");
            }
        }
        for unsent in [1, 1000, 0x7fff_0000] {
            assert_eq!(judged(direction, ACK, 0, unsent, 10), Outside, "acknowledges {unsent}");
        }
        assert_eq!(judged(direction, RST, -1, 0, 0), Outside, "an old reset");
    }
}

#[test]
fn what_is_old_goes_on_and_changes_nothing() {
    for direction in [Original, Reply] {
        for old in [-67_002, -500_000, -0x7000_0000] {
            assert_eq!(judged(direction, ACK | FIN, old, 0, 0), Aside);
            assert_eq!(judged(direction, ACK, 0, old, 100), Aside);
        }
        assert_eq!(judged(direction, ACK, -66_999, 0, 0), Within);
    }
    let mut windows = opened();
    let before = windows;
    assert_eq!(windows.take(Original, &segment(ACK, CLIENT.wrapping_sub(900_000), SERVER + 1, 9000)), Aside);
    assert_eq!(windows, before);
}

#[test]
fn a_reset_counts_when_its_number_is_exact() {
    // Data is under way that the receiver has not acknowledged.
    let mut windows = opened();
    let server = SERVER + 1;
    assert_eq!(windows.take(Reply, &segment(ACK, server, CLIENT.wrapping_add(1), 500)), Within);
    let reset = |offset| {
        let mut windows = windows;
        windows.take(Reply, &segment(RST, server + offset, 0, 0))
    };
    assert_eq!(reset(0), Within, "what the receiver waits for");
    assert_eq!(reset(500), Within, "behind all that was sent");
    assert_eq!(reset(200), Aside, "the receiver asks");
    assert_eq!(reset(1001), Outside);
}

#[test]
fn windows_are_scaled_when_both_say_so() {
    // Maximum segment size, no operation, window scale 7; likewise 14, written as 200.
    const BY_7: &[u8] = &[2, 4, 5, 0xb4, 1, 3, 3, 7];
    const BY_200: &[u8] = &[3, 3, 200, 0];
    for (options, reach) in [([BY_7, BY_200], 1000 << 14), ([BY_7, &[]], 65_535), ([&[], BY_200], 65_535)] {
        let mut windows = Windows::of(&with_options(segment(SYN, 99, 0, 0), options[0]));
        let answer =
            TcpSegment { window: 65_535, ..with_options(segment(SYN | ACK, 499, 100, 0), options[1]) };
        assert_eq!(windows.take(Reply, &answer), Within);
        assert_eq!(windows.take(Original, &segment(ACK, 100, 500, 0)), Within);
        // The window of the answer is not scaled.
        assert_eq!(windows.take(Original, &segment(ACK, 100 + 70_000 + (1 << 14), 500, 1)), Outside);
        assert_eq!(windows.take(Reply, &segment(ACK, 500, 100, 1)), Within);
        assert_eq!(windows.take(Original, &segment(ACK, 100 + reach, 500, 1)), Within, "{reach}");
        assert_eq!(windows.take(Original, &segment(ACK, 102 + reach, 500, 1)), Outside, "{reach}");
    }
    // Options that are cut, or of no length.
    for broken in [&[3u8, 3][..], &[3], &[8, 0, 3, 3, 7], &[8, 40, 3, 3, 7], &[0, 3, 3, 7]] {
        assert_eq!(TcpSegment { options: broken, ..segment(SYN, 0, 0, 0) }.scale(), None);
    }
}

/// All that reaches a connection in `steps` is what is said beside it.
fn run(steps: &[(Direction, TcpSegment<'static>, Standing)]) -> Windows {
    let (_, first, standing) = &steps[0];
    assert_eq!(*standing, Within);
    let mut windows = Windows::of(first);
    for (number, (direction, segment, standing)) in steps.iter().enumerate().skip(1) {
        assert_eq!(windows.take(*direction, segment), *standing, "step {number}");
    }
    windows
}

#[test]
fn an_opening_takes_many_ways() {
    let syn = |sequence| segment(SYN, sequence, 0, 0);
    let far = (Original, segment(ACK, 0x4000_0000, 500, 10));
    // Another SYN before any answer, and an answer to the first, which the originator refuses.
    let windows = run(&[
        (Original, syn(7), Within),
        (Original, syn(99), Within),
        (Reply, segment(SYN | ACK, 0, 8, 0), Aside),
        (Original, segment(RST, 8, 0, 0), Within),
        (Reply, segment(SYN | ACK, 499, 100, 0), Within),
        (Reply, segment(SYN | ACK, 499, 100, 0), Within),
        (Original, segment(ACK, 100, 500, 10), Within),
        (Original, segment(SYN, 99, 0, 0), Within),
        (Reply, segment(SYN | ACK, 499, 100, 0), Within),
        (Reply, segment(SYN | ACK, 0x6000_0000, 100, 0), Outside),
    ]);
    assert_eq!({ windows }.take(far.0, &far.1), Outside);
    // Data in the SYN, acknowledged or not, and data right behind the answer (RFC 7413).
    for taken in [100, 140] {
        run(&[
            (Original, segment(SYN, 99, 0, 40), Within),
            (Reply, segment(SYN | ACK, 499, taken, 0), Within),
            (Reply, segment(ACK, 500, taken, 300), Within),
            (Original, segment(ACK, taken, 800, 10), Within),
        ]);
    }
    // The responder refuses; somebody else would.
    run(&[(Original, syn(99), Within), (Reply, segment(RST | ACK, 0, 100, 0), Within)]);
    run(&[
        (Original, syn(99), Within),
        (Reply, segment(RST | ACK, 0, 101, 0), Outside),
        (Reply, segment(RST, 100, 100, 0), Outside),
    ]);
    // A responder that still has the connection of before; the originator ends that.
    run(&[
        (Original, syn(99), Within),
        (Reply, segment(ACK, 0x5000_0000, 0x6000_0000, 0), Aside),
        (Original, segment(RST, 0x6000_0000, 0, 0), Within),
        (Original, syn(99), Within),
        (Reply, segment(SYN | ACK, 499, 100, 0), Within),
    ]);
}

#[test]
fn what_was_not_seen_whole_is_not_checked() {
    let syn = segment(SYN, 99, 0, 0);
    let anything = [
        (Original, segment(ACK, 0x4000_0000, 0x7000_0000, 10), Within),
        (Reply, segment(ACK, 0x6000_0000, 0x1000_0000, 10), Within),
        (Reply, segment(RST, 0x1000_0000, 0, 0), Within),
    ];
    let cases: [&[(Direction, TcpSegment<'static>, Standing)]; 4] = [
        // Picked up in the middle.
        &[(Original, segment(ACK, 7, 9, 10), Within)],
        // The answer came another way.
        &[(Original, syn, Within), (Original, segment(ACK, 100, 500, 0), Within)],
        // Both opened at once.
        &[(Original, syn, Within), (Reply, segment(SYN, 499, 0, 0), Within)],
        // The responder answered twice, with numbers of no kin (RFC 4987, section 3.6).
        &[
            (Original, syn, Within),
            (Reply, segment(SYN | ACK, 499, 100, 0), Within),
            (Reply, segment(SYN | ACK, 0x4000_0000, 100, 0), Within),
        ],
    ];
    for case in cases {
        run(&[case, &anything].concat());
    }
    let mut windows = opened();
    windows.give_up();
    assert_eq!(windows.take(Original, &segment(ACK, 5, 5, 5)), Within, "in fragments");
}

#[test]
fn an_originator_may_have_lost_the_connection() {
    let again = segment(SYN, 0x2000_0000, 0, 0);
    // So has the responder, which answers, or refuses, with numbers of its own.
    let mut windows = opened();
    assert_eq!(windows.take(Original, &again), Within);
    let mut refused = windows;
    assert_eq!(refused.take(Reply, &segment(RST | ACK, 0, 0x2000_0001, 0)), Within);
    assert_eq!(windows.take(Reply, &segment(SYN | ACK, 0x5000_0000, 0x2000_0001, 0)), Within);
    assert_eq!(windows.take(Original, &segment(ACK, 0x2000_0001, 0x5000_0001, 50)), Within);
    // Or it was a stranger's: the responder says what it thinks, the originator goes on, and all is checked again.
    let mut windows = opened();
    let (client, server) = (CLIENT.wrapping_add(1), SERVER + 1);
    assert_eq!(windows.take(Original, &again), Within);
    assert_eq!(windows.take(Reply, &segment(ACK, server, client, 0)), Within);
    assert_eq!(windows.take(Original, &segment(ACK, client, server, 20)), Within);
    assert_eq!(windows.take(Reply, &segment(RST | ACK, 0, 0x2000_0001, 0)), Outside);
    assert_eq!(windows.take(Reply, &segment(SYN | ACK, 0x5000_0000, 0x2000_0001, 0)), Outside);
}

#[test]
fn it_takes_24_bytes() {
    assert_eq!(size_of::<Windows>(), 24);
}
