//! `generate` and `translate`.

use std::num::NonZeroUsize;

use super::TextArgs;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --temperature, --top-k or --top-p the most probable token is taken (or what the checkpoint's
generation_config.json says); a single prompt is written to as it comes.

Examples:
  mnemic generate stories260K 'Once upon a time'
  mnemic generate gpt2 'The capital of France is' --temperature 0.8 --top-p 0.95 --seed 7
  mnemic generate gpt2 'The capital of France is' --beams 4 --n-best 4 --max-new-tokens 20
  mnemic generate gpt2 --file prompts.txt --stop '\\n' --json")]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) texts: TextArgs,
    #[command(flatten)]
    pub(crate) how: DecodingArgs,
    /// Print everything at the end
    #[arg(long)]
    pub(crate) no_stream: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Any encoder-decoder: Marian, BART, T5 (which wants its task named in the text), OpenNMT's Transformer,
spelling to phonemes.

Examples:
  mnemic translate Helsinki-NLP/opus-mt-en-de 'The house is small.'
  mnemic translate g2p-en activationist --beams 3 --n-best 3
  mnemic translate t5-small 'translate English to German: The house is small.' --json")]
pub(crate) struct TranslateArgs {
    #[command(flatten)]
    pub(crate) texts: TextArgs,
    #[command(flatten)]
    pub(crate) how: DecodingArgs,
}

/// How tokens are chosen; what is not given is as the checkpoint says.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DecodingArgs {
    /// The most new tokens [default: as the checkpoint says, else 128]
    #[arg(long, value_name = "N")]
    pub(crate) max_new_tokens: Option<NonZeroUsize>,
    /// Sample, with the scores divided by this
    #[arg(long, value_name = "NUMBER")]
    pub(crate) temperature: Option<f64>,
    /// Sample from the K most probable tokens; 0 for all
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Sample from the fewest tokens that have this probability together
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// Samples are drawn from this
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Take the most probable token, whatever the checkpoint says
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "seed", "beams"])]
    pub(crate) greedy: bool,
    /// Beams of beam search
    #[arg(long, value_name = "N", conflicts_with_all = ["temperature", "top_k", "top_p", "seed"])]
    pub(crate) beams: Option<NonZeroUsize>,
    /// Texts for each prompt: the best beams, or so many samples
    #[arg(long, value_name = "N")]
    pub(crate) n_best: Option<NonZeroUsize>,
    /// Scores of beams are divided by their length to this power
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) length_penalty: Option<f64>,
    /// End beam search as soon as there are as many texts as beams
    #[arg(long)]
    pub(crate) early_stopping: bool,
    /// Scores of tokens that are there already are divided by it
    #[arg(long, value_name = "NUMBER")]
    pub(crate) repetition_penalty: Option<f64>,
    /// No sequence of so many tokens comes twice
    #[arg(long, value_name = "N")]
    pub(crate) no_repeat_ngrams: Option<usize>,
    /// End where this text comes, without it; \n is a line break. May be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
}
