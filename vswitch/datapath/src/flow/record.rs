//! The record of one flow: flat and self-contained, so that it can be handed on without any table.

use std::net::IpAddr;

use vswitch_model::{DropReason, IdentityId, RuleId};

use super::{Direction, FlowKey, Now, Orientation, TcpFlags, TcpState};
use crate::PortIndex;
use crate::policy::FlowPorts;
use crate::tables::{AdjacencyIndex, Judgement, Revision};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

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
}

/// What a flow is made from: its first packet, and what the tables said of it.
#[derive(Debug, Clone, Copy)]
pub struct NewFlow {
    /// Its name.
    pub key: FlowKey,
    /// Which end of it sent the first packet.
    pub orientation: Orientation,
    /// The port the first packet came by.
    pub in_port: PortIndex,
    /// The port replies will come by, where that is known.
    pub reply_port: Option<PortIndex>,
    /// The verdict.
    pub judgement: Judgement,
    /// The tables that gave it.
    pub revision: Revision,
    /// TCP flags of the first packet; of no meaning for other protocols.
    pub tcp_flags: TcpFlags,
    /// When it came.
    pub now: Now,
}

/// One flow, in two cache lines: what every packet reads, then what it writes. Arrays are indexed by [`Direction`].
#[derive(Debug, Clone)]
#[repr(C, align(128))]
pub struct Flow {
    /// Its name.
    pub key: FlowKey,
    /// The tables that say of it what is here: its adjacencies mean nothing in others.
    pub revision: Revision,
    /// Of the way to the responder, and of the way back.
    pub adjacencies: [AdjacencyIndex; 2],
    /// The ports its packets come by; [`Flow::ANY_PORT`] where that is not known.
    pub in_ports: [PortIndex; 2],
    /// Which end opened it.
    pub orientation: Orientation,
    /// Where it is.
    pub state: FlowState,
    /// Policy denies it since it was opened. The record stays, so that the other end's next packet is not taken for the
    /// first of a flow of its own.
    pub is_revoked: bool,
    /// When the last packet came; of a revoked flow the last of its originator.
    pub last_seen: Now,
    /// Packets so far.
    pub packets: [u64; 2],
    /// Bytes so far, of IP packets.
    pub bytes: [u64; 2],
    /// When it was opened.
    pub created: Now,
    /// Of the originator and of the responder.
    pub identities: [IdentityId; 2],
    /// What decided at the originator's end.
    pub egress: RuleId,
    /// What decided at the responder's end.
    pub ingress: RuleId,
}

impl Flow {
    /// In [`Flow::in_ports`]: any.
    pub const ANY_PORT: PortIndex = PortIndex(u16::MAX);
    /// How long a revoked flow is kept at most without a packet of its originator: longer than the other end of a TCP
    /// connection sends again what is not acknowledged (15 to 30 minutes, `net.ipv4.tcp_retries2`).
    pub const REVOKED_S: u64 = 1800;
    /// Nothing expires sooner, whatever its state: packets of a flow that is in use ask no further.
    pub(super) const SHORTEST_S: u64 = 10;

    /// The record of a new flow, before its first packet is counted: [`Flow::advance`] is not called for that one but
    /// [`Flow::count`].
    pub fn new(new: &NewFlow) -> Result<Self, DropReason> {
        let state = match new.key.protocol() {
            TCP => FlowState::Tcp(TcpState::first(new.tcp_flags)?),
            UDP => FlowState::Udp { replied: false },
            SCTP => FlowState::Sctp { replied: false },
            ICMP | ICMPV6 => FlowState::Icmp { replied: false },
            _ => FlowState::Other { replied: false },
        };
        Ok(Self {
            key: new.key,
            last_seen: new.now,
            revision: new.revision,
            adjacencies: new.judgement.adjacencies,
            in_ports: [new.in_port, new.reply_port.unwrap_or(Self::ANY_PORT)],
            orientation: new.orientation,
            state,
            is_revoked: false,
            packets: [0; 2],
            bytes: [0; 2],
            created: new.now,
            identities: new.judgement.identities,
            egress: new.judgement.egress,
            ingress: new.judgement.ingress,
        })
    }

