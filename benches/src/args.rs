//! The arguments; `cargo xtask bench kernels` writes them.

use clap::Parser;
use mnemic_benches::arguments::{Common, Report, seconds, seconds_or_none};

/// Our operations and training steps, plain candle's and PyTorch's, measured in turns: one JSON object a workload.
#[derive(Debug, Parser)]
#[command(name = "bench-kernels")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) report: Report,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Measuring time of a workload
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) seconds: f64,
    /// How long `torch.compile` may take for a workload; 0 leaves it out
    #[arg(
        long,
        value_name = "S",
        default_value = "300",
        value_parser = seconds_or_none,
        allow_negative_numbers = true
    )]
    pub(crate) compile_seconds: f64,
    /// Compute on cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: Place,
    /// Take plain candle in on CUDA, too
    #[arg(long, conflicts_with = "no_candle")]
    candle: bool,
    /// Leave plain candle out, which is slow, and in the way of a profile
    #[arg(long)]
    no_candle: bool,
}

/// A device.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Cpu,
    Cuda(usize),
}

impl Args {
    /// The number of the CUDA device, `None` for the CPU.
    pub(crate) fn cuda(&self) -> Option<usize> {
        match self.device {
            Place::Cpu => None,
            Place::Cuda(ordinal) => Some(ordinal),
        }
    }

    /// Whether plain candle takes part: on the CPU, if nothing is said.
    pub(crate) fn candle(&self) -> bool {
        self.candle || (self.device == Place::Cpu && !self.no_candle)
    }
}

fn device(text: &str) -> Result<Place, String> {
    let ordinal = match text {
        "cpu" => return Ok(Place::Cpu),
        "cuda" => Some(0),
        _ => text.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()),
    };
    ordinal.map(Place::Cuda).ok_or_else(|| "expected cpu, cuda or cuda:N".into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["bench-kernels"], words].concat())
    }

    #[test]
    fn a_run_takes_its_options() {
        let words = ["--threads", "2", "--filter", "gru", "--peer", "python", "x.py"];
        let args = parse(&words).unwrap();
        assert_eq!((args.common.threads(), args.common.filter.as_deref()), (2, Some("gru")));
        assert_eq!(args.common.peer(), Some((Path::new("python"), Path::new("x.py"))));
        assert!(parse(&["--list"]).unwrap().common.list);
        let words = ["--report", "--json", "a", "--json", "b", "--about", "commit=1=2"];
        let args = parse(&words).unwrap();
        assert!(args.report.report && args.report.json.len() == 2);
        assert_eq!(args.common.about()["commit"], "1=2");
    }

    #[test]
    fn on_cuda_candle_is_left_out_unless_it_is_asked_for() {
        let chosen = |words: &[&str]| {
            let args = parse(words).unwrap();
            (args.cuda(), args.candle())
        };
        assert_eq!(chosen(&[]), (None, true));
        assert_eq!(chosen(&["--device", "cuda:2"]), (Some(2), false));
        assert_eq!(chosen(&["--candle", "--device", "cuda"]), (Some(0), true));
        assert_eq!(chosen(&["--no-candle", "--device", "cpu"]), (None, false));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, part) in [
            (&["--thread", "2"][..], "'--thread'"),
            (&["--threads", "two"], "'two'"),
            (&["--threads", "0"], "'0'"),
            (&["--seconds", "-1"], "above 0"),
            (&["--compile-seconds", "inf"], "'inf'"),
            (&["--peer", "python"], "2 values"),
            (&["--about", "x"], "KEY=VALUE"),
            (&["--device", "gpu"], "'gpu'"),
            (&["--device", "cuda:x"], "cuda:N"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
