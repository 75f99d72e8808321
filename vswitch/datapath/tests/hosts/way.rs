//! Ways that lose frames, double them and mix them up.

use crate::net::At;

/// A frame, and where it enters or leaves the engine.
pub(crate) type Moving = (At, Vec<u8>);

/// A way that mistreats frames, where it is told to.
#[derive(Default)]
pub(crate) struct Way {
    /// Of the generator (xorshift); 0: every frame arrives.
    pub(crate) state: u64,
    /// Frames that come later, and by how many moments.
    pub(crate) late: Vec<(u64, Moving)>,
}

impl Way {
    /// What arrives of these frames: of a hundred five are lost, five come twice, and ten one to eight moments later.
    pub(crate) fn befall(&mut self, frames: Vec<Moving>) -> Vec<Moving> {
        if self.state == 0 {
            return frames;
        }
        let mut arriving = Vec::new();
        for frame in frames {
            match self.below(100) {
                0..5 => {}
                5..10 => arriving.extend([frame.clone(), frame]),
                10..20 => {
                    let moments = 1 + self.below(8);
                    self.late.push((moments, frame));
                }
                _ => arriving.push(frame),
            }
        }
        arriving
    }

    /// What arrives late, a moment later.
    pub(crate) fn arrive(&mut self) -> Vec<Moving> {
        let (now, late) = std::mem::take(&mut self.late).into_iter().partition(|(moments, _)| *moments <= 1);
        let late: Vec<(u64, Moving)> = late;
        self.late = late.into_iter().map(|(moments, frame)| (moments - 1, frame)).collect();
        let now: Vec<(u64, Moving)> = now;
        now.into_iter().map(|(_, frame)| frame).collect()
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % bound
    }
}
