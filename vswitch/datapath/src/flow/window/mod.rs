//! Whether a TCP segment lies in the window of its connection: Rooij's model ("Real Stateful TCP Packet Filtering in IP
//! Filter", 2001), as `net/netfilter/nf_conntrack_proto_tcp.c` has it.
//!
//! A segment may start at most where its receiver's window ends, and may acknowledge at most what its receiver has sent.
//! One beyond either is nobody's: it ends here. One that is older than a window reaches back is passed on and believed
//! nothing: a real end sends such a thing when its network delays it, and the other end knows what to do with it.
//!
//! Only a connection whose opening was seen from both sides is checked. All others (picked up in the middle, opened from
//! both sides at once, with an answer that goes another way, in IP fragments) pass unchecked, because it is not known
//! how their windows are scaled, or not all that they acknowledge is seen.

#[cfg(test)]
mod openings;
mod segment;
#[cfg(test)]
mod tests;

pub use segment::TcpSegment;

use super::{Direction, TcpFlags};

/// How much further than a window reaches back a segment is still believed: one segment more, at its longest, for ends that
/// fill the other's window with whole segments. conntrack's `MAXACKWINCONST`.
const SLACK: u32 = 66_000;
/// Largest shift of a window (RFC 7323, section 2.3).
const SCALE_MAX: u8 = 14;

/// What a segment is to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It belongs to it and moves it on.
    Within,
    /// It may belong to it, and says nothing new: it goes on, and the connection stays as it is.
    Aside,
    /// It does not belong to it.
    Outside,
}

/// What is known of the opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
enum Stage {
    /// Too little: nothing is checked.
    #[default]
    Unknown,
    /// The originator's SYN.
    Opened,
    /// The responder's answer as well.
    Answered,
    /// All of it.
    Checked,
    /// All of it, and the originator sent another SYN since: it may have lost the connection, and the responder too.
    Anew,
}

/// The sequence numbers of one connection. Arrays are indexed by the [`Direction`] a sender sends in. 24 bytes, beside the
/// flow's record, which other protocols do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Windows {
    /// Behind the last number sent. Of an originator that was not answered yet, see `acknowledged`.
    ends: [u32; 2],
    /// The next number it waits for, by what it acknowledged. Of an originator that was not answered yet: behind the number
    /// of its SYN; data may follow that in the same segment (RFC 7413).
    acknowledged: [u32; 2],
    /// The largest window it announced, unscaled.
    largest: [u16; 2],
    /// By how many bits its window is shifted. [`Self::NO_SCALE`] of an originator that offered none.
    scales: [u8; 2],
    stage: Stage,
}

impl Windows {
    const NO_SCALE: u8 = u8::MAX;

    /// Of a connection that starts with `segment`.
    #[must_use]
    pub fn of(segment: &TcpSegment<'_>) -> Self {
        if !segment.flags.opens() {
            return Self::default();
        }
        Self {
            ends: [segment.end(), 0],
            acknowledged: [segment.sequence.wrapping_add(1), 0],
            largest: [segment.window, 0],
            scales: [segment.scale().unwrap_or(Self::NO_SCALE), 0],
            stage: Stage::Opened,
        }
    }

    /// Checks no more: something of the connection is not seen.
    pub fn give_up(&mut self) {
        *self = Self::default();
    }

    /// Takes in a segment that is sent in `direction`.
    #[inline]
    pub fn take(&mut self, direction: Direction, segment: &TcpSegment<'_>) -> Standing {
        if self.stage == Stage::Checked && !segment.flags.has(TcpFlags::SYN) {
            return self.judge(direction, segment);
        }
        if self.stage == Stage::Unknown {
            return Standing::Within;
        }
        self.open(direction, segment)
    }

    /// The window of the end that sends in `direction`, at its largest, in bytes. Never 0: an end whose window is closed is
    /// asked with a byte whether it still is (RFC 9293, section 3.8.6.1).
    #[inline]
    fn reach(&self, direction: usize) -> u32 {
        u32::from(self.largest[direction].max(1)) << self.scales[direction].min(SCALE_MAX)
    }

    /// A segment while the windows of both ends are known.
    #[inline]
    fn judge(&mut self, direction: Direction, segment: &TcpSegment<'_>) -> Standing {
        let (sender, receiver) = (direction as usize, direction.reverse() as usize);
        let reach = self.reach(receiver);
        if is_after(segment.sequence, self.acknowledged[receiver].wrapping_add(reach)) {
            return Standing::Outside;
        }
        if segment.flags.has(TcpFlags::RST) {
            return self.reset(sender, receiver, segment.sequence);
        }
        let acknowledges = segment.flags.has(TcpFlags::ACK);
        let acknowledgement = if acknowledges { segment.acknowledgement } else { self.ends[receiver] };
        if is_after(acknowledgement, self.ends[receiver]) {
            return Standing::Outside;
        }
        let end = segment.end();
        let oldest = self.ends[sender].wrapping_sub(reach + SLACK);
        let least = self.ends[receiver].wrapping_sub(self.reach(sender) + SLACK);
        if is_after(oldest, end) || is_after(least, acknowledgement) {
            return Standing::Aside;
        }
        if is_after(end, self.ends[sender]) {
            self.ends[sender] = end;
        }
        if acknowledges && is_after(acknowledgement, self.acknowledged[sender]) {
            self.acknowledged[sender] = acknowledgement;
        }
        let largest = &mut self.largest[sender];
        // That of a SYN is not scaled.
        if segment.window > *largest && !segment.flags.has(TcpFlags::SYN) {
            *largest = segment.window;
        }
        Standing::Within
    }

