//! `bench-kernels`: our operations and training steps, plain candle's and PyTorch's, measured in turns in one process.
//!
//! `cargo xtask bench kernels` starts it once for each number of threads and once more to join the results; see
//! `benches/README.md`.

mod args;
mod data;
mod peak;
mod record;
mod run;
mod step;
mod table;
mod workloads;

use std::process::ExitCode;

use anyhow::Result;

use args::{Args, Command};

/// As in the binary `mnemic`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode> {
    match Args::parse(std::env::args().skip(1))?.command {
        Command::List(cuda) => print!("{}", workloads::list(cuda)),
        Command::Report(report) => record::report(std::io::stdin().lock(), &report)?,
        Command::Run(options) => {
            rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global()?;
            // candle's backward pass recurses once for each operation of the graph.
            return mnemic_train::on_big_stack(|| run::run(&options))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
