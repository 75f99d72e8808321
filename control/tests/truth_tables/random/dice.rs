//! Chance that can be had again: the same seed, the same cluster.

/// xorshift64* (Vigna, 2016).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Seeds that are near give numbers that are not only after some turns.
        for _ in 0..8 {
            dice.next();
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to `sides` - 1.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        (self.next() >> 33) as usize % sides
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }

    pub(super) fn one_of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.roll(list.len())].clone()
    }

    /// `least` to `most` of a list, in its order, each once.
    pub(super) fn some_of<T: Clone>(&mut self, list: &[T], least: usize, most: usize) -> Vec<T> {
        let mut wanted = least + self.roll(most - least + 1);
        let mut chosen = Vec::new();
        for (index, item) in list.iter().enumerate() {
            if wanted > 0 && self.roll(list.len() - index) < wanted {
                chosen.push(item.clone());
                wanted -= 1;
            }
        }
        chosen
    }

    /// `least` to `most` things.
    pub(super) fn many<T>(
        &mut self,
        least: usize,
        most: usize,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let count = least + self.roll(most - least + 1);
        (0..count).map(|_| make(self)).collect()
    }
}
