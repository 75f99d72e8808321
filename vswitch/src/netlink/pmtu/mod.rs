//! Path MTUs towards remote nodes: what routers of the underlay say of our tunnel packets (RFC 1191, RFC 8201).
//!
//! The kernel gets these errors and does nothing about them: no socket of its own sent what they quote. So they are read
//! here, and the way to the remote node takes smaller packets for ten minutes. A pod that sends a larger one is told by the
//! walk, as with any other way that is narrower than its own.
//!
//! Every change of a path is a look at the kernel and tables compiled anew. A path that narrows again and again, by bad luck
//! or because somebody sends us forged errors, costs one of these a second: see [`APART`].

mod said;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{SockaddrStorage, recvfrom};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::Wanted;
use crate::io::icmp;
use said::Said;

/// How long a router's word counts (RFC 1191, section 6.3; RFC 8201, section 4).
const KEPT: Duration = Duration::from_secs(600);
/// Longest error: one over IPv6 fills the least MTU (RFC 4443, section 2.4 c); more of a longer one is not needed.
const LENGTH_MAX: usize = 1280;
/// Least time between two looks that follow from what routers say.
pub(super) const APART: Duration = Duration::from_secs(1);
/// Errors read at once.
const AT_ONCE: usize = 64;

/// What a router said of the path to a remote node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    /// The largest outer packet that passes, in bytes.
    pub mtu: u16,
    /// Who said so.
    pub by: IpAddr,
    /// Until when it counts.
    pub until: Instant,
}

/// What is known of the paths.
#[derive(Debug, Default)]
pub(super) struct PathMtus {
    known: BTreeMap<IpAddr, PathMtu>,
}

impl PathMtus {
    /// Takes an error in, when it quotes a packet that we could have sent. Whether the path is another now.
    fn take(&mut self, said: &Said, wanted: &Wanted, own: &BTreeSet<IpAddr>, now: Instant) -> bool {
        let sent = wanted.tunnels.get(&said.remote);
        let ours = own.contains(&said.source)
            && sent.is_some_and(|sent| sent.iter().any(|kind| said.quoted.may_be(*kind)))
            && said.inner.is_none_or(|inner| own.contains(&inner) || wanted.may_send_from(inner));
        let before = self.of(said.remote, now);
        if !ours || before.is_some_and(|known| known < said.mtu) {
            return false;
        }
        let Said { remote, mtu, by, .. } = *said;
        self.known.insert(remote, PathMtu { mtu, by, until: now + KEPT });
        let changed = before != Some(mtu);
        if changed {
            let minutes = KEPT.as_secs() / 60;
            tracing::info!(%remote, mtu, router = %by, minutes, "the path takes smaller packets, a router says; pods are told");
        }
        changed
    }

    /// Forgets what is too old, and paths that nobody wants any more.
    pub(super) fn expire(&mut self, wanted: &Wanted, now: Instant) {
        self.known.retain(|remote, path| path.until > now && wanted.remotes.contains(remote));
    }

    /// What is known of the path to a remote node.
    pub(super) fn of(&self, remote: IpAddr, now: Instant) -> Option<u16> {
        self.known.get(&remote).filter(|path| path.until > now).map(|path| path.mtu)
    }

    /// All that is known.
    pub(super) const fn all(&self) -> &BTreeMap<IpAddr, PathMtu> {
        &self.known
    }

    /// When something is to be forgotten next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.known.values().map(|path| path.until).min()
    }
}

/// The errors of both families, as they come.
pub(super) struct Errors {
    sockets: Vec<(bool, AsyncFd<OwnedFd>)>,
}

impl Errors {
    /// Without the privilege, or without IPv6, what cannot be had is missing and said so.
    pub(super) fn open() -> Self {
        let open = |v6| match icmp::open(v6) {
            Ok(socket) => Some((v6, socket)),
            Err(error) => {
                let family = if v6 { "IPv6" } else { "IPv4" };
                tracing::warn!(%error, "no errors of routers can be read: paths over {family} are taken as wide as their uplink");
                None
            }
        };
        Self { sockets: [false, true].into_iter().filter_map(open).collect() }
    }

    /// Reads errors as they come, until a path is another and it is no earlier than `not_before`: what is said until then
    /// is looked at together. When it is ended before, `paths` has what was said all the same.
    pub(super) async fn narrow(
        &self,
        paths: &mut PathMtus,
        wanted: &watch::Receiver<Wanted>,
        own: Option<&BTreeSet<IpAddr>>,
        not_before: Instant,
    ) {
        let none = BTreeSet::new();
        let mut changed = false;
        while !changed || Instant::now() < not_before {
            if !changed {
                self.wait().await;
            } else if tokio::time::timeout_at(not_before.into(), self.wait()).await.is_err() {
                return;
            }
            changed |= self.read(paths, &wanted.borrow(), own.unwrap_or(&none));
            // Whoever floods us with errors costs no more than this often.
            tokio::time::sleep(super::GATHER).await;
        }
    }

    /// Waits until there are any.
    async fn wait(&self) {
        let ready = self.sockets.iter().map(|(_, socket)| Box::pin(socket.readable()));
        let ready: Vec<_> = ready.collect();
        if ready.is_empty() || futures::future::select_all(ready).await.0.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Reads what there is, up to a number of them: the rest waits for the next time. Whether a path is another now.
    fn read(&self, paths: &mut PathMtus, wanted: &Wanted, own: &BTreeSet<IpAddr>) -> bool {
        let mut changed = false;
        let mut buffer = [0; LENGTH_MAX];
        for (v6, socket) in &self.sockets {
            for _ in 0..AT_ONCE {
                let read = socket.try_io(tokio::io::Interest::READABLE, |fd| {
                    Ok(recvfrom::<SockaddrStorage>(fd.as_raw_fd(), &mut buffer)?)
                });
                let Ok((length, sender)) = read else { break };
                let message = buffer.get(..length).unwrap_or_default();
                let sender = sender.and_then(|sender| Some(sender.as_sockaddr_in6()?.ip()));
                let by = sender.unwrap_or(Ipv6Addr::UNSPECIFIED).into();
                if let Some(said) = if *v6 { said::read_v6(message, by) } else { said::read_v4(message) } {
                    changed |= paths.take(&said, wanted, own, Instant::now());
                }
            }
        }
        changed
    }
}
