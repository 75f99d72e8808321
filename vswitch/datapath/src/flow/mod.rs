//! Flows: one record for each connection or conversation, both directions, in a bounded table of one worker.

mod index;
mod key;
mod line;
mod record;
mod slab;
mod state;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod window;

pub use key::{Direction, FlowKey, Orientation};
pub(crate) use line::Line;
pub use record::{Flow, NewFlow};
pub use state::FlowState;
pub use table::{FlowIndex, FlowTable, FlowTableFull};
pub use tcp::{TcpFlags, TcpState};
pub use window::{Standing, TcpSegment, Windows};

/// A moment, in nanoseconds of a clock that only goes forward; what 0 means is the engine's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(pub u64);

impl Now {
    /// Nanoseconds since `earlier`; 0 when that is later.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
