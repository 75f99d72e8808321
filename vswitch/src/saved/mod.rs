//! The applied state on disk, from which the engine starts again without asking anybody.
//!
//! A file holds a whole state, and a journal beside it (`.journal`) the changes since, so that a change costs what is
//! written of it. What is in them: `form.rs`. The file is written beside and renamed over the old one, the journal grows at
//! its end, so that a crash or a full disk leaves what was there. When the journal is longer than the file, the next change
//! writes a whole state again.

mod form;
mod journal;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use vswitch_model::{Delta, DesiredState, Generation};

use journal::Journal;

/// A journal may be this long, in bytes, however short the file is.
const JOURNAL_MIN: u64 = 64 << 10;

/// Where the applied state is kept.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What the file holds; None: not known, or not to be built on.
    base: Option<Base>,
    /// Its journal, once there is one.
    journal: Option<Journal>,
}

/// A whole state on disk.
#[derive(Debug, Clone, Copy)]
struct Base {
    /// By which its journal knows it.
    checksum: u64,
    bytes: u64,
}

/// What went wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The kernel refused to read or write it.
    #[error("state file {}: cannot {what}: {cause}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// Its content is not what was written.
    #[error("state file {} is damaged: {problem}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl StateFile {
    /// The file at `path`, which need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), base: None, journal: None }
    }

    /// Reads what was saved last; None when nothing was. What a crash left unfinished at the journal's end, which nobody
    /// was told is saved, is cut off. Files that are damaged stay where they are: see [`StateFile::set_aside`].
    pub fn load(&mut self) -> Result<Option<(Generation, DesiredState)>, SavedError> {
        (self.base, self.journal) = (None, None);
        let Some(bytes) = self.read(&self.path)? else { return Ok(None) };
        let damaged = |problem| SavedError::Damaged { path: self.path.clone(), problem };
        let (generation, mut state) = form::decode(&bytes).map_err(damaged)?;
        let base = Base { checksum: form::sum_of(&bytes), bytes: bytes.len() as u64 };
        let path = self.beside("journal");
        let Some(bytes) = self.read(&path)? else {
            self.base = Some(base);
            return Ok(Some((generation, state)));
        };
        let damaged = |problem| SavedError::Damaged { path: path.clone(), problem };
        let read = form::read_journal(&bytes, base.checksum, generation, &mut state).map_err(damaged)?;
        // Damage that the checksums do not show must not come into force either.
        state.check().map_err(|invalid| damaged(invalid.to_string()))?;
        if let Some(length) = read.length {
            let journal = Journal::open(&path, length);
            self.journal = Some(journal.map_err(|cause| self.io(&path, "cut its end off", cause))?);
        }
        self.base = Some(base);
        Ok(Some((read.generation, state)))
    }

    /// Replaces what was saved by `state`, and returns when it is on disk.
    pub fn save(&mut self, generation: Generation, state: &DesiredState) -> Result<(), SavedError> {
        (self.base, self.journal) = (None, None);
        let directory = self.directory();
        fs::create_dir_all(directory).map_err(|cause| self.io(directory, "make its directory", cause))?;
        let beside = self.beside("new");
        let bytes = form::encode(generation, state);
        let written = write_synced(&beside, &bytes);
        if let Err(cause) = written.and_then(|()| fs::rename(&beside, &self.path)) {
            // The name beside is ours alone; what is left there is of no use, and may be what filled the disk.
            fs::remove_file(&beside).ok();
            return Err(self.io(&self.path, "write it", cause));
        }
        self.sync_directory()?;
        // Of no more use: it names the file it belongs to, so it does no harm if it stays.
        fs::remove_file(self.beside("journal")).ok();
        self.base = Some(Base { checksum: form::sum_of(&bytes), bytes: bytes.len() as u64 });
        Ok(())
    }

    /// Adds what leads from what was saved last to `generation`, and returns when it is on disk. False: nothing was
    /// done, and a whole state is to be saved.
    pub fn append(&mut self, generation: Generation, delta: Delta) -> Result<bool, SavedError> {
        let Some(base) = self.base else { return Ok(false) };
        if self.journal.as_ref().is_some_and(|journal| journal.bytes() > base.bytes.max(JOURNAL_MIN)) {
            return Ok(false);
        }
        let record = form::record(generation, delta);
        let path = self.beside("journal");
        // After an error it is not known what the journal holds: a whole state follows.
        self.base = None;
        let journal = match self.journal.take() {
            Some(mut journal) => journal.append(&record).map(|()| journal),
            None => Journal::create(&path, base.checksum, &record),
        };
        let journal = journal.map_err(|cause| self.io(&path, "write it", cause))?;
        if journal.is_new() {
            self.sync_directory()?;
        }
        (self.base, self.journal) = (Some(base), Some(journal));
        Ok(true)
    }

    /// Moves damaged files to the same names with `.damaged` behind them, for a person to look at, and says where.
    pub fn set_aside(&mut self) -> Result<PathBuf, SavedError> {
        (self.base, self.journal) = (None, None);
        let aside = self.beside("damaged");
        fs::rename(&self.path, &aside).map_err(|cause| self.io(&self.path, "set it aside", cause))?;
        let journal = self.beside("journal");
        match fs::rename(&journal, self.beside("journal.damaged")) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                Err(self.io(&journal, "set it aside", cause))
            }
            _ => Ok(aside),
        }
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, SavedError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(self.io(path, "read it", cause)),
        }
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn sync_directory(&self) -> Result<(), SavedError> {
        let directory = self.directory();
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|cause| self.io(directory, "sync its directory", cause))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(suffix);
        PathBuf::from(name)
    }

    fn io(&self, path: &Path, what: &'static str, cause: std::io::Error) -> SavedError {
        SavedError::Io { path: path.to_owned(), what, cause }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
