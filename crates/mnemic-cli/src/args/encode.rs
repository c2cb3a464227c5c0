//! `embed`, `similarity`, `fill-mask` and `classify`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use mnemic_tasks::Place;

/// Where texts come from, and what else all verbs of encoders take.
#[derive(Debug, clap::Args)]
pub(crate) struct TextArgs {
    /// The model: a folder, or an id of the Hugging Face hub (feature hub)
    pub(crate) model: PathBuf,
    /// The texts; without them and --file, the lines of standard input
    pub(crate) text: Vec<String>,
    /// Read texts from a file, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) file: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Texts that go through the model together, at most
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<NonZeroUsize>,
    /// Compute on cpu, cuda or cuda:N
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub(crate) device: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Sentence encoders (sentence-transformers) pool and normalise as their files say; Model2Vec folders do as
well. Without --json a line of numbers for each text, with tabs between them. Empty lines are passed over.

Examples:
  mnemic embed all-MiniLM-L6-v2 'A cat sat on the mat.' 'It rains.'
  mnemic embed all-MiniLM-L6-v2 --file sentences.txt > vectors.tsv
  cat sentences.txt | mnemic embed sentence-transformers/all-MiniLM-L6-v2 --json")]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    pub(crate) texts: TextArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The similarity of two texts is the cosine of the angle between their vectors. Without --query, that of
all pairs.

Examples:
  mnemic similarity all-MiniLM-L6-v2 'A cat sat.' 'A dog lay.' 'It rains.'
  mnemic similarity all-MiniLM-L6-v2 --query 'weather' --file sentences.txt --top 3")]
pub(crate) struct SimilarityArgs {
    #[command(flatten)]
    pub(crate) texts: TextArgs,
    /// List the texts nearest to this one
    #[arg(long, value_name = "TEXT")]
    pub(crate) query: Option<String>,
    /// The number of texts to list
    #[arg(long, default_value = "5", value_name = "K", requires = "query")]
    pub(crate) top: NonZeroUsize,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
[MASK] and <mask> hide a token, whichever the model has; a text may have several.

Examples:
  mnemic fill-mask bert-base-uncased 'Paris is the [MASK] of France.'
  mnemic fill-mask roberta-base 'The <mask> sat on the <mask>.' --top 3 --json")]
pub(crate) struct FillMaskArgs {
    #[command(flatten)]
    pub(crate) texts: TextArgs,
    /// The number of tokens to list for each mask
    #[arg(long, default_value = "5", value_name = "K")]
    pub(crate) top: NonZeroUsize,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A classifier of texts gives all its labels with their probabilities, one of tokens the entities that it
finds, with the characters from which to which they go.

Examples:
  mnemic classify distilbert-base-uncased-finetuned-sst-2-english 'What a film!'
  mnemic classify runs/minilm-trec 'Who wrote Faust?'
  mnemic classify runs/minilm-wnut17 --file posts.txt --json")]
pub(crate) struct ClassifyArgs {
    #[command(flatten)]
    pub(crate) texts: TextArgs,
}
