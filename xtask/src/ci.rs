//! `cargo xtask ci`: the steps that a change must pass, cheapest first.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::flags::{Args, nearest};
use crate::{process, test, tidy};

struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Path) -> Result<bool>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "sources are formatted (`cargo fmt` mends it)",
        run: |root| cargo(root, &["fmt", "--all", "--check"], None),
    },
    Step { name: "tidy", about: "house rules hold", run: tidy::check },
    Step {
        name: "clippy",
        about: "no warning of the compiler or of clippy in any target",
        run: |root| {
            let scope = ["clippy", "--workspace", test::FEATURES, "--all-targets"];
            cargo(root, &[&scope[..], &["--", "-D", "warnings"]].concat(), None)
        },
    },
    Step {
        name: "docs",
        about: "the documentation builds without a warning",
        run: |root| {
            let args = ["doc", "--workspace", test::FEATURES, "--no-deps"];
            cargo(root, &args, Some(("RUSTDOCFLAGS", "-D warnings")))
        },
    },
    Step {
        name: "cuda",
        about: "CUDA kernels pass their tests on the CPU (needs a C++ compiler)",
        run: cuda,
    },
    Step { name: "test", about: "all tests pass (`cargo xtask test`)", run: test::run_all },
];

/// The text of `cargo xtask ci --help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Without arguments all steps run, in this order:\n\n");
    for step in STEPS {
        let _ = writeln!(text, "  {:<10}{}", step.name, step.about);
    }
    text.push_str("\nWith names only those, in the same order.");
    text
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let root = process::root()?;
    let steps = select(&args.rest)?;
    let mut done = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("== {}/{} {}: {}", index + 1, steps.len(), step.name, step.about);
        let start = Instant::now();
        let passed = (step.run)(&root).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            false
        });
        println!("== {} {} ({})\n", step.name, verdict(passed), process::pretty(start.elapsed()));
        done.push((step.name, passed, start.elapsed()));
        if !passed {
            break;
        }
    }
    print!("{}", summary(&done, steps.len()));
    let passed = done.iter().all(|(_, passed, _)| *passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}

fn select(names: &[String]) -> Result<Vec<&'static Step>> {
    for name in names {
        if !STEPS.iter().any(|step| step.name == *name) {
            let all: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
            match nearest(name, all.iter().copied()) {
                Some(near) => bail!("unknown step `{name}`; did you mean `{near}`?"),
                None => bail!("unknown step `{name}`; the steps are {}", all.join(", ")),
            }
        }
    }
    let wanted = |step: &&Step| names.is_empty() || names.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(wanted).collect())
}

fn summary(done: &[(&str, bool, Duration)], planned: usize) -> String {
    let mut text = String::from("ci:");
    for (name, passed, time) in done {
        let _ = write!(text, " {name} {} ({});", verdict(*passed), process::pretty(*time));
    }
    let total: Duration = done.iter().map(|(_, _, time)| *time).sum();
    let _ = writeln!(text, " together {}", process::pretty(total));
    if let Some((name, ..)) = done.iter().find(|(_, passed, _)| !passed) {
        let left = planned - done.len();
        if left > 0 {
            let steps = if left == 1 { "step" } else { "steps" };
            let _ = writeln!(text, "{left} further {steps} did not run");
        }
        let _ = writeln!(text, "to repeat the failed step: cargo xtask ci {name}");
    }
    text
}

fn cargo(root: &Path, args: &[&str], variable: Option<(&str, &str)>) -> Result<bool> {
    let mut command = process::cargo_in(root);
    command.args(args).envs(variable);
    Ok(process::status(&mut command)?.success())
}

/// The kernels of the feature `cuda`, compiled for the CPU. `nvcc` and a GPU are not needed; their own check is `cargo xtask gpu`.
fn cuda(root: &Path) -> Result<bool> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    if process::first_line(Command::new(&compiler).arg("--version")).is_none() {
        println!("skipped: cuda: no C++ compiler `{compiler}`");
        return Ok(true);
    }
    let shared = ["--package", "mnemic-kernels", "--features", "cuda-emulation"];
    let lint = [&["clippy", "--lib", "--tests"][..], &shared, &["--", "-D", "warnings"]].concat();
    let test = [&["test", "--lib"][..], &shared, &["--", "cuda"]].concat();
    Ok(cargo(root, &lint, None)? && cargo(root, &test, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_in_their_order_whatever_order_was_asked_for() {
        let names = |asked: &[&str]| -> Vec<&str> {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            select(&asked).unwrap().iter().map(|step| step.name).collect()
        };
        assert_eq!(names(&[]), ["fmt", "tidy", "clippy", "docs", "cuda", "test"]);
        assert_eq!(names(&["docs", "fmt"]), ["fmt", "docs"]);
    }

    #[test]
    fn an_unknown_step_is_answered_with_the_one_that_was_meant() {
        let error = select(&["clipy".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("did you mean `clippy`"), "{error}");
    }

    #[test]
    fn the_summary_names_the_failure_and_how_to_repeat_it() {
        let second = Duration::from_secs(1);
        let text = summary(&[("fmt", true, second), ("tidy", false, second)], 5);
        assert!(
            text.starts_with("ci: fmt ok (1.0 s); tidy FAILED (1.0 s); together 2.0 s\n"),
            "{text}"
        );
        assert!(text.contains("3 further steps did not run"));
        assert!(text.contains("cargo xtask ci tidy\n"));
        assert!(!summary(&[("fmt", true, second)], 1).contains("repeat"));
    }
}
