//! `cargo xtask bench`: our program, and on request its PyTorch peer, one after the other in the same run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::flags::{Args, nearest};
use crate::process;

/// How a bench is started.
enum Program {
    /// An example of a crate.
    Example { package: &'static str, example: &'static str },
    /// The binary `mnemic`, with these arguments first.
    Mnemic(&'static [&'static str]),
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
        name: "dmn-step",
        about: "time of DMN+ training steps and of an epoch on bAbI task 2",
        program: Program::Example { package: "mnemic-tasks", example: "bench_step" },
        peer: Some("dmn_step.py"),
    },
    Bench {
        name: "babi",
        about: "error of the memory networks on the bAbI tasks (`mnemic bench babi`)",
        program: Program::Mnemic(&["bench", "babi"]),
        peer: None,
    },
];

/// What the peers need, by exact version: a figure is worth nothing without it.
const PEER_PACKAGES: &[&str] = &["torch==2.15.0", "numpy"];

/// A Python that has the peers' packages already, instead of `.venv`.
const PYTHON: &str = "MNEMIC_PYTHON";

/// The text of `cargo xtask bench --help`.
pub(crate) fn help() -> String {
    format!(
        "Builds the release profile and runs one bench with the arguments that follow its name.\n\
         With --peers the PyTorch peer runs after it with the same arguments, in the virtual\n\
         environment `.venv` (made on first use: {}; on Linux a download of\n\
         some gigabytes) or with the Python that {PYTHON} names.\n\nBenches:\n{}",
        PEER_PACKAGES.join(", "),
        list()
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
    if args.has("--list") {
        print!("{}", list());
        return Ok(ExitCode::SUCCESS);
    }
    let Some((name, rest)) = args.rest.split_first() else {
        bail!("which bench? `cargo xtask bench --list` lists them");
    };
    let bench = find(name)?;
    let root = process::root()?;
    let label = args.value("--save");
    let kept = label.map(|label| record_path(&root, bench.name, label)).transpose()?;
    let mut commands = vec![program(&root, bench, rest)];
    if args.has("--peers") {
        commands.push(peer(&root, bench, rest)?);
    }
    let mut record = machine(&root);
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
        save(&path, &record)?;
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
    let mut command = process::cargo_in(root);
    command.args(["run", "--release", "--package"]);
    match bench.program {
        Program::Example { package, example } => {
            command.args([package, "--example", example, "--"]);
        }
        Program::Mnemic(first) => {
            command.args(["mnemic-cli", "--bin", "mnemic", "--"]).args(first);
        }
    }
    command.args(args);
    // candle's second pool of threads spins while it waits; the binary `mnemic` sets this for itself.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        command.env("CANDLE_NUM_THREADS", "1");
    }
    command
}

fn peer(root: &Path, bench: &Bench, args: &[String]) -> Result<Command> {
    let Some(script) = bench.peer else {
        bail!("the bench `{}` has no peer; run it without --peers", bench.name);
    };
    let python = match std::env::var_os(PYTHON).filter(|value| !value.is_empty()) {
        Some(python) => PathBuf::from(python),
        None => virtual_environment(root)?,
    };
    let mut command = Command::new(python);
    command.current_dir(root).arg(Path::new("benches/peers").join(script)).args(args);
    Ok(command)
}

/// The Python of `.venv`, which is made or brought up to date first. A stamp says what is in it, so that an
/// interrupted installation is taken up again.
fn virtual_environment(root: &Path) -> Result<PathBuf> {
    let folder = root.join(".venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let stamp = folder.join("mnemic-peers.txt");
    let wanted = PEER_PACKAGES.join("\n");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    eprintln!("Setting up .venv with {} (once; some minutes)", PEER_PACKAGES.join(", "));
    let base = if cfg!(windows) { "python" } else { "python3" };
    process::succeed(Command::new(base).args(["-m", "venv"]).arg(&folder))
        .context("the peers need Python 3 with its module `venv`")?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    process::succeed(Command::new(&python).args(install).args(PEER_PACKAGES))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

/// Date, commit, compiler and processor: the head of every record.
fn machine(root: &Path) -> String {
    let git = |args: &[&str]| process::first_line(Command::new("git").current_dir(root).args(args));
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "none".into());
    let changed =
        if git(&["status", "--porcelain"]).is_some() { " with local changes" } else { "" };
    let rustc = process::first_line(Command::new("rustc").arg("--version"));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "date: {}\ncommit: {commit}{changed}\nrustc: {}\nmachine: {} {}, {cores} cores, {}\n",
        date(now()),
        rustc.unwrap_or_else(|| "unknown".into()),
        std::env::consts::OS,
        std::env::consts::ARCH,
        processor().unwrap_or_else(|| "unknown processor".into()),
    )
}

fn processor() -> Option<String> {
    if cfg!(target_os = "macos") {
        return process::first_line(
            Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]),
        );
    }
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Where the record of today's run goes. Known before the run, which may take long: a bad label or an earlier record,
/// which is never overwritten, stops it at once.
fn record_path(root: &Path, bench: &str, label: &str) -> Result<PathBuf> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if label.is_empty() || !label.chars().all(good) {
        bail!("--save takes letters, digits, `-` and `_`, not `{label}`");
    }
    let folder = root.join("benches/results");
    let path = folder.join(format!("{}-{bench}-{label}.txt", date(now())));
    if path.exists() {
        bail!("{} is there already; choose another label", path.display());
    }
    Ok(path)
}

fn save(path: &Path, record: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let written = std::fs::File::create_new(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, record.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The day (UTC) of a Unix time as `2026-11-21`.
fn date(unix_seconds: u64) -> String {
    let is_leap = |year: u64| {
        year.is_multiple_of(400) || (year.is_multiple_of(4) && !year.is_multiple_of(100))
    };
    let mut days = unix_seconds / 86_400;
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_through_leap_years() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(951_782_400 + 86_400), "2000-03-01");
        assert_eq!(date(1_735_689_599), "2024-12-31");
        assert_eq!(date(1_795_219_200), "2026-11-21");
    }

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

    #[test]
    fn records_stay_in_their_folder_and_are_never_overwritten() {
        let root = std::env::temp_dir().join(format!("mnemic-xtask-{}", std::process::id()));
        assert!(record_path(&root, "x", "../y").unwrap_err().to_string().contains("../y"));
        let path = record_path(&root, "x", "y").unwrap();
        save(&path, "first").unwrap();
        assert!(record_path(&root, "x", "y").is_err() && save(&path, "second").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
