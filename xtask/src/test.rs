//! `cargo xtask test`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::flags::Args;
use crate::process;

/// The variable that names the folder of real data and fixtures.
const DATA: &str = "MNEMIC_DATA";

/// What the whole workspace is checked and tested with: code behind features that need neither a device nor a network, once for all crates,
/// since features are unified. Tests of the hub talk to a server of their own.
pub(crate) const FEATURES: &str = "--features=mnemic-cli/hub";

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let root = process::root()?;
    let mut command = command(&root, &args);
    Ok(if run_tests(&mut command)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All tests of the workspace, as `cargo xtask ci` runs them.
pub(crate) fn run_all(root: &Path) -> Result<bool> {
    run_tests(&mut command(root, &Args::default()))
}

fn command(root: &Path, args: &Args) -> Command {
    let mut command = process::cargo_in(root);
    // All failures at once, not those of the first crate that has some.
    command.args(["test", "--no-fail-fast"]);
    let mut packages = args.values("--package").peekable();
    if packages.peek().is_none() {
        command.args(["--workspace", FEATURES]);
    }
    for package in packages {
        command.args(["--package", package]);
    }
    if args.has("--release") {
        command.arg("--release");
    }
    command.args(args.value("--filter"));
    // Shows what passing tests print: that is where a skipped one says so.
    command.args(["--", "--show-output"]);
    command
}

/// Runs the tests and closes with their number; whether all passed.
fn run_tests(command: &mut Command) -> Result<bool> {
    match data_folder()? {
        Some(folder) => {
            println!("{DATA}={folder}: tests on real data run");
            command.env(DATA, folder);
        }
        None => {
            println!("{DATA} is not set: tests on real data are skipped");
            command.env_remove(DATA);
        }
    }
    let mut report = Report::default();
    let status = process::each_line(command, |line| {
        if report.see(line) {
            println!("{line}");
        }
    })?;
    print!("{}", report.closing());
    if status.success() && report.passed + report.failed == 0 {
        bail!("no test matches");
    }
    if !status.success() && report.failed == 0 {
        bail!("cargo stopped before all tests had run ({status}); see above");
    }
    Ok(status.success())
}

/// The folder in `MNEMIC_DATA`, absolute, because tests run in the folder of their crate.
fn data_folder() -> Result<Option<String>> {
    let Some(given) = std::env::var_os(DATA).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let folder = std::fs::canonicalize(&given)
        .with_context(|| format!("{DATA} names {}", Path::new(&given).display()))?;
    if !folder.join("data").is_dir() && !folder.join("fixtures").is_dir() {
        bail!("{DATA} names {}, which holds neither `data` nor `fixtures`", folder.display());
    }
    Ok(Some(folder.to_string_lossy().into_owned()))
}

/// What the lines of libtest add up to.
#[derive(Debug, Default)]
struct Report {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// `name: reason` of each test that said so itself.
    skipped: BTreeSet<String>,
    in_successes: bool,
}

impl Report {
    /// Takes in one line; whether it is worth showing at once. What passing tests print is not.
    fn see(&mut self, line: &str) -> bool {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
            return true;
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if let Some(skip) = line.strip_prefix("skipped: ").filter(|_| self.in_successes) {
            self.skipped.insert(skip.to_owned());
        }
        !self.in_successes
    }

    fn closing(&self) -> String {
        let skipped = self.skipped.len();
        let mut text = String::from("\n");
        for skip in &self.skipped {
            text.push_str(&format!("skipped: {skip}\n"));
        }
        let passed = self.passed.saturating_sub(skipped);
        let skipped = skipped + self.ignored;
        text.push_str(&format!("{passed} passed, {} failed, {skipped} skipped\n", self.failed));
        text
    }
}

/// The number before a word in `ok. 3 passed; 0 failed; …`.
fn count(counts: &str, word: &str) -> usize {
    let words: Vec<&str> = counts.split_whitespace().collect();
    let position = words.iter().position(|w| w.trim_end_matches(';') == word);
    position.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a ... ok
test b ... FAILED

successes:

---- a stdout ----
loss 0.5
skipped: a: MNEMIC_DATA is not set

successes:
    a

failures:

---- b stdout ----
thread 'b' panicked

failures:
    b

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
running 1 test
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";

    fn report() -> (Report, Vec<&'static str>) {
        let mut report = Report::default();
        let shown = OUTPUT.lines().filter(|line| report.see(line)).collect();
        (report, shown)
    }

    #[test]
    fn results_of_all_binaries_are_added_up_and_skips_are_not_called_passes() {
        let (report, _) = report();
        assert_eq!((report.passed, report.failed, report.ignored), (6, 1, 1));
        let closing = report.closing();
        assert!(closing.contains("skipped: a: MNEMIC_DATA is not set\n"), "{closing}");
        assert!(closing.ends_with("5 passed, 1 failed, 2 skipped\n"), "{closing}");
    }

    #[test]
    fn failures_are_shown_at_once_but_not_what_passing_tests_print() {
        let (_, shown) = report();
        assert!(shown.contains(&"thread 'b' panicked"));
        assert!(shown.contains(&"---- b stdout ----"));
        assert!(!shown.contains(&"loss 0.5"));
        assert!(shown.iter().filter(|line| line.starts_with("test result")).count() == 2);
    }

    #[test]
    fn the_command_selects_what_was_asked_for() {
        let shown = |args: &Args| process::shown(&command(Path::new("."), args));
        assert_eq!(
            shown(&Args::default()),
            "cargo test --no-fail-fast --workspace --features=mnemic-cli/hub -- --show-output"
        );
    }

    #[test]
    fn the_feature_is_there() {
        let manifest = process::root().unwrap().join("crates/mnemic-cli/Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        assert!(manifest.contains("\nhub = ["), "{FEATURES} must be one of mnemic-cli");
    }
}
