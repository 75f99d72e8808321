//! What all our AF_XDP sockets have in common, the anchor of a UMEM included.

use xsk_rs::config::{BindFlags, LibxdpFlags, QueueSize, SocketConfig};

/// Descriptors of each ring of a socket.
pub(super) const RINGS: u32 = 2048;

/// How our sockets are made. The bind flags are the anchor's, see [`super::Umem::registered`].
pub(super) fn socket_config() -> SocketConfig {
    let rings = QueueSize::new(RINGS).expect("RINGS is a power of two");
    SocketConfig::builder()
        .rx_queue_size(rings)
        .tx_queue_size(rings)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
        .build()
}
