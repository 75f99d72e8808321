//! From objects to desired state: pure functions of their inputs.

mod inputs;

pub use inputs::{Inputs, NamespacedName};
