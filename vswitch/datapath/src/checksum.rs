//! The Internet checksum (RFC 1071), its incremental update (RFC 1624), and the finishing of partial checksums.

use std::net::IpAddr;

use crate::packet::PartialChecksum;
use crate::read::{be16, put};

/// A sum of 16-bit words that has not been folded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Self = Self(0);

    /// Adds bytes, which begin at an even offset of what is summed; an odd last byte is padded with zero.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // In the machine's order, which needs no swap for each word: swapping the folded sum comes to the same (RFC 1071,
        // section 2.B). A 32-bit word is worth the sum of its halves modulo 0xffff, so widths may be mixed.
        let (words, rest) = bytes.as_chunks::<4>();
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let sum = Self(sum + u64::from(u32::from_ne_bytes(last))).fold();
        Self(self.0 + u64::from(u16::from_be(sum)))
    }

    /// Adds one 16-bit number.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds the pseudo-header (RFC 793, section 3.1; RFC 8200, section 8.1) of an upper-layer packet of `length` bytes.
    #[must_use]
    pub fn pseudo(self, source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Self {
        let addresses = self.address(source).address(destination);
        Self(addresses.0 + u64::from(protocol) + length as u64)
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// The sum folded to 16 bits, not inverted.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        // At most 2^33, 2^18, 2^16 + 2, and 2^16 - 1: no step depends on what the one before left over.
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }

    /// The checksum: the folded sum, inverted.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }
}

/// The checksum of `bytes`, in which the checksum field is zero.
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    Sum::ZERO.bytes(bytes).finish()
}

/// Whether the checksum inside an IPv4 header without options is right.
#[inline]
#[must_use]
pub fn is_right_v4(header: &[u8; 20]) -> bool {
    // Whether a sum is 0xffff does not depend on which byte of its words comes first (RFC 1071, section 2.B).
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    sum != 0 && sum.is_multiple_of(0xffff)
}

/// Whether the checksum inside `bytes` is right.
#[must_use]
pub fn is_right(bytes: &[u8]) -> bool {
    Sum::ZERO.bytes(bytes).fold() == 0xffff
}

/// The checksum after one 16-bit word it covers changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
#[must_use]
pub fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    // At most 3 * 0xffff, so that two steps fold it.
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + sum) as u16
}

/// Finishes a checksum that the sender left, as `skb_checksum_help` (net/core/dev.c) does: sums from `start` to the end,
/// the pseudo-header's sum in the field included. A result of zero is sent as 0xffff, since zero means none in UDP.
/// False, and nothing changed, when it would lie outside the frame.
#[must_use]
pub fn finish_partial(frame: &mut [u8], partial: PartialChecksum) -> bool {
    let start = usize::from(partial.start);
    let field = start + usize::from(partial.offset);
    let Some(summed) = frame.get(start..).filter(|_| be16(frame, field).is_some()) else { return false };
    let checksum = match of(summed) {
        0 => 0xffff,
        checksum => checksum,
    };
    put(frame, field, checksum.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn equals_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(of(&bytes), slow(&bytes));
        }

        #[test]
        fn a_fold_is_the_sum_of_the_words(sum: u64) {
            let mut slow = sum;
            while slow >> 16 != 0 {
                slow = (slow >> 16) + (slow & 0xffff);
            }
            prop_assert_eq!(u64::from(Sum(sum).fold()), slow);
        }

        #[test]
        fn a_header_is_right_when_its_sum_is(mut header: [u8; 20], wrong in 0usize..40) {
            put(&mut header, 10, [0, 0]);
            let sum = of(&header);
            put(&mut header, 10, sum.to_be_bytes());
            prop_assert!(is_right_v4(&header));
            if let Some(byte) = header.get_mut(wrong) {
                *byte ^= 0x10;
            }
            prop_assert_eq!(is_right_v4(&header), is_right(&header));
        }

        #[test]
        fn an_update_equals_a_new_sum(mut bytes in proptest::collection::vec(any::<u8>(), 22..60), new: u16, at in 1usize..10) {
            // A header is never all zero; that is the one case in which +0 and -0 differ.
            bytes[0] = 0x45;
            put(&mut bytes, 20, [0, 0]);
            let before = of(&bytes);
            let old = be16(&bytes, at * 2).unwrap();
            put(&mut bytes, at * 2, new.to_be_bytes());
            prop_assert_eq!(updated(before, old, new), of(&bytes));
        }
    }

    #[test]
    fn the_example_of_rfc_1624_keeps_its_sign() {
        assert_eq!(updated(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_partial_checksum_out_of_the_frame_is_refused() {
        let mut frame = [0u8; 20];
        assert!(!finish_partial(&mut frame, PartialChecksum { start: 14, offset: 5 }));
        assert!(!finish_partial(&mut frame, PartialChecksum { start: 30, offset: 0 }));
        assert!(finish_partial(&mut frame, PartialChecksum { start: 14, offset: 4 }));
        assert_eq!(frame[18..], [0xff, 0xff]);
    }
}
