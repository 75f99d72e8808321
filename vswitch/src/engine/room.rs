//! Whether there is memory for what the configuration asks for, before any of it is taken.

use std::fmt;

use vswitch_datapath::flow::FlowTable;

use super::cgroup;
use crate::config::Config;

/// What the flow tables of all workers take at most: when there have been IPv6 flows everywhere in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowMemory {
    /// Flows of one worker.
    pub flows: u32,
    /// Workers.
    pub workers: usize,
    /// Bytes of one flow.
    pub each: usize,
}

impl FlowMemory {
    /// That of a configuration: asked of a small table, which tells what it takes.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        const ASKED: usize = 1 << 12;
        let table = |flows| {
            let table = FlowTable::new(flows, 0);
            let table = if config.tcp_windows { table.following_windows() } else { table };
            table.memory_bytes()
        };
        // What a table takes whatever its size falls out.
        let each = table(2 * ASKED).saturating_sub(table(ASKED)).div_ceil(ASKED) + FlowTable::V6_BYTES;
        Self { flows: config.flows, workers: config.cores.len().max(1), each }
    }

    /// Bytes in all.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.each.saturating_mul(self.flows as usize).saturating_mul(self.workers)
    }

    /// That there is so much memory, or what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        let wanted = self.bytes();
        let can_be_had = Vec::<u8>::new().try_reserve_exact(wanted).is_ok();
        match available() {
            Some(free) if wanted as u64 > free => {
                Err(format!("{self}, and {} are free; fewer would do", Size(free)))
            }
            _ if !can_be_had => {
                Err(format!("{self}, which this process is not given (`ulimit -v`); fewer would do"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for FlowMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flows, workers, each } = self;
        write!(
            f,
            "{flows} of {each} bytes for each of {workers} workers take up to {}",
            Size(self.bytes() as u64)
        )
    }
}

/// Bytes, for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 >> 20 {
            mib if mib >= 10 << 10 => write!(f, "{} GiB", mib >> 10),
            mib => write!(f, "{mib} MiB"),
        }
    }
}

/// Bytes the machine can give without swapping, or the control group lets this process have. None: nobody says.
fn available() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| read_available(&text));
    machine.into_iter().chain(cgroup::available()).min()
}

fn read_available(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_beyond_the_memory_there_is_are_refused_before_any_is_taken() {
        let config = Config { flows: 33_554_432, cores: (0..64).collect(), ..Config::default() };
        let memory = FlowMemory::of(&config);
        let narrow = FlowMemory::of(&Config { tcp_windows: false, ..config });
        assert!(
            memory.each > narrow.each && narrow.each >= 64 + 16 + FlowTable::V6_BYTES,
            "{memory:?}, {narrow:?}"
        );
        let said = memory.check().unwrap_err();
        let begin = format!("33554432 of {} bytes for each of 64 workers take up to ", memory.each);
        assert!(
            said.starts_with(&begin) && said.contains(" GiB") && said.ends_with("fewer would do"),
            "{said}"
        );
        assert_eq!(FlowMemory { flows: 1024, workers: 1, each: 200 }.check(), Ok(()));
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "MemTotal:        100 kB\nMemAvailable:     40 kB\n";
        assert_eq!((read_available(text), read_available("MemTotal: 1 kB")), (Some(40 << 10), None));
    }
}
