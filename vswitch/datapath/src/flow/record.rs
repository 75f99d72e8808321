//! A flow as it is told: flat and self-contained, so that it can be handed on without any table.

use std::net::IpAddr;

use vswitch_model::{DropReason, IdentityId, RuleId};

use super::{Direction, FlowKey, FlowState, Now, Orientation, TcpFlags, TcpState};
use crate::PortIndex;
use crate::parse::protocol;
use crate::policy::FlowPorts;
use crate::tables::{AdjacencyIndex, Judgement, Revision};

/// What a flow is made from: its first packet, and what the tables said of it.
#[derive(Debug, Clone, Copy)]
pub struct NewFlow {
    /// Its name.
    pub key: FlowKey,
    /// Which end of it sent the first packet.
    pub orientation: Orientation,
    /// The port the first packet came by.
    pub in_port: PortIndex,
    /// The verdict.
    pub judgement: Judgement,
    /// The tables that gave it.
    pub revision: Revision,
    /// TCP flags of the first packet; of no meaning for other protocols.
    pub tcp_flags: TcpFlags,
    /// When it came.
    pub now: Now,
}

/// One flow. Arrays are indexed by [`Direction`]. The table keeps it in fewer bytes, see [`super::FlowTable`]: times are to
/// about a millisecond, then.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Its name.
    pub key: FlowKey,
    /// The tables that say of it what is here: its adjacencies mean nothing in others.
    pub revision: Revision,
    /// Of the way to the responder, and of the way back.
    pub adjacencies: [AdjacencyIndex; 2],
    /// The port its first packet came by.
    pub in_port: PortIndex,
    /// Which end opened it.
    pub orientation: Orientation,
    /// Where it is.
    pub state: FlowState,
    /// Policy denies it since it was opened. The record stays, so that the other end's next packet is not taken for the
    /// first of a flow of its own.
    pub is_revoked: bool,
    /// When the last packet came; of a revoked flow the last of its originator.
    pub last_seen: Now,
    /// Packets so far. They wrap around after 2^48: half a year at 15 M a second.
    pub packets: [u64; 2],
    /// Bytes so far, of IP packets.
    pub bytes: [u64; 2],
    /// When it was opened; of one that is older than 25 days, 25 days ago.
    pub created: Now,
    /// Of the originator and of the responder.
    pub identities: [IdentityId; 2],
    /// What decided at the originator's end.
    pub egress: RuleId,
    /// What decided at the responder's end.
    pub ingress: RuleId,
}

impl Flow {
    /// How long a revoked flow is kept at most without a packet of its originator: longer than the other end of a TCP
    /// connection sends again what is not acknowledged (15 to 30 minutes, `net.ipv4.tcp_retries2`).
    pub const REVOKED_S: u64 = 1800;
    /// Nothing expires sooner, whatever its state: packets of a flow that is in use ask no further.
    pub(super) const SHORTEST_S: u64 = 10;

    /// A new flow, before its first packet is counted.
    pub fn new(new: &NewFlow) -> Result<Self, DropReason> {
        let state = match new.key.protocol() {
            protocol::TCP => FlowState::Tcp(TcpState::first(new.tcp_flags)?),
            other => FlowState::of(other, 0),
        };
        Ok(Self {
            key: new.key,
            last_seen: new.now,
            revision: new.revision,
            adjacencies: new.judgement.adjacencies,
            in_port: new.in_port,
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

    /// Packets and bytes so far, both ways.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        let sum = |both: [u64; 2]| both[0].wrapping_add(both[1]);
        (sum(self.packets), sum(self.bytes))
    }

    /// Takes note of one more packet that policy denies; whether it is the first. The flow is over when its originator
    /// has been silent for its time: what the other end sends then is its own, and policy is asked about it.
    pub(crate) fn revoke(&mut self, direction: Direction, now: Now) -> bool {
        if direction == Direction::Original {
            self.last_seen = now;
        }
        !std::mem::replace(&mut self.is_revoked, true)
    }

    /// Whether nothing came for so long that it is to be forgotten. The walk and the table's clock hand find so up to 3 ms
    /// later.
    #[must_use]
    pub fn is_expired(&self, now: Now) -> bool {
        now.since(self.last_seen) > self.state.kept_s(self.is_revoked) * 1_000_000_000
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
