//! Fragments: remembering the first one's ports for those that follow, and cutting IPv4 packets that do not fit.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::FixedState;

use crate::parse::{ETHERNET, Network, Parsed};
use crate::read::{chunk, length16, put, put_slice};
use crate::{Buffer, Now, checksum};

/// How long a first fragment is remembered: as long as Linux waits for the rest (`net.ipv4.ipfrag_time`).
pub const TIMEOUT_NS: u64 = 30_000_000_000;

/// How long a first fragment is kept against all comers. The others follow at once, so an older record is most likely one
/// of a packet that has passed whole: it gives way when its place is needed, the oldest first.
pub const HELD_NS: u64 = 100_000_000;

/// Records that share a place. A packet has one place; when all its records are held by younger ones it is refused.
const WAYS: usize = 8;

/// What all fragments of a packet share (RFC 791, section 2.3; RFC 8200, section 4.5, where the protocol may differ).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

impl Key {
    fn of(parsed: &Parsed) -> Self {
        let protocol = if parsed.network == Network::V4 { parsed.protocol } else { 0 };
        Self { source: parsed.source, destination: parsed.destination, protocol, id: parsed.fragment_id }
    }
}

#[derive(Debug, Clone, Copy)]
struct Record {
    key: Key,
    seen: Now,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

/// First fragments seen lately. Bounded; memory is taken at creation.
#[derive(Debug)]
pub struct FragmentTable {
    places: Box<[[Option<Record>; WAYS]]>,
    hasher: FixedState,
}

/// No record is free: too many fragmented packets at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl FragmentTable {
    /// Room for `capacity` packets, rounded up to a power of two, at least 8. The seed keeps senders from aiming at one place.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Self {
        let places = capacity.div_ceil(WAYS).next_power_of_two();
        Self { places: vec![[None; WAYS]; places].into(), hasher: FixedState::with_seed(seed) }
    }

    fn place(&mut self, key: &Key) -> &mut [Option<Record>; WAYS] {
        let hash = self.hasher.hash_one(key);
        let mask = self.places.len() - 1;
        &mut self.places[hash as usize & mask]
    }

    /// Remembers the ports of a first fragment.
    pub fn first(&mut self, parsed: &Parsed, now: Now) -> Result<(), Full> {
        let key = Key::of(parsed);
        let record = Record {
            key,
            seen: now,
            protocol: parsed.protocol,
            source_port: parsed.source_port,
            destination_port: parsed.destination_port,
        };
        let place = self.place(&key);
        let same = place.iter().position(|old| old.is_some_and(|old| old.key == key));
        let age = |old: &Option<Record>| old.map_or(u64::MAX, |old| now.since(old.seen));
        let oldest = || {
            let oldest = (0..WAYS).max_by_key(|way| age(&place[*way]))?;
            (age(&place[oldest]) > HELD_NS).then_some(oldest)
        };
        let at = same.or_else(oldest).ok_or(Full)?;
        place[at] = Some(record);
        Ok(())
    }

    /// Gives a later fragment the protocol and ports of its first one. False when that one is not known.
    #[must_use]
    pub fn later(&mut self, parsed: &mut Parsed, now: Now) -> bool {
        let key = Key::of(parsed);
        let known =
            self.place(&key).iter().flatten().find(|old| old.key == key && now.since(old.seen) <= TIMEOUT_NS);
        if let Some(record) = known {
            parsed.protocol = record.protocol;
            parsed.source_port = record.source_port;
            parsed.destination_port = record.destination_port;
        }
        known.is_some()
    }
}

