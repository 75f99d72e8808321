//! Multiple Loss Ratio search: RFC 2544's question (how fast without loss?) for a software switch on a noisy machine.
//!
//! RFC 9971 (draft-ietf-bmwg-mlrsearch) says when a load counts as too much or as carried, given all trials at it; that is
//! [`classify`], word by word. How to choose the next trial is left to the implementation; that is [`Search`]: for each goal
//! it first looks with short trials and a coarse width, then confirms with full ones. It is a pure state machine:
//!
//! ```
//! use vswitch_perf::math::mlrsearch::{Goal, Search};
//! let mut search = Search::new(vec![Goal::ndr(0.1, 0.5), Goal::pdr(0.1, 0.5)], 0.01, 10.0, 60.0);
//! while let Some(trial) = search.next() {
//!     let lost = (trial.rate - 3.0).max(0.0) / trial.rate; // a device that carries 3 Mpps and not one packet more
//!     search.observe(lost);
//! }
//! let ndr = search.outcome(0);
//! assert!((2.9..=3.0).contains(&ndr.lower.unwrap()));
//! ```

mod goal;
mod search;

pub use goal::{Class, Goal, Trial, classify, conditional_throughput, exceed_ratios};
pub use search::{Ask, Outcome, Search};

#[cfg(test)]
mod tests;
