//! Listening on a unix socket that is one process's alone.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::UnixListener;

/// How long a process that was killed may hold on to its socket.
const LET_GO: Duration = Duration::from_secs(3);
/// How often it is looked whether it has let go.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum CannotListen {
    /// Another process answers there.
    #[error("{}: another {server} is serving there; stop it, or set api_socket", path.display())]
    InUse {
        /// Who: `vswitchd` or `vswitch-agent`.
        server: &'static str,
        /// The socket.
        path: PathBuf,
    },
    /// What is there is not a socket.
    #[error("{}: is there and is not a socket; remove it, or set api_socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("{}: {}", .0.display(), .1)]
    Refused(PathBuf, #[source] io::Error),
}

/// A unix socket that is this process's: others find it in use. Dropping it removes it.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: Option<UnixListener>,
    /// Locked for as long as the socket is ours.
    _lock: File,
}

impl Socket {
    /// Binds `path`, open to its owner alone, in place of a socket that a dead process has left. `server` is who we are,
    /// for errors. Waits a few seconds for one that is about to end. To be called within a tokio runtime, and before anything is done that two of us must not both do.
    pub fn bind(server: &'static str, path: &Path) -> Result<Self, CannotListen> {
        let refused = |error| CannotListen::Refused(path.to_owned(), error);
        let in_use = || CannotListen::InUse { server, path: path.to_owned() };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(refused)?;
        }
        // Two that start at once must not both find nobody there: who holds the lock beside the socket is the one. The
        // lock file stays.
        let lock_path = beside(path, ".lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = open.map_err(|error| CannotListen::Refused(lock_path.clone(), error))?;
        let deadline = Instant::now() + LET_GO;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // Who was killed holds it until the kernel has taken all that it had.
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) => return Err(in_use()),
                Err(TryLockError::Error(error)) => return Err(CannotListen::Refused(lock_path, error)),
            }
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(CannotListen::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(in_use()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(error)),
        }
        // Under another name until it is closed to others: whatever the umask, nobody can come before.
        let new = beside(path, ".new");
        drop(std::fs::remove_file(&new));
        let listener = UnixListener::bind(&new).map_err(refused)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(refused)?;
        std::fs::rename(&new, path).map_err(refused)?;
        Ok(Self { path: path.to_owned(), listener: Some(listener), _lock: lock })
    }

    /// What connections come by: once, then none.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It is only in the way when it stays: the next process replaces it.
        drop(std::fs::remove_file(&self.path));
    }
}

/// A path with something behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
