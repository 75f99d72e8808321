//! Messages of the engine API to the vocabulary and back.

mod incoming;
mod outgoing;

pub use outgoing::{apply_request, delta_request};
