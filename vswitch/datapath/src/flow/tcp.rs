//! The state of a TCP connection as a router in the middle sees it (RFC 9293, section 3.3.2, made liberal).
//!
//! Sequence numbers are followed apart, see [`super::Windows`]. What matters here is who may open a connection, and for
//! how long a record is kept. A connection whose opening was not seen is picked up from any segment that could belong to
//! one (not SYN+ACK, not RST), because an engine that was restarted must not end the calls it carried; the walk asks
//! policy about such a segment as if its sender opened the connection, so nothing passes that could not have been opened
//! that way round.

use vswitch_model::DropReason;

use super::Direction;

#[cfg(test)]
mod tests;

/// The flags of a TCP header, the low 8 bits of its 13th and 14th bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Opens a connection.
    pub const SYN: Self = Self(0x02);
    /// Ends a connection at once.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);

    /// Whether all of `flags` are set.
    #[inline]
    #[must_use]
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Both sets of flags.
    #[must_use]
    pub fn and(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// Whether it is the first segment of a connection.
    #[inline]
    #[must_use]
    pub fn opens(self) -> bool {
        self.has(Self::SYN) && !self.has(Self::ACK) && !self.has(Self::RST)
    }
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpState {
    /// The originator sent SYN.
    SynSent,
    /// The responder answered with SYN, or both sent one.
    SynReceived,
    /// Picked up in the middle, seen from one side only.
    PickedUp,
    /// The originator sent FIN, and nothing was seen of the responder.
    FinSent,
    /// Open.
    Established,
    /// One end sent FIN; the other may go on for long.
    HalfClosed(Direction),
    /// Both ends sent FIN.
    Closing,
    /// The end that sends in this direction sent RST. When it sends on, the RST was not its own, or the other end did
    /// not take it (RFC 5961, section 3.2), and the connection lives.
    Reset(Direction),
}

impl TcpState {
    /// The state of a connection whose first segment seen has `flags`.
    pub fn first(flags: TcpFlags) -> Result<Self, DropReason> {
        if flags.has(TcpFlags::RST) || flags.has(TcpFlags::SYN) && flags.has(TcpFlags::ACK) {
            Err(DropReason::TcpStateInvalid)
        } else if flags.has(TcpFlags::SYN) {
            Ok(Self::SynSent)
        } else if flags.has(TcpFlags::FIN) {
            Ok(Self::FinSent)
        } else if flags.has(TcpFlags::ACK) {
            Ok(Self::PickedUp)
        } else {
            Err(DropReason::TcpStateInvalid)
        }
    }

    /// The state after one more segment.
    #[inline]
    pub fn next(self, direction: Direction, flags: TcpFlags) -> Result<Self, DropReason> {
        use Direction::{Original, Reply};
        if flags.has(TcpFlags::RST) {
            return Ok(Self::Reset(direction));
        }
        if flags.has(TcpFlags::SYN) {
            return match (self, direction, flags.has(TcpFlags::ACK)) {
                // The answer, or both opened at once (RFC 9293, section 3.5).
                (Self::SynSent, Reply, _) | (Self::SynReceived, ..) => Ok(Self::SynReceived),
                (Self::SynSent, Original, false) => Ok(self),
                // Nobody answered the one before.
                (Self::FinSent, Original, false) => Ok(Self::SynSent),
                (Self::FinSent, Reply, true) => Ok(Self::HalfClosed(Original)),
                // Sent again, or an originator that started anew: the other end answers with what it thinks (RFC 5961).
                (_, Original, false) | (_, _, true) => Ok(self),
                // The responder would open a connection under the originator's verdict.
                (_, Reply, false) => Err(DropReason::TcpStateInvalid),
            };
        }
        // What the other end has still under way does not say so: it sends on until it hears of the RST.
        let state = match self {
            Self::Reset(by) if by == direction => Self::PickedUp,
            state => state,
        };
        if flags.has(TcpFlags::FIN) {
            return Ok(match (state, direction) {
                (Self::SynSent | Self::PickedUp | Self::FinSent, Original) => Self::FinSent,
                (Self::FinSent, Reply) => Self::Closing,
                (Self::HalfClosed(first), _) if first != direction => Self::Closing,
                (Self::Closing | Self::Reset(_) | Self::HalfClosed(_), _) => state,
                _ => Self::HalfClosed(direction),
            });
        }
        Ok(match (state, direction) {
            // It has an answer that was not seen here: as if it were picked up now.
            (Self::SynSent, Original) if flags.has(TcpFlags::ACK) => Self::PickedUp,
            (Self::SynReceived, Original) | (Self::PickedUp, Reply) => Self::Established,
            (Self::FinSent, Reply) => Self::HalfClosed(Original),
            _ => state,
        })
    }

    /// Whether a segment opens another connection between the same ends, so that the walk asks policy about it as about
    /// the first of a flow: a SYN when this one is over, whichever end sent it; and a SYN of the responder at any time
    /// but while this one is opened. Of a connection that was picked up in the middle the responder may be who opened
    /// it, and comes back by the same ports when it has lost it.
    #[inline]
    #[must_use]
    pub fn is_reopened_by(self, direction: Direction, flags: TcpFlags) -> bool {
        flags.opens()
            && match self {
                Self::Closing | Self::Reset(_) => true,
                Self::PickedUp | Self::FinSent | Self::Established | Self::HalfClosed(_) => {
                    direction == Direction::Reply
                }
                Self::SynSent | Self::SynReceived => false,
            }
    }

    /// Whether both ends have sent something, and none has ended it at once.
    #[inline]
    #[must_use]
    pub fn is_answered(self) -> bool {
        !matches!(self, Self::SynSent | Self::PickedUp | Self::FinSent | Self::Reset(_))
    }

    /// How long it is kept without a segment, in seconds. Times of conntrack's kind
    /// (`net/netfilter/nf_conntrack_proto_tcp.c`), but 2 h 4 min for open ones as RFC 5382 (REQ-5) asks, 4 min for half
    /// closed ones (the same), and 30 s for an unanswered SYN, which a retransmission prolongs.
    #[inline]
    #[must_use]
    pub fn timeout_s(self) -> u64 {
        match self {
            Self::SynSent => 30,
            Self::SynReceived => 60,
            Self::PickedUp => 300,
            Self::Established => 7440,
            Self::FinSent | Self::HalfClosed(_) => 240,
            Self::Closing => 60,
            Self::Reset(_) => 10,
        }
    }
}
