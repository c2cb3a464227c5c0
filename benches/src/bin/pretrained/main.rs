//! `bench-pretrained`: sentence embeddings by all-MiniLM-L6-v2 and decoding by a GPT-2, in turns with other programs.
//!
//! `cargo xtask bench pretrained` starts it once for each number of threads and once more to join the results; see
//! `benches/README.md`.

mod args;
#[cfg(feature = "candle-transformers")]
mod candle;
mod decode;
mod embed;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::Args;

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
    let args = Args::parse();
    if args.common.list {
        print!("{}", run::list());
    } else if args.report.report {
        report::report(std::io::stdin().lock(), &args.report)?;
    } else {
        rayon::ThreadPoolBuilder::new().num_threads(args.common.threads()).build_global()?;
        run::run(&args)?;
    }
    Ok(())
}
