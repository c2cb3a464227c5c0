//! The arguments that the programs of the benches share; `cargo xtask bench` writes them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;

/// Where the results of several runs go.
#[derive(Debug, Default, Args)]
pub struct Report {
    /// Read runs from standard input, one JSON object a line, and write table and records
    #[arg(long, conflicts_with = "list")]
    pub report: bool,
    /// Write the records of --report here, too; any number of times
    #[arg(long, value_name = "FILE")]
    pub json: Vec<PathBuf>,
    /// Write the table of --report here, too; any number of times
    #[arg(long, value_name = "FILE")]
    pub markdown: Vec<PathBuf>,
}

/// What every run is told.
#[derive(Debug, Args)]
pub struct Common {
    /// List the workloads
    #[arg(long)]
    pub list: bool,
    /// Threads of ours and of the peer's
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,
    /// Only workloads whose name contains this; several texts behind commas
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// The peer: its Python and its script
    #[arg(long, num_args = 2, value_names = ["PYTHON", "SCRIPT"])]
    peer: Vec<PathBuf>,
    /// Date, commit and whatever else the record is to say; any number of times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    about: Vec<(String, String)>,
}

impl Common {
    /// Threads, at least one.
    pub fn threads(&self) -> usize {
        self.threads.get()
    }

    /// Python and script of the peer, where there is one.
    pub fn peer(&self) -> Option<(&Path, &Path)> {
        match self.peer.as_slice() {
            [python, script] => Some((python, script)),
            _ => None,
        }
    }

    /// What the record is to say.
    pub fn about(&self) -> BTreeMap<String, String> {
        self.about.iter().cloned().collect()
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads seconds above 0.
///
/// # Errors
/// Anything else.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0. && seconds.is_finite() => Ok(seconds),
        _ => Err("expected a number above 0".into()),
    }
}

/// Reads seconds from 0 on.
///
/// # Errors
/// Anything else.
pub fn seconds_or_none(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0. && seconds.is_finite() => Ok(seconds),
        _ => Err("expected 0 or a positive number".into()),
    }
}
