//! Loss, duplicates and reordering by sequence number, counted at the sink. Reordering after RFC 4737: a packet is reordered
//! when one with a higher number arrived before it; duplicates do not count.

/// What arrived of a stream of packets that are numbered from 0.
#[derive(Debug, Clone)]
pub struct Arrivals {
    /// A bit for each number. Made once, so that counting allocates nothing.
    seen: Vec<u64>,
    numbers: u64,
    /// Packets that arrived the first time.
    unique: u64,
    duplicates: u64,
    foreign: u64,
    next_expected: u64,
    reordered: u64,
    longest_extent: u64,
    /// Runs of numbers that raised `next_expected`, each one more than the one before, in arrival order.
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    number: u64,
    arrival: u64,
    last: u64,
}

/// What came of the packets that were sent. `sent = received + lost`, to the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Packets sent.
    pub sent: u64,
    /// Those of them that arrived, each counted once.
    pub received: u64,
    /// Those that did not.
    pub lost: u64,
    /// Runs of neighbouring numbers that did not.
    pub loss_runs: u64,
    /// The longest such run.
    pub longest_loss_run: u64,
    /// Further copies that arrived.
    pub duplicates: u64,
    /// Packets with a number that was never sent.
    pub foreign: u64,
    /// Packets that one with a higher number had overtaken (RFC 4737, 3.3).
    pub reordered: u64,
    /// By how many arrivals a packet came too late, at most (RFC 4737, 4.2, the reordering extent).
    pub longest_extent: u64,
}

impl Account {
    /// Part of the sent packets that was lost, 0 to 1. 0 when none was sent.
    #[must_use]
    pub fn loss_ratio(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.lost as f64 / self.sent as f64 }
    }

    /// Part of the received packets that was reordered, 0 to 1 (RFC 4737, 4.1). 0 when none arrived.
    #[must_use]
    pub fn reordered_ratio(&self) -> f64 {
        if self.received == 0 { 0.0 } else { self.reordered as f64 / self.received as f64 }
    }
}

impl Arrivals {
    /// For numbers 0 to `numbers` - 1, an eighth of a byte each.
    #[must_use]
    pub fn new(numbers: u64) -> Self {
        Self {
            seen: vec![0; numbers.div_ceil(64) as usize],
            numbers,
            unique: 0,
            duplicates: 0,
            foreign: 0,
            next_expected: 0,
            reordered: 0,
            longest_extent: 0,
            runs: Vec::new(),
        }
    }

    /// A packet of this number arrived.
    pub fn observe(&mut self, number: u64) {
        if number >= self.numbers {
            self.foreign += 1;
            return;
        }
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        let arrival = self.unique;
        self.unique += 1;
        if number >= self.next_expected {
            self.next_expected = number + 1;
            self.extend(number, arrival);
        } else {
            self.reordered += 1;
            self.longest_extent = self.longest_extent.max(arrival - self.overtaken_at(number));
        }
    }

    fn extend(&mut self, number: u64, arrival: u64) {
        match self.runs.last_mut() {
            Some(run) if run.last + 1 == number && run.arrival + (number - run.number) == arrival => {
                run.last = number;
            }
            _ => self.runs.push(Run { number, arrival, last: number }),
        }
    }

    /// The first arrival of a number above this one.
    fn overtaken_at(&self, number: u64) -> u64 {
        let run = &self.runs[self.runs.partition_point(|run| run.last <= number)];
        run.arrival + (number + 1).saturating_sub(run.number)
    }

