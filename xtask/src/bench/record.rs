//! The records in `benches/results`: their heads, names and files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::process;

/// Date, commit, compiler and processor: what every record begins with.
pub(crate) fn facts(root: &Path) -> [(&'static str, String); 4] {
    let git = |args: &[&str]| process::first_line(Command::new("git").current_dir(root).args(args));
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "none".into());
    let changed =
        if git(&["status", "--porcelain"]).is_some() { " with local changes" } else { "" };
    let rustc = process::first_line(Command::new("rustc").arg("--version"));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let machine = format!(
        "{} {}, {cores} cores, {}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        processor().unwrap_or_else(|| "unknown processor".into()),
    );
    [
        ("date", date(now())),
        ("commit", format!("{commit}{changed}")),
        ("rustc", rustc.unwrap_or_else(|| "unknown".into())),
        ("machine", machine),
    ]
}

/// The facts, one a line.
pub(crate) fn head(root: &Path) -> String {
    facts(root).iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
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
pub(crate) fn path(root: &Path, bench: &str, label: &str, extension: &str) -> Result<PathBuf> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if label.is_empty() || !label.chars().all(good) {
        bail!("--save takes letters, digits, `-` and `_`, not `{label}`");
    }
    let folder = root.join("benches/results");
    let path = folder.join(format!("{}-{bench}-{label}.{extension}", date(now())));
    if path.exists() {
        bail!("{} is there already; choose another label", path.display());
    }
    Ok(path)
}

/// Writes a record where there is none.
pub(crate) fn save(path: &Path, record: &str) -> Result<()> {
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
    fn a_record_says_where_it_comes_from() {
        let head = head(Path::new("."));
        for key in ["date: 2", "commit: ", "rustc: ", "machine: "] {
            assert!(head.contains(key), "{key} in {head}");
        }
    }

    #[test]
    fn records_stay_in_their_folder_and_are_never_overwritten() {
        let root = std::env::temp_dir().join(format!("mnemic-xtask-{}", std::process::id()));
        assert!(path(&root, "x", "../y", "txt").unwrap_err().to_string().contains("../y"));
        let kept = path(&root, "x", "y", "txt").unwrap();
        save(&kept, "first").unwrap();
        assert!(path(&root, "x", "y", "txt").is_err() && save(&kept, "second").is_err());
        assert!(path(&root, "x", "y", "json").is_ok());
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "first");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
