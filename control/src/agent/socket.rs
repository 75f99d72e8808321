//! The unix socket the agent API is served on.

use std::fs::{File, OpenOptions, TryLockError};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use vswitch_model::api::MESSAGE_SIZE_MAX;
use vswitch_model::api::agent::agent_server::AgentServer;

use super::Service;

/// How long calls that are under way when the agent is stopped may take to end.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// Why the agent API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent answers there.
    #[error("{}: another vswitch-agent is serving there; stop it, or set api_socket", .0.display())]
    InUse(PathBuf),
    /// What is there is not a socket.
    #[error("{}: is there and is not a socket; remove it, or set api_socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("{}: {}", .0.display(), .1)]
    Refused(PathBuf, #[source] io::Error),
    /// Serving ended.
    #[error("the agent API ended: {0}")]
    Ended(#[source] tonic::transport::Error),
}

/// A unix socket that is this process's: others find it in use. [`serve`] removes it in the end.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Locked for as long as the socket is ours.
    lock: File,
}

impl Socket {
    /// Binds `path`, open to its owner alone, in place of a socket that a dead agent has left. To be called within a
    /// tokio runtime, and before anything is done that two agents must not do both.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let (lock, listener) = bind(path)?;
        Ok(Self { path: path.to_owned(), listener, lock })
    }
}

/// Serves `service` on `socket` until `stop`; then removes the socket.
pub async fn serve(
    service: Service,
    socket: Socket,
    stop: impl Future<Output = ()>,
) -> Result<(), SocketError> {
    let Socket { path, listener, lock } = socket;
    let service = AgentServer::new(service)
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX);
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    let mut until_stopped = stopped.clone();
    let server = Server::builder().add_service(service).serve_with_incoming_shutdown(
        UnixListenerStream::new(listener),
        async move {
            drop(until_stopped.wait_for(|stopped| *stopped).await);
        },
    );
    let last_calls = async {
        drop(stopped.wait_for(|stopped| *stopped).await);
        tokio::time::sleep(LAST_CALLS).await;
    };
    let stop = async {
        stop.await;
        stopping.send_replace(true);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = server => ended.map_err(SocketError::Ended),
        () = last_calls => Ok(()),
        () = stop => Ok(()),
    };
    // It is only in the way when it stays: the next agent replaces it.
    drop(std::fs::remove_file(&path));
    drop(lock);
    ended
}

/// Two agents that start at once must not both find nobody there: who holds the lock beside the socket is the agent. The
/// lock file stays.
fn bind(path: &Path) -> Result<(File, UnixListener), SocketError> {
    let refused = |error| SocketError::Refused(path.to_owned(), error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(refused)?;
    }
    let lock_path = beside(path, ".lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
    let lock = open.map_err(|error| SocketError::Refused(lock_path.clone(), error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SocketError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => return Err(SocketError::Refused(lock_path, error)),
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(SocketError::InUse(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
    }
    // Under another name until it is closed to others: whatever the umask, nobody can come before.
    let new = beside(path, ".new");
    drop(std::fs::remove_file(&new));
    let listener = UnixListener::bind(&new).map_err(refused)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).map_err(refused)?;
    std::fs::rename(&new, path).map_err(refused)?;
    Ok((lock, listener))
}

/// A path with something behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
