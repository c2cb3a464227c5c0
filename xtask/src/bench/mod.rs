//! `cargo xtask bench`: our program, and on request its PyTorch peer, one after the other in the same run.

pub(crate) mod python;
pub(crate) mod record;
mod turns;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::flags::{Args, nearest};
use crate::process;

/// How a bench is started.
enum Program {
    /// An example of a crate.
    Example { package: &'static str, example: &'static str },
    /// The binary `mnemic`, with these arguments first.
    Mnemic(&'static [&'static str]),
    /// A binary of `mnemic-benches` that measures many workloads and its peer in turns, see `turns.rs`; what it is built with,
    /// and the arguments with values that are handed on to it.
    Turns { bin: &'static str, features: &'static str, handed_on: &'static [&'static str] },
}

struct Bench {
    name: &'static str,
    about: &'static str,
    program: Program,
    /// The Python script in `benches/peers` that does the same work and takes the same arguments.
    peer: Option<&'static str>,
}

/// All benches. To add one, add a line.
const BENCHES: &[Bench] = &[
    Bench {
        name: "kernels",
        about: "time of operations and training steps, each in turns with PyTorch and plain candle",
        program: Program::Turns { bin: "bench-kernels", features: "", handed_on: turns::KERNELS },
        peer: Some("kernels.py"),
    },
    Bench {
        name: "pretrained",
        about: "sentence embeddings and decoding, in turns with Hugging Face's libraries",
        program: Program::Turns {
            bin: "bench-pretrained",
            features: "candle-transformers",
            handed_on: turns::PRETRAINED,
        },
        peer: Some("pretrained.py"),
    },
    Bench {
        name: "dmn-step",
        about: "time of DMN+ training steps and of an epoch on bAbI task 2",
        program: Program::Example { package: "mnemic-tasks", example: "bench_step" },
        peer: Some("dmn_step.py"),
    },
    Bench {
        name: "long-range",
        about: "time of a sequence in attention over a tree, over everything, and in an LSTM",
        program: Program::Example { package: "mnemic-tasks", example: "bench_long_range" },
        peer: None,
    },
    Bench {
        name: "algorithms",
        about: "algorithms learnt by machines with a memory, and by LSTMs (`mnemic bench algorithms`)",
        program: Program::Mnemic(&["bench", "algorithms"]),
        peer: None,
    },
    Bench {
        name: "babi",
        about: "error of the memory networks on the bAbI tasks (`mnemic bench babi`)",
        program: Program::Mnemic(&["bench", "babi"]),
        peer: None,
    },
];

/// Where the peers are.
const PEERS: &str = "benches/peers";

/// The text of `cargo xtask bench --help`.
pub(crate) fn help() -> String {
    format!(
        "Builds the release profile and runs one bench with the arguments that follow its name.\n\
         With --peers the Python peer runs after it with the same arguments, in the virtual\n\
         environment `.venv` (made on first use: {}; on Linux a download of\n\
         some gigabytes) or with the Python that {} names.\n\nBenches:\n{}\n{}",
        python::PEER_PACKAGES.join(", "),
        python::PYTHON,
        list(),
        turns::HELP
    )
}

fn list() -> String {
    let mut text = String::new();
    for bench in BENCHES {
        let peer = if bench.peer.is_some() { " [peer]" } else { "" };
        let _ = writeln!(text, "  {:<12}{}{peer}", bench.name, bench.about);
    }
    text
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if args.has("--list") && args.rest.is_empty() {
        print!("{}", list());
        return Ok(ExitCode::SUCCESS);
    }
    let Some((name, rest)) = args.rest.split_first() else {
        bail!("which bench? `cargo xtask bench --list` lists them");
    };
    let bench = find(name)?;
    let root = process::root()?;
    if matches!(bench.program, Program::Turns { .. }) {
        return turns::run(&root, bench, &args, rest);
    }
    let label = args.value("--save");
    let kept = label.map(|label| record::path(&root, bench.name, label, "txt")).transpose()?;
    let mut commands = vec![program(&root, bench, rest)];
    if args.has("--peers") {
        commands.push(peer(&root, bench, rest)?);
    }
    let mut record = record::head(&root);
    print!("{record}");
    for command in &mut commands {
        let line = format!("$ {}", process::shown(command));
        println!("{line}");
        let _ = writeln!(record, "{line}");
        let status = process::each_line(command, |line| {
            println!("{line}");
            let _ = writeln!(record, "{line}");
        })?;
        if !status.success() {
            bail!("`{}` failed ({status})", process::shown(command));
        }
    }
    if let Some(path) = kept {
        record::save(&path, &record)?;
        println!("kept in {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn find(name: &str) -> Result<&'static Bench> {
    if let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) {
        return Ok(bench);
    }
    match nearest(name, BENCHES.iter().map(|bench| bench.name)) {
        Some(near) => bail!("unknown bench `{name}`; did you mean `{near}`?"),
        None => bail!("unknown bench `{name}`; `cargo xtask bench --list` lists them"),
    }
}

fn program(root: &Path, bench: &Bench, args: &[String]) -> Command {
    program_with(root, bench, &[], args)
}

/// [`program`] with further arguments for cargo.
fn program_with(root: &Path, bench: &Bench, build: &[&str], args: &[String]) -> Command {
    let mut command = process::cargo_in(root);
    command.args(["run", "--release"]).args(build).arg("--package");
    match bench.program {
        Program::Example { package, example } => {
            command.args([package, "--example", example, "--"]);
        }
        Program::Mnemic(first) => {
            command.args(["mnemic-cli", "--bin", "mnemic", "--"]).args(first);
        }
        Program::Turns { bin, .. } => {
            command.args(["mnemic-benches", "--bin", bin, "--"]);
        }
    }
    command.args(args);
    // candle's second pool of threads spins while it waits, and memory that goes back to the system must be cleared again; the
    // binary `mnemic` sets both for itself.
    for (name, value) in [("CANDLE_NUM_THREADS", "1"), ("MIMALLOC_PURGE_DELAY", "-1")] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    command
}

fn peer(root: &Path, bench: &Bench, args: &[String]) -> Result<Command> {
    let Some(script) = bench.peer else {
        bail!("the bench `{}` has no peer; run it without --peers", bench.name);
    };
    let mut command = Command::new(python::interpreter(root)?);
    command.current_dir(root).arg(Path::new(PEERS).join(script)).args(args);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_the_arguments_of_the_user_after_their_own() {
        let args = ["--batch".to_owned(), "100".to_owned()];
        let step = program(Path::new("."), find("dmn-step").unwrap(), &args);
        assert_eq!(
            process::shown(&step),
            "cargo run --release --package mnemic-tasks --example bench_step -- --batch 100"
        );
        let babi = process::shown(&program(Path::new("."), find("babi").unwrap(), &args));
        assert!(babi.ends_with("--bin mnemic -- bench babi --batch 100"), "{babi}");
    }

    #[test]
    fn a_slip_in_the_name_is_answered() {
        let error = find("dmn-stp").err().unwrap().to_string();
        assert!(error.contains("did you mean `dmn-step`"), "{error}");
        assert!(peer(Path::new("."), find("babi").unwrap(), &[]).is_err());
    }

    #[test]
    fn names_are_unique_and_listed() {
        for bench in BENCHES {
            assert_eq!(BENCHES.iter().filter(|other| other.name == bench.name).count(), 1);
            assert!(help().contains(bench.about));
        }
    }
}
