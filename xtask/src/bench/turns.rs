//! `cargo xtask bench kernels` and `pretrained`: a binary of `mnemic-benches` that takes turns with its peer, once for each number of
//! threads and once more to join what the runs found.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use super::{Bench, PEERS, Program, program_with, python, record};
use crate::flags::{Args, nearest};
use crate::process;

/// The arguments of `kernels` with values that are handed on as they are.
pub(super) const KERNELS: &[&str] = &["--filter", "--seconds", "--compile-seconds", "--device"];

/// Those of `pretrained`.
pub(super) const PRETRAINED: &[&str] = &["--filter", "--seconds", "--sentences", "--model"];

/// What `cargo xtask bench --help` says about both.
pub(super) const HELP: &str = "\
`kernels` and `pretrained` measure with each number of threads in a process of its own, with their\n\
peers in a second one, and take these arguments:\n\
\x20 --threads 1,2          numbers of threads (default: 1 and all cores)\n\
\x20 --filter TEXT          only workloads whose name contains it; several behind commas\n\
\x20 --seconds S            measuring time of a workload and number of threads (default: 10; 30)\n\
\x20 --json FILE            write the results there, too\n\
With --list they list their workloads; --save keeps a table (.md) and the results (.json).\n\
`kernels` beside PyTorch (eager and compiled, the better one counts) also takes\n\
\x20 --compile-seconds S    how long torch.compile may take for a workload (default: 300; 0: never)\n\
\x20 --device cuda          measure on a GPU (cuda:1: the second one); needs nvcc to build\n\
`pretrained` beside sentence-transformers, transformers and ONNX Runtime also takes\n\
\x20 --model FOLDER         all-MiniLM-L6-v2 (default: that of MNEMIC_MINILM)\n\
\x20 --sentences N          how many are embedded (default: 1000, of SST-2 below MNEMIC_DATA)";

#[derive(Debug, Default, PartialEq)]
struct Wanted {
    threads: Vec<usize>,
    json: Vec<PathBuf>,
    handed_on: Vec<String>,
    /// Whether a GPU is measured.
    cuda: bool,
}

/// Runs the bench with the arguments behind its name.
pub(super) fn run(root: &Path, bench: &Bench, args: &Args, rest: &[String]) -> Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = parse(bench, rest, cores)?;
    if args.has("--list") {
        let list = [&["--list".to_owned()], wanted.handed_on.as_slice()].concat();
        return process::become_command(measuring(root, bench, wanted.cuda, &list));
    }
    let kept = match args.value("--save") {
        Some(label) => Some(saved_as(root, bench.name, label)?),
        None => None,
    };
    let mut shared = wanted.handed_on.clone();
    if args.has("--peers") {
        let python = python::interpreter(root)?;
        let script = bench.peer.with_context(|| format!("`{}` has no peer", bench.name))?;
        let script = root.join(PEERS).join(script);
        shared.extend(["--peer".into(), text(&python)?, text(&script)?]);
    }
    for (key, value) in record::facts(root) {
        shared.extend(["--about".into(), format!("{key}={value}")]);
    }
    let mut runs = Vec::new();
    let mut failed = false;
    for threads in &wanted.threads {
        if let Err(error) = measure(root, bench, &wanted, &shared, *threads, &mut runs) {
            if runs.is_empty() {
                return Err(error);
            }
            // What has been measured is not thrown away.
            eprintln!("error: {error:#}");
            failed = true;
        }
    }
    let reported = report(root, bench, &runs, &wanted, kept.as_ref())?;
    Ok(if reported && !failed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse(bench: &Bench, args: &[String], cores: usize) -> Result<Wanted> {
    let Program::Turns { handed_on, .. } = bench.program else {
        bail!("`{}` does not take turns", bench.name);
    };
    let mut wanted = Wanted::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, attached) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), None),
        };
        let known = ["--threads", "--json"].iter().chain(handed_on);
        if !known.clone().any(|known| *known == name) {
            let names: Vec<&str> = known.copied().collect();
            match nearest(name, names.iter().copied()) {
                Some(near) => {
                    bail!("`bench {}` does not know `{arg}`; did you mean `{near}`?", bench.name)
                }
                None => {
                    let names = names.join(", ");
                    bail!("`bench {}` does not know `{arg}`; it takes {names}", bench.name)
                }
            }
        }
        let value = attached.or_else(|| args.next().map(String::as_str));
        let value = value.with_context(|| format!("`{name}` needs a value"))?;
        match name {
            "--threads" => wanted.threads = numbers(value)?,
            "--json" => wanted.json.push(std::path::absolute(value)?),
            _ => {
                wanted.cuda |= name == "--device" && value != "cpu";
                wanted.handed_on.extend([name.to_owned(), value.to_owned()]);
            }
        }
    }
    if wanted.threads.is_empty() {
        // The host's threads matter little to a GPU.
        let both = cores > 1 && !wanted.cuda;
        wanted.threads = if both { vec![1, cores] } else { vec![cores] };
    }
    Ok(wanted)
}

fn numbers(text: &str) -> Result<Vec<usize>> {
    let number = |part: &str| match part.trim().parse() {
        Ok(0) | Err(_) => bail!("`--threads` takes numbers from 1 such as `1,2`, not `{text}`"),
        Ok(number) => Ok(number),
    };
    text.split(',').map(number).collect()
}

