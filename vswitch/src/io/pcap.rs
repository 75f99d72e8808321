//! A port on captures: receives what a file holds, and writes down what it is to send. For looking closely, not for traffic:
//! it writes to a file system.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pcap_file::pcap::{PcapHeader, PcapReader};
use pcap_file::{DataLink, Endianness, PcapError as FormatError, TsResolution};
use vswitch_datapath::{Buffer, Offload, Packet, PortIndex};
use vswitch_model::DropReason;

use super::frame::{CHUNK, HEADROOM};
use super::{Capabilities, Frame, FramePool, Port, PortState, PortStatistics, Refused, offload};

/// Most bytes of packets a replayed file may hold: it is read whole.
pub const REPLAY_MAX: usize = 1 << 30;

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The file cannot be opened or written.
    #[error("capture {}: {source}", file.display())]
    File {
        /// Its path.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a capture that can be replayed.
    #[error("capture {}: {reason}; a pcap file of Ethernet frames is needed (tcpdump -w, not pcapng)", file.display())]
    Format {
        /// Its path.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is too large to be read whole.
    #[error("capture {}: it holds more than {REPLAY_MAX} bytes", file.display())]
    TooLarge {
        /// Its path.
        file: PathBuf,
    },
}

/// Packets of one file, end to end.
#[derive(Debug, Default)]
struct Replay {
    bytes: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<usize>,
    next: usize,
}

impl Replay {
    fn peek(&self) -> Option<&[u8]> {
        let end = *self.ends.get(self.next)?;
        let start = self.next.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }
}

/// A port that receives one file and writes another.
pub struct PcapPort {
    name: String,
    index: PortIndex,
    replay: Replay,
    record: Option<BufWriter<File>>,
    /// Written since the last flush.
    unsent: bool,
    counted: PortStatistics,
}

impl std::fmt::Debug for PcapPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcapPort")
            .field("name", &self.name)
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}

impl PcapPort {
    /// A port that receives the packets of `replay`, in order and as fast as it is asked to, and writes what it sends
    /// to `record`, which is made new. Without either, it receives nothing, or forgets what it sends.
    ///
    /// # Errors
    ///
    /// [`PcapError`].
    pub fn open(
        name: &str,
        index: PortIndex,
        replay: Option<&Path>,
        record: Option<&Path>,
    ) -> Result<Self, PcapError> {
        let replay = replay.map(load).transpose()?.unwrap_or_default();
        let record = record.map(create).transpose()?;
        let counted = PortStatistics::default();
        Ok(Self { name: name.to_owned(), index, replay, record, unsent: false, counted })
    }

    /// Packets of the replayed file that have not been received yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.replay.ends.len() - self.replay.next
    }
}

impl Port for PcapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> PortIndex {
        self.index
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { partial_checksum: false, large: false, frame_length_max: CHUNK - HEADROOM }
    }

    fn state(&self) -> PortState {
        PortState::Up
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Packet<Frame>>, budget: usize) -> usize {
        let budget = budget.min(into.capacity() - into.len());
        let mut received = 0;
        while received < budget {
            let Some(bytes) = self.replay.peek() else { break };
            let Some(mut frame) = pool.take() else {
                self.counted.frames_exhausted += 1;
                break;
            };
            if frame.fill(bytes) {
                into.push(Packet { buffer: frame, port: self.index, offload: Offload::default() });
                received += 1;
            } else {
                self.counted.receive_dropped += 1;
                pool.put(frame);
            }
            self.replay.next += 1;
        }
        received
    }

    fn waiting(&mut self) -> usize {
        self.left()
    }

    fn transmit(&mut self, pool: &mut FramePool, mut packet: Packet<Frame>) -> Result<(), Refused> {
        if !offload::settle(&mut packet) {
            return Err(Refused::new(packet, DropReason::TransmitRefused));
        }
        if let Some(record) = &mut self.record {
            let bytes = packet.buffer.bytes();
            if write(record, bytes).is_err() {
                return Err(Refused::new(packet, DropReason::TransmitRefused));
            }
            self.unsent = true;
        }
        pool.put(packet.buffer);
        Ok(())
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.unsent)
            && let Some(record) = &mut self.record
            && record.flush().is_err()
        {
            self.counted.transmit_refused += 1;
        }
    }

    fn reap(&mut self, _: &mut FramePool) {}

    fn unsent(&self) -> bool {
        self.unsent
    }

    fn fd(&self, _: usize) -> Option<BorrowedFd<'_>> {
        None
    }

    fn statistics(&mut self) -> PortStatistics {
        self.counted
    }

    fn close(mut self: Box<Self>, _: &mut FramePool) {
        self.flush();
    }
}

