//! The arguments; `cargo xtask bench pretrained` writes them.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Parser;
use mnemic_benches::arguments::{Common, Report, seconds};

/// Sentence embeddings by all-MiniLM-L6-v2 and decoding by a GPT-2, in turns with other programs: one JSON object a workload.
#[derive(Debug, Parser)]
#[command(name = "bench-pretrained")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) report: Report,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Measuring time of a workload
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) seconds: f64,
    /// How many sentences are embedded
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(crate) sentences: NonZeroUsize,
    /// Where all-MiniLM-L6-v2 lies
    #[arg(long, value_name = "FOLDER")]
    pub(crate) model: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["bench-pretrained"], words].concat())
    }

    #[test]
    fn a_run_takes_its_options() {
        let args = parse(&["--threads", "2", "--model", "folder"]).unwrap();
        assert_eq!((args.common.threads(), args.sentences.get()), (2, 1000));
        assert_eq!(args.model, Some(PathBuf::from("folder")));
        assert!(parse(&["--report", "--json", "a"]).unwrap().report.report);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, part) in [
            (&["--sentences", "two"][..], "'two'"),
            (&["--sentences", "0"], "'0'"),
            (&["--seconds", "-1"], "above 0"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