    /// Which way a packet goes whose key was made with `orientation`.
    #[inline]
    #[must_use]
    pub fn direction(&self, orientation: Orientation) -> Direction {
        if orientation == self.orientation { Direction::Original } else { Direction::Reply }
    }

    /// Takes one more packet into the state and the counters. An error leaves both as they were.
    ///
    /// The walk asks [`Flow::is_reopened_by`] first.
    #[inline]
    pub fn advance(
        &mut self,
        direction: Direction,
        flags: TcpFlags,
        length: u16,
        now: Now,
    ) -> Result<(), DropReason> {
        let reply = direction == Direction::Reply;
        match &mut self.state {
            FlowState::Tcp(state) => *state = state.next(direction, flags)?,
            FlowState::Udp { replied }
            | FlowState::Icmp { replied }
            | FlowState::Sctp { replied }
            | FlowState::Other { replied } => *replied |= reply,
        }
        self.count(direction, length);
        self.last_seen = now;
        Ok(())
    }

    /// Counts one packet of `length` bytes.
    #[inline]
    pub fn count(&mut self, direction: Direction, length: u16) {
        let at = direction as usize;
        self.packets[at] = self.packets[at].wrapping_add(1);
        self.bytes[at] = self.bytes[at].wrapping_add(u64::from(length));
    }

    /// Packets and bytes so far, both ways.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        let sum = |both: [u64; 2]| both[0].wrapping_add(both[1]);
        (sum(self.packets), sum(self.bytes))
    }

    /// Whether a TCP segment opens another connection, see [`TcpState::is_reopened_by`]; of a revoked one any that opens
    /// one does. The walk takes it as a miss then, since policy may not have been asked about the end it came from; this
    /// flow stays until the other one is allowed.
    #[inline]
    #[must_use]
    pub fn is_reopened_by(&self, direction: Direction, flags: TcpFlags) -> bool {
        matches!(self.state, FlowState::Tcp(state)
            if state.is_reopened_by(direction, flags) || flags.opens() && self.is_revoked)
    }

    /// Takes note of one more packet that policy denies; whether it is the first. The flow is over when its originator
    /// has been silent for its time: what the other end sends then is its own, and policy is asked about it.
    pub(crate) fn revoke(&mut self, direction: Direction, now: Now) -> bool {
        if direction == Direction::Original {
            self.last_seen = now;
        }
        !std::mem::replace(&mut self.is_revoked, true)
    }

    /// Whether nothing came for so long that it is to be forgotten.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now: Now) -> bool {
        self.is_silent(now) && self.is_over(now)
    }

    /// Whether nothing came for as long as the shortest timeout is.
    #[inline]
    pub(super) fn is_silent(&self, now: Now) -> bool {
        now.since(self.last_seen) > Self::SHORTEST_S * 1_000_000_000
    }

    #[cold]
    fn is_over(&self, now: Now) -> bool {
        let timeout = self.state.timeout_s();
        let timeout = if self.is_revoked { timeout.min(Self::REVOKED_S) } else { timeout };
        now.since(self.last_seen) > timeout * 1_000_000_000
    }

    /// The address of the end that sends in `direction`.
    #[must_use]
    pub fn address(&self, direction: Direction) -> IpAddr {
        self.end(direction).0
    }

    /// Address and port of the end that sends in `direction`.
    #[must_use]
    pub fn end(&self, direction: Direction) -> (IpAddr, u16) {
        match direction {
            Direction::Original => self.key.source(self.orientation),
            Direction::Reply => self.key.source(self.orientation.reverse()),
        }
    }

    /// Protocol and ports as policy sees them, from the end that opened it.
    #[must_use]
    pub fn policy_ports(&self) -> FlowPorts {
        FlowPorts {
            protocol: self.key.protocol(),
            destination: self.end(Direction::Reply).1,
            source: self.end(Direction::Original).1,
        }
    }

    pub(crate) fn adopt(&mut self, judgement: Judgement, revision: Revision) {
        self.identities = judgement.identities;
        self.adjacencies = judgement.adjacencies;
        self.egress = judgement.egress;
        self.ingress = judgement.ingress;
        self.revision = revision;
        self.is_revoked = false;
    }
}
