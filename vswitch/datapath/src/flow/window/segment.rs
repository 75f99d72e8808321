//! What a TCP header says of sequence numbers.

use super::SCALE_MAX;
use crate::flow::TcpFlags;
use crate::parse::Parsed;
use crate::read::chunk;

/// A TCP segment, as its connection is followed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSegment<'a> {
    /// Its flags.
    pub flags: TcpFlags,
    /// The number of its first byte, or of its SYN.
    pub sequence: u32,
    /// The next number its sender waits for; of no meaning without ACK.
    pub acknowledgement: u32,
    /// The window its sender announces, as it is in the header.
    pub window: u16,
    /// Bytes of data.
    pub length: u16,
    /// The options of its header.
    pub options: &'a [u8],
}

impl<'a> TcpSegment<'a> {
    /// Reads the TCP header of a frame that was parsed as `parsed`. None when it is not there.
    #[inline]
    #[must_use]
    pub fn read(frame: &'a [u8], parsed: &Parsed) -> Option<Self> {
        let start = usize::from(parsed.transport);
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] =
            *chunk::<20>(frame, start)?;
        let header = usize::from(offset >> 4) * 4;
        Some(Self {
            flags: TcpFlags(flags),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
            window: u16::from_be_bytes([w0, w1]),
            length: parsed.end.saturating_sub(parsed.transport).saturating_sub(header as u16),
            options: frame.get(start + 20..start + header).unwrap_or_default(),
        })
    }

    /// The number behind its last; SYN and FIN count as one each.
    #[inline]
    #[must_use]
    pub fn end(&self) -> u32 {
        let flags = self.flags.0;
        let marks = u32::from(flags & TcpFlags::FIN.0) + u32::from((flags & TcpFlags::SYN.0) >> 1);
        self.sequence.wrapping_add(u32::from(self.length)).wrapping_add(marks)
    }

    /// By how many bits a SYN says that windows are shifted (RFC 7323, section 2.2), at most 14. None: it does not say.
    #[must_use]
    pub fn scale(&self) -> Option<u8> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        const WINDOW_SCALE: u8 = 3;
        let mut options = self.options;
        loop {
            options = match options {
                [WINDOW_SCALE, 3, shift, ..] => return Some((*shift).min(SCALE_MAX)),
                [NO_OPERATION, rest @ ..] => rest,
                [] | [END, ..] => return None,
                [_, length, ..] if *length >= 2 => options.get(usize::from(*length)..).unwrap_or_default(),
                [_, ..] => return None,
            };
        }
    }
}
