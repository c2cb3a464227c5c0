//! `cargo xtask demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::flags::Args;
use crate::process;

/// Builds the binary, then becomes it. The build is the one of `cargo xtask test`: the development profile, in which
/// dependencies and kernels are fully optimised already.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let root = process::root()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let built = target.join("debug").join(format!("mnemic{}", std::env::consts::EXE_SUFFIX));
    if !built.exists() {
        eprintln!(
            "Building mnemic and what it stands on. The first time this takes some minutes; later\n\
             runs start at once, and `cargo xtask test` shares the build."
        );
    }
    let select = ["--package", "mnemic-cli", "--bin", "mnemic"];
    process::succeed(process::cargo_in(&root).arg("build").args(select))?;

    // In the caller's folder, so that paths among the arguments mean what they meant there.
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--manifest-path"]).arg(root.join("Cargo.toml"));
    command.args(select).args(["--", "demo"]).args(args.rest);
    process::become_command(command)
}
