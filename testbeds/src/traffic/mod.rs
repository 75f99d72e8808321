//! Traffic through a network, and what came of it.

pub mod capture;
pub mod dns;
pub mod iperf;
pub mod ping;
pub mod probe;
pub mod raw;
pub mod rtp;
pub mod sipp;
