//! `cargo xtask bench pretrained`: the binary `bench-pretrained` in turns with its peer, for each number of threads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{BENCHES, PEERS, Program, program, python, record};
use crate::flags::Args;
use crate::process;

/// What `cargo xtask bench --help` says about it.
pub(super) const HELP: &str = "\
`pretrained` takes turns with PyTorch and ONNX Runtime and takes these arguments:\n\
\x20 --model FOLDER         all-MiniLM-L6-v2 (default: $MNEMIC_MINILM)\n\
\x20 --sentences FILE       texts to embed, one a line (default: benches/peers/sentences.txt)\n\
\x20 --part embed           only the embeddings, or only `decode`\n\
\x20 --threads 1,2          numbers of threads (default: 1 and all cores)\n\
\x20 --rounds N             how often both take their turn (default: 2)\n\
\x20 --seconds S            measuring time of each figure (default: 3)\n\
\x20 --json FILE            write the results there, too";

#[derive(Debug, Default, PartialEq)]
struct Wanted {
    threads: Vec<usize>,
    rounds: usize,
    json: Option<String>,
    handed_on: Vec<String>,
}

fn parse(args: &[String], cores: usize) -> Result<Wanted> {
    let mut wanted = Wanted { rounds: 2, ..Wanted::default() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().with_context(|| format!("`{arg}` needs a value"))?;
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(0) | Err(_) => bail!("`{arg}` takes numbers from 1, not `{text}`"),
            Ok(number) => Ok(number),
        };
        match arg.as_str() {
            "--threads" => wanted.threads = value.split(',').map(number).collect::<Result<_>>()?,
            "--rounds" => wanted.rounds = number(value)?,
            "--json" => wanted.json = Some(value.clone()),
            "--model" | "--sentences" | "--part" | "--seconds" => {
                wanted.handed_on.extend([arg.clone(), value.clone()]);
            }
            _ => bail!(
                "`bench pretrained` does not know `{arg}`; it takes --model, --sentences, --part, --threads, --rounds, --seconds, --json"
            ),
        }
    }
    if wanted.threads.is_empty() {
        wanted.threads = if cores > 1 { vec![1, cores] } else { vec![1] };
    }
    if !wanted.handed_on.iter().any(|arg| arg == "--model")
        && let Ok(model) = std::env::var("MNEMIC_MINILM")
    {
        wanted.handed_on.extend(["--model".into(), model]);
    }
    Ok(wanted)
}

