//! The order in which a worker falls asleep and another hands it something: all of them, by loom.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

#[path = "../src/worker/doze.rs"]
mod doze;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;

use atomics::Ordering;
use doze::Doze;

/// A worker, a ring to it that holds a number, and its event descriptor that counts wakes.
struct Desk {
    doze: Doze,
    ring: AtomicUsize,
    wakes: AtomicUsize,
}

impl Desk {
    fn new() -> Arc<Self> {
        Arc::new(Self { doze: Doze::new(), ring: AtomicUsize::new(0), wakes: AtomicUsize::new(0) })
    }

    fn hand(&self) {
        self.ring.fetch_add(1, Ordering::Release);
        if self.doze.is_to_be_woken() {
            self.wakes.fetch_add(1, Ordering::Release);
        }
    }
}

/// Whatever `senders` hand over while the worker falls asleep: it sees all of it, or is woken to.
fn nothing_is_missed(senders: usize) {
    loom::model(move || {
        let desk = Desk::new();
        let threads: Vec<_> = (0..senders)
            .map(|_| {
                let desk = Arc::clone(&desk);
                loom::thread::spawn(move || desk.hand())
            })
            .collect();
        desk.doze.announce();
        let seen = desk.ring.load(Ordering::Acquire);
        for thread in threads {
            thread.join().unwrap();
        }
        let wakes = desk.wakes.load(Ordering::Acquire);
        assert!(seen == senders || wakes > 0, "it sleeps on: {seen} of {senders} seen, nobody woke it");
        assert!(wakes <= 1, "one wake is enough");
    });
}

#[test]
fn one_that_hands_over_is_seen_or_wakes() {
    nothing_is_missed(1);
}

#[test]
fn of_two_that_hand_over_one_wakes() {
    nothing_is_missed(2);
}

#[test]
fn one_that_is_awake_is_not_woken() {
    loom::model(|| {
        let desk = Desk::new();
        desk.doze.announce();
        desk.doze.awake();
        desk.hand();
        assert_eq!(desk.wakes.load(Ordering::Acquire), 0);
    });
}
