//! `vswitch-perf`: measures the switch beside its peers.

fn main() -> std::process::ExitCode {
    vswitch_perf::cli::main()
}
