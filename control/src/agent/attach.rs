//! Attachments of pods: the CNI side of the agent.
//!
//! An attachment is an [`Endpoint`] in the store, named after the sandbox and its interface, and nothing else: what the
//! engine does follows from it. Two sandboxes of one pod, as they exist for a while when a sandbox is made again, are
//! two endpoints with interfaces and addresses of their own; removing one does not touch the other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tracing::{info, warn};
use vswitch_model::{Attachment, Generation, Mac, Port, PortKind};

use super::engine::{InForce, Progress};
use super::{Core, failure};
use crate::ipam::{Handle, IpamError};
use crate::object::{Endpoint, EndpointSpec, IpPool, Key, Kind, Object, Pod};
use crate::store::{self, At, Revision, Revisions, Snapshot, StoreError};

/// How long to wait for a pod's policy to be in force when the caller does not say.
pub(super) const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often undoing a failed attach is tried.
const UNDO_ATTEMPTS: u32 = 5;
/// Annotation of an endpoint: path of the pod's network namespace.
pub(super) const NETNS: &str = "vswitch/netns";

/// Endpoints, and the changes that recorded them.
pub(super) type Recorded = Vec<(At, Endpoint)>;

/// What became of garbage collection.
pub(super) struct Collected {
    pub(super) removed: Vec<(String, String)>,
    pub(super) released: Vec<IpAddr>,
}

impl Core {
    /// Attaches a pod. Answers when every worker enforces its policy; whatever goes wrong, the endpoint is gone then.
    pub(super) async fn attach(&self, endpoint: Endpoint, within: Duration) -> Result<Generation, Status> {
        let deadline = Instant::now() + within;
        let EndpointSpec { namespace, pod, pod_uid, .. } = &endpoint.spec;
        if timeout_at(deadline, self.until_known(namespace, pod, pod_uid.as_deref())).await.is_err() {
            return Err(Status::unavailable(self.why_unknown(namespace, pod)));
        }
        let had_port = {
            let progress = self.engine.progress();
            let progress = progress.borrow();
            progress.in_force.as_ref().is_some_and(|f| f.ports.contains_key(&endpoint.spec.port))
        };
        let late = || match self.reflector.current() {
            snapshot if snapshot.is_current() => {
                Status::unavailable(format!("the store gave no answer within {} ms", within.as_millis()))
            }
            _ => Status::unavailable(self.store_reason()),
        };
        let Ok((recorded, snapshot)) = timeout_at(deadline, self.turn()).await else { return Err(late()) };
        let attached = match timeout_at(deadline, self.record(&endpoint, recorded, &snapshot)).await {
            Ok(Ok(revision)) => {
                let at = At::new(Kind::Endpoint, revision);
                let arrived = timeout_at(deadline, self.until_told(at)).await;
                // With the port in force already, an acknowledgement from before may be of an engine that is gone by
                // now, or of a port that has failed since. Otherwise one with the port in it can only come.
                let request = if had_port { self.engine.request() } else { 0 };
                match arrived {
                    Ok(Ok(changes)) => self.until_in_force(&endpoint, &changes, request, deadline).await,
                    Ok(Err(error)) => Err(failure(&error)),
                    Err(_) => Err(Status::unavailable(self.store_reason())),
                }
            }
            Ok(Err(refused @ Refused::Before(_))) => return Err(refused.into()),
            Ok(Err(Refused::Perhaps(status))) => Err(status),
            Err(_) => Err(late()),
        };
        if attached.is_err() {
            self.undo(&endpoint).await;
        }
        attached
    }

    /// The kind of port that a pod with these addresses is to have.
    pub(super) async fn choose_port(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        addresses: &[IpAddr],
        within: Duration,
    ) -> Result<PortKind, Status> {
        if timeout(within, self.until_known(namespace, pod, uid)).await.is_err() {
            return Err(Status::unavailable(self.why_unknown(namespace, pod)));
        }
        let inputs = self.reflector.current().inputs;
        let pod = inputs.pods.get(&(namespace.to_owned(), pod.to_owned()));
        let of_pod = pod.and_then(|pod| pod.metadata.port_kind());
        let of_pool = || {
            let mut pools = inputs.pools.values();
            let is_its = |pool: &IpPool| addresses.iter().any(|address| pool.spec.cidr.contains(address));
            pools.find_map(|pool| pool.metadata.port_kind().filter(|_| is_its(pool)))
        };
        Ok(of_pod.or_else(of_pool).unwrap_or(self.settings.pod_port))
    }

