//! The arithmetic of measuring: pure functions and state machines, tested against published examples and slow oracles.
//!
//! | module | what it answers | source |
//! |---|---|---|
//! | [`statistics`] | median, quantiles, robust spread, ratios round by round | Hyndman and Fan 1996, type 7 |
//! | [`jitter`] | interarrival jitter | RFC 3550, sections 6.4.1 and A.8 |
//! | [`emodel`] | how a call sounds: R and MOS | ITU-T G.107, G.113 |
//! | [`mlrsearch`] | no-drop and partial-drop rate | RFC 2544, RFC 9971 (draft-ietf-bmwg-mlrsearch) |
//! | [`confidence`] | what a count of lost packets says about the loss ratio | Clopper and Pearson 1934 |
//! | [`sequence`] | loss, duplicates, reordering by sequence number | RFC 4737 |

pub mod confidence;
pub mod emodel;
pub mod jitter;
pub mod mlrsearch;
pub mod sequence;
pub mod statistics;
