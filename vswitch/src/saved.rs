//! The applied state on disk, from which the engine starts again without asking anybody.
//!
//! ```text
//! | magic 8 | checksum 8, over what follows | generation 8 | protobuf DesiredState |      integers little-endian
//! ```
//!
//! Written beside and renamed over the old one, so that a crash or a full disk leaves the old one whole.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use vswitch_model::api::engine as pb;
use vswitch_model::{DesiredState, Generation};

/// Names the kind of file and the version of its form.
const MAGIC: &[u8; 8] = b"vswstat1";
const HEADER: usize = 24;

/// Where the applied state is kept.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
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
        Self { path: path.into() }
    }

    /// Reads what was saved last; None when nothing was. A file that is damaged stays where it is: see
    /// [`StateFile::set_aside`].
    pub fn load(&self) -> Result<Option<(Generation, DesiredState)>, SavedError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(self.io(&self.path, "read it", cause)),
        };
        decode(&bytes).map(Some).map_err(|problem| SavedError::Damaged { path: self.path.clone(), problem })
    }

    /// Replaces what was saved by `state`, and returns when it is on disk.
    pub fn save(&self, generation: Generation, state: &DesiredState) -> Result<(), SavedError> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory).map_err(|cause| self.io(directory, "make its directory", cause))?;
        }
        let beside = self.beside("new");
        let written = write_synced(&beside, &encode(generation, state));
        if let Err(cause) = written.and_then(|()| fs::rename(&beside, &self.path)) {
            // The name beside is ours alone; what is left there is of no use, and may be what filled the disk.
            fs::remove_file(&beside).ok();
            return Err(self.io(&self.path, "write it", cause));
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|cause| self.io(directory, "sync its directory", cause))
    }

    /// Moves a damaged file to the same name with `.damaged` behind it, for a person to look at, and says where.
    pub fn set_aside(&self) -> Result<PathBuf, SavedError> {
        let aside = self.beside("damaged");
        fs::rename(&self.path, &aside).map_err(|cause| self.io(&self.path, "set it aside", cause))?;
        Ok(aside)
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

fn encode(generation: Generation, state: &DesiredState) -> Vec<u8> {
    let body = pb::DesiredState::from(state.clone());
    let mut bytes = Vec::with_capacity(HEADER + body.encoded_len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&generation.0.to_le_bytes());
    body.encode(&mut bytes).expect("a vector grows as needed");
    let sum = checksum(&bytes[16..]).to_le_bytes();
    bytes[8..16].copy_from_slice(&sum);
    bytes
}

fn decode(bytes: &[u8]) -> Result<(Generation, DesiredState), String> {
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(format!("{} bytes are less than its header", bytes.len()));
    };
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    if &header[..8] != MAGIC {
        return Err("it does not start as a state file of this version does".to_owned());
    }
    if word(8) != checksum(&bytes[16..]) {
        return Err("its checksum is wrong".to_owned());
    }
    let message = pb::DesiredState::decode(body).map_err(|error| error.to_string())?;
    let state = DesiredState::try_from(message).map_err(|invalid| invalid.to_string())?;
    state.check().map_err(|invalid| invalid.to_string())?;
    Ok((Generation(word(16)), state))
}

/// FNV-1a, 64 bits: enough to notice a torn or altered file, and the same in every build.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::one_pod;

    #[test]
    fn what_was_saved_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::new(directory.path().join("deep/engine.state"));
        assert!(file.load().unwrap().is_none());
        for generation in [7, 8] {
            file.save(Generation(generation), &one_pod()).unwrap();
            assert_eq!(file.load().unwrap(), Some((Generation(generation), one_pod())));
        }
        let left: Vec<_> = fs::read_dir(directory.path().join("deep")).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn any_damage_is_noticed_and_the_file_can_be_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.state");
        let file = StateFile::new(&path);
        let whole = encode(Generation(7), &one_pod());
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "cut to {length}");
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 0x20;
            assert!(decode(&altered).is_err(), "altered at {at}");
        }
        fs::write(&path, b"junk").unwrap();
        let error = file.load().unwrap_err().to_string();
        assert!(error.ends_with("is damaged: 4 bytes are less than its header"), "{error}");
        let aside = file.set_aside().unwrap();
        assert_eq!(fs::read(aside).unwrap(), b"junk");
        assert!(file.load().unwrap().is_none());
    }

    #[test]
    fn a_save_that_fails_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::new(directory.path().join("engine.state"));
        file.save(Generation(7), &one_pod()).unwrap();
        // A directory where the new file would be written: the write fails whoever we are.
        fs::create_dir(directory.path().join("engine.state.new")).unwrap();
        let error = file.save(Generation(8), &one_pod()).unwrap_err().to_string();
        assert!(error.contains("cannot write it"), "{error}");
        assert_eq!(file.load().unwrap().map(|(generation, _)| generation), Some(Generation(7)));
    }
}