    fn why_unknown(&self, namespace: &str, pod: &str) -> String {
        if self.reflector.current().stale.is_some() {
            self.store_reason()
        } else {
            format!("pod {namespace}/{pod} is not in the store, so its policy is not known")
        }
    }

    /// Waits until the pod's object is there: without its labels nobody can say which policies are for it. Of two pods
    /// that had one name after another, the one with the identifier the runtime gave is meant.
    async fn until_known(&self, namespace: &str, pod: &str, pod_uid: Option<&str>) {
        if pod.is_empty() {
            return;
        }
        let name = (namespace.to_owned(), pod.to_owned());
        let known = |snapshot: &Snapshot| {
            let uid = |pod: &Pod| pod.metadata.uid.clone();
            let pod = snapshot.inputs.pods.get(&name).map(|pod| uid(pod));
            let is_meant =
                |uid: Option<String>| uid.is_none() || pod_uid.is_none() || uid.as_deref() == pod_uid;
            snapshot.synced && pod.is_some_and(is_meant)
        };
        // The reflector outlives every call.
        drop(self.reflector.snapshots().wait_for(known).await);
    }

    /// Waits until it is an attach's turn to record, with a picture to go by that is current. A store that is away for a
    /// moment is waited for.
    async fn turn(&self) -> (MutexGuard<'_, Recorded>, Snapshot) {
        let mut snapshots = self.reflector.snapshots();
        loop {
            // The reflector outlives every call.
            drop(snapshots.wait_for(Snapshot::is_current).await);
            let recorded = self.attaching.lock().await;
            let snapshot = self.reflector.current();
            if snapshot.is_current() {
                return (recorded, snapshot);
            }
        }
    }

    /// Puts the endpoint into the store, unless it would take from another what is that one's.
    async fn record(
        &self,
        endpoint: &Endpoint,
        mut recorded: MutexGuard<'_, Recorded>,
        snapshot: &Snapshot,
    ) -> Result<Revision, Refused> {
        recorded.retain(|(at, _)| !snapshot.revisions.have(*at));
        let known = snapshot.inputs.endpoints.values().map(AsRef::as_ref);
        let clashing: Vec<Key> = known
            .chain(recorded.iter().map(|(_, endpoint)| endpoint))
            .filter(|other| is_other(endpoint, other) && clash(endpoint, other).is_some())
            .map(|other| Key::cluster(Kind::Endpoint, &other.metadata.name))
            .collect();
        // What is known here may be gone by now: the store has the last word.
        for key in clashing {
            let found = self.store.get(&key).await.map_err(|e| Refused::Before(failure(&e)))?;
            if let Some(Ok(Object::Endpoint(other))) = found.map(|entry| entry.object())
                && let Some(clash) = clash(endpoint, &other)
            {
                return Err(Refused::Before(Status::already_exists(clash)));
            }
        }
        let revision = self.put(endpoint).await?;
        recorded.push((At::new(Kind::Endpoint, revision), endpoint.clone()));
        Ok(revision)
    }

    /// Makes the store hold the endpoint, unless there is another's under its name.
    async fn put(&self, endpoint: &Endpoint) -> Result<Revision, Refused> {
        let object = Object::from(endpoint.clone());
        let (key, value) = (object.key(), object.to_json());
        loop {
            let done = match self.store.create(&key, value.clone()).await {
                Err(StoreError::Exists(_)) => {
                    let found = self.store.get(&key).await.map_err(|e| Refused::Before(failure(&e)))?;
                    let Some(found) = found else { continue };
                    if let Ok(Object::Endpoint(other)) = found.object()
                        && let Some(clash) = clash(endpoint, &other)
                    {
                        return Err(Refused::Before(Status::already_exists(clash)));
                    }
                    if found.value == value {
                        return Ok(found.revision);
                    }
                    self.store.update(&key, value.clone(), found.revision).await
                }
                created => created,
            };
            match done {
                Err(StoreError::NotFound(_) | StoreError::Conflict { .. }) => {}
                done => return done.map_err(|e| Refused::Perhaps(failure(&e))),
            }
        }
    }

