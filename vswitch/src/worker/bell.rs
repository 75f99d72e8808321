//! How a worker wakes a task that waits for what it tells.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

/// The worker's end, and what ears are made of: a pair of sockets, which unlike an eventfd tokio takes without `unsafe`.
#[derive(Debug, Clone)]
pub(super) struct Bell {
    ring: Arc<UnixDatagram>,
    ear: Arc<UnixDatagram>,
}

/// The task's end.
#[derive(Debug)]
pub struct Ear(tokio::net::UnixDatagram);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let (ring, ear) = UnixDatagram::pair()?;
        ring.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Self { ring: Arc::new(ring), ear: Arc::new(ear) })
    }

    pub(super) fn ring(&self) {
        // The only error is that too many rings wait to be heard.
        self.ring.send(b"!").ok();
    }

    /// Called by a task of tokio. One ear at a time hears.
    pub(super) fn ear(&self) -> io::Result<Ear> {
        self.ear.try_clone().and_then(tokio::net::UnixDatagram::from_std).map(Ear)
    }
}

impl Ear {
    /// Waits for the next ring, or one that nobody has heard yet.
    pub async fn hear(&self) {
        // Fails when the runtime ends, and the task with it.
        self.0.recv(&mut [0]).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_is_heard_once_by_whoever_listens_then() {
        let bell = Bell::new().unwrap();
        bell.ring();
        let first = bell.ear().unwrap();
        first.hear().await;
        drop(first);
        let second = bell.ear().unwrap();
        let worker = bell.clone();
        let (_, ()) = tokio::join!(tokio::task::spawn_blocking(move || worker.ring()), second.hear());
        assert!(second.0.try_recv(&mut [0]).is_err(), "heard");
        // Nobody hears, and nobody waits for that.
        (0..10_000).for_each(|_| bell.ring());
    }
}
