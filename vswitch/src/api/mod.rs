//! The engine API, served on a unix socket. Shapes, units and errors: `control/model/proto/engine.proto`.

mod counters;
mod explain;
mod flow_log;
mod flows;
mod names;
mod routes;
mod rules;
mod status;
mod trace;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::{Mutex, Semaphore};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use vswitch_model::api::engine as pb;
use vswitch_model::api::engine::engine_server::{Engine as EngineApi, EngineServer};
use vswitch_model::api::{MESSAGE_SIZE_MAX, Socket};
use vswitch_model::{Delta, DesiredState, Generation, Invalid};

use crate::engine::{Applier, ApplyError, Desire, Engine, Shared};

pub use counters::{PortNumbers, port_numbers};
use flow_log::FlowLog;
use names::Names;

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Traces that may run at once: a worker follows one.
const TRACES_MAX: usize = 1;

/// Serves `engine` on `socket` until `stop` is done; then removes the socket.
pub async fn serve(
    mut socket: Socket,
    engine: &Engine,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let Some(listener) = socket.take() else { return Ok(()) };
    let service = Service::new(engine);
    let flow_log = service.flow_log.clone().run(Arc::clone(engine.shared()));
    let names = service.names.clone().run(Arc::clone(engine.shared()));
    let service = EngineServer::new(service)
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX);
    let server = tonic::transport::Server::builder().add_service(service);
    // Streams that never end by themselves must not keep us: no waiting for connections to close.
    tokio::select! {
        ended = server.serve_with_incoming(UnixListenerStream::new(listener)) => ended,
        () = flow_log => Ok(()),
        () = names => Ok(()),
        () = stop => Ok(()),
    }
}

/// What answers calls.
struct Service {
    shared: Arc<Shared>,
    applier: Applier,
    /// One change after the other: each is judged against the state the one before left.
    applying: Mutex<()>,
    traces: Arc<Semaphore>,
    flow_log: FlowLog,
    names: Names,
}

impl Service {
    fn new(engine: &Engine) -> Self {
        Self {
            shared: Arc::clone(engine.shared()),
            applier: engine.applier(),
            applying: Mutex::new(()),
            traces: Arc::new(Semaphore::new(TRACES_MAX)),
            flow_log: FlowLog::new(),
            names: Names::new(),
        }
    }
}

/// The status of a message with a wrong field: the text starts with the field's path.
#[allow(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn invalid(invalid: Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}

/// The status of a worker that does not answer.
fn silent(error: impl std::fmt::Display) -> Status {
    Status::deadline_exceeded(error.to_string())
}

fn refused(error: &ApplyError) -> Status {
    let text = error.to_string();
    match error {
        ApplyError::ResyncNeeded { .. } => Status::failed_precondition(text),
        ApplyError::Generation { .. } | ApplyError::Invalid(_) => Status::invalid_argument(text),
        ApplyError::TooLarge(_) => Status::resource_exhausted(text),
        ApplyError::NotInForce(_) => Status::deadline_exceeded(text),
        ApplyError::Stopping => Status::unavailable(text),
    }
}

/// Runs what waits for workers where waiting disturbs nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
}

#[tonic::async_trait]
impl EngineApi for Service {
    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Reply<pb::ApplyReply> {
        let pb::ApplyRequest { generation, change } = request.into_inner();
        let desire = blocking(move || match change {
            Some(pb::apply_request::Change::Full(state)) => DesiredState::try_from(state)
                .map(|state| Desire::Full(Box::new(state)))
                .map_err(|error| error.within("full")),
            Some(pb::apply_request::Change::Delta(delta)) => {
                Delta::try_from(delta).map(Desire::Delta).map_err(|error| error.within("delta"))
            }
            None => Err(Invalid::new("change", "is missing: full or delta")),
        });
        let desire = desire.await?.map_err(invalid)?;
        let _one_at_a_time = self.applying.lock().await;
        let applied =
            self.applier.apply(Generation(generation), desire).await.map_err(|error| refused(&error))?;
        let failed_ports = applied.failed_ports.into_iter();
        Ok(Response::new(pb::ApplyReply {
            generation: applied.generation.0,
            failed_ports: failed_ports
                .map(|(port, reason)| pb::PortFailure { port: port.to_string(), reason })
                .collect(),
        }))
    }

