//! Probes: does a datagram, a connection, get through?

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::netns::Netns;
use crate::{Error, Result};

/// How long a probe waits that is expected to get through.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long a probe waits that is expected not to: long beside the microseconds a round trip takes.
pub const IMPATIENCE: Duration = Duration::from_millis(300);
/// How often a server looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// Answers datagrams or connections at some ports of a namespace, until dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Sends every datagram back that arrives at one of `ports`.
    pub fn udp(netns: &Netns, address: IpAddr, ports: &[u16]) -> Result<Self> {
        let sockets = bind(netns, ports, |port| UdpSocket::bind((address, port)))?;
        Self::serve(sockets, |socket, stop| {
            socket.set_read_timeout(Some(LOOK)).expect("not zero");
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // Nobody there any more: nothing to send back.
                    let _gone = socket.send_to(&buffer[..length], from);
                }
            }
        })
    }

    /// Accepts every connection at one of `ports`, and sends its first bytes back.
    pub fn tcp(netns: &Netns, address: IpAddr, ports: &[u16]) -> Result<Self> {
        let listeners = bind(netns, ports, |port| TcpListener::bind((address, port)))?;
        Self::serve(listeners, |listener, stop| {
            listener.set_nonblocking(true).expect("a socket");
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => send_back(stream),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        })
    }

    fn serve<S: Send + 'static>(sockets: Vec<S>, body: fn(&S, &AtomicBool)) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |socket: S| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || body(&socket, &stop))
        };
        let threads = sockets.into_iter().map(spawn).collect();
        Ok(Self { stop, threads })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has been printed; the probe has failed by it.
            let _panicked = thread.join();
        }
    }
}

fn send_back(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    // The other end decides what goes wrong here and how it is reported.
    let _ignored = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
    if let Ok(length) = stream.read(&mut buffer) {
        let _ignored = stream.write_all(&buffer[..length]);
    }
}

fn bind<S: Send>(
    netns: &Netns,
    ports: &[u16],
    open: impl Fn(u16) -> std::io::Result<S> + Send + Sync,
) -> Result<Vec<S>> {
    netns.enter(|| {
        let open = |port: &u16| {
            open(*port).map_err(|error| Error::other(format!("port {port} in {}: {error}", netns.name())))
        };
        ports.iter().map(open).collect()
    })?
}

/// A socket of its own in a namespace.
pub fn udp_socket(netns: &Netns, local: SocketAddr) -> Result<UdpSocket> {
    let socket = netns.enter(|| UdpSocket::bind(local))?;
    socket.map_err(|error| Error::other(format!("{local} in {}: {error}", netns.name())))
}

/// The unspecified address of the same family.
#[must_use]
pub fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
    }
}

/// Whether a datagram gets there and its echo back. Sends a few, in case one is lost on a busy machine.
pub fn udp_answers(from: &Netns, to: SocketAddr, limit: Duration) -> Result<bool> {
    let socket = udp_socket(from, SocketAddr::new(any(to.ip()), 0))?;
    let end = Instant::now() + limit;
    let step = limit.min(Duration::from_millis(100));
    socket.set_read_timeout(Some(step)).map_err(|error| Error::other(error.to_string()))?;
    let mut buffer = [0; 64];
    while Instant::now() < end {
        match socket.send_to(b"probe", to) {
            Ok(_) => {}
            // An answer of the network to an earlier datagram, or the host's own refusal.
            Err(error) if is_refusal(&error) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(Error::other(format!("sending to {to}: {error}"))),
        }
        if matches!(socket.recv_from(&mut buffer), Ok((5, sender)) if sender == to) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a connection opens and its bytes come back.
pub fn tcp_answers(from: &Netns, to: SocketAddr, limit: Duration) -> Result<bool> {
    from.enter(|| {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, limit) else { return false };
        let mut buffer = [0; 5];
        stream.set_read_timeout(Some(limit)).is_ok()
            && stream.write_all(b"probe").is_ok()
            && stream.read_exact(&mut buffer).is_ok()
            && &buffer == b"probe"
    })
}

fn is_refusal(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
    )
}
