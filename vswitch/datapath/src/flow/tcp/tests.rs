//! What holds of the states whatever is sent, and connections of two ends that keep to RFC 9293 over a network that loses,
//! repeats and reorders.

use proptest::prelude::*;

use super::*;
use Direction::{Original, Reply};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;

/// One end of a connection (RFC 9293, section 3.3.2), numbers aside: what was sent of it and what it has heard of.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    syn_sent: bool,
    syn_heard: bool,
    syn_acked: bool,
    fin_sent: bool,
}

/// What an end sends.
#[derive(Debug, Clone, Copy)]
struct Segment {
    from: Direction,
    flags: u8,
}

impl End {
    fn is_open(self) -> bool {
        self.syn_heard && self.syn_acked
    }

    /// The flags of what it sends next. `opens`: it may be the first; `finish`: it has no more data.
    fn send(&mut self, opens: bool, finish: bool) -> Option<u8> {
        if !self.syn_sent || !self.is_open() {
            if !opens && !self.syn_heard {
                return None;
            }
            self.syn_sent = true;
            return Some(if self.syn_heard { SYN | ACK } else { SYN });
        }
        if finish || self.fin_sent {
            // Sent again until it is acknowledged, and after that no harm.
            self.fin_sent = true;
            return Some(FIN_ACK);
        }
        Some(ACK)
    }

    fn hear(&mut self, flags: u8) {
        let flags = TcpFlags(flags);
        self.syn_heard |= flags.has(TcpFlags::SYN);
        self.syn_acked |= self.syn_sent && flags.has(TcpFlags::ACK);
    }
}

/// Which end sends next, whether it is done, and what becomes of the segment beyond the router: how many times it arrives, and
/// after how many others.
fn step() -> impl Strategy<Value = (bool, bool, usize, usize)> {
    (any::<bool>(), prop::bool::weighted(0.2), 0..3_usize, 0..4_usize)
}

proptest! {
    #[test]
    fn no_segment_of_a_real_connection_is_refused(steps in prop::collection::vec(step(), 1..80)) {
        let mut ends = [End::default(); 2];
        // What has passed the router, and when it arrives.
        let mut under_way: Vec<(usize, Segment)> = Vec::new();
        let mut state: Option<TcpState> = None;
        let mut seen = [false; 2];
        for (at, (replies, finish, copies, delay)) in steps.into_iter().enumerate() {
            let from = if replies { Reply } else { Original };
            if let Some(flags) = ends[from as usize].send(from == Original, finish) {
                let next = match state {
                    None => TcpState::first(TcpFlags(flags)),
                    Some(state) if state.is_reopened_by(from, TcpFlags(flags)) => {
                        // Only a segment that was sent long ago: this network keeps nothing so long.
                        prop_assert!(false, "{state:?} is opened anew by {from:?} {flags:#x}");
                        return Ok(());
                    }
                    Some(state) => state.next(from, TcpFlags(flags)),
                };
                prop_assert!(next.is_ok(), "{state:?} {from:?} {flags:#x}: {next:?}");
                state = next.ok();
                seen[from as usize] = true;
                (0..copies).for_each(|copy| under_way.push((at + delay + copy, Segment { from, flags })));
            }
            let (arrived, left): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(when, _)| *when <= at);
            under_way = left;
            for (_, segment) in arrived {
                ends[1 - segment.from as usize].hear(segment.flags);
            }
            if ends.iter().all(|end| end.is_open() && !end.fin_sent) && ends[0].syn_acked {
                let open = matches!(state, Some(TcpState::Established | TcpState::SynReceived));
                prop_assert!(open, "{state:?} while it is open");
            }
            if let Some(state) = state {
                prop_assert!(seen == [true; 2] || !state.is_answered(), "{state:?}, and {seen:?} were seen");
            }
        }
        if ends.iter().all(|end| end.fin_sent) {
            prop_assert_eq!(state, Some(TcpState::Closing));
        }
    }

    #[test]
    fn whatever_is_sent_a_connection_is_open_only_when_both_ends_said_so(
        segments in prop::collection::vec((any::<bool>(), any::<u8>()), 1..40),
    ) {
        let mut state: Option<TcpState> = None;
        let mut seen = [false; 2];
        for (replies, flags) in segments {
            let flags = TcpFlags(flags);
            let from = if replies { Reply } else { Original };
            let next = match state {
                None if replies => continue,
                None => TcpState::first(flags),
                Some(state) => state.next(from, flags),
            };
            let Ok(next) = next else {
                // What is refused changes nothing; nobody but a responder that opens, and who is first, is refused.
                prop_assert!(state.is_none() || from == Reply && flags.opens());
                continue;
            };
            seen[from as usize] = true;
            state = Some(next);
            let both = seen == [true; 2];
            let of_one = matches!(next, TcpState::SynSent | TcpState::PickedUp | TcpState::FinSent | TcpState::Reset(_));
            prop_assert!(both || of_one, "{next:?} was made up by one end");
            prop_assert!(!flags.has(TcpFlags::RST) || next == TcpState::Reset(from));
            prop_assert!((10..=7440).contains(&next.timeout_s()));
            prop_assert!(!next.is_reopened_by(from, TcpFlags(ACK)), "only what opens a connection does");
        }
    }
}
