//! Where a flow is, told and in four bits.

use super::{Direction, Flow, TcpState};
use crate::parse::protocol;

/// Where a flow is, by its protocol. Replied: packets went both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowState {
    /// A TCP connection.
    Tcp(TcpState),
    /// UDP: 30 s, once replied 180 s (RFC 4787, REQ-5, asks for 120 s).
    Udp {
        /// Packets went both ways.
        replied: bool,
    },
    /// ICMP or ICMPv6 queries: 30 s.
    Icmp {
        /// Packets went both ways.
        replied: bool,
    },
    /// SCTP, whose chunks are not followed: 30 s, once replied 210 s (conntrack's time for an established association).
    Sctp {
        /// Packets went both ways.
        replied: bool,
    },
    /// Any other protocol: 60 s, once replied 600 s.
    Other {
        /// Packets went both ways.
        replied: bool,
    },
}

impl FlowState {
    /// Whether packets went both ways. What did not is the first to go when room is needed: it may be made up.
    #[inline]
    #[must_use]
    pub fn is_answered(self) -> bool {
        match self {
            Self::Tcp(state) => state.is_answered(),
            Self::Udp { replied }
            | Self::Icmp { replied }
            | Self::Sctp { replied }
            | Self::Other { replied } => replied,
        }
    }

    /// How long a flow is kept without a packet, in seconds.
    #[inline]
    #[must_use]
    pub fn timeout_s(self) -> u64 {
        match self {
            Self::Tcp(state) => state.timeout_s(),
            Self::Udp { replied: false } | Self::Icmp { .. } | Self::Sctp { replied: false } => 30,
            Self::Udp { replied: true } => 180,
            Self::Sctp { replied: true } => 210,
            Self::Other { replied: false } => 60,
            Self::Other { replied: true } => 600,
        }
    }

    /// How long a flow in this state is kept without a packet, in seconds; of a revoked one, of its originator.
    pub(super) fn kept_s(self, is_revoked: bool) -> u64 {
        if is_revoked { self.timeout_s().min(Flow::REVOKED_S) } else { self.timeout_s() }
    }

    /// The state that a line keeps in 4 bits as `code`: for TCP a place in [`TCP_STATES`], for others whether packets went
    /// both ways.
    pub(super) fn of(protocol: u8, code: u8) -> Self {
        let replied = code != 0;
        match protocol {
            protocol::TCP => Self::Tcp(tcp_state(code)),
            protocol::UDP => Self::Udp { replied },
            protocol::SCTP => Self::Sctp { replied },
            protocol::ICMP | protocol::ICMPV6 => Self::Icmp { replied },
            _ => Self::Other { replied },
        }
    }

    /// The 4 bits that [`Self::of`] takes.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Tcp(state) => tcp_code(state),
            Self::Udp { replied }
            | Self::Icmp { replied }
            | Self::Sctp { replied }
            | Self::Other { replied } => u8::from(replied),
        }
    }
}

/// The states of TCP by their code.
const TCP_STATES: [TcpState; 10] = [
    TcpState::SynSent,
    TcpState::SynReceived,
    TcpState::PickedUp,
    TcpState::Established,
    TcpState::HalfClosed(Direction::Original),
    TcpState::HalfClosed(Direction::Reply),
    TcpState::Closing,
    TcpState::Reset(Direction::Original),
    TcpState::Reset(Direction::Reply),
    TcpState::FinSent,
];

/// The state with this code. There are no others than [`tcp_code`] gives.
#[inline]
pub(super) fn tcp_state(code: u8) -> TcpState {
    TCP_STATES.get(usize::from(code)).copied().unwrap_or(TcpState::PickedUp)
}

/// The code of a state of TCP, its place in [`TCP_STATES`].
#[inline]
pub(super) const fn tcp_code(state: TcpState) -> u8 {
    match state {
        TcpState::SynSent => 0,
        TcpState::SynReceived => 1,
        TcpState::PickedUp => 2,
        TcpState::Established => 3,
        TcpState::HalfClosed(Direction::Original) => 4,
        TcpState::HalfClosed(Direction::Reply) => 5,
        TcpState::Closing => 6,
        TcpState::Reset(Direction::Original) => 7,
        TcpState::Reset(Direction::Reply) => 8,
        TcpState::FinSent => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_code_of_its_own() {
        for (place, state) in TCP_STATES.into_iter().enumerate() {
            assert_eq!((usize::from(tcp_code(state)), tcp_state(place as u8)), (place, state));
        }
        for protocol in 0..=u8::MAX {
            let codes = if protocol == protocol::TCP { TCP_STATES.len() as u8 } else { 2 };
            for code in 0..codes {
                assert_eq!(FlowState::of(protocol, code).code(), code);
            }
        }
    }
}
