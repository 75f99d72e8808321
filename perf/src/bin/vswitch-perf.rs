//! `vswitch-perf`: measures the switch beside its peers.

/// The daemon's: what is measured here lies where it would lie there.
#[global_allocator]
static HEAP: vswitch::io::Heap = vswitch::io::Heap;

fn main() -> std::process::ExitCode {
    vswitch_perf::cli::main()
}