    async fn get_state(&self, _: Request<pb::GetStateRequest>) -> Reply<pb::GetStateReply> {
        let snapshot = self.shared.snapshot.load_full();
        let generation = snapshot.generation.0;
        let state = blocking(move || DesiredState::clone(&snapshot.desired).into()).await?;
        Ok(Response::new(pb::GetStateReply { generation, state: Some(state) }))
    }

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Reply<pb::EngineStatus> {
        Ok(Response::new(status::status(&self.shared)))
    }

    async fn get_counters(&self, _: Request<pb::GetCountersRequest>) -> Reply<pb::Counters> {
        let shared = Arc::clone(&self.shared);
        Ok(Response::new(blocking(move || counters::counters(&shared)).await?))
    }

    type ListFlowsStream = Streamed<pb::Flow>;

    async fn list_flows(&self, request: Request<pb::ListFlowsRequest>) -> Reply<Self::ListFlowsStream> {
        let query = flows::FlowQuery::try_from(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(flows::list(Arc::clone(&self.shared), query)))
    }

    type ListRulesStream = Streamed<pb::RuleCounters>;

    async fn list_rules(&self, request: Request<pb::ListRulesRequest>) -> Reply<Self::ListRulesStream> {
        let policy = request.into_inner().policy;
        Ok(Response::new(rules::list(Arc::clone(&self.shared), policy)))
    }

    type ListRoutesStream = Streamed<pb::RouteStatus>;

    async fn list_routes(&self, request: Request<pb::ListRoutesRequest>) -> Reply<Self::ListRoutesStream> {
        let query = routes::RouteQuery::try_from(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(routes::list(self.shared.snapshot.load_full(), query)))
    }

    type WatchFlowLogStream = Streamed<pb::FlowLogRecord>;

    async fn watch_flow_log(
        &self,
        request: Request<pb::WatchFlowLogRequest>,
    ) -> Reply<Self::WatchFlowLogStream> {
        let query = flow_log::FlowLogQuery::try_from(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(self.flow_log.watch(query)))
    }

    type WatchNamesStream = Streamed<pb::NameAnswer>;

    async fn watch_names(&self, request: Request<pb::WatchNamesRequest>) -> Reply<Self::WatchNamesStream> {
        let query = names::NameQuery::try_from(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(self.names.watch(query)))
    }

    async fn release_answers(
        &self,
        request: Request<pb::ReleaseAnswersRequest>,
    ) -> Reply<pb::ReleaseAnswersReply> {
        self.names.release(request.into_inner().through).map_err(invalid)?;
        Ok(Response::new(pb::ReleaseAnswersReply {}))
    }

    async fn find_flows(&self, request: Request<pb::FindFlowsRequest>) -> Reply<pb::FindFlowsReply> {
        let ends = flows::ends(&request.into_inner()).map_err(invalid)?;
        let shared = Arc::clone(&self.shared);
        let addresses = blocking(move || flows::find(&shared, &ends)).await??;
        Ok(Response::new(pb::FindFlowsReply { addresses }))
    }

    type TraceStream = Streamed<pb::TraceRecord>;

    async fn trace(&self, request: Request<pb::TraceRequest>) -> Reply<Self::TraceStream> {
        let busy = || Status::resource_exhausted(format!("{TRACES_MAX} trace at a time, and one is running"));
        let permit = Arc::clone(&self.traces).try_acquire_owned().map_err(|_| busy())?;
        let stream = trace::start(Arc::clone(&self.shared), &request.into_inner(), permit)?;
        Ok(Response::new(stream))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Reply<pb::ExplainReply> {
        let query = explain::query(&request.into_inner()).map_err(invalid)?;
        let snapshot = self.shared.snapshot.load_full();
        Ok(Response::new(blocking(move || explain::explain(&snapshot, &query)).await?))
    }
}
