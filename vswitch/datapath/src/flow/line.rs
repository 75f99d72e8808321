//! A flow as the table keeps it: what its packets read and write in one cache line, the rest beside it.

use vswitch_model::{DropReason, IdentityId, RuleId};

use super::state::{tcp_code, tcp_state};
use super::{Direction, Flow, FlowKey, FlowState, Now, Orientation, TcpFlags, TcpState};
use crate::PortIndex;
use crate::parse::protocol;
use crate::tables::{AdjacencyIndex, Revision};

/// In a line's kind: the higher end opened it, see [`Orientation::FromHigh`].
const FROM_HIGH: u16 = 0x20;
/// In a line's kind: policy denies it.
const REVOKED: u16 = 0x10;
/// In a line's kind: the code of its state.
const STATE: u16 = 0x0f;
/// In a line's kind: what is the key's.
const KEY: u16 = !(FROM_HIGH | REVOKED | STATE);

/// Flags without which an open connection stays as it is.
const MOVES: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;

/// A moment in 32 bits: units of 2^20 ns, a little more than a millisecond, which come again after 52 days. Two moments
/// that are compared are not half as far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ticks(u32);

impl Ticks {
    const SHIFT: u32 = 20;

    #[inline]
    const fn of(now: Now) -> Self {
        Self((now.0 >> Self::SHIFT) as u32)
    }

    /// The fewest that are no less than so many seconds, whatever part of the first and the last has passed.
    #[inline]
    const fn of_seconds(seconds: u64) -> i32 {
        ((seconds * 1_000_000_000) >> Self::SHIFT) as i32 + 1
    }

    /// From `earlier` on; negative when that is later.
    #[inline]
    const fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// The moment, told another that it is near to.
    const fn near(self, other: Now) -> Now {
        let since = self.since(Self::of(other)) as i64;
        Now((other.0 >> Self::SHIFT).saturating_add_signed(since) << Self::SHIFT)
    }
}

/// What a line leaves out of moments and revisions is as in these, the latest that were seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Latest {
    pub(super) now: Now,
    pub(super) revision: Revision,
}

/// What every packet of a flow reads or writes: one cache line. Fields are as in [`Flow`], where nothing else is said.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Line {
    /// As in [`FlowKey`]. In a line without a flow the number of the next such line.
    addresses: u64,
    /// As in [`FlowKey`].
    ports: u32,
    /// As in [`FlowKey`], with [`FROM_HIGH`], [`REVOKED`] and the state. 0: no flow.
    kind: u16,
    in_port: u16,
    last_seen: Ticks,
    /// The lower 32 bits.
    revision: u32,
    adjacencies: [AdjacencyIndex; 2],
    bytes: [u64; 2],
    /// The lower 32 bits.
    packets: [u32; 2],
    /// The 16 bits above them.
    packets_above: [u16; 2],
    created: Ticks,
}

/// What is asked for when tables have changed and when a flow is told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rest {
    identities: [IdentityId; 2],
    egress: RuleId,
    ingress: RuleId,
}

impl Line {
    /// The greatest age that is told: 25 days. The clock hand comes long before the difference of two moments is none any
    /// more.
    const OLDEST: i32 = i32::MAX - (1 << 24);

    /// Without a flow; the next such line is `next`.
    pub(super) fn free(next: u32) -> Self {
        Self { addresses: next.into(), ..Self::default() }
    }

    /// The next line without a flow.
    pub(super) const fn next_free(&self) -> u32 {
        self.addresses as u32
    }

    pub(super) fn of(flow: &Flow) -> (Self, Rest) {
        let orientation = if flow.orientation == Orientation::FromHigh { FROM_HIGH } else { 0 };
        let revoked = if flow.is_revoked { REVOKED } else { 0 };
        let line = Self {
            addresses: flow.key.addresses,
            ports: flow.key.ports,
            kind: flow.key.kind | orientation | revoked | u16::from(flow.state.code()),
            in_port: flow.in_port.0,
            last_seen: Ticks::of(flow.last_seen),
            revision: flow.revision.0 as u32,
            adjacencies: flow.adjacencies,
            bytes: flow.bytes,
            packets: flow.packets.map(|packets| packets as u32),
            packets_above: flow.packets.map(|packets| (packets >> 32) as u16),
            created: Ticks::of(flow.created),
        };
        (line, Rest { identities: flow.identities, egress: flow.egress, ingress: flow.ingress })
    }

