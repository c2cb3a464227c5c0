//! `ask`.

use std::path::PathBuf;

use mnemic_tasks::Place;

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
