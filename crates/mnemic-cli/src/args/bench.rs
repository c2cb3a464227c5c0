//! `bench`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Subcommand;
use mnemic_tasks::Place;
use mnemic_tasks::data::babi::Task;

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Train the recipes of algorithmic tasks, pointer networks too, from several seeds; goes on where it was stopped
    Algorithms(AlgorithmsBenchArgs),
    /// Train the bAbI recipes, each beside its paper's figure; goes on where it was stopped
    Babi(BabiBenchArgs),
    /// Test trained bAbI models on longer stories, and on people and places they never read of
    Generalise(GeneraliseArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs that are done are not repeated, those that were stopped go on; Ctrl-C stops. Each result goes into
results.csv beside its recipe, and the tables of all results into babi.md in the folder of recipes
and into the README above it, where that has places for them.

Examples:
  mnemic bench babi --models dmn-plus --size 10k --tasks 1,6
  mnemic bench babi --models memn2n,entnet --jobs 2
  mnemic bench babi --tables")]
pub(crate) struct BabiBenchArgs {
    /// The folder of recipes
    #[arg(long, default_value = "models", value_name = "FOLDER")]
    pub(crate) recipes: PathBuf,
    /// Only these architectures, such as dmn-plus,memn2n
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) models: Vec<String>,
    /// Only recipes of these tasks
    #[arg(long, value_delimiter = ',', value_name = "TASKS")]
    pub(crate) tasks: Vec<Task>,
    /// Only recipes that learn from 1,000 or from 10,000 questions a task
    #[arg(long)]
    pub(crate) size: Option<Size>,
    /// Only recipes whose path or name holds one of these texts
    #[arg(long, value_delimiter = ',', value_name = "TEXT")]
    pub(crate) filter: Vec<String>,
    /// Runs at a time; each has its share of the cores [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// List the recipes that fit, and train none
    #[arg(long, conflicts_with = "tables")]
    pub(crate) list: bool,
    /// Print and write the tables of the results that are there, and train nothing
    #[arg(long)]
    pub(crate) tables: bool,
    /// Where the runs go
    #[arg(long, default_value = "runs", value_name = "FOLDER")]
    pub(crate) runs: PathBuf,
    /// Where official files lie: a folder or a .tar.gz
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Compute on cpu, cuda or cuda:N
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub(crate) device: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs that are done are not repeated, those that were stopped go on; Ctrl-C stops. Each result goes into
results.csv beside its recipe, and the tables of all results into algorithms.md in the folder of recipes.

Examples:
  mnemic bench algorithms --filter ntm/copy --seeds 10
  mnemic bench algorithms --tasks reversal --jobs 1
  mnemic bench algorithms --tables")]
pub(crate) struct AlgorithmsBenchArgs {
    /// The folder of recipes
    #[arg(long, default_value = "models", value_name = "FOLDER")]
    pub(crate) recipes: PathBuf,
    /// Only these tasks, such as copy,reversal,convex-hull
    #[arg(long, value_delimiter = ',', value_name = "TASKS")]
    pub(crate) tasks: Vec<String>,
    /// Only recipes whose path or name holds one of these texts
    #[arg(long, value_delimiter = ',', value_name = "TEXT")]
    pub(crate) filter: Vec<String>,
    /// Runs of each recipe, from seed 1 on
    #[arg(long, default_value = "1", value_name = "N")]
    pub(crate) seeds: NonZeroUsize,
    /// Runs at a time; each has its share of the cores [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// List the runs that fit, and make none
    #[arg(long, conflicts_with = "tables")]
    pub(crate) list: bool,
    /// Print and write the tables of the results that are there, and train nothing
    #[arg(long)]
    pub(crate) tables: bool,
    /// Where the runs go
    #[arg(long, default_value = "runs", value_name = "FOLDER")]
    pub(crate) runs: PathBuf,
    /// Compute on cpu, cuda or cuda:N
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub(crate) device: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Tests the runs that `mnemic bench babi` left on stories of our generator; unknown words get the vectors
that they would have had at the start of training. The results go into generalisation.csv and
generalisation.md in the folder of recipes.

Examples:
  mnemic bench generalise
  mnemic bench generalise --filter entnet --questions 200")]
pub(crate) struct GeneraliseArgs {
    /// The folder of recipes
    #[arg(long, default_value = "models", value_name = "FOLDER")]
    pub(crate) recipes: PathBuf,
    /// Only recipes whose path or name holds one of these texts
    #[arg(long, value_delimiter = ',', value_name = "TEXT")]
    pub(crate) filter: Vec<String>,
    /// Where the runs are
    #[arg(long, default_value = "runs", value_name = "FOLDER")]
    pub(crate) runs: PathBuf,
    /// Questions a task and kind of stories
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) questions: usize,
    /// The generator's seed, which no training data has
    #[arg(long, default_value_t = 1001)]
    pub(crate) seed: u64,
}

/// Questions a task to learn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Size {
    #[value(name = "1k")]
    Thousand,
    #[value(name = "10k")]
    TenThousand,
}
