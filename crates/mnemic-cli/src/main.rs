//! `mnemic`: train memory networks, ask them questions, see what they attended to.

mod algorithms;
mod args;
mod ask;
mod bench;
mod data;
mod demo;
mod fine_tune;
mod inspect;
mod models;
mod output;
mod pointer;
mod text;
mod train;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    calm_candle();
    let args = Args::parse();
    logging();
    let result = match args.command {
        Command::Train(a) => train::train(&a),
        Command::Eval(a) => train::eval(&a),
        Command::Ask(a) => ask::ask(&a),
        Command::Inspect(a) => inspect::inspect(&a),
        Command::Embed(a) => text::embed(&a),
        Command::Similarity(a) => text::similarity(&a),
        Command::FillMask(a) => text::fill_mask(&a),
        Command::Classify(a) => text::classify(&a),
        Command::Generate(a) => text::generate(&a),
        Command::Translate(a) => text::translate(&a),
        Command::Data(a) => data::data(&a.command),
        Command::Models(a) => models::models(&a),
        Command::Bench(a) => bench::bench(&a.command),
        Command::Demo(a) => demo::demo(&a),
    };
    match result {
        Ok(code) => code,
        // The reader of our output went away, as `head` does: nothing to say.
        Err(e) if output::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", output::chain(&e));
            ExitCode::FAILURE
        }
    }
}

/// Starts the program again with `CANDLE_NUM_THREADS=1` where nothing is said, and with the allocator told to keep its memory:
/// a training step asks for the same buffers again. candle's second pool of threads spins between
/// element-wise operations, which takes the cores from the kernels' threads; candle reads the variable once, early.
fn calm_candle() {
    #[cfg(unix)]
    if std::env::var_os("CANDLE_NUM_THREADS").is_none()
        && let Ok(program) = std::env::current_exe()
    {
        use std::os::unix::process::CommandExt;
        let mut again = std::process::Command::new(program);
        if let Some(name) = std::env::args_os().next() {
            again.arg0(name);
        }
        // Returns only on failure; then the program goes on as it is.
        again.args(std::env::args_os().skip(1)).env("CANDLE_NUM_THREADS", "1");
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            again.env("MIMALLOC_PURGE_DELAY", "-1");
        }
        let _ = again.exec();
    }
}

/// Warnings and errors of the libraries on standard error; `RUST_LOG` chooses more.
fn logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
}
