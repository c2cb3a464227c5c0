//! `mnemic`: train memory networks, ask them questions, see what they attended to.

mod args;
mod ask;
mod bench;
mod data;
mod demo;
mod inspect;
mod models;
mod output;
mod train;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    logging();
    let result = match args.command {
        Command::Train(a) => train::train(&a),
        Command::Eval(a) => train::eval(&a),
        Command::Ask(a) => ask::ask(&a),
        Command::Inspect(a) => inspect::inspect(&a),
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
