//! One generic netlink request at a time: send, gather the answers, wait for the acknowledgement.

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlaBuffer, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// Family id of the controller, which is fixed (`GENL_ID_CTRL`, linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// A socket bound to one family, in the namespace of the thread that opened it.
pub(super) struct Genl {
    socket: Socket,
    family: u16,
    version: u8,
    sequence: u32,
}

impl Genl {
    /// Opens a socket and asks the kernel for the family's number. ENOENT: this kernel has no such family.
    pub(super) fn open(family: &str, version: u8) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut genl = Self { socket, family: CONTROLLER, version: 1, sequence: 0 };
        let answers = genl.call(CTRL_CMD_GETFAMILY, &[text(CTRL_ATTR_FAMILY_NAME, family)])?;
        let id = answers.iter().find_map(|answer| find(answer, CTRL_ATTR_FAMILY_ID));
        let id = id.and_then(|id| <[u8; 2]>::try_from(id).ok()).ok_or_else(|| malformed("no family id"))?;
        genl.family = u16::from_ne_bytes(id);
        genl.version = version;
        Ok(genl)
    }

    /// One request; the attributes of each answer, as bytes.
    pub(super) fn call(&mut self, command: u8, attributes: &[DefaultNla]) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let body = Body { command, version: self.version, attributes: emit(attributes) };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        header.sequence_number = self.sequence;
        let message = GenlMessage::new(GenlHeader { cmd: command, version: self.version }, body, self.family);
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.answers()
    }

    fn answers(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<GenlMessage<Body>>::deserialize(rest)
                    .map_err(|error| malformed(&error))?;
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(message) => answers.push(message.payload.attributes),
                    _ => {}
                }
            }
        }
    }
}

/// The part of a message behind the generic netlink header: attributes, left as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    command: u8,
    version: u8,
    attributes: Vec<u8>,
}

impl GenlFamily for Body {
    fn family_name() -> &'static str {
        "any"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        self.version
    }
}

impl Emitable for Body {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Body {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { command: header.cmd, version: header.version, attributes: bytes.to_vec() })
    }
}

/// A string attribute, with the NUL byte that ends it.
pub(super) fn text(kind: u16, value: &str) -> DefaultNla {
    DefaultNla::new(kind, [value.as_bytes(), &[0]].concat())
}

/// A 32-bit attribute.
pub(super) fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

/// An attribute that says yes by being there.
pub(super) fn flag(kind: u16) -> DefaultNla {
    DefaultNla::new(kind, Vec::new())
}

/// An attribute that holds others.
pub(super) fn nest(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, emit(inner))
}

fn emit(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// The attributes of `bytes`, up to the first malformed one: kind and value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla: NlaBuffer<&[u8]>| {
        // `value()` borrows the iterator's item; the same bytes, borrowed from the input.
        (nla.kind(), &nla.into_inner()[4..usize::from(nla.length())])
    })
}

/// The value of the first attribute of this kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

fn malformed(what: &(impl std::fmt::Display + ?Sized)) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("generic netlink answer: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_are_found_again() {
        let bytes = emit(&[number(1, 7), nest(2, &[text(3, "eth0"), flag(4)])]);
        assert_eq!(find(&bytes, 1), Some(&7_u32.to_ne_bytes()[..]));
        let inner = find(&bytes, 2).unwrap();
        assert_eq!(find(inner, 3), Some(&b"eth0\0"[..]));
        assert_eq!(find(inner, 4), Some(&[][..]));
        assert_eq!(find(inner, 5), None);
    }

    #[test]
    fn malformed_attributes_end_the_walk() {
        for bytes in [&[3, 0, 1, 0][..], &[200, 0, 1, 0, 0], &[1], &[]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn an_unknown_family_is_said_to_be_missing() {
        let error = Genl::open("no-such-family", 1).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOENT));
    }
}