/// Cuts the IPv4 packet in `buffer` so that no piece is longer than `mtu` (RFC 791, section 3.2). The first piece stays
/// in `buffer`; the others go to buffers taken from `spare` and are handed to `piece` in order, each with an Ethernet
/// header. False, with nothing changed and nothing taken, when there are too few spare buffers or they are too small.
#[must_use]
pub fn split<B: Buffer>(
    buffer: &mut B,
    parsed: &Parsed,
    mtu: u16,
    spare: &mut Vec<B>,
    mut piece: impl FnMut(B),
) -> bool {
    let header_length = usize::from(parsed.transport) - ETHERNET.min(usize::from(parsed.transport));
    let end = usize::from(parsed.end);
    let start = usize::from(parsed.transport);
    let payload_max = usize::from(mtu).saturating_sub(header_length) & !7;
    let (Some(fixed), true) = (chunk::<20>(buffer.bytes(), ETHERNET).copied(), payload_max > 0) else {
        return false;
    };
    let payload = end.saturating_sub(start);
    let pieces = payload.div_ceil(payload_max);
    let enough = spare.len() + 1 >= pieces && buffer.bytes().len() >= end;
    let room = |spare: &B| spare.tailroom() + spare.bytes().len() >= start + payload_max;
    if !enough || pieces < 2 || !spare.iter().rev().take(pieces - 1).all(room) {
        return false;
    }
    let field = u16::from_be_bytes([fixed[6], fixed[7]]);
    // Options without the copy flag belong to the first piece only; they are made no-operations in the others.
    let mut header = [0u8; ETHERNET + 60];
    header[..start].copy_from_slice(&buffer.bytes()[..start]);
    keep_copied_options(header.get_mut(ETHERNET + 20..start).unwrap_or_default());
    for index in 1..pieces {
        let from = start + index * payload_max;
        let bytes = &buffer.bytes()[from..end.min(from + payload_max)];
        let Some(mut copy) = spare.pop() else { return false };
        if copy.set_len(start + bytes.len()) {
            put_slice(copy.bytes_mut(), 0, &header[..start]);
            put_slice(copy.bytes_mut(), start, bytes);
            let more = index + 1 < pieces || field & 0x2000 != 0;
            finish_piece(copy.bytes_mut(), start, field + (index * payload_max / 8) as u16, more);
        }
        piece(copy);
    }
    let cut = buffer.set_len(start + payload_max);
    finish_piece(buffer.bytes_mut(), start, field, true);
    cut
}

fn finish_piece(frame: &mut [u8], start: usize, field: u16, more: bool) {
    let total = length16(frame.len() - ETHERNET);
    put(frame, ETHERNET + 2, total.to_be_bytes());
    let flags = if more { 0x2000 } else { 0 };
    put(frame, ETHERNET + 6, (field & 0x1fff | flags).to_be_bytes());
    put(frame, ETHERNET + 10, [0, 0]);
    let sum = frame.get(ETHERNET..start).map_or(0, checksum::of);
    put(frame, ETHERNET + 10, sum.to_be_bytes());
}