    /// Waits until the picture holds an endpoint's change and all that is older and decides about its traffic; gives the
    /// changes that it holds then. How that is known is the store's to say: see [`store::Store::untold`].
    async fn until_told(&self, endpoint: At) -> store::Result<Revisions> {
        let mut changes = self.store.untold().await?;
        changes.raise(endpoint);
        self.reflector.reached_all(&changes).await;
        Ok(changes)
    }

    async fn until_in_force(
        &self,
        endpoint: &Endpoint,
        changes: &Revisions,
        request: u64,
        deadline: Instant,
    ) -> Result<Generation, Status> {
        let mut progress = self.engine.progress();
        loop {
            let judged = judge(&progress.borrow_and_update(), endpoint, changes, request);
            match judged {
                Judged::InForce(generation) => return Ok(generation),
                Judged::Failed(reason) => return Err(Status::unavailable(reason)),
                Judged::NotYet => {}
            }
            if self.is_replaced(endpoint) {
                return Err(Status::aborted(format!("{} was detached meanwhile", endpoint.metadata.name)));
            }
            match timeout_at(deadline, progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Status::unavailable("vswitch-agent is stopping")),
                Err(_) => return Err(Status::deadline_exceeded(self.why_not_in_force(endpoint))),
            }
        }
    }

    fn is_replaced(&self, endpoint: &Endpoint) -> bool {
        let inputs = self.reflector.current().inputs;
        inputs.endpoints.get(&endpoint.metadata.name).is_none_or(|now| now.spec != endpoint.spec)
    }

    fn why_not_in_force(&self, endpoint: &Endpoint) -> String {
        let progress = self.engine.progress().borrow().clone();
        let snapshot = self.reflector.current();
        let spec = &endpoint.spec;
        let cause = if let Some(error) = progress.engine_error {
            error
        } else if let Some(error) = progress.calculation_error {
            error
        } else if let Some(stale) = snapshot.stale {
            stale.to_string()
        } else {
            let own = progress.problems.into_iter().filter(|problem| is_about(problem, spec));
            match own.collect::<Vec<_>>().join("; ") {
                none if none.is_empty() => "vswitchd did not acknowledge it".to_owned(),
                problems => problems,
            }
        };
        format!("the policy of {}/{} did not come into force in time: {cause}", spec.namespace, spec.pod)
    }

    /// Removes an endpoint whose attach failed. It may not be there, and may by now be somebody else's.
    async fn undo(&self, endpoint: &Endpoint) {
        let key = Endpoint::key_of(&endpoint.spec.container_id, &endpoint.spec.interface);
        let mut last = None;
        for attempt in 0..UNDO_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            }
            match self.remove_if(&key, |found| found.spec == endpoint.spec).await {
                Ok(_) => return,
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last {
            warn!(%key, %error, "the endpoint of a failed attach stays until DEL or GC");
        }
    }

    /// Removes the endpoint when `goes` says so of what is there; returns the change, None when there was none.
    async fn remove_if(
        &self,
        key: &Key,
        goes: impl Fn(&Endpoint) -> bool,
    ) -> store::Result<Option<Revision>> {
        loop {
            let Some(entry) = self.store.get(key).await? else { return Ok(None) };
            // One that cannot be read is nobody's.
            let stays = matches!(entry.object(), Ok(Object::Endpoint(found)) if !goes(&found));
            if stays {
                return Ok(None);
            }
            match self.store.delete(key, Some(entry.revision)).await {
                Ok(revision) => return Ok(Some(revision)),
                Err(StoreError::NotFound(_)) => return Ok(None),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Detaches; whether there was something to detach. The engine is given a moment to let go of the interface, but
    /// need not be there.
    pub(super) async fn detach(&self, container_id: &str, ifname: &str) -> Result<bool, Status> {
        let key = Endpoint::key_of(container_id, ifname);
        let removed = self.remove_if(&key, |found| {
            let spec = &found.spec;
            (&*spec.container_id, &*spec.interface, &spec.node) == (container_id, ifname, &self.settings.node)
        });
        let Some(revision) = removed.await.map_err(|e| failure(&e))? else { return Ok(false) };
        info!(%key, "detached");
        self.settle(&Revisions::from_iter([At::new(Kind::Endpoint, revision)])).await;
        Ok(true)
    }

    /// Removes every endpoint of this node and `network` that is not among those that stay, and every address held by
    /// such.
    pub(super) async fn collect_garbage(
        &self,
        network: &str,
        stays: &BTreeSet<(String, String)>,
    ) -> Result<Collected, Status> {
        let listing = self.store.list(Some(Kind::Endpoint)).await.map_err(|e| failure(&e))?;
        let mut collected = Collected { removed: Vec::new(), released: Vec::new() };
        let mut changes = Revisions::default();
        for entry in listing.entries {
            let Ok(Object::Endpoint(endpoint)) = entry.object() else { continue };
            let name = (endpoint.spec.container_id.clone(), endpoint.spec.interface.clone());
            let is_ours = endpoint.spec.node == self.settings.node && endpoint.spec.network == network;
            if !is_ours || stays.contains(&name) {
                continue;
            }
            let removed = self.remove_if(&entry.key, |found| found.spec == endpoint.spec).await;
            if let Some(revision) = removed.map_err(|e| failure(&e))? {
                info!(key = %entry.key, "removed as garbage");
                collected.removed.push(name);
                changes.raise(At::new(Kind::Endpoint, revision));
            }
        }
        if !collected.removed.is_empty() {
            self.settle(&changes).await;
        }
        let held: BTreeSet<Handle> =
            stays.iter().map(|(container, ifname)| Handle::attachment(container, ifname)).collect();
        let released = self.ipam.release_except(network, |handle| held.contains(handle)).await;
        collected.released = released.map_err(|e| no_address(&e))?;
        Ok(collected)
    }

    /// Compares an endpoint with what its creator was told.
    pub(super) async fn check(&self, spec: &Expected) -> Result<(), Status> {
        let key = Endpoint::key_of(&spec.container_id, &spec.ifname);
        let found = self.store.get(&key).await.map_err(|e| failure(&e))?;
        let found = match found.map(|entry| entry.object()) {
            Some(Ok(Object::Endpoint(found))) if found.spec.node == self.settings.node => found,
            _ => {
                let not = format!("{} {} is not attached", spec.container_id, spec.ifname);
                return Err(Status::not_found(not));
            }
        };
        let addresses: BTreeSet<IpAddr> = found.spec.addresses.iter().copied().collect();
        let list = |addresses: &BTreeSet<IpAddr>| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        for (field, was, is) in [
            ("host_interface", spec.host_interface.clone(), found.spec.port.to_string()),
            ("mac", spec.mac.to_string(), found.spec.mac.to_string()),
            ("addresses", list(&spec.addresses), list(&addresses)),
        ] {
            if was != is {
                return Err(Status::failed_precondition(format!("{field}: {is} is attached, not {was}")));
            }
        }
        let progress = self.engine.progress().borrow().clone();
        let failed = progress.in_force.and_then(|f| f.failed_ports.get(found.spec.port.as_str()).cloned());
        match failed {
            Some(reason) => Err(Status::failed_precondition(format!("port {}: {reason}", found.spec.port))),
            None => Ok(()),
        }
    }
}

/// What CHECK says should be.
pub(super) struct Expected {
    pub(super) container_id: String,
    pub(super) ifname: String,
    pub(super) host_interface: String,
    pub(super) mac: Mac,
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// Why an endpoint was not recorded.
enum Refused {
    /// Nothing was written.
    Before(Status),
    /// It may have been written all the same.
    Perhaps(Status),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Before(status) | Refused::Perhaps(status) => status,
        }
    }
}

enum Judged {
    InForce(Generation),
    NotYet,
    Failed(String),
}

/// Whether the workers run a state with these changes, and this endpoint, in it. A state is calculated as a whole: one
/// that has the port has its policy.
fn judge(progress: &Progress, endpoint: &Endpoint, changes: &Revisions, request: u64) -> Judged {
    let has_changes =
        |in_force: &&InForce| in_force.revisions.have_all(changes) && in_force.request >= request;
    let Some(in_force) = progress.in_force.as_ref().filter(has_changes) else {
        return Judged::NotYet;
    };
    let spec = &endpoint.spec;
    if !in_force.ports.get(&spec.port).is_some_and(|port| is_port_of(port, spec)) {
        return Judged::NotYet;
    }
    match in_force.failed_ports.get(spec.port.as_str()) {
        Some(reason) => Judged::Failed(format!("vswitchd could not open port {}: {reason}", spec.port)),
        None => Judged::InForce(in_force.generation),
    }
}

/// Whether a problem of the calculation is one of this endpoint's.
fn is_about(problem: &str, spec: &EndpointSpec) -> bool {
    let whose = match spec.pod.as_str() {
        "" => "container".to_owned(),
        pod => format!("{}/{pod}", spec.namespace),
    };
    let mut words = problem.split([' ', ':']);
    words.any(|word| word == whose)
}

fn is_port_of(port: &Port, spec: &EndpointSpec) -> bool {
    let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
    port.attachment == spec.attachment
        && port.mac == spec.mac
        && port.mtu == spec.mtu
        && set(&port.addresses) == set(&spec.addresses)
}

/// Whether `other` is not `new` under its own name: that one is looked at in the store as it is written.
fn is_other(new: &Endpoint, other: &Endpoint) -> bool {
    new.metadata.name != other.metadata.name
}

/// What of `new` already belongs to `other`, in words.
fn clash(new: &Endpoint, other: &Endpoint) -> Option<String> {
    let is_new = !is_other(new, other);
    let (new, other) = (&new.spec, &other.spec);
    let whose = || {
        let EndpointSpec { namespace, pod, container_id, node, .. } = other;
        format!("{namespace}/{pod} (container {container_id}, node {node})")
    };
    if is_new {
        // Of one name and one container it is of one interface, too.
        let is_itself = (&new.node, &new.container_id) == (&other.node, &other.container_id);
        let why = || format!("attachment.container_id: {} belongs to {}", new.container_id, whose());
        return (!is_itself).then(why);
    }
    if let Some(address) = new.addresses.iter().find(|address| other.addresses.contains(address)) {
        return Some(format!("addresses: {address} belongs to {}", whose()));
    }
    if new.node != other.node {
        return None;
    }
    if new.port == other.port || is_same_device(&new.attachment, &other.attachment) {
        return Some(format!("host_interface: {} belongs to {}", new.port, whose()));
    }
    None
}

fn is_same_device(one: &Attachment, other: &Attachment) -> bool {
    match (one, other) {
        (Attachment::Veth { interface: one, .. }, Attachment::Veth { interface: other, .. }) => one == other,
        (Attachment::Tun { .. }, Attachment::Tun { .. }) => one == other,
        _ => false,
    }
}

/// An error of address management as the API has it.
pub(super) fn no_address(error: &IpamError) -> Status {
    let text = error.to_string();
    match error {
        IpamError::NoPool { .. } | IpamError::Full { .. } => Status::resource_exhausted(text),
        IpamError::OutsidePools { .. } | IpamError::Elsewhere { .. } => {
            Status::invalid_argument(format!("requested: {text}"))
        }
        IpamError::Taken { .. } => Status::already_exists(format!("requested: {text}")),
        IpamError::HoldsOther { .. } => Status::failed_precondition(text),
        IpamError::Contended { .. } => Status::aborted(text),
        IpamError::Store(StoreError::Failed(_)) => Status::internal(text),
        IpamError::Store(_) => Status::unavailable(text),
    }
}
