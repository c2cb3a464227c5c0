//! `cargo xtask bench kernels`: the binary of `mnemic-benches`, once for each number of threads and once more to join what
//! the runs found.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use super::{BENCHES, PEERS, Program, program_with, python, record};
use crate::flags::{Args, nearest};
use crate::process;

/// What `cargo xtask bench --help` says about it.
pub(super) const HELP: &str = "\
`kernels` measures with each number of threads in a process of its own, with PyTorch (eager and\n\
compiled, the better one counts) in a second one, and takes these arguments:\n\
\x20 --threads 1,2          numbers of threads (default: 1 and all cores)\n\
\x20 --filter TEXT          only workloads whose name contains it; several behind commas\n\
\x20 --seconds S            measuring time of a workload and number of threads (default: 10)\n\
\x20 --compile-seconds S    how long torch.compile may take for a workload (default: 300; 0: never)\n\
\x20 --device cuda          measure on a GPU (cuda:1: the second one); needs nvcc to build\n\
\x20 --json FILE            write the results there, too\n\
With --list it lists its workloads; --save keeps a table (.md) and the results (.json).";

/// The arguments with values that are handed on as they are.
const HANDED_ON: &[&str] = &["--filter", "--seconds", "--compile-seconds", "--device"];

#[derive(Debug, Default, PartialEq)]
struct Wanted {
    threads: Vec<usize>,
    json: Vec<PathBuf>,
    handed_on: Vec<String>,
    /// Whether a GPU is measured.
    cuda: bool,
}

/// Runs the bench with the arguments behind its name.
pub(super) fn run(root: &Path, args: &Args, rest: &[String]) -> Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = parse(rest, cores)?;
    if args.has("--list") {
        let list = [&["--list".to_owned()], wanted.handed_on.as_slice()].concat();
        return process::become_command(measuring(root, wanted.cuda, &list)?);
    }
    let kept = match args.value("--save") {
        Some(label) => Some(saved_as(root, label)?),
        None => None,
    };
    let mut shared = wanted.handed_on.clone();
    if args.has("--peers") {
        let python = python::interpreter(root)?;
        let script = root.join(PEERS).join("kernels.py");
        shared.extend(["--peer".into(), text(&python)?, text(&script)?]);
    }
    for (key, value) in record::facts(root) {
        shared.extend(["--about".into(), format!("{key}={value}")]);
    }
    let mut runs = Vec::new();
    let mut failed = false;
    for threads in &wanted.threads {
        if let Err(error) = measure(root, &wanted, &shared, *threads, &mut runs) {
            if runs.is_empty() {
                return Err(error);
            }
            // What has been measured is not thrown away.
            eprintln!("error: {error:#}");
            failed = true;
        }
    }
    let reported = report(root, &runs, &wanted, kept.as_ref())?;
    Ok(if reported && !failed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse(args: &[String], cores: usize) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, attached) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), None),
        };
        let known = ["--threads", "--json"].iter().chain(HANDED_ON);
        if !known.clone().any(|known| *known == name) {
            let names: Vec<&str> = known.copied().collect();
            match nearest(name, names.iter().copied()) {
                Some(near) => {
                    bail!("`bench kernels` does not know `{arg}`; did you mean `{near}`?")
                }
                None => {
                    bail!("`bench kernels` does not know `{arg}`; it takes {}", names.join(", "))
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
fn saved_as(root: &Path, label: &str) -> Result<(PathBuf, PathBuf)> {
    let of = |extension| record::path(root, "kernels", label, extension);
    Ok((of("md")?, of("json")?))
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?;
    Ok(text.to_owned())
}

fn measuring(root: &Path, cuda: bool, args: &[String]) -> Result<Command> {
    let bench = BENCHES.iter().find(|bench| matches!(bench.program, Program::Kernels));
    let build = if cuda { &["--features", "cuda"][..] } else { &[] };
    Ok(program_with(root, bench.context("no bench `kernels`")?, build, args))
}

/// Collects the lines that the binary prints, one a workload.
fn measure(
    root: &Path,
    wanted: &Wanted,
    shared: &[String],
    threads: usize,
    runs: &mut Vec<String>,
) -> Result<()> {
    let mut args = vec!["--threads".to_owned(), threads.to_string()];
    args.extend_from_slice(shared);
    let mut command = measuring(root, wanted.cuda, &args)?;
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
    let mut command = measuring(root, wanted.cuda, &args)?;
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

    fn parsed(words: &[&str]) -> Result<Wanted> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), 8)
    }

    #[test]
    fn threads_are_one_and_all_unless_told() {
        assert_eq!(parsed(&[]).unwrap().threads, [1, 8]);
        assert_eq!(parse(&[], 1).unwrap().threads, [1]);
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
        let command = measuring(Path::new("."), false, &["--list".into()]).unwrap();
        let shown = process::shown(&command);
        assert!(
            shown.contains("--release --package mnemic-benches --bin bench-kernels"),
            "{shown}"
        );
        assert!(HELP.contains(HANDED_ON[0]));
        let command = measuring(Path::new("."), true, &[]).unwrap();
        assert!(process::shown(&command).contains("--features cuda --package mnemic-benches"));
    }
}