/// Runs the bench with the arguments behind its name.
pub(super) fn run(root: &Path, args: &Args, rest: &[String]) -> Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = parse(rest, cores)?;
    let bench = BENCHES.iter().find(|bench| matches!(bench.program, Program::Pretrained));
    let bench = bench.context("no bench `pretrained`")?;
    let kept = match args.value("--save") {
        Some(label) => Some((
            record::path(root, "pretrained", label, "md")?,
            record::path(root, "pretrained", label, "json")?,
        )),
        None => None,
    };
    let interpreter = match args.has("--peers") {
        true => Some(python::interpreter(root)?),
        false => None,
    };
    let mut results = vec![];
    for &threads in &wanted.threads {
        for _ in 0..wanted.rounds {
            let mut shared = vec!["--threads".to_string(), threads.to_string()];
            shared.extend_from_slice(&wanted.handed_on);
            let mut commands = vec![program(root, bench, &shared)];
            if let Some(python) = &interpreter {
                let mut peer = Command::new(python);
                peer.current_dir(root).arg(Path::new(PEERS).join("pretrained.py")).args(&shared);
                commands.push(peer);
            }
            for command in &mut commands {
                command.env("RAYON_NUM_THREADS", threads.to_string());
                collect(command, &mut results)?;
            }
        }
    }
    let facts = record::facts(root);
    let table = table(&facts, &results)?;
    print!("{table}");
    let about: BTreeMap<&str, &String> = facts.iter().map(|(key, value)| (*key, value)).collect();
    let all = serde_json::to_string_pretty(&json!({ "about": about, "results": results }))?;
    if let Some(path) = &wanted.json {
        std::fs::write(path, &all).with_context(|| path.clone())?;
    }
    if let Some((markdown, raw)) = kept {
        record::save(&markdown, &table)?;
        record::save(&raw, &all)?;
        println!("written: {}, {}", markdown.display(), raw.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the lines of JSON that a program prints.
fn collect(command: &mut Command, results: &mut Vec<Value>) -> Result<()> {
    println!("$ {}", process::shown(command));
    let status = process::each_line(command, |line| match serde_json::from_str(line) {
        Ok(result) => results.push(result),
        Err(_) => println!("{line}"),
    })?;
    match status.success() {
        true => Ok(()),
        false => bail!("`{}` failed ({status})", process::shown(command)),
    }
}

/// The program that all are compared with.
const OURS: &str = "mnemic";

/// Medians over the rounds of every figure, and the others' time over ours (or our tokens over theirs).
fn table(facts: &[(&str, String)], results: &[Value]) -> Result<String> {
    let mut figures: BTreeMap<(String, u64, String), BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for result in results {
        let text = |key: &str| result[key].as_str().unwrap_or_default().to_string();
        let threads = result["threads"].as_u64().unwrap_or_default();
        let keys = result.as_object().context("expected a JSON object a line")?;
        for (key, value) in keys.iter().filter(|(key, _)| is_time(key) || is_rate(key)) {
            let Some(value) = value.as_f64() else { continue };
            let place = figures.entry((text("part"), threads, key.clone())).or_default();
            place.entry(text("program")).or_default().push(value);
        }
    }
    let mut out =
        String::from("# Pretrained models beside PyTorch, ONNX Runtime and plain candle\n\n");
    for (key, value) in facts {
        let _ = writeln!(out, "- {key}: {value}");
    }
    out.push_str(
        "\nMedians over the rounds; *ratio*: their time over ours, or our rate over theirs: above 1, ours is faster.\n\n\
         | part | threads | figure | program | median | ratio |\n| --- | ---: | --- | --- | ---: | ---: |\n",
    );
    for ((part, threads, figure), programs) in &figures {
        let ours = programs.get(OURS).map(|values| median(values));
        for (program, values) in programs {
            let theirs = median(values);
            let ratio = match ours {
                Some(ours) if program != OURS && is_time(figure) => format!("{:.2}", theirs / ours),
                Some(ours) if program != OURS => format!("{:.2}", ours / theirs),
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "| {part} | {threads} | {figure} | {program} | {theirs:.2} | {ratio} |"
            );
        }
    }
    Ok(out)
}

fn is_time(key: &str) -> bool {
    key.ends_with("_ms")
}

fn is_rate(key: &str) -> bool {
    key == "tokens_per_second"
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_mistakes_named() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wanted = parse(&words(&["--threads", "1,2", "--rounds", "3", "--part", "decode"]), 8);
        let wanted = wanted.unwrap();
        assert_eq!((wanted.threads, wanted.rounds), (vec![1, 2], 3));
        assert_eq!(wanted.handed_on[..2], ["--part", "decode"]);
        assert_eq!(parse(&[], 8).unwrap().threads, [1, 8]);
        for (given, part) in [
            (&["--thread", "2"][..], "does not know `--thread`"),
            (&["--threads", "0"], "from 1"),
            (&["--part"], "needs a value"),
        ] {
            let error = parse(&words(given), 2).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn ratios_are_of_medians() {
        let results = [
            json!({"part": "embed", "program": "mnemic", "threads": 1, "embed_1_ms": 2.0}),
            json!({"part": "embed", "program": "mnemic", "threads": 1, "embed_1_ms": 4.0}),
            json!({"part": "embed", "program": "other", "threads": 1, "embed_1_ms": 6.0}),
            json!({"part": "decode", "program": "mnemic", "threads": 1, "tokens_per_second": 30.0}),
            json!({"part": "decode", "program": "other", "threads": 1, "tokens_per_second": 20.0}),
        ];
        let table = table(&[("date", "today".into())], &results).unwrap();
        assert!(table.contains("| embed | 1 | embed_1_ms | mnemic | 3.00 |  |"), "{table}");
        assert!(table.contains("| embed | 1 | embed_1_ms | other | 6.00 | 2.00 |"), "{table}");
        assert!(
            table.contains("| decode | 1 | tokens_per_second | other | 20.00 | 1.50 |"),
            "{table}"
        );
    }
}
