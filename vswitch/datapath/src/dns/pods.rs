//! Whose answers are told.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of the filter: 4096 bits, so that the pods of a full node, 250 with two addresses each, let one other in eight
/// through.
const WORDS: usize = 64;

/// A set of addresses that one thread changes while others ask; it may have others besides (a Bloom filter with one hash).
#[derive(Debug)]
pub(super) struct PodFilter([AtomicU64; WORDS]);

impl Default for PodFilter {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }
}

impl PodFilter {
    /// Has these from now on, and some others; all, when they are none. Those it had before and keeps, it always has.
    pub(super) fn set(&self, pods: &[IpAddr]) {
        let mut words = [if pods.is_empty() { u64::MAX } else { 0 }; WORDS];
        for pod in pods {
            let (word, bit) = place(*pod);
            words[word] |= bit;
        }
        for (place, word) in self.0.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    pub(super) fn has(&self, pod: IpAddr) -> bool {
        let (word, bit) = place(pod);
        self.0[word].load(Ordering::Relaxed) & bit != 0
    }
}

/// The word, and the bit in it. What tells pods of a node apart is in the last bytes of their addresses.
fn place(pod: IpAddr) -> (usize, u64) {
    let low = match pod {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() as u64,
    };
    // Fibonacci hashing: of the product the upper bits are the good ones.
    let hash = low.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash >> 58) as usize % WORDS, 1 << (hash >> 52 & 63))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn it_has_all_that_were_set_and_few_others() {
        let filter = PodFilter::default();
        let addresses =
            |from: u32| (from..from + 500).map(|n| IpAddr::V4(Ipv4Addr::from(n))).collect::<Vec<_>>();
        let (pods, others) = (addresses(0x0a00_0100), addresses(0x0a00_0800));
        filter.set(&pods);
        assert!(pods.iter().all(|pod| filter.has(*pod)));
        let through = others.iter().filter(|other| filter.has(**other)).count();
        assert!(through < 500 / 4, "{through} of 500");
        filter.set(&pods[..1]);
        assert!(filter.has(pods[0]) && !filter.has(pods[1]));
        filter.set(&["fd00::7".parse().unwrap()]);
        assert!(filter.has("fd00::7".parse().unwrap()) && !filter.has("fd00::8".parse().unwrap()));
        filter.set(&[]);
        assert!(others.iter().all(|other| filter.has(*other)), "none named: all");
    }
}
