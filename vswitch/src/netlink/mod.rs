//! The underlay as the node's kernel knows it: routes, neighbours, links and addresses, followed by netlink; what its routers
//! say of path MTUs; and the host port's addresses and routes, kept as desired.
//!
//! One thread. Whatever changes, in the kernel or in what is wanted, it looks at all of it again and gives the
//! resulting [`Facts`] to whoever started it when they differ from the last ones: facts follow from the kernel's state
//! alone, never from the order of events. Bursts of events are looked at once.

mod facts;
mod host;
mod kernel;
mod pmtu;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::{FutureExt, Stream, StreamExt};
use ipnet::IpNet;
use rtnetlink::MulticastGroup;
use tokio::sync::watch;
use vswitch_model::Vni;

pub use facts::{Facts, Hop, Link, Unresolved};
pub use host::HostDevice;
pub use pmtu::PathMtu;

/// How long events are gathered before the kernel is looked at again.
const GATHER: Duration = Duration::from_millis(10);
/// How long after a look at which a next hop was missing the kernel is asked again, event or not.
const AGAIN_UNRESOLVED: Duration = Duration::from_secs(1);
/// The same when nothing was missing.
const AGAIN: Duration = Duration::from_secs(30);

/// What is followed and kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Addresses of remote nodes to find the way to.
    pub remotes: BTreeSet<IpAddr>,
    /// By remote node, what we send it tunnel packets in: what a router says of other packets is not about us.
    pub tunnels: BTreeMap<IpAddr, BTreeSet<TunnelKind>>,
    /// Whether the addresses of a prefix are on another node, by prefix; the longest counts. Tunnel packets of this node carry
    /// nothing from there.
    pub elsewhere: BTreeMap<IpNet, bool>,
    /// Interfaces the way may lead by.
    pub uplinks: BTreeSet<String>,
    /// The host port's addresses and routes. None: it is left alone.
    pub host: Option<HostDevice>,
}

/// What tunnel packets to a node are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TunnelKind {
    /// VXLAN.
    Vxlan {
        /// The UDP port they go to.
        port: u16,
        /// The network.
        vni: Vni,
    },
    /// IP-in-IP, either family inside.
    IpIp,
}

impl Wanted {
    /// Whether this node may have sent packets from an address: routes lead to no other node there.
    fn may_send_from(&self, address: IpAddr) -> bool {
        let host = IpNet::from(address);
        let longest =
            std::iter::successors(Some(host), IpNet::supernet).find_map(|net| self.elsewhere.get(&net));
        !longest.is_some_and(|elsewhere| *elsewhere)
    }

    /// Whether the kernel has to be asked, or told, something else than for `before`.
    fn is_other_than(&self, before: &Self) -> bool {
        let Self { remotes, tunnels: _, elsewhere: _, uplinks, host } = self;
        (remotes, uplinks, host) != (&before.remotes, &before.uplinks, &before.host)
    }
}

/// Why the kernel cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket, or no thread.
    #[error("cannot follow the kernel's routes: {0}")]
    Start(#[from] std::io::Error),
    /// The kernel refused a request.
    #[error("the kernel refused to {what}: {cause}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        cause: rtnetlink::Error,
    },
}

/// The thread that follows the kernel of the network namespace it was started in.
#[derive(Debug)]
pub struct Follower {
    wanted: Option<watch::Sender<Wanted>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts to follow; `tell` gets the first facts within milliseconds, and then every change.
    pub fn start(wanted: Wanted, tell: impl FnMut(Facts) + Send + 'static) -> Result<Self, NetlinkError> {
        let (sender, receiver) = watch::channel(wanted);
        let (started, outcome) = std::sync::mpsc::channel();
        let body = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                let (events, kernel) = match open() {
                    Ok(opened) => opened,
                    Err(error) => return drop(started.send(Err(error))),
                };
                started.send(Ok(())).ok();
                follow(events, kernel, receiver, tell).await;
            });
        };
        let thread = std::thread::Builder::new().name("netlink".into()).spawn(body)?;
        outcome.recv().map_err(|_| std::io::Error::other("the thread ended at once"))??;
        Ok(Self { wanted: Some(sender), thread: Some(thread) })
    }

    /// Changes what is followed and kept.
    pub fn want(&self, wanted: Wanted) {
        if let Some(sender) = &self.wanted {
            sender.send_if_modified(|current| {
                // The rest is read where it is needed.
                let differs = wanted.is_other_than(current);
                *current = wanted;
                differs
            });
        }
    }
}

impl Drop for Follower {
    /// Ends the thread, after it has told the kernel that the next hops need not be kept resolved any more.
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the netlink thread panicked");
        }
    }
}

fn open() -> std::io::Result<(impl Stream + Unpin, kernel::Kernel)> {
    let (connection, handle, events) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ])?;
    tokio::spawn(connection);
    Ok((events, kernel::Kernel::new(handle)))
}

/// Looks, tells, waits for something to change, and again, until nobody wants anything any more.
async fn follow(
    mut events: impl Stream + Unpin,
    kernel: kernel::Kernel,
    mut wanted: watch::Receiver<Wanted>,
    mut tell: impl FnMut(Facts) + Send,
) {
    let mut looker = facts::Looker::new(kernel);
    let (errors, mut paths) = (pmtu::Errors::open(), pmtu::PathMtus::default());
    let newest = wanted.clone();
    let mut told: Option<Facts> = None;
    // When what routers say, or no more say, may be looked at next.
    let mut said_next = Instant::now();
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        paths.expire(&now_wanted, Instant::now());
        let again = match looker.look(&now_wanted, &paths).await {
            Ok(facts) => {
                let again = if facts.is_resolved() { AGAIN } else { AGAIN_UNRESOLVED };
                if told.as_ref() != Some(&facts) {
                    told = Some(facts.clone());
                    tell(facts);
                }
                again
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel's routes could not be read; the last ones stay in force");
                AGAIN_UNRESOLVED
            }
        };
        let forgotten = paths.next().map(|at| at.max(said_next).saturating_duration_since(Instant::now()));
        let own = told.as_ref().map(|facts| &facts.local_addresses);
        tokio::select! {
            event = events.next() => if event.is_none() {
                tracing::error!("the kernel's events ended; routes are followed no more");
                return;
            },
            changed = wanted.changed() => if changed.is_err() { return looker.release().await },
            () = errors.narrow(&mut paths, &newest, own, said_next) => said_next = Instant::now() + pmtu::APART,
            () = tokio::time::sleep(forgotten.map_or(again, |until| until.min(again))) => {
                said_next = Instant::now() + pmtu::APART;
            }
        }
        tokio::time::sleep(GATHER).await;
        while let Some(Some(_)) = events.next().now_or_never() {}
    }
}

#[cfg(test)]
mod tests;