    /// The flow, told what of it is not here.
    pub(super) fn told(&self, rest: &Rest, upper: [u64; 3], latest: Latest) -> Flow {
        let behind = (latest.revision.0 as u32).wrapping_sub(self.revision);
        let packets = |at: usize| u64::from(self.packets_above[at]) << 32 | u64::from(self.packets[at]);
        Flow {
            key: self.key(upper),
            revision: Revision(latest.revision.0.wrapping_sub(behind.into())),
            adjacencies: self.adjacencies,
            in_port: PortIndex(self.in_port),
            orientation: if self.kind & FROM_HIGH == 0 {
                Orientation::FromLow
            } else {
                Orientation::FromHigh
            },
            state: self.state(),
            is_revoked: self.is_revoked(),
            last_seen: self.last_seen.near(latest.now),
            packets: [packets(0), packets(1)],
            bytes: self.bytes,
            created: self.opened(latest.now),
            identities: rest.identities,
            egress: rest.egress,
            ingress: rest.ingress,
        }
    }

    /// Its key, told the part that only IPv6 has.
    pub(super) const fn key(&self, upper: [u64; 3]) -> FlowKey {
        FlowKey { addresses: self.addresses, upper, ports: self.ports, kind: self.kind & KEY }
    }

    /// Whether there is a flow.
    #[inline]
    pub(super) const fn is_used(&self) -> bool {
        self.kind != 0
    }

    #[inline]
    pub(super) const fn is_v6(&self) -> bool {
        self.kind & FlowKey::V6 != 0
    }

    /// Whether it has this key, but for the part that only IPv6 has. `==` of keys would call memcmp.
    #[inline]
    pub(super) fn fits(&self, key: &FlowKey) -> bool {
        let others = (self.ports ^ key.ports) | u32::from((self.kind ^ key.kind) & KEY);
        (self.addresses ^ key.addresses) | u64::from(others) == 0
    }

    fn state(&self) -> FlowState {
        FlowState::of(self.protocol(), self.code())
    }

    #[inline]
    const fn protocol(&self) -> u8 {
        (self.kind >> 8) as u8
    }

    #[inline]
    const fn code(&self) -> u8 {
        (self.kind & STATE) as u8
    }

    #[inline]
    const fn is_revoked(&self) -> bool {
        self.kind & REVOKED != 0
    }

    /// The port its first packet came by.
    #[inline]
    pub(super) const fn in_port(&self) -> PortIndex {
        PortIndex(self.in_port)
    }

    /// Whether it may go when there is no room for a newcomer: true for a revoked one, false for one that was never
    /// answered. None: it stays.
    pub(super) fn may_go(&self) -> Option<bool> {
        (self.is_revoked() || !self.state().is_answered()).then_some(self.is_revoked())
    }

    /// Whether the tables of this revision say of it what is here.
    #[inline]
    pub(crate) const fn is_of(&self, revision: Revision) -> bool {
        self.revision == revision.0 as u32
    }

    /// The way of its packets in this direction.
    #[inline]
    pub(crate) const fn adjacency(&self, direction: Direction) -> AdjacencyIndex {
        self.adjacencies[direction as usize]
    }

    /// Which way a packet goes whose key was made with `orientation`.
    #[inline]
    pub(crate) const fn direction(&self, orientation: Orientation) -> Direction {
        let from_high = self.kind & FROM_HIGH != 0;
        if from_high == (orientation as u8 != 0) { Direction::Original } else { Direction::Reply }
    }

    /// Takes one more packet into the state and the counters. An error leaves both as they were.
    ///
    /// The walk asks [`Self::is_reopened_by`] first.
    #[inline]
    pub(crate) fn advance(
        &mut self,
        direction: Direction,
        flags: TcpFlags,
        length: u16,
        now: Now,
    ) -> Result<(), DropReason> {
        if self.protocol() != protocol::TCP {
            self.kind |= direction as u16;
        } else if self.code() != tcp_code(TcpState::Established) || flags.0 & MOVES != 0 {
            let next = tcp_state(self.code()).next(direction, flags)?;
            self.kind = self.kind & !STATE | u16::from(tcp_code(next));
        }
        self.count(direction, length);
        self.see(now);
        Ok(())
    }

    /// A packet came: it lives on.
    #[inline]
    pub(crate) const fn see(&mut self, now: Now) {
        self.last_seen = Ticks::of(now);
    }

    /// Counts one packet of `length` bytes.
    #[inline]
    pub(crate) fn count(&mut self, direction: Direction, length: u16) {
        let at = direction as usize;
        self.bytes[at] = self.bytes[at].wrapping_add(u64::from(length));
        let (packets, carry) = self.packets[at].overflowing_add(1);
        self.packets[at] = packets;
        if carry {
            self.packets_above[at] = self.packets_above[at].wrapping_add(1);
        }
    }

