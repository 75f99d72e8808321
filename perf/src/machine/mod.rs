//! What was measured on, and whether the machine let us.
//!
//! Three things take time away from a measurement: the hypervisor (steal), other programs on the same core (the time our
//! threads wait to run), and what neither counts, seen as gaps by a loop that watches the clock.

mod priority;
mod watch;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use priority::{PRIORITY, Raised, raise, raise_thread};
pub use watch::{TAKEN_MAX, Taken, Watch};

/// The machine of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Ticks of the time stamp counter in a second, in millions. 0: there is none that can be used, see [`has_tsc`].
    pub tsc_mhz: f64,
    /// Memory, in GiB.
    pub memory_gib: f64,
    /// The compiler that built the harness and the engine.
    pub rustc: String,
    /// What each core lost while nothing was measured: before the first scenario.
    pub hiccups: Vec<Hiccups>,
    /// Part of the run's time that the hypervisor took, over all cores, in percent.
    pub steal_percent: f64,
}

/// What the kernel says can be had without swapping, in bytes.
#[must_use]
pub fn free_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What a loop that only watches the clock saw on one core.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Hiccups {
    /// The core.
    pub core: usize,
    /// How long it watched, in milliseconds.
    pub watched_ms: f64,
    /// Part of the time that was lost in gaps of more than 10 us, in percent.
    pub lost_percent: f64,
    /// The longest gap, in microseconds.
    pub longest_us: f64,
}

impl Hiccups {
    /// A warning, when the core lost so much with nothing being measured that figures taken on it will be void.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self { core, lost_percent, .. } = *self;
        (lost_percent > TAKEN_MAX).then(|| {
            format!(
                "core {core} lost {lost_percent:.0} % of its time before anything was measured on it: at more than \
                 {TAKEN_MAX} % figures are void, so end what else runs here"
            )
        })
    }
}

/// Gaps up to this are the loop's own.
const GAP: Duration = Duration::from_micros(10);
/// How long each core is watched at the start.
const WATCHED: Duration = Duration::from_millis(100);

impl Machine {
    /// Describes this machine; watches each core for a tenth of a second.
    #[must_use]
    pub fn describe() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or(0.0);
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: cores.len(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            tsc_mhz: if has_tsc() { tsc_mhz() } else { 0.0 },
            memory_gib: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            rustc: env!("RUSTC_VERSION").to_owned(),
            hiccups: cores.iter().map(|core| hiccups(core.id, WATCHED)).collect(),
            steal_percent: 0.0,
        }
    }
}

/// Watches the clock on `core` for a while. A core that cannot be had counts as lost.
#[must_use]
pub fn hiccups(core: usize, watched: Duration) -> Hiccups {
    let watch = move || {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
            return Hiccups { core, watched_ms: 0.0, lost_percent: 100.0, longest_us: 0.0 };
        }
        let start = Instant::now();
        let (mut last, mut lost, mut longest) = (start, Duration::ZERO, Duration::ZERO);
        while last - start < watched {
            let now = Instant::now();
            let gap = now - last;
            if gap > GAP {
                lost += gap;
                longest = longest.max(gap);
            }
            last = now;
        }
        let total = last - start;
        Hiccups {
            core,
            watched_ms: total.as_secs_f64() * 1e3,
            lost_percent: lost.as_secs_f64() / total.as_secs_f64() * 100.0,
            longest_us: longest.as_secs_f64() * 1e6,
        }
    };
    let nothing = Hiccups { core, watched_ms: 0.0, lost_percent: 100.0, longest_us: 0.0 };
    std::thread::spawn(watch).join().unwrap_or(nothing)
}

/// Whether `quanta` has a time stamp counter that neither stops nor changes its pace. Otherwise its ticks are nanoseconds of
/// the monotonic clock.
#[must_use]
pub fn has_tsc() -> bool {
    // As quanta looks: RDTSCP and the invariant counter, which the kernel calls nonstop_tsc; on AArch64 always.
    cfg!(target_arch = "aarch64")
        || std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| has_tsc_flags(&text))
}

fn has_tsc_flags(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    ["nonstop_tsc", "rdtscp"].iter().all(|flag| flags.split_whitespace().any(|word| word == *flag))
}

/// Ticks of `quanta`'s raw clock in a microsecond, by the monotonic clock: of the time stamp counter where there is one.
#[must_use]
pub fn tsc_mhz() -> f64 {
    let clock = quanta::Clock::new();
    let (ticks, start) = (clock.raw(), Instant::now());
    while start.elapsed() < Duration::from_millis(20) {
        std::hint::spin_loop();
    }
    (clock.raw() - ticks) as f64 / start.elapsed().as_nanos() as f64 * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let machine = Machine::describe();
        assert!(machine.cores >= 1 && machine.memory_gib > 0.0, "{machine:?}");
        assert_eq!(machine.tsc_mhz > 0.0, has_tsc(), "{machine:?}");
        assert!(machine.kernel.contains('.') && machine.rustc.starts_with("rustc "), "{machine:?}");
        assert_eq!(machine.hiccups.len(), machine.cores);
    }

    #[test]
    fn a_time_stamp_counter_that_stops_is_none() {
        assert!(has_tsc_flags("processor\t: 0\nflags\t\t: fpu tsc rdtscp constant_tsc nonstop_tsc\n"));
        assert!(!has_tsc_flags("processor\t: 0\nflags\t\t: fpu tsc rdtscp constant_tsc\n"));
        assert!(!has_tsc_flags(""));
    }

    #[test]
    fn a_core_that_is_not_there_is_all_lost() {
        let gone = hiccups(1000, Duration::from_millis(1));
        assert!(gone.lost_percent > 99.9 && gone.warning().is_some_and(|text| text.contains("core 1000")));
        assert_eq!(Hiccups { lost_percent: TAKEN_MAX, ..gone }.warning(), None);
    }
}
