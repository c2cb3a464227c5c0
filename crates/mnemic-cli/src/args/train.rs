//! `train`, `eval` and `demo`.

use std::path::PathBuf;

use mnemic_tasks::Place;
use mnemic_tasks::data::babi::Task;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mnemic train models/memn2n/10k.toml --task 1
  mnemic train models/minilm-trec/recipe.toml --set model.from=all-MiniLM-L6-v2
  mnemic train models/dmn-plus/10k.toml --task 1 --set train.epochs=5 --set data.source=generated")]
pub(crate) struct TrainArgs {
    /// The recipe, a TOML file
    pub(crate) recipe: PathBuf,
    /// The task to learn, in a file with a recipe for each: its number or name
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// The run's folder [default: runs/NAME, with the recipe's name]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) run: Option<PathBuf>,
    /// Where official files lie: a folder or a .tar.gz
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Override a key of the recipe, such as train.epochs=5 or data.edition=en
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Compute on cpu, cuda or cuda:N
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub(crate) device: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// A run's or a model's folder
    pub(crate) run: PathBuf,
    /// Where official files lie: a folder or a .tar.gz
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Compute on cpu, cuda or cuda:N
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub(crate) device: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The bAbI task to learn: its number or name
    #[arg(long, default_value = "1")]
    pub(crate) task: Task,
    /// The seed of stories, weights and dropout
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The run's folder; an earlier demo there is replaced
    #[arg(long, default_value = "runs/demo", value_name = "FOLDER")]
    pub(crate) run: PathBuf,
    /// Override a key of the recipe, such as train.epochs=5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}