    /// Whether a TCP segment opens another connection, see [`TcpState::is_reopened_by`]; of a revoked one any that opens
    /// one does. The walk takes it as a miss then, since policy may not have been asked about the end it came from; this
    /// flow stays until the other one is allowed.
    #[inline]
    pub(crate) fn is_reopened_by(&self, direction: Direction, flags: TcpFlags) -> bool {
        self.protocol() == protocol::TCP
            && flags.opens()
            && (self.is_revoked() || tcp_state(self.code()).is_reopened_by(direction, flags))
    }

    /// Whether nothing came for so long that it is to be forgotten: never early, and 3 ms late at most.
    #[inline]
    pub(crate) fn is_expired(&self, now: Now) -> bool {
        self.is_silent(now) && self.is_over(now)
    }

    /// Whether nothing came for as long as the shortest timeout is.
    #[inline]
    const fn is_silent(&self, now: Now) -> bool {
        self.silent(now) > const { Ticks::of_seconds(Flow::SHORTEST_S) }
    }

    /// For how long nothing came: the longer the larger.
    #[inline]
    pub(super) const fn silent(&self, now: Now) -> i32 {
        Ticks::of(now).since(self.last_seen)
    }

    #[cold]
    fn is_over(&self, now: Now) -> bool {
        self.silent(now) > Ticks::of_seconds(self.state().kept_s(self.is_revoked()))
    }

    /// When it was opened; of an older one [`Self::OLDEST`] ago, which a line can be made from again.
    const fn opened(&self, now: Now) -> Now {
        if Ticks::of(now).since(self.created) < Self::OLDEST {
            self.created.near(now)
        } else {
            Now((now.0 >> Ticks::SHIFT).saturating_sub(Self::OLDEST as u64) << Ticks::SHIFT)
        }
    }

    /// Keeps an old one from being taken for young, when moments come again.
    #[inline]
    pub(super) const fn bound_age(&mut self, now: Now) {
        let now = Ticks::of(now);
        if now.since(self.created) > Self::OLDEST {
            self.created = Ticks(now.0.wrapping_sub(Self::OLDEST as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_line_is_one_and_the_rest_a_quarter() {
        assert_eq!((size_of::<Line>(), align_of::<Line>(), size_of::<Rest>()), (64, 64, 16));
    }

    #[test]
    fn a_moment_is_told_to_a_millisecond_wherever_the_clock_is() {
        for now in [0, 1, 52 * 86_400 * SECOND, 4_503_599_627_370_496, 90 * 86_400 * SECOND] {
            for before in [0, 1, 999_999, 10 * SECOND, 12 * 86_400 * SECOND].map(|it| now.min(it)) {
                let told = Ticks::of(Now(now - before)).near(Now(now));
                assert!(told.0 <= now - before && now - before - told.0 < 1 << 20, "{now} {before}");
                let ahead = Ticks::of(Now(now)).near(Now(now - before));
                assert_eq!(ahead.0, now >> 20 << 20);
            }
        }
    }

    #[test]
    fn no_time_is_told_short() {
        for seconds in [10, 30, 60, 180, 7440] {
            for part in (0..1 << 20).step_by(4099) {
                let line = Line { last_seen: Ticks::of(Now(part)), ..Line::default() };
                let end = part + seconds * SECOND;
                assert!(line.silent(Now(end)) <= Ticks::of_seconds(seconds));
                assert!(line.silent(Now(end + 3_000_000)) > Ticks::of_seconds(seconds));
            }
        }
    }

    #[test]
    fn old_age_stays_old() {
        let day = 86_400 * SECOND;
        let mut line = Line { created: Ticks::of(Now(5 * day)), ..Line::default() };
        for hours in 5 * 24..200 * 24 {
            let now = Now(hours * day / 24);
            line.bound_age(now);
            let opened = line.opened(now);
            match hours / 24 - 5 {
                0..25 => assert!(5 * day - opened.0 < 1 << 20, "{hours}"),
                25 => {}
                _ => assert_eq!(now.since(opened) / day, 25, "{hours}"),
            }
        }
    }

    #[test]
    fn packets_are_counted_beyond_32_bits() {
        let mut line = Line { packets: [u32::MAX, 7], packets_above: [2, 0], ..Line::default() };
        line.count(Direction::Original, 60);
        line.count(Direction::Reply, 40);
        let flow = line.told(&Rest::default(), [0; 3], Latest::default());
        assert_eq!((flow.packets, flow.bytes), ([3 << 32, 8], [60, 40]));
    }
}
