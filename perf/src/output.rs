//! What people get: files, and text on standard output.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Whether a file could be written here: asked before a run of minutes, for one that cannot be kept.
///
/// # Errors
///
/// [`Error::File`].
pub fn check_writable(path: &Path) -> Result<()> {
    let failed = |problem: String| Error::File { file: path.to_owned(), problem };
    if path.is_dir() {
        return Err(failed("it is a folder, and results are a file".to_owned()));
    }
    let opened = match target(path) {
        Target::File(file) => beside(&file).map(drop),
        Target::Device => std::fs::OpenOptions::new().append(true).open(path).map(drop),
    };
    opened.map_err(|error| failed(format!("results could not be written here: {error}")))
}

/// Writes a file in one step: a reader sees all of it or what was there before. What a link leads to is written, not the
/// link; what is no plain file (a pipe, a device) is written to, not replaced.
///
/// # Errors
///
/// [`Error::File`]; what was there before is still there then.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let written = match target(path) {
        Target::File(file) => replace(&file, text),
        Target::Device => std::fs::OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut device| device.write_all(text.as_bytes())),
    };
    written.map_err(|error| Error::File { file: path.to_owned(), problem: error.to_string() })
}

/// Prints. Nobody reading any more is no error: whoever closed the pipe has seen enough.
///
/// # Errors
///
/// [`Error::Setup`] when it cannot be written for another reason.
pub fn say(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::setup("write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// The same to standard error, where nothing can be done about a failure, and none may cost the results.
pub fn hint(text: &str) {
    let _written = std::io::stderr().lock().write_all(text.as_bytes());
}

enum Target {
    File(PathBuf),
    Device,
}

fn target(path: &Path) -> Target {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Target::Device,
        Ok(_) => Target::File(path.canonicalize().unwrap_or_else(|_| path.to_owned())),
        // Nothing there, or a link to nothing.
        Err(_) => Target::File(std::fs::read_link(path).unwrap_or_else(|_| path.to_owned())),
    }
}

/// A new file in the same folder, which goes away if it is not put in place.
fn beside(file: &Path) -> std::io::Result<NamedTempFile> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vswitch-perf-").permissions(std::fs::Permissions::from_mode(0o644));
    builder.tempfile_in(folder.unwrap_or_else(|| Path::new(".")))
}

fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut new = beside(file)?;
    new.write_all(text.as_bytes())?;
    new.persist(file).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_a_link_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.json"), folder.path().join("link"));
        write(&file, "before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        check_writable(&link).unwrap();
        write(&link, "after").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "after");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_pipe_is_written_to_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read_to_string(pipe).unwrap()
        });
        write(&pipe, "text").unwrap();
        assert_eq!(reader.join().unwrap(), "text");
        assert!(!std::fs::metadata(&pipe).unwrap().is_file());
    }

    #[test]
    fn where_nothing_can_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        check_writable(&folder.path().join("a.json")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing = folder.path().join("none").join("a.json");
        for (path, expected) in [(folder.path(), "it is a folder"), (&missing, "No such file")] {
            let error = check_writable(path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&path.display().to_string()), "{error}");
        }
    }
}
