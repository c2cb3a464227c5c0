//! Starting cargo and other programs from the workspace root.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The folder of the workspace's manifest.
pub(crate) fn root() -> Result<PathBuf> {
    // Cargo sets it for `cargo run`; the value from compile time serves when the binary is started by hand.
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
    let root = Path::new(&manifest_dir).parent().map(Path::to_path_buf).unwrap_or_default();
    if !root.join("Cargo.toml").is_file() {
        bail!("no workspace manifest in {}; start it as `cargo xtask`", root.display());
    }
    Ok(root)
}

/// Cargo, as the user would start it: without what `cargo run` has put into our own environment, which would make
/// build scripts that watch those variables run again.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|p| name_text.starts_with(p))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Cargo, started in the workspace root.
pub(crate) fn cargo_in(root: &Path) -> Command {
    let mut command = cargo();
    command.current_dir(root);
    command
}

/// The command as it would be typed.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        text.push(' ');
        if arg.is_empty() || arg.contains(char::is_whitespace) {
            text.push_str(&format!("'{arg}'"));
        } else {
            text.push_str(&arg);
        }
    }
    text
}

/// Runs the command to its end; an error when it cannot be started.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start `{}`", shown(command)))
}

/// Runs the command; an error unless it succeeds.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// The first line that a command prints, or `None` when it fails.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok().filter(|o| o.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Runs the command and hands each line of its standard output to `see`.
pub(crate) fn each_line(command: &mut Command, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
    let started = command.stdout(Stdio::piped()).spawn();
    let mut child = started.with_context(|| format!("cannot start `{}`", shown(command)))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            see(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            line.clear();
        }
    }
    Ok(child.wait()?)
}

/// Becomes the command: its exit code is ours, and signals reach it and not a bystander.
pub(crate) fn become_command(mut command: Command) -> Result<ExitCode> {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let error = command.exec();
        Err(error).with_context(|| format!("cannot start `{}`", shown(&command)))
    }
    #[cfg(not(unix))]
    {
        let code = status(&mut command)?.code().and_then(|code| u8::try_from(code).ok());
        Ok(ExitCode::from(code.unwrap_or(1)))
    }
}

/// A time for people: `0.4 s`, `12 s`, `3 min 05 s`.
pub(crate) fn pretty(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 119.5 {
        format!("{seconds:.0} s")
    } else {
        let whole = seconds.round() as u64;
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_for_people() {
        assert_eq!(pretty(Duration::from_millis(420)), "0.4 s");
        assert_eq!(pretty(Duration::from_millis(11_600)), "12 s");
        assert_eq!(pretty(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["test", "a b"]);
        assert_eq!(shown(&command), "cargo test 'a b'");
    }

    #[test]
    fn the_root_holds_this_crate() {
        assert!(root().unwrap().join("xtask/Cargo.toml").is_file());
    }

    #[cfg(unix)]
    #[test]
    fn lines_and_failures_of_a_child_are_seen() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; exit 3"]);
        let mut lines = Vec::new();
        let status = each_line(&mut command, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(status.code(), Some(3));
        assert!(succeed(Command::new("sh").args(["-c", "exit 1"])).is_err());
        let missing = succeed(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(missing.to_string().contains("cannot start `no-such-program-here`"));
    }
}