    /// Packets that arrived so far, each counted once.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.unique
    }

    /// The account, once it is known that numbers 0 to `sent` - 1 were sent. Those above it that arrived are foreign.
    #[must_use]
    pub fn account(&self, sent: u64) -> Account {
        let sent = sent.min(self.numbers);
        let is_seen = |number: u64| self.seen[(number / 64) as usize] >> (number % 64) & 1 != 0;
        let (mut lost, mut loss_runs, mut longest, mut run) = (0, 0, 0, 0);
        for number in 0..sent {
            if is_seen(number) {
                run = 0;
                continue;
            }
            lost += 1;
            run += 1;
            loss_runs += u64::from(run == 1);
            longest = longest.max(run);
        }
        let received = sent - lost;
        Account {
            sent,
            received,
            lost,
            loss_runs,
            longest_loss_run: longest,
            duplicates: self.duplicates,
            foreign: self.foreign + (self.unique - received),
            reordered: self.reordered,
            longest_extent: self.longest_extent,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(sent: u64, arrived: &[u64]) -> Account {
        let mut arrivals = Arrivals::new(sent);
        arrived.iter().for_each(|number| arrivals.observe(*number));
        arrivals.account(sent)
    }

    #[test]
    fn the_examples_of_rfc_4737() {
        // Section 7: the numbers there begin at 1, ours at 0. Packet 4 late; 5 and 6 late; 4, 5 and 6 late.
        for (arrived, reordered, extent) in [
            (vec![1, 2, 3, 5, 6, 7, 8, 4, 9, 10], 1, 4),
            (vec![1, 2, 3, 4, 7, 5, 6, 8, 9, 10], 2, 2),
            (vec![1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11], 3, 6),
        ] {
            let numbers: Vec<u64> = arrived.iter().map(|number| number - 1).collect();
            let found = account(numbers.len() as u64, &numbers);
            assert_eq!(
                (found.reordered, found.longest_extent, found.lost),
                (reordered, extent, 0),
                "{arrived:?}"
            );
        }
    }

    #[test]
    fn loss_runs_duplicates_and_strangers_are_told_apart() {
        let found = account(10, &[0, 1, 1, 4, 5, 9, 9, 77]);
        let expected = Account {
            sent: 10,
            received: 5,
            lost: 5,
            loss_runs: 2,
            longest_loss_run: 3,
            duplicates: 2,
            foreign: 1,
            ..Account::default()
        };
        assert_eq!(found, expected);
        assert_eq!(found.loss_ratio(), 0.5);
        assert_eq!(found.reordered_ratio(), 0.0);
    }

    #[test]
    fn numbers_that_were_not_sent_after_all_are_strangers() {
        let mut arrivals = Arrivals::new(100);
        [0, 1, 50].into_iter().for_each(|number| arrivals.observe(number));
        let found = arrivals.account(2);
        assert_eq!((found.received, found.lost, found.foreign, arrivals.received()), (2, 0, 1, 3));
    }

    /// RFC 4737 word by word: all pairs.
    fn slow(sent: u64, arrived: &[u64]) -> (u64, u64, u64, u64) {
        let mut first: Vec<u64> = Vec::new();
        for number in arrived.iter().filter(|number| **number < sent) {
            if !first.contains(number) {
                first.push(*number);
            }
        }
        let (mut reordered, mut extent) = (0, 0);
        for (i, number) in first.iter().enumerate() {
            if let Some(j) = first[..i].iter().position(|before| before > number) {
                reordered += 1;
                extent = extent.max((i - j) as u64);
            }
        }
        let known = arrived.iter().filter(|number| **number < sent).count();
        (sent - first.len() as u64, (known - first.len()) as u64, reordered, extent)
    }

    proptest! {
        #[test]
        fn it_counts_as_the_slow_one(sent in 1_u64..80, arrived in proptest::collection::vec(0_u64..90, 0..120)) {
            let found = account(sent, &arrived);
            prop_assert_eq!(
                (found.lost, found.duplicates, found.reordered, found.longest_extent),
                slow(sent, &arrived)
            );
            prop_assert_eq!(found.received + found.lost, sent);
            prop_assert_eq!(found.received + found.duplicates + found.foreign, arrived.len() as u64);
        }

        /// Nearly in order, as networks are: runs stay long.
        #[test]
        fn nearly_ordered_ones_too(swaps in proptest::collection::vec(0_usize..198, 0..20), gaps in proptest::collection::vec(0_u64..200, 0..20)) {
            let mut arrived: Vec<u64> = (0..200).filter(|number| !gaps.contains(number)).collect();
            for swap in swaps {
                let at = swap.min(arrived.len() - 2);
                arrived.swap(at, at + 1);
            }
            let found = account(200, &arrived);
            prop_assert_eq!(
                (found.lost, found.duplicates, found.reordered, found.longest_extent),
                slow(200, &arrived)
            );
        }
    }
}