/// Overwrites options that only the first fragment carries (RFC 791, section 3.1: copied flag clear) with no-operations. What
/// follows a malformed one is no option, as where source routes are looked for: it must not become one.
fn keep_copied_options(mut options: &mut [u8]) {
    const NO_OPERATION: u8 = 1;
    loop {
        let length = match options {
            [NO_OPERATION, ..] => 1,
            [] | [0, ..] => return,
            [_, length, ..] if *length >= 2 => usize::from(*length),
            [_, ..] => return,
        };
        let Some((option, rest)) = options.split_at_mut_checked(length) else { return };
        if option[0] & 0x80 == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::VecBuffer;
    use crate::parse::{Piece, parse};
    use crate::read::be16;
    use crate::testing::frames::{self, Ends};

    fn ends() -> Ends {
        Ends::of_pod(vswitch_model::Mac([2; 6]), [10, 0, 0, 1].into(), [10, 0, 0, 2].into())
    }

    #[test]
    fn what_follows_a_malformed_option_does_not_become_one() {
        for (before, after) in [
            // Stamps of time go, the security option and what ends the list stay.
            (&[68, 4, 5, 0, 130, 3, 7, 1, 7, 3, 4, 0][..], &[1, 1, 1, 1, 130, 3, 7, 1, 1, 1, 1, 0][..]),
            // A length of 0 would make it endless; the strict source route behind it is none.
            (&[7, 0, 137, 7, 4, 1, 2, 3], &[7, 0, 137, 7, 4, 1, 2, 3]),
            (&[1, 7, 1, 137, 3, 4, 0, 0], &[1, 7, 1, 137, 3, 4, 0, 0]),
            (&[7, 9, 137, 3], &[7, 9, 137, 3]),
        ] {
            let mut options = before.to_vec();
            keep_copied_options(&mut options);
            assert_eq!(options, after);
        }
    }

    #[test]
    fn later_fragments_get_the_ports_of_the_first() {
        let mut table = FragmentTable::new(16, 1);
        let whole = frames::may_fragment(ends().udp(5000, 6000, &[7; 64]), 7);
        let [first, later] = frames::cut_v4(&whole, 32);
        let mut parsed = parse(&later).unwrap();
        assert_eq!(parsed.piece, Piece::Later);
        assert!(!table.later(&mut parsed, Now(0)));
        table.first(&parse(&first).unwrap(), Now(0)).unwrap();
        assert!(table.later(&mut parsed, Now(TIMEOUT_NS)));
        assert_eq!((parsed.source_port, parsed.destination_port), (5000, 6000));
        assert!(!table.later(&mut parsed, Now(TIMEOUT_NS + 1)), "forgotten in time");
    }

    #[test]
    fn a_full_table_refuses_the_newcomer_while_its_records_are_young() {
        let mut table = FragmentTable::new(8, 1);
        let first =
            |id| Parsed { piece: Piece::First, network: Network::V4, fragment_id: id, ..Parsed::EMPTY };
        for id in 0..8 {
            table.first(&first(id), Now(u64::from(id))).unwrap();
        }
        assert_eq!(table.first(&first(8), Now(HELD_NS)), Err(Full));
        assert_eq!(table.first(&first(0), Now(HELD_NS)), Ok(()), "a repeated one keeps its record");
        // Packet 1 is the oldest now, and old enough to give way.
        assert_eq!(table.first(&first(8), Now(HELD_NS + 2)), Ok(()));
        let known = [1, 0, 2, 8].map(|id| {
            let mut later = Parsed { piece: Piece::Later, ..first(id) };
            table.later(&mut later, Now(HELD_NS + 2))
        });
        assert_eq!(known, [false, true, true, true]);
        assert_eq!(table.first(&first(9), Now(TIMEOUT_NS * 2)), Ok(()));
    }

    proptest! {
        #[test]
        fn pieces_fit_and_join_to_the_whole(length in 0usize..3000, mtu in 68u16..1600, spares in 0usize..60) {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let frame = frames::may_fragment(ends().udp(1, 2, &payload), 7);
            let parsed = parse(&frame).unwrap();
            prop_assume!(parsed.ip_length() > mtu);
            let mut spare = vec![VecBuffer::of(&[]); spares];
            let mut buffer = VecBuffer::of(&frame);
            let mut pieces = Vec::new();
            if !split(&mut buffer, &parsed, mtu, &mut spare, |piece| pieces.push(piece)) {
                prop_assert_eq!(buffer.bytes(), &frame[..]);
                prop_assert_eq!((spare.len(), pieces.len()), (spares, 0));
                return Ok(());
            }
            prop_assert_eq!(spare.len() + pieces.len(), spares);
            let mut joined = Vec::new();
            pieces.insert(0, buffer);
            for (index, piece) in pieces.iter().enumerate() {
                let parsed = parse(piece.bytes()).unwrap();
                prop_assert!(parsed.ip_length() <= mtu);
                prop_assert_eq!(parsed.piece, if index == 0 { Piece::First } else { Piece::Later });
                prop_assert_eq!(usize::from(be16(piece.bytes(), 20).unwrap() & 0x1fff) * 8, joined.len());
                joined.extend_from_slice(&piece.bytes()[34..]);
            }
            prop_assert_eq!(&joined[..], &frame[34..]);
        }
    }
}
