//! Per-interface sysctls, of the namespace the calling thread is in.

use std::fs;
use std::io;

use crate::error::{During, Failure};

/// Writes `value` to `net.FAMILY.conf.INTERFACE.KEY`.
///
/// `/proc/sys/net` shows the namespace of the thread that opens it, so this works after `setns` without a mount. A
/// kernel without IPv6 lacks the files of `ipv6`: those are then none to write.
pub fn set(family: &str, interface: &str, key: &str, value: &str) -> Result<(), Failure> {
    // A dot in an interface's name stands as it is in the path.
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{key}");
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && family == "ipv6" => Ok(()),
        written => written.during(|| format!("write {value} to {path}")),
    }
}
