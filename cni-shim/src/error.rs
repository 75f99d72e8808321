//! What goes wrong below the CNI: a step and the kernel's or the agent's answer, and how that reads as a CNI error.

use std::fmt;
use std::io;

use rscni_plugin::error::Error as CniError;

/// CNI error code: the kernel refused a step of making or removing the pod's interface.
pub const CODE_KERNEL: u32 = 100;
/// CNI error code: the agent answered, and refused.
pub const CODE_AGENT: u32 = 101;
/// CNI error code: CHECK found the pod's network in another state than ADD left it in.
pub const CODE_DIFFERS: u32 = 102;

/// A step that failed, and the kernel's word for why.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct Failure {
    /// What was being done, to what: `set MTU 1450 on eth0`.
    pub step: String,
    /// The kernel's answer.
    pub cause: io::Error,
}

impl Failure {
    /// Whether the kernel's answer was this errno.
    #[must_use]
    pub fn is(&self, errno: nix::errno::Errno) -> bool {
        self.cause.raw_os_error() == Some(errno as i32)
    }
}

impl From<Failure> for CniError {
    fn from(failure: Failure) -> Self {
        Self::Custom(CODE_KERNEL, "pod network set-up failed".to_owned(), failure.to_string())
    }
}

/// Puts the step that failed in front of its cause.
pub(crate) trait During<T> {
    /// The same result; an error says it happened during `step`.
    fn during<S: fmt::Display>(self, step: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T, E: IntoIo> During<T> for Result<T, E> {
    fn during<S: fmt::Display>(self, step: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|cause| Failure { step: step().to_string(), cause: cause.into_io() })
    }
}

/// Errors that are an errno, or can be told as one.
pub(crate) trait IntoIo {
    /// The error as the standard library has it.
    fn into_io(self) -> io::Error;
}

impl IntoIo for io::Error {
    fn into_io(self) -> io::Error {
        self
    }
}

impl IntoIo for nix::errno::Errno {
    fn into_io(self) -> io::Error {
        self.into()
    }
}

impl IntoIo for rtnetlink::Error {
    fn into_io(self) -> io::Error {
        match self {
            Self::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        }
    }
}
