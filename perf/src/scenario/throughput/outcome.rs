//! What became of the frames of a trial.

use crate::net::Sent;

/// Frames that were lost, by where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// At the forwarder's device: its ring was full, or nobody behind it took them.
    pub before: u64,
    /// Of these, those that a socket had no room for, as far as the forwarder says.
    pub at_socket: u64,
    /// By the forwarder, for reasons it counts; of a peer, all that no device counts.
    pub within: u64,
    /// At the ring between the forwarder's device and the sink's.
    pub behind: u64,
}

impl Lost {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.before + self.within + self.behind
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            before: self.before - before.before,
            at_socket: self.at_socket - before.at_socket,
            within: self.within - before.within,
            behind: self.behind - before.behind,
        }
    }
}

/// What became of the frames of one trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// What the generator did.
    pub sent: Sent,
    /// Frames that came to the sink.
    pub received: u64,
    /// Those that did not.
    pub lost: Lost,
}

impl Outcome {
    /// The part of the frames that was lost.
    #[must_use]
    pub fn loss(&self) -> f64 {
        (self.sent.frames - self.received) as f64 / self.sent.frames.max(1) as f64
    }
}
