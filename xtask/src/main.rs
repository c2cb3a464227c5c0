//! `cargo xtask`: the build runner of the mnemic workspace.
//!
//! One file per verb; every verb and flag is declared and documented in `flags.rs`. Nothing here depends on candle, so
//! that the runner builds in seconds: heavy work runs in the crates that it starts. See `cargo xtask help`.

mod bench;
mod ci;
mod demo;
mod flags;
mod gpu;
mod interop;
mod package;
mod process;
mod test;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    match flags::dispatch(std::env::args().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
