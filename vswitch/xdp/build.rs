//! Compiles the steering program with clang; the loader embeds the object.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "bpf/steering.bpf.c";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));

    // -g is for BTF, which describes the maps to the loader.
    let mut command = Command::new(&clang);
    command
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-c", source, "-o"]);
    command.arg(out.join("steering.bpf.o"));
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            fail(&format!("{clang} could not compile {source} ({status}); its own message is above"))
        }
        Err(error) => fail(&format!(
            "cannot run {clang} ({error}). The steering program is compiled with clang 12 or newer that has the BPF \
             target: install it (Debian: apt-get install clang), or name it in the environment variable CLANG"
        )),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}