fn load(file: &Path) -> Result<Replay, PcapError> {
    let failed = |error| match error {
        FormatError::IoError(source) => PcapError::File { file: file.to_owned(), source },
        FormatError::IncompleteBuffer => {
            PcapError::Format { file: file.to_owned(), reason: "it ends in the middle".to_owned() }
        }
        error => PcapError::Format { file: file.to_owned(), reason: error.to_string() },
    };
    let opened = File::open(file).map_err(|source| PcapError::File { file: file.to_owned(), source })?;
    let mut reader = PcapReader::new(BufReader::new(opened)).map_err(failed)?;
    let kind = reader.header().datalink;
    if kind != DataLink::ETHERNET {
        return Err(PcapError::Format { file: file.to_owned(), reason: format!("its packets are {kind:?}") });
    }
    let mut replay = Replay::default();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.map_err(failed)?;
        replay.bytes.extend_from_slice(&packet.data);
        replay.ends.push(replay.bytes.len());
        if replay.bytes.len() > REPLAY_MAX {
            return Err(PcapError::TooLarge { file: file.to_owned() });
        }
    }
    Ok(replay)
}

fn create(file: &Path) -> Result<BufWriter<File>, PcapError> {
    let failed = |source| PcapError::File { file: file.to_owned(), source };
    let mut record = BufWriter::new(File::create(file).map_err(failed)?);
    let header = PcapHeader {
        ts_resolution: TsResolution::NanoSecond,
        endianness: Endianness::Little,
        ..PcapHeader::default()
    };
    header.write_to(&mut record).map_err(|error| match error {
        FormatError::IoError(source) => failed(source),
        error => failed(io::Error::other(error.to_string())),
    })?;
    Ok(record)
}

/// One packet as in a little-endian file of nanoseconds: pcap-file's own writer cannot be flushed.
fn write(record: &mut BufWriter<File>, bytes: &[u8]) -> io::Result<()> {
    // A clock before 1970 is not worth losing a packet for.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = bytes.len() as u32;
    for word in [now.as_secs() as u32, now.subsec_nanos(), length, length] {
        record.write_all(&word.to_le_bytes())?;
    }
    record.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Umem;
    use crate::io::testing::{frame, mark, packet};

    const PORT: PortIndex = PortIndex(2);

    fn pool() -> FramePool {
        FramePool::new(&Umem::plain(8).unwrap(), 8).unwrap()
    }

    #[test]
    fn what_is_recorded_can_be_replayed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sent.pcap");
        let mut pool = pool();
        let mut port = Box::new(PcapPort::open("pcap0", PORT, None, Some(&file)).unwrap());
        for n in 0..3 {
            let packet = packet(&mut pool, &frame(n, 60 + n as usize), PORT);
            port.transmit(&mut pool, packet).unwrap();
        }
        assert!(port.unsent());
        port.close(&mut pool);
        assert_eq!(pool.free(), 8);

        let mut port = PcapPort::open("pcap0", PORT, Some(&file), None).unwrap();
        let mut batch = Vec::with_capacity(8);
        assert_eq!((port.receive(&mut pool, &mut batch, 2), port.left()), (2, 1));
        assert_eq!((port.receive(&mut pool, &mut batch, 8), port.left()), (1, 0));
        assert_eq!(port.receive(&mut pool, &mut batch, 8), 0);
        for (n, packet) in batch.drain(..).enumerate() {
            assert_eq!((packet.port, mark(packet.buffer.bytes())), (PORT, n as u32));
            assert_eq!(packet.buffer.bytes().len(), 60 + n);
            pool.put(packet.buffer);
        }
    }

    #[test]
    fn a_packet_longer_than_a_frame_is_passed_over_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("long.pcap");
        let mut record = create(&file).unwrap();
        write(&mut record, &frame(1, CHUNK)).unwrap();
        write(&mut record, &frame(1, 60)).unwrap();
        drop(record);
        let mut pool = pool();
        let mut port = PcapPort::open("pcap0", PORT, Some(&file), None).unwrap();
        let mut batch = Vec::with_capacity(8);
        assert_eq!(port.receive(&mut pool, &mut batch, 8), 1);
        assert_eq!((batch[0].buffer.bytes().len(), port.statistics().receive_dropped), (60, 1));
        pool.put_all(batch.drain(..).map(|packet| packet.buffer));
        assert_eq!(pool.free(), 8);
    }

    #[test]
    fn what_is_no_capture_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("notes.txt");
        let message = |file: &Path| PcapPort::open("pcap0", PORT, Some(file), None).unwrap_err().to_string();
        assert!(message(&file).contains("notes.txt"));
        std::fs::write(&file, "this is a text, and longer than the header of a capture").unwrap();
        assert!(message(&file).contains("pcap file of Ethernet"), "{}", message(&file));
        let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
        header.write_to(&mut File::create(&file).unwrap()).unwrap();
        assert!(message(&file).contains("RAW"), "{}", message(&file));
    }
}
