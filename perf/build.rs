//! Compiles the XDP programs of generator and sink with clang, and tells which compiler and commit this is.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    println!("cargo::rustc-env=RUSTC_VERSION={}", said(Command::new(rustc).arg("--version")));
    println!("cargo::rustc-env=COMMIT={}", commit());
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-changed=bpf");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    let sources = std::fs::read_dir("bpf").expect("the folder bpf is beside this file");
    for source in sources.flatten().map(|entry| entry.path()) {
        if source.to_string_lossy().ends_with(".bpf.c") {
            compile(&source, &out);
        }
    }
}

fn compile(source: &Path, out: &Path) {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let object = out.join(source.with_extension("o").file_name().expect("a source has a name"));
    // -g is for BTF, which describes the maps to the loader.
    let arguments = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-c", "-o"];
    let status = Command::new(&clang).args(arguments).arg(object).arg(source).status();
    let problem = match status {
        Ok(status) if status.success() => return,
        Ok(status) => {
            format!("{clang} could not compile {} ({status}); its own message is above", source.display())
        }
        Err(error) => format!(
            "cannot run {clang} ({error}): install it (Debian: apt-get install clang), or name it in CLANG"
        ),
    };
    println!("cargo::error={problem}");
    std::process::exit(1);
}

/// The commit, with `-dirty` when tracked files differ from it; `unknown` outside a checkout.
fn commit() -> String {
    // The index changes with each commit and checkout.
    let git = said(Command::new("git").args(["rev-parse", "--absolute-git-dir"]));
    for name in ["HEAD", "index"] {
        println!("cargo::rerun-if-changed={git}/{name}");
    }
    let commit =
        said(Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]));
    if commit.is_empty() { "unknown".to_owned() } else { commit }
}

fn said(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
