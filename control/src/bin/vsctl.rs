//! `vsctl`: shows, changes and explains the vSwitch of a node.

use std::process::ExitCode;

use clap::Parser;
use vswitch_control::vsctl::{Cli, run};

fn main() -> ExitCode {
    run(&Cli::parse())
}
