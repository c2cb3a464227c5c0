//! The arguments; `cargo xtask bench kernels` writes them.

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
    /// `--list`: the workloads, with those for CUDA alone or without.
    List(bool),
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
    /// `--compile-seconds S`: how long `torch.compile` may take for a workload; 0 leaves it out.
    pub(crate) compile_seconds: f64,
    /// `--no-candle` leaves plain candle out, which is slow, and in the way of a profile; `--candle` takes it in. On CUDA it is left
    /// out if nothing is said.
    pub(crate) candle: bool,
    /// `--device cpu|cuda|cuda:N`: the number of a CUDA device.
    pub(crate) cuda: Option<usize>,
    /// `--peer PYTHON SCRIPT`.
    pub(crate) peer: Option<(PathBuf, PathBuf)>,
    /// `--about KEY=VALUE`: date, commit and whatever else the record is to say.
    pub(crate) about: BTreeMap<String, String>,
}

impl Args {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = args.peekable();
        let mut options = Options {
            threads: 1,
            filter: None,
            seconds: 10.,
            compile_seconds: 300.,
            candle: true,
            cuda: None,
            peer: None,
            about: BTreeMap::new(),
        };
        let (mut list, mut joins, mut report) = (false, false, Report::default());
        let mut candle = None;
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
                "--compile-seconds" => options.compile_seconds = number(&arg, &value()?)?,
                "--no-candle" => candle = Some(false),
                "--candle" => candle = Some(true),
                "--device" => options.cuda = device(&value()?)?,
                "--peer" => options.peer = Some((value()?.into(), value()?.into())),
                "--about" => {
                    let text = value()?;
                    let (key, value) = text.split_once('=').context("`--about` takes KEY=VALUE")?;
                    options.about.insert(key.to_owned(), value.to_owned());
                }
                _ => bail!(
                    "unknown argument `{arg}`; known: --list, --filter, --threads, --seconds, \
                     --compile-seconds, --device, --candle, --no-candle, --peer, --about, --report, --json, --markdown"
                ),
            }
        }
        options.candle = candle.unwrap_or(options.cuda.is_none());
        if options.threads == 0 {
            bail!("`--threads` must be at least 1");
        }
        let (seconds, compile) = (options.seconds, options.compile_seconds);
        if !(seconds > 0. && seconds.is_finite()) {
            bail!("`--seconds` must be a positive number, not {seconds}");
        }
        if !(compile >= 0. && compile.is_finite()) {
            bail!("`--compile-seconds` must be 0 or a positive number, not {compile}");
        }
        let command = match (list, joins) {
            (true, _) => Command::List(options.cuda.is_some()),
            (_, true) => Command::Report(report),
            _ => Command::Run(options),
        };
        Ok(Self { command })
    }
}

/// The number of the CUDA device that is named, `None` for the CPU.
fn device(text: &str) -> Result<Option<usize>> {
    match text.strip_prefix("cuda:") {
        _ if text == "cpu" => Ok(None),
        _ if text == "cuda" => Ok(Some(0)),
        Some(ordinal) => Ok(Some(number("--device cuda:N", ordinal)?)),
        None => bail!("`--device` takes cpu, cuda or cuda:N, not `{text}`"),
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
        let words = ["--threads", "2", "--filter", "gru", "--peer", "python", "x.py"];
        let Command::Run(options) = parse(&words).unwrap() else { panic!("a run") };
        assert_eq!((options.threads, options.filter.as_deref()), (2, Some("gru")));
        assert_eq!(options.peer.unwrap().1, PathBuf::from("x.py"));
    }

    #[test]
    fn on_cuda_candle_is_left_out_unless_it_is_asked_for() {
        let options = |words: &[&str]| match parse(words).unwrap() {
            Command::Run(options) => (options.cuda, options.candle),
            _ => panic!("a run"),
        };
        assert_eq!(options(&[]), (None, true));
        assert_eq!(options(&["--device", "cuda:2"]), (Some(2), false));
        assert_eq!(options(&["--candle", "--device", "cuda"]), (Some(0), true));
        assert_eq!(options(&["--no-candle", "--device", "cpu"]), (None, false));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, part) in [
            (&["--thread", "2"][..], "`--thread`"),
            (&["--threads", "two"], "`two`"),
            (&["--threads", "0"], "at least 1"),
            (&["--seconds", "-1"], "-1"),
            (&["--compile-seconds", "inf"], "inf"),
            (&["--peer", "python"], "needs a value"),
            (&["--about", "x"], "KEY=VALUE"),
            (&["--device", "gpu"], "`gpu`"),
            (&["--device", "cuda:x"], "`x`"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn listing_and_reporting_are_commands_of_their_own() {
        assert!(matches!(parse(&["--list"]).unwrap(), Command::List(false)));
        let Command::Report(report) = parse(&["--report", "--json", "a", "--json", "b"]).unwrap()
        else {
            panic!("a report")
        };
        assert_eq!(report.json.len(), 2);
    }
}
