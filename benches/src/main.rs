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
use clap::Parser;

use args::Args;

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
    let args = Args::parse();
    if args.common.list {
        print!("{}", workloads::list(args.cuda().is_some()));
        return Ok(ExitCode::SUCCESS);
    }
    if args.report.report {
        record::report(std::io::stdin().lock(), &args.report)?;
        return Ok(ExitCode::SUCCESS);
    }
    rayon::ThreadPoolBuilder::new().num_threads(args.common.threads()).build_global()?;
    // candle's backward pass recurses once for each operation of the graph.
    mnemic_train::on_big_stack(|| run::run(&args))?
}
