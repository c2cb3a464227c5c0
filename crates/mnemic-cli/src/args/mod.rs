//! The command line.

mod ask;
mod bench;
mod data;
mod encode;
mod inspect;
mod train;
mod write;

use clap::{Parser, Subcommand};

pub(crate) use ask::AskArgs;
pub(crate) use bench::{
    AlgorithmsBenchArgs, BabiBenchArgs, BenchArgs, BenchCommand, GeneraliseArgs, Size,
};
pub(crate) use data::{DataArgs, DataCommand, ModelsArgs};
pub(crate) use encode::{ClassifyArgs, EmbedArgs, FillMaskArgs, SimilarityArgs, TextArgs};
pub(crate) use inspect::InspectArgs;
pub(crate) use train::{DemoArgs, EvalArgs, TrainArgs};
pub(crate) use write::{DecodingArgs, GenerateArgs, TranslateArgs};

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
  mnemic similarity MODEL 'A cat sat.' 'It rains.'   published models: embed, fill-mask, classify
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
    /// Show what a trained or published model attends to
    Inspect(InspectArgs),
    /// Print the vectors of texts
    Embed(EmbedArgs),
    /// Compare texts: all pairs, or the nearest to a query
    Similarity(SimilarityArgs),
    /// Say what hidden tokens of texts may be
    FillMask(FillMaskArgs),
    /// Give texts classes, or find entities in them
    Classify(ClassifyArgs),
    /// Go on with texts, with a language model of Hugging Face's layout
    Generate(GenerateArgs),
    /// Translate texts, with an encoder-decoder of Hugging Face's layout
    Translate(TranslateArgs),
    /// List, show, generate or count data
    Data(DataArgs),
    /// List the architectures, their presets and papers
    Models(ModelsArgs),
    /// Train many recipes and keep their results as tables
    Bench(BenchArgs),
    /// Generate stories, train DMN+ on them, ask it: no download, a minute or two
    Demo(DemoArgs),
}