    /// A reset before the end of the receiver's window. It ends the connection when it has the number its receiver waits for
    /// (RFC 5961, section 3.2), or follows all that its sender sent. Another one in the window its receiver answers with a
    /// question.
    #[cold]
    fn reset(&self, sender: usize, receiver: usize, sequence: u32) -> Standing {
        if sequence == self.acknowledged[receiver] || sequence == self.ends[sender] {
            Standing::Within
        } else if is_after(self.acknowledged[receiver], sequence) {
            Standing::Outside
        } else {
            Standing::Aside
        }
    }

    /// A segment while the connection is opened, or one that would open it anew.
    #[cold]
    fn open(&mut self, direction: Direction, segment: &TcpSegment<'_>) -> Standing {
        use Direction::{Original, Reply};
        let (syn, ack) = (segment.flags.has(TcpFlags::SYN), segment.flags.has(TcpFlags::ACK));
        match (self.stage, direction) {
            (Stage::Opened, Original) => self.before_answer(segment),
            (Stage::Opened, Reply) => self.answer(segment),
            (_, Original) if syn && !ack => {
                // The same SYN again, or a connection that its originator has lost.
                if segment.sequence.wrapping_add(1) != self.acknowledged[Reply as usize] {
                    self.stage = Stage::Anew;
                }
                Standing::Within
            }
            // Both opened at once after all.
            (_, Reply) if syn && !ack => {
                self.give_up();
                Standing::Within
            }
            // The responder has lost it too and refuses, with numbers of its own.
            (Stage::Anew, Reply) if segment.flags.has(TcpFlags::RST) => Standing::Within,
            _ => {
                let standing = self.judge(direction, segment);
                let answers_anew =
                    syn && direction == Reply && matches!(self.stage, Stage::Answered | Stage::Anew);
                if answers_anew && !self.is_answer_again(segment) {
                    // The originator has another SYN under way, or the responder forgot its first answer, as one that
                    // answers with cookies does (RFC 4987, section 3.6): which of the two counts is not known.
                    self.give_up();
                    return Standing::Within;
                }
                if standing == Standing::Within && direction == Original && !syn {
                    self.stage = Stage::Checked;
                }
                standing
            }
        }
    }

    /// Whether a SYN of the responder is the one it sent before.
    fn is_answer_again(&self, segment: &TcpSegment<'_>) -> bool {
        // Nothing of the originator came between them, or it acknowledged no more than that.
        segment.sequence.wrapping_add(1) == self.acknowledged[Direction::Original as usize]
    }

    /// A segment of an originator that no answer was seen to.
    fn before_answer(&mut self, segment: &TcpSegment<'_>) -> Standing {
        if segment.flags.opens() {
            self.opened_again(segment);
        } else if !segment.flags.has(TcpFlags::RST) {
            // It has an answer, which came another way.
            self.give_up();
        }
        Standing::Within
    }

    /// Another SYN of an originator that no answer was seen to: the same one once more, or that of another try.
    ///
    /// The same one may come without the data that it had at first (RFC 7413, section 4.2.2), or without its options, as Linux
    /// sends it; and the answer that comes then may be to the first. So the widest counts, as in conntrack's `tcp_in_window`.
    fn opened_again(&mut self, segment: &TcpSegment<'_>) {
        let again = Self::of(segment);
        let before = std::mem::replace(self, again);
        if before.acknowledged != again.acknowledged {
            return;
        }
        if is_after(before.ends[0], again.ends[0]) {
            self.ends = before.ends;
        }
        self.largest[0] = before.largest[0].max(again.largest[0]);
        self.scales[0] = match (before.scales[0], again.scales[0]) {
            (scale, Self::NO_SCALE) | (Self::NO_SCALE, scale) => scale,
            (before, again) => before.max(again),
        };
    }

    /// The first segment of the responder.
    fn answer(&mut self, segment: &TcpSegment<'_>) -> Standing {
        use Direction::{Original, Reply};
        let first = self.acknowledged[Original as usize];
        let is_of_ours = segment.flags.has(TcpFlags::ACK)
            && segment.acknowledgement.wrapping_sub(first)
                <= self.ends[Original as usize].wrapping_sub(first);
        if segment.flags.has(TcpFlags::RST) {
            // It counts by what it acknowledges (RFC 9293, section 3.10.7.3).
            return if is_of_ours { Standing::Within } else { Standing::Outside };
        }
        if !segment.flags.has(TcpFlags::SYN) {
            // It has another connection in mind, says so, and will be told (RFC 9293, section 3.5.1).
            return Standing::Aside;
        }
        if !segment.flags.has(TcpFlags::ACK) {
            self.give_up();
            return Standing::Within;
        }
        if !is_of_ours {
            return Standing::Aside;
        }
        // Windows are scaled when both ends say so, and never in a SYN (RFC 7323, section 2.2).
        let scales = match (self.scales[Original as usize], segment.scale()) {
            (offered, Some(answered)) if offered != Self::NO_SCALE => [offered, answered],
            _ => [0, 0],
        };
        let unscaled = |window: u16, scale: u8| {
            let unit = 1u32 << scale;
            (u32::from(window).div_ceil(unit)) as u16
        };
        self.largest = [
            unscaled(self.largest[Original as usize], scales[Original as usize]),
            unscaled(segment.window, scales[Reply as usize]),
        ];
        self.scales = scales;
        self.ends[Reply as usize] = segment.end();
        // A responder may send on before the originator has acknowledged its SYN (RFC 7413).
        self.acknowledged = [segment.sequence.wrapping_add(1), segment.acknowledgement];
        self.stage = Stage::Answered;
        Standing::Within
    }
}

/// Whether a sequence number comes after another (RFC 9293, section 3.4).
#[inline]
const fn is_after(later: u32, earlier: u32) -> bool {
    (earlier.wrapping_sub(later) as i32) < 0
}
