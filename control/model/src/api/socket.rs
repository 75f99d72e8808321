//! Reaching an API over its unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Where vswitchd listens unless told otherwise.
pub const ENGINE_SOCKET: &str = "/run/vswitch/engine.sock";
/// Where vswitch-agent listens unless told otherwise.
pub const AGENT_SOCKET: &str = "/run/vswitch/agent.sock";

/// Nobody answers on a socket.
#[derive(Debug, thiserror::Error)]
#[error("{server} does not answer on {}: {cause}", path.display())]
pub struct Unreachable {
    /// Who should have answered: `vswitchd` or `vswitch-agent`.
    pub server: &'static str,
    /// The socket.
    pub path: PathBuf,
    /// What the kernel said.
    pub cause: String,
}

/// A channel to `server` on the unix socket `path`. It is connected when this returns, and reconnects by itself
/// later: a call made while the server is away fails with `UNAVAILABLE`.
pub async fn connect(server: &'static str, path: &Path) -> Result<Channel, Unreachable> {
    let socket = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is never resolved; HTTP/2 wants one for its :authority.
    Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(2))
        .connect_with_connector(connector)
        .await
        .map_err(|error| Unreachable { server, path: path.to_owned(), cause: root_cause(&error) })
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
