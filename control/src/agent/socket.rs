//! The unix socket the agent API is served on.

use std::future::Future;
use std::time::Duration;

use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use vswitch_model::api::agent::agent_server::AgentServer;
use vswitch_model::api::{MESSAGE_SIZE_MAX, Socket};

use super::Service;

/// How long calls that are under way when the agent is stopped may take to end.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// Serves `service` on `socket` until `stop`; then removes the socket.
pub async fn serve(
    service: Service,
    mut socket: Socket,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let Some(listener) = socket.take() else { return Ok(()) };
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
    tokio::select! {
        ended = server => ended,
        () = last_calls => Ok(()),
        () = stop => Ok(()),
    }
}
