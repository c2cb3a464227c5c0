//! `bench-pretrained`: sentence embeddings by all-MiniLM-L6-v2 and decoding by a GPT-2, in turns with other programs.
//!
//! `cargo xtask bench pretrained` starts it once for each number of threads and once more to join the results; see
//! `benches/README.md`.

mod args;
mod candle;
mod decode;
mod embed;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::Result;

use args::{Args, Command};

/// As in the binary `mnemic`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    match Args::parse(std::env::args().skip(1))?.command {
        Command::List => print!("{}", run::list()),
        Command::Report(report) => report::report(std::io::stdin().lock(), &report)?,
        Command::Run(options) => {
            rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global()?;
            run::run(&options)?;
        }
    }
    Ok(())
}
