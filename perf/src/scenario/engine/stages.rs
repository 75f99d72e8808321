//! The time stamp counter between the stages of a turn.

use quanta::Clock;
use vswitch_datapath::{Mark, Probe};

/// Cycles by stage.
#[derive(Debug, Clone)]
pub struct Stages {
    clock: Clock,
    last: u64,
    cycles: [u64; Mark::ALL.len()],
    marks: [u64; Mark::ALL.len()],
}

impl Stages {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { clock: Clock::new(), last: 0, cycles: [0; Mark::ALL.len()], marks: [0; Mark::ALL.len()] }
    }

    /// Adds what others found.
    pub fn add(&mut self, other: &Self) {
        let sums = self.cycles.iter_mut().chain(&mut self.marks);
        sums.zip(other.cycles.iter().chain(&other.marks)).for_each(|(sum, more)| *sum += more);
    }

    /// Forgets what was found.
    pub fn clear(&mut self) {
        (self.cycles, self.marks) = ([0; Mark::ALL.len()], [0; Mark::ALL.len()]);
    }

    /// A turn begins.
    pub fn begin(&mut self) {
        self.last = self.clock.raw();
    }

    /// Cycles of each stage, for each of `packets` packets, in the order of the stages. What looking at the clock takes
    /// is taken off; stages in which nothing was done are left out.
    #[must_use]
    pub fn per_packet(&self, packets: u64) -> Vec<(Mark, f64)> {
        let look = Self::look();
        let stages = Mark::ALL.into_iter().zip(self.cycles).zip(self.marks);
        let per_packet = stages.map(|((mark, cycles), marks)| {
            (mark, (cycles as f64 - marks as f64 * look).max(0.0) / packets.max(1) as f64)
        });
        per_packet.filter(|(_, cycles)| *cycles >= 0.05).collect()
    }

    /// Cycles between two marks with nothing between them: the median of many.
    fn look() -> f64 {
        let mut stages = Self::new();
        let mut looks = Vec::with_capacity(1001);
        for _ in 0..looks.capacity() {
            stages.begin();
            stages.clear();
            std::hint::black_box(&mut stages).mark(Mark::Begin);
            looks.push(stages.cycles[0]);
        }
        looks.sort_unstable();
        looks[looks.len() / 2] as f64
    }
}

impl Default for Stages {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe for Stages {
    fn mark(&mut self, mark: Mark) {
        let now = self.clock.raw();
        self.cycles[mark as usize] += now.wrapping_sub(self.last);
        self.marks[mark as usize] += 1;
        self.last = now;
    }
}

/// Cycles between two looks at the clock with nothing between them: the median of many.
#[must_use]
pub fn empty_cycles(clock: &Clock) -> f64 {
    let mut looks: Vec<u64> = (0..1001)
        .map(|_| {
            let start = clock.raw();
            std::hint::black_box(clock.raw()).wrapping_sub(start)
        })
        .collect();
    looks.sort_unstable();
    looks[looks.len() / 2] as f64
}

/// The sum of the stages of the walk itself.
#[must_use]
pub fn walk(stages: &[(Mark, f64)]) -> f64 {
    let of_walk = stages.iter().filter(|(mark, _)| (Mark::Parse..=Mark::Leave).contains(mark));
    of_walk.map(|(_, cycles)| cycles).sum()
}
