//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use mnemic_tasks::Place;
use mnemic_tasks::data::babi::{Edition, Split, Task};

/// Train memory networks, ask them questions, and see what they attended to.
#[derive(Debug, Parser)]
#[command(
    name = "mnemic",
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  mnemic demo                                        train DMN+ on generated stories and ask it
  mnemic train models/dmn-plus/10k.toml --task 1     train a recipe; Ctrl-C saves
  mnemic ask runs/dmn-plus-10k-task1                 type a story and questions
  mnemic inspect runs/demo --html attention.html     a page of what it attended to
  mnemic data generate --task 2 --questions 100      stories in the official format

Official bAbI files are found with --data, or below $MNEMIC_DATA/data/babi."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a recipe; the same command resumes a run that was stopped
    Train(TrainArgs),
    /// Test a trained model on the test data of its recipe
    Eval(EvalArgs),
    /// Ask a trained model about stories
    Ask(AskArgs),
    /// Write a page of what a trained model attended to
    Inspect(InspectArgs),
    /// List, show, generate or count data
    Data(DataArgs),
    /// List the architectures, their presets and papers
    Models(ModelsArgs),
    /// Train many recipes and keep their results as tables
    Bench(BenchArgs),
    /// Generate stories, train DMN+ on them, ask it: no download, a minute or two
    Demo(DemoArgs),
}

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
    pub(crate) task: Option<Task>,
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
#[command(after_help = "\
A story is one sentence a line; a line with a question mark asks about the sentences before it; an
empty line starts a new story. Lines may begin with numbers, and questions may be followed by a tab
and the right answer, as in bAbI's files.

Examples:
  mnemic ask runs/demo
  mnemic ask runs/demo --story story.txt
  mnemic ask runs/demo --story story.txt --question 'Where is Mary?' --json")]
pub(crate) struct AskArgs {
    /// A run's or a model's folder
    pub(crate) run: PathBuf,
    /// Read the story from a file instead of standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) story: Option<PathBuf>,
    /// Ask this about the story; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) question: Vec<String>,
    /// Answers to show
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) answers: usize,
    /// Show all sentences of long stories
    #[arg(long)]
    pub(crate) all: bool,
    /// Write a page of the answers as well
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write a picture of the last answer as well
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Print answers and attention as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Compute on cpu, cuda or cuda:N
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub(crate) device: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mnemic inspect runs/demo --html attention.html
  mnemic inspect runs/demo --html errors.html --wrong --examples 20
  mnemic inspect runs/demo --card pictures --examples 3")]
pub(crate) struct InspectArgs {
    /// A run's or a model's folder
    pub(crate) run: PathBuf,
    /// The page to write
    #[arg(long, value_name = "FILE", required_unless_present = "card")]
    pub(crate) html: Option<PathBuf>,
    /// Write the learning curve and each example as a picture into a folder, for a model card, and print what the model gets
    /// wrong
    #[arg(long, value_name = "FOLDER")]
    pub(crate) card: Option<PathBuf>,
    /// The number of test examples to show
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) examples: usize,
    /// The first test example to look at
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    pub(crate) from: usize,
    /// Only examples that the model answers wrongly
    #[arg(long)]
    pub(crate) wrong: bool,
    /// Only this task of a joint model: its number or name
    #[arg(long)]
    pub(crate) task: Option<Task>,
    /// Where official files lie: a folder or a .tar.gz
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Compute on cpu, cuda or cuda:N
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub(crate) device: Place,
}

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
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
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

#[derive(Debug, clap::Args)]
pub(crate) struct ModelsArgs {
    /// The index of architectures [default: models/index.toml here or in a folder above]
    #[arg(long, value_name = "FILE")]
    pub(crate) index: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
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
