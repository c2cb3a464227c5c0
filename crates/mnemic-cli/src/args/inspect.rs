//! `inspect`.

use std::path::PathBuf;

use mnemic_tasks::Place;
use mnemic_tasks::data::babi::Task;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mnemic inspect runs/demo --html attention.html
  mnemic inspect runs/demo --html errors.html --wrong --examples 20
  mnemic inspect runs/ntm-copy --html copy.html --sizes 20
  mnemic inspect runs/demo --card pictures --examples 3
  mnemic inspect bert-base-uncased --text 'The cat sat on the mat.' --html heads.html")]
pub(crate) struct InspectArgs {
    /// A run's or a model's folder; with --text that of a Hugging Face model, or its id on the hub (feature hub)
    pub(crate) run: PathBuf,
    /// The page to write
    #[arg(long, value_name = "FILE", required_unless_present_any = ["card", "text"])]
    pub(crate) html: Option<PathBuf>,
    /// Show the attention of all layers and heads over this text; without --html, the mean of each layer
    #[arg(long, conflicts_with_all = ["card", "examples", "from", "wrong", "task", "data"])]
    pub(crate) text: Option<String>,
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
    /// Of an algorithmic task: the sizes of the sequence, such as 20 or 5,3; of a pointer network: the points [default: as trained]
    #[arg(long, value_delimiter = ',', value_name = "SIZES")]
    pub(crate) sizes: Vec<usize>,
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
