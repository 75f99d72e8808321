//! For tests, fuzz targets and benches: a small world to walk in, frames to walk with, and a fuzz target.

pub mod dns;
pub mod frames;
pub mod fuzz;
pub mod hostile;
pub mod large;
pub mod world;

pub use fuzz::fuzz;
pub use hostile::Hostile;
pub use large::fuzz_large;
pub use world::World;
