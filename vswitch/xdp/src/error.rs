//! Why steering failed, and what to do about it.

use std::error::Error;
use std::io;

use nix::errno::Errno;

/// Why steering failed, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The kernel did not let us.
    #[error(
        "{what}: not permitted; the engine needs CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW (or to run as root)"
    )]
    Privilege {
        /// What was tried.
        what: String,
    },
    /// The kernel did not accept the program or a map of it.
    #[error("{what}: {reason}; kernel 5.10 or newer with BPF, XDP and AF_XDP sockets is needed")]
    Load {
        /// What was tried.
        what: String,
        /// What the kernel or the loader said.
        reason: String,
    },
    /// There is no such device here.
    #[error("interface {interface}: there is none of this name in the network namespace")]
    NoDevice {
        /// Its name.
        interface: String,
    },
    /// Another XDP program is on the device.
    #[error(
        "interface {interface}: another XDP program is attached; what it is, `ip link show dev {interface}` and `bpftool prog` say: \
         with the name `steer` it is another vswitchd's, which would lose the interface with it; stop that one. Another's goes by \
         `ip link set dev {interface} xdp off`"
    )]
    Busy {
        /// Its name.
        interface: String,
    },
    /// The device does not take XDP programs.
    #[error("interface {interface}: no XDP program can be attached ({reason})")]
    NoXdp {
        /// Its name.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The program could only be attached in the old way, which outlives the process.
    #[error("interface {interface}: this kernel has no bpf_link for XDP; 5.9 or newer is needed")]
    NoLink {
        /// Its name.
        interface: String,
    },
    /// Too many queues of devices.
    #[error(
        "interface {interface}: {queues} queues wanted, but no more than {max} sockets can be steered to"
    )]
    Slots {
        /// Its name.
        interface: String,
        /// Queues wanted.
        queues: u32,
        /// Slots of the map.
        max: u32,
    },
    /// A queue the device was not attached with.
    #[error("interface {interface}: queue {queue} of {queues}")]
    NoQueue {
        /// Its name.
        interface: String,
        /// The queue named.
        queue: u32,
        /// Queues it was attached with.
        queues: u32,
    },
}

impl SteeringError {
    /// Sorts an error of the loader by what the kernel said.
    pub(crate) fn load(what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let what = what.into();
        match errno(error) {
            Some(Errno::EPERM | Errno::EACCES) => Self::Privilege { what },
            _ => Self::Load { what, reason: chain(error) },
        }
    }

    pub(crate) fn attach(interface: &str, error: &(dyn Error + 'static)) -> Self {
        let interface = interface.to_owned();
        match errno(error) {
            Some(Errno::EPERM | Errno::EACCES) => {
                Self::Privilege { what: format!("interface {interface}: attach") }
            }
            Some(Errno::EBUSY | Errno::EEXIST) => Self::Busy { interface },
            Some(Errno::ENODEV) => Self::NoDevice { interface },
            _ => Self::NoXdp { interface, reason: chain(error) },
        }
    }
}

/// The system's error number that `error` goes back to.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
        .map(Errno::from_raw)
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let texts: Vec<String> =
        std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect();
    texts.join(": ")
}
