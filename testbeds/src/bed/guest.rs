//! A second Linux: a kernel of its own that runs as a process (Debian's `user-mode-linux`), for what the machine's kernel has
//! no module for. Its root is the machine's file system, read-only; its one device is a tap on the underlay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Bed;
use crate::command::wait_for;
use crate::process::Daemon;
use crate::{Error, Result};

/// The program.
const PROGRAM: &str = "/usr/bin/linux.uml";
/// Its device on the underlay.
pub const DEVICE: &str = "vec0";
/// What a guest's script begins with: modules for IP-in-IP of any family in any.
const BOOT: &str = "#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
modules=/usr/lib/uml/modules/$(uname -r)/kernel
for module in lib/crc-ccitt net/ipv6/ipv6 net/ipv4/tunnel4 net/ipv4/ip_tunnel net/ipv4/ipip net/ipv6/tunnel6 \\
  net/ipv6/ip6_tunnel net/ipv6/sit; do
  insmod $modules/$module.ko
done
ip link set lo up
";
const BOOT_TIME: Duration = Duration::from_secs(60);

/// A guest that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Guest {
    daemon: Daemon,
    log: PathBuf,
}

impl Guest {
    /// Whether there is such a program on this machine.
    #[must_use]
    pub fn is_installed() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Boots one whose tap is plugged into the bed's underlay, and runs `script`, lines of sh, there.
    pub fn boot(bed: &Bed, script: &str) -> Result<Self> {
        let (tap, log) = ("guest", bed.file("guest.log"));
        for line in [
            format!("tuntap add {tap} mode tap"),
            format!("link set {tap} master br0"),
            format!("link set {tap} up"),
        ] {
            bed.underlay.ip(&line)?;
        }
        let init = bed.run.write("guest.sh", &format!("{BOOT}{script}poweroff -f\n"))?;
        let mut command = bed.underlay.command("chmod");
        crate::command::run(command.arg("+x").arg(&init))?;
        let folder = bed.file("");
        let mut command = bed.underlay.command(PROGRAM);
        command.args(["mem=64M", "rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=null,fd:1"]);
        command.arg(format!("init={}", init.display()));
        command.arg(format!("uml_dir={}/", folder.display()));
        command.arg(format!("{DEVICE}:transport=tap,ifname={tap},depth=128"));
        Ok(Self { daemon: Daemon::start(&mut command, &log)?, log })
    }

    /// Waits until its script has written a line that begins so, and gives what follows in it.
    pub fn said(&mut self, begin: &str) -> Result<String> {
        wait_for(&format!("the guest to say {begin:?}"), BOOT_TIME, || {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let found = text.lines().find_map(|line| line.strip_prefix(begin));
            match found {
                Some(rest) => Ok(rest.trim().to_owned()),
                None => {
                    self.daemon.check()?;
                    Err(Error::other(self.daemon.log_end()))
                }
            }
        })
    }
}