/// Where a saved run goes: the table and the results.
fn saved_as(root: &Path, bench: &str, label: &str) -> Result<(PathBuf, PathBuf)> {
    let of = |extension| record::path(root, bench, label, extension);
    Ok((of("md")?, of("json")?))
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?;
    Ok(text.to_owned())
}

fn measuring(root: &Path, bench: &Bench, cuda: bool, args: &[String]) -> Command {
    let build = if cuda { &["--features", "cuda"][..] } else { &[] };
    program_with(root, bench, build, args)
}

/// Collects the lines that the binary prints, one a workload.
fn measure(
    root: &Path,
    bench: &Bench,
    wanted: &Wanted,
    shared: &[String],
    threads: usize,
    runs: &mut Vec<String>,
) -> Result<()> {
    let mut args = vec!["--threads".to_owned(), threads.to_string()];
    args.extend_from_slice(shared);
    let mut command = measuring(root, bench, wanted.cuda, &args);
    command.env("RAYON_NUM_THREADS", threads.to_string()).env("CANDLE_NUM_THREADS", "1");
    let status = process::each_line(&mut command, |line| runs.push(line.to_owned()))?;
    if !status.success() {
        bail!("measuring with {threads} threads failed ({status})");
    }
    Ok(())
}

/// Whether all workloads were measured.
fn report(
    root: &Path,
    bench: &Bench,
    runs: &[String],
    wanted: &Wanted,
    kept: Option<&(PathBuf, PathBuf)>,
) -> Result<bool> {
    let mut args = vec!["--report".to_owned()];
    let json = &wanted.json;
    let (table, results) = kept.map(|(table, results)| (table, results)).unzip();
    for path in json.iter().chain(results) {
        args.extend(["--json".into(), text(path)?]);
    }
    if let Some(path) = table {
        args.extend(["--markdown".into(), text(path)?]);
    }
    let mut command = measuring(root, bench, wanted.cuda, &args);
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", process::shown(&command)))?;
    if let Some(mut input) = child.stdin.take() {
        runs.iter().try_for_each(|run| writeln!(input, "{run}"))?;
    }
    let reported = child.wait()?.success();
    for path in json.iter().chain(results).chain(table).filter(|path| path.is_file()) {
        println!("written: {}", path.display());
    }
    Ok(reported)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(name: &str) -> &'static Bench {
        crate::bench::find(name).unwrap()
    }

    fn parsed(words: &[&str]) -> Result<Wanted> {
        parse(bench("kernels"), &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), 8)
    }

    #[test]
    fn threads_are_one_and_all_unless_told() {
        assert_eq!(parsed(&[]).unwrap().threads, [1, 8]);
        assert_eq!(parse(bench("kernels"), &[], 1).unwrap().threads, [1]);
        assert_eq!(parsed(&["--threads", "1, 2,4"]).unwrap().threads, [1, 2, 4]);
    }

    #[test]
    fn a_gpu_is_measured_with_all_threads() {
        let wanted = parsed(&["--device", "cuda"]).unwrap();
        assert_eq!((wanted.cuda, wanted.threads), (true, vec![8]));
        assert_eq!(wanted.handed_on, ["--device", "cuda"]);
        assert!(!parsed(&["--device=cpu"]).unwrap().cuda);
    }

    #[test]
    fn other_arguments_are_handed_on_in_either_form() {
        let wanted = parsed(&["--filter=gru,lstm", "--seconds", "3", "--json", "/x.json"]).unwrap();
        assert_eq!(wanted.handed_on, ["--filter", "gru,lstm", "--seconds", "3"]);
        assert_eq!(wanted.json.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, part) in [
            (&["--thread", "2"][..], "did you mean `--threads`"),
            (&["gru"], "it takes --threads, --json, --filter"),
            (&["--threads", "1,two"], "`1,two`"),
            (&["--threads", "0"], "from 1"),
            (&["--filter"], "needs a value"),
        ] {
            let error = parsed(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_binary_is_built_optimised() {
        let shown = |name, cuda| process::shown(&measuring(Path::new("."), bench(name), cuda, &[]));
        for name in ["kernels", "pretrained"] {
            let wanted = format!("--release --package mnemic-benches --bin bench-{name}");
            assert!(shown(name, false).contains(&wanted));
        }
        assert!(shown("kernels", true).contains("--features cuda --package mnemic-benches"));
        assert!(KERNELS.iter().chain(PRETRAINED).all(|argument| HELP.contains(argument)));
    }

    #[test]
    fn each_bench_takes_its_own_arguments() {
        let parse = |name, words: &[&str]| {
            parse(bench(name), &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>(), 2)
        };
        let wanted = parse("pretrained", &["--sentences", "200"]).unwrap();
        assert_eq!(wanted.handed_on, ["--sentences", "200"]);
        let error = parse("pretrained", &["--device", "cuda"]).unwrap_err().to_string();
        assert!(error.contains("`bench pretrained` does not know `--device`"), "{error}");
        assert!(parse("dmn-step", &[]).is_err());
    }
}
