//! How many errors are sent: so many in all (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4 f), and so many because of one
//! sender, so that no sender uses up what is for all; for each kind of receiver apart, so that none uses up what others need.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::FixedState;

use super::IcmpError;
use crate::Now;

/// A token bucket: so many errors, or whatever is limited, a second, and at once no more than a second's worth.
#[derive(Debug)]
pub struct Limiter {
    rate: u64,
    credit_ns: u64,
    last: Now,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Limiter {
    /// `rate` a second; 0 never allows one.
    #[must_use]
    pub const fn new(rate: u32) -> Self {
        Self { rate: rate as u64, credit_ns: SECOND_NS, last: Now(0) }
    }

    /// Takes leave to do it once now.
    #[must_use]
    pub fn allow(&mut self, now: Now) -> bool {
        if self.rate == 0 {
            return false;
        }
        let price = SECOND_NS / self.rate;
        let gained = now.0.saturating_sub(self.last.0);
        self.credit_ns = self.credit_ns.saturating_add(gained).min(SECOND_NS);
        self.last = now;
        let enough = self.credit_ns >= price;
        if enough {
            self.credit_ns -= price;
        }
        enough
    }
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limited {
    /// That of one sender.
    Source,
    /// That of all together.
    All,
}

/// A limit for all, and one for each sender. A sender has a place by its address; those of one place share its limit.
#[derive(Debug)]
pub struct SourceLimiter {
    all: Limiter,
    places: Box<[Limiter]>,
    hasher: FixedState,
}

impl SourceLimiter {
    /// Places of senders: 24 KiB.
    pub const PLACES: usize = 1024;

    /// `all` a second, and `each` of one sender. The seed keeps a sender from aiming at another's place.
    #[must_use]
    pub fn new(all: u32, each: u32, seed: u64) -> Self {
        Self {
            all: Limiter::new(all),
            places: (0..Self::PLACES).map(|_| Limiter::new(each)).collect(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Takes leave to answer `source` once now.
    pub fn allow(&mut self, source: IpAddr, now: Now) -> Result<(), Limited> {
        let place = self.hasher.hash_one(source) as usize % Self::PLACES;
        // The sender's comes first: one that has used up its own takes nothing from the others.
        if !self.places[place].allow(now) {
            Err(Limited::Source)
        } else if !self.all.allow(now) {
            Err(Limited::All)
        } else {
            Ok(())
        }
    }
}

/// The limits of errors by where they go, each as a [`SourceLimiter`] has it: what strangers provoke, with as many addresses as
/// they like, leaves pods theirs; and no error of another kind keeps a pod, here or behind a tunnel, or the node from hearing that
/// its packets are too big, without which its connections stand still.
#[derive(Debug)]
pub struct ErrorLimits {
    outside: SourceLimiter,
    cluster_too_big: SourceLimiter,
    pods: SourceLimiter,
    pods_too_big: SourceLimiter,
}

/// Who an error goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// A pod of this node.
    Pod,
    /// The node itself, or who is behind a tunnel.
    Cluster,
    /// Anybody else.
    Outside,
}

impl ErrorLimits {
    /// `all` a second of each kind, and `each` of one sender. The seed is as of [`SourceLimiter::new`].
    #[must_use]
    pub fn new(all: u32, each: u32, seed: u64) -> Self {
        let limiter = || SourceLimiter::new(all, each, seed);
        Self { outside: limiter(), cluster_too_big: limiter(), pods: limiter(), pods_too_big: limiter() }
    }

    /// The one for an error that goes to somebody.
    pub const fn of(&mut self, receiver: Receiver, error: IcmpError) -> &mut SourceLimiter {
        match (receiver, error) {
            (Receiver::Pod, IcmpError::TooBig { .. }) => &mut self.pods_too_big,
            (Receiver::Pod, _) => &mut self.pods,
            (Receiver::Cluster, IcmpError::TooBig { .. }) => &mut self.cluster_too_big,
            (Receiver::Cluster | Receiver::Outside, _) => &mut self.outside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_a_rate_and_a_burst() {
        let mut limiter = Limiter::new(10);
        let first = (0..20).filter(|_| limiter.allow(Now(5))).count();
        assert_eq!(first, 10, "a second's worth at once");
        assert!(!limiter.allow(Now(5 + SECOND_NS / 10 - 1)));
        assert!(limiter.allow(Now(5 + SECOND_NS / 10)));
        assert!(!limiter.allow(Now(5 + SECOND_NS / 10)));
    }

    #[test]
    fn no_sender_uses_up_what_is_for_all() {
        let mut limiter = SourceLimiter::new(20, 5, 7);
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let answered = |limiter: &mut SourceLimiter, last: u8| {
            (0..1000).filter(|_| limiter.allow(address(last), Now(5)).is_ok()).count()
        };
        assert_eq!(answered(&mut limiter, 1), 5);
        assert_eq!(limiter.allow(address(1), Now(5)), Err(Limited::Source));
        assert_eq!(answered(&mut limiter, 2), 5, "the flood before cost nobody else anything");
        assert_eq!(answered(&mut limiter, 3) + answered(&mut limiter, 4), 10);
        assert_eq!(limiter.allow(address(5), Now(5)), Err(Limited::All));
        assert_eq!(limiter.allow(address(1), Now(5 + SECOND_NS / 5)), Ok(()));
    }
}
