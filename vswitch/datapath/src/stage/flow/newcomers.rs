//! Newcomers, packets of no known flow, when there is no time to judge them all. A known flow's packet costs a look-up, a
//! newcomer several tables and a record: in a flood of these the ones beyond a number end after the look-up, for each port
//! by itself, so that one that floods takes nothing from those that do not.

use vswitch_model::DropReason;
use vswitch_model::limits::PORTS_MAX;

use crate::PortIndex;
use crate::stage::{Indices, Scratch};

/// How many newcomers may go on.
#[derive(Debug)]
pub(crate) struct Newcomers {
    /// Of one port until the next [`Newcomers::limit`]. None: all.
    most: Option<u16>,
    /// Counts [`Newcomers::limit`]: what was counted in another round is void.
    round: u32,
    /// By port, numbers that no port has sharing the last place: the round, and how many came in it.
    came: Box<[(u32, u16)]>,
}

impl Newcomers {
    pub(crate) fn new() -> Self {
        Self { most: None, round: 0, came: vec![(0, 0); PORTS_MAX + 1].into_boxed_slice() }
    }

    /// From now on `most` newcomers of each port may go on. None: all.
    #[inline]
    pub(crate) const fn limit(&mut self, most: Option<u16>) {
        self.most = most;
        self.round = self.round.wrapping_add(1);
    }

    #[inline]
    pub(super) const fn is_limited(&self) -> bool {
        self.most.is_some()
    }

    /// Of the newcomers of a batch, those that may go on; the others end.
    #[cold]
    pub(super) fn admit(&mut self, scratch: &mut Scratch, all: &Indices) -> Indices {
        let Some(most) = self.most else { return *all };
        let mut admitted = Indices::new();
        for index in all.iter() {
            let PortIndex(port) = scratch.ingress[index];
            let (round, came) = &mut self.came[usize::from(port).min(PORTS_MAX)];
            if *round != self.round {
                (*round, *came) = (self.round, 0);
            }
            if *came < most {
                *came += 1;
                admitted.push(index);
            } else {
                scratch.drop(index, DropReason::WorkerBehind);
            }
        }
        admitted
    }
}
