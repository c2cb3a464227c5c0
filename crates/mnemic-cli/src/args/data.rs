//! `data` and `models`.

use std::path::PathBuf;

use clap::Subcommand;
use mnemic_tasks::data::babi::{Edition, Split, Task};

#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// List data sets and tasks, and which official files are there
    List {
        /// Where official files lie: a folder or a .tar.gz
        #[arg(long, value_name = "PATH")]
        data: Option<PathBuf>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print stories of an official file
    Show {
        /// The task: its number or name
        #[arg(long)]
        task: Task,
        /// The official edition: en, en-10k, en-valid, en-valid-10k
        #[arg(long, default_value = "en")]
        edition: Edition,
        /// train, valid, test, train-all
        #[arg(long, default_value = "train")]
        split: Split,
        /// The number of stories
        #[arg(long, default_value_t = 2, value_name = "N")]
        stories: usize,
        /// Where official files lie: a folder or a .tar.gz
        #[arg(long, value_name = "PATH")]
        data: Option<PathBuf>,
    },
    /// Generate stories in the official format
    Generate {
        /// The task: its number or name
        #[arg(long)]
        task: Task,
        /// The number of questions
        #[arg(long, default_value_t = 1000, value_name = "N")]
        questions: usize,
        /// The generator's seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Stories of this many times the usual length
        #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
        scale: f64,
        /// Write to a file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Count stories, questions, words and answers
    Stats {
        /// Only this task: its number or name
        #[arg(long)]
        task: Option<Task>,
        /// Count official files of this edition; without it, generated stories are counted
        #[arg(long)]
        edition: Option<Edition>,
        /// train, valid, test, train-all
        #[arg(long, default_value = "train-all")]
        split: Split,
        /// Generated questions a task
        #[arg(long, default_value_t = 1000, value_name = "N")]
        questions: usize,
        /// The generator's seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where official files lie: a folder or a .tar.gz
        #[arg(long, value_name = "PATH")]
        data: Option<PathBuf>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ModelsArgs {
    /// The index of architectures [default: models/index.toml here or in a folder above]
    #[arg(long, value_name = "FILE")]
    pub(crate) index: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
