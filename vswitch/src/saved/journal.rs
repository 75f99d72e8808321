//! The journal as a file that grows at its end.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::form;

/// A journal that is open to be added to.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    bytes: u64,
    is_new: bool,
}

impl Journal {
    /// Begins a journal to the file of checksum `base`, in place of any other. Its directory is yet to be synced.
    pub(super) fn create(path: &Path, base: u64, record: &[u8]) -> std::io::Result<Self> {
        let mut bytes = form::journal_header(base).to_vec();
        bytes.extend_from_slice(record);
        let mut file = File::create(path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok(Self { file, bytes: bytes.len() as u64, is_new: true })
    }

    /// Goes on with a journal of which the first `bytes` are whole; what follows them is cut off.
    pub(super) fn open(path: &Path, bytes: u64) -> std::io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        file.sync_all()?;
        Ok(Self { file, bytes, is_new: false })
    }

    pub(super) fn append(&mut self, record: &[u8]) -> std::io::Result<()> {
        self.is_new = false;
        self.file.write_all(record)?;
        self.bytes += record.len() as u64;
        self.file.sync_data()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing was added since it was begun.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }
}
