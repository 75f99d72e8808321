//! Fixed-offset access to a packet's bytes, checked: an access beyond the end is `None` or false, never a panic.

/// `N` bytes from `at`.
#[inline]
pub(crate) fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// One byte.
#[inline]
pub(crate) fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// A 16-bit number, big endian.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    chunk(bytes, at).map(|chunk| u16::from_be_bytes(*chunk))
}

/// A 32-bit number, big endian.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    chunk(bytes, at).map(|chunk| u32::from_be_bytes(*chunk))
}

/// Writes `value` from `at`. False, and nothing changed, when it does not fit.
#[inline]
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> bool {
    match bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        Some(chunk) => {
            *chunk = value;
            true
        }
        None => false,
    }
}

/// Writes a slice from `at`. False, and nothing changed, when it does not fit.
#[inline]
pub(crate) fn put_slice(bytes: &mut [u8], at: usize, value: &[u8]) -> bool {
    match at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end)) {
        Some(target) => {
            target.copy_from_slice(value);
            true
        }
        None => false,
    }
}

/// A length as it stands in a header. Packets are smaller than 64 KiB; a longer one saturates, and no check passes it.
#[inline]
pub(crate) fn length16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}
