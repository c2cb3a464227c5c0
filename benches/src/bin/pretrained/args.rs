//! The arguments; `cargo xtask bench pretrained` writes them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) command: Command,
}

#[derive(Debug)]
pub(crate) enum Command {
    /// `--list`: the workloads.
    List,
    /// `--report`: reads runs from standard input, one JSON object a line, and writes table and records.
    Report(Report),
    /// Measures and prints one JSON object a workload.
    Run(Options),
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    /// `--json FILE`, any number of times.
    pub(crate) json: Vec<PathBuf>,
    /// `--markdown FILE`.
    pub(crate) markdown: Vec<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct Options {
    /// `--threads N`.
    pub(crate) threads: usize,
    /// `--filter TEXT`: only workloads whose name contains it; several texts behind commas.
    pub(crate) filter: Option<String>,
    /// `--seconds S`: measuring time of a workload.
    pub(crate) seconds: f64,
    /// `--sentences N`: how many are embedded.
    pub(crate) sentences: usize,
    /// `--model FOLDER`: all-MiniLM-L6-v2.
    pub(crate) model: Option<PathBuf>,
    /// `--peer PYTHON SCRIPT`.
    pub(crate) peer: Option<(PathBuf, PathBuf)>,
    /// `--about KEY=VALUE`: date, commit and whatever else the record is to say.
    pub(crate) about: BTreeMap<String, String>,
}

impl Args {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Options {
            threads: 1,
            filter: None,
            seconds: 30.,
            sentences: 1000,
            model: None,
            peer: None,
            about: BTreeMap::new(),
        };
        let (mut list, mut joins, mut report) = (false, false, Report::default());
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("`{arg}` needs a value"));
            match arg.as_str() {
                "--list" => list = true,
                "--report" => joins = true,
                "--json" => report.json.push(value()?.into()),
                "--markdown" => report.markdown.push(value()?.into()),
                "--threads" => options.threads = number(&arg, &value()?)?,
                "--filter" => options.filter = Some(value()?),
                "--seconds" => options.seconds = number(&arg, &value()?)?,
                "--sentences" => options.sentences = number(&arg, &value()?)?,
                "--model" => options.model = Some(value()?.into()),
                "--peer" => options.peer = Some((value()?.into(), value()?.into())),
                "--about" => {
                    let text = value()?;
                    let (key, value) = text.split_once('=').context("`--about` takes KEY=VALUE")?;
                    options.about.insert(key.to_owned(), value.to_owned());
                }
                _ => bail!(
                    "unknown argument `{arg}`; known: --list, --filter, --threads, --seconds, --sentences, \
                     --model, --peer, --about, --report, --json, --markdown"
                ),
            }
        }
        if options.threads == 0 || options.sentences == 0 {
            bail!("`--threads` and `--sentences` must be at least 1");
        }
        let seconds = options.seconds;
        if !(seconds > 0. && seconds.is_finite()) {
            bail!("`--seconds` must be a positive number, not {seconds}");
        }
        let command = match (list, joins) {
            (true, _) => Command::List,
            (_, true) => Command::Report(report),
            _ => Command::Run(options),
        };
        Ok(Self { command })
    }
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T> {
    match text.parse() {
        Ok(value) => Ok(value),
        Err(_) => bail!("`{name}` takes a number, not `{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Command> {
        Ok(Args::parse(words.iter().map(|w| (*w).to_owned()))?.command)
    }

    #[test]
    fn a_run_takes_its_options() {
        let words = ["--threads", "2", "--model", "folder", "--peer", "python", "x.py"];
        let Command::Run(options) = parse(&words).unwrap() else { panic!("a run") };
        assert_eq!((options.threads, options.sentences), (2, 1000));
        assert_eq!(options.model, Some(PathBuf::from("folder")));
        assert!(matches!(parse(&["--list"]).unwrap(), Command::List));
        assert!(matches!(parse(&["--report", "--json", "a"]).unwrap(), Command::Report(_)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, part) in [
            (&["--thread", "2"][..], "`--thread`"),
            (&["--sentences", "two"], "`two`"),
            (&["--threads", "0"], "at least 1"),
            (&["--seconds", "-1"], "-1"),
            (&["--peer", "python"], "needs a value"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
