//! Openings as real ends do them, with data in the SYN (RFC 7413), segments sent again, lost and late: none of them ends
//! here, and a connection that both ends have is open here, too, and checked.

use proptest::prelude::*;

use super::*;
use crate::flow::TcpState;
use Direction::{Original, Reply};

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

/// What passes while the connection is opened, behind the first SYN.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The SYN again, with its data or without.
    Syn { data: bool, options: bool },
    /// The responder's answer, the first or once more.
    Answer,
}

#[derive(Debug, Clone)]
struct Opening {
    first: [u32; 2],
    /// Bytes of data in the SYN.
    data: u16,
    /// Whether the responder takes them.
    taken: bool,
    /// Whether the responder sends data before it has heard that its answer came.
    early: bool,
    steps: Vec<Step>,
    /// What comes once more, late, when the connection is open: a number of a step.
    late: Vec<prop::sample::Index>,
}

fn step() -> impl Strategy<Value = Step> {
    let syn = |(data, options)| Step::Syn { data, options };
    prop_oneof![(any::<bool>(), any::<bool>()).prop_map(syn), Just(Step::Answer)]
}

fn opening() -> impl Strategy<Value = Opening> {
    let numbers = prop_oneof![any::<[u32; 2]>(), Just([u32::MAX - 3, u32::MAX])];
    let parts = (
        numbers,
        prop_oneof![Just(0), 1..1400u16],
        any::<[bool; 2]>(),
        prop::collection::vec(step(), 0..6),
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    );
    parts.prop_map(|(first, data, [taken, early], mut steps, late)| {
        if !steps.iter().any(|step| matches!(step, Step::Answer)) {
            steps.push(Step::Answer);
        }
        Opening { first, data, taken, early, steps, late }
    })
}

impl Opening {
    /// The next number of the originator once it is answered.
    fn client(&self) -> u32 {
        self.first[0].wrapping_add(1).wrapping_add(u32::from(self.data) * u32::from(self.taken))
    }

    fn server(&self) -> u32 {
        self.first[1].wrapping_add(1)
    }

    fn syn(&self, data: bool, options: bool) -> TcpSegment<'static> {
        TcpSegment {
            flags: SYN,
            sequence: self.first[0],
            acknowledgement: 0,
            window: 64_240,
            length: if data { self.data } else { 0 },
            options: if options { &[1, 3, 3, 7] } else { &[] },
        }
    }

    fn segment(&self, step: Step) -> (Direction, TcpSegment<'static>) {
        match step {
            Step::Syn { data, options } => (Original, self.syn(data, options)),
            Step::Answer => {
                let acknowledgement = self.client();
                let answer = TcpSegment {
                    flags: SYN_ACK,
                    sequence: self.first[1],
                    acknowledgement,
                    ..self.syn(false, true)
                };
                (Reply, answer)
            }
        }
    }

    /// Data of one end; numbers count from the first behind the opening.
    fn data(
        &self,
        direction: Direction,
        sequence: u32,
        acknowledged: u32,
    ) -> (Direction, TcpSegment<'static>) {
        let [own, other] = match direction {
            Original => [self.client(), self.server()],
            Reply => [self.server(), self.client()],
        };
        let segment = TcpSegment {
            flags: ACK,
            sequence: own.wrapping_add(sequence),
            acknowledgement: other.wrapping_add(acknowledged),
            window: 500,
            length: 1000,
            options: &[],
        };
        (direction, segment)
    }
}

/// A connection as the walk follows it, with its windows or without.
struct Followed {
    windows: Option<Windows>,
    state: TcpState,
}

impl Followed {
    fn of(first: &TcpSegment<'_>, windows: bool) -> Self {
        Self { windows: windows.then(|| Windows::of(first)), state: TcpState::first(first.flags).unwrap() }
    }

    fn take(&mut self, (direction, segment): (Direction, TcpSegment<'_>)) -> Standing {
        let standing =
            self.windows.as_mut().map_or(Standing::Within, |windows| windows.take(direction, &segment));
        if standing == Standing::Within {
            self.state = self.state.next(direction, segment.flags).unwrap();
        }
        standing
    }
}

proptest! {
    #[test]
    fn an_opening_that_both_ends_have_is_open_here(opening in opening(), windows: bool) {
        let mut followed = Followed::of(&opening.syn(true, true), windows);
        for step in &opening.steps {
            let standing = followed.take(opening.segment(*step));
            prop_assert_eq!(standing, Standing::Within, "{:?}", step);
        }
        prop_assert_eq!(followed.state, TcpState::SynReceived);
        let early = u32::from(opening.early) * 1000;
        if opening.early {
            prop_assert_eq!(followed.take(opening.data(Reply, 0, 0)), Standing::Within);
        }
        prop_assert_eq!(followed.take(opening.data(Original, 0, early)), Standing::Within);
        prop_assert_eq!(followed.state, TcpState::Established);
        prop_assert_eq!(followed.take(opening.data(Reply, early, 1000)), Standing::Within);
        for index in &opening.late {
            let late = followed.take(opening.segment(*index.get(&opening.steps)));
            prop_assert_ne!(late, Standing::Outside);
        }
        prop_assert_eq!(followed.take(opening.data(Original, 1000, early + 1000)), Standing::Within);
        prop_assert_eq!(followed.state, TcpState::Established);
        // A SYN that comes late may be that of another try, and not all is known then.
        let is_syn = |index: &prop::sample::Index| matches!(index.get(&opening.steps), Step::Syn { .. });
        if windows && !opening.late.iter().any(is_syn) {
            let forged = followed.take(opening.data(Reply, 0x4000_0000, 1000));
            prop_assert_eq!(forged, Standing::Outside, "it is checked");
        }
    }

    /// The answer goes by another way.
    #[test]
    fn an_opening_whose_answer_is_not_seen_is_picked_up(opening in opening(), windows: bool) {
        let mut followed = Followed::of(&opening.syn(true, true), windows);
        for step in opening.steps.iter().filter(|step| matches!(step, Step::Syn { .. })) {
            prop_assert_eq!(followed.take(opening.segment(*step)), Standing::Within);
        }
        prop_assert_eq!(followed.state, TcpState::SynSent);
        prop_assert_eq!(followed.take(opening.data(Original, 0, 0)), Standing::Within);
        prop_assert_eq!(followed.state, TcpState::PickedUp);
        prop_assert_eq!(followed.take(opening.data(Reply, 0, 1000)), Standing::Within);
        prop_assert_eq!(followed.state, TcpState::Established);
    }
}
