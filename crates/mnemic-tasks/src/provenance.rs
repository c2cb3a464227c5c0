//! Where a number comes from: machine, commit, command, date.

use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What is written beside every measured number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The processor's name and the threads used.
    pub machine: String,
    /// The device that computed, where it was not the processor: its place and its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// The commit of the checkout that the program ran in, with `+` where files were changed; outside of one, what the
    /// environment variable `MNEMIC_COMMIT` says.
    pub commit: String,
    /// The version of this crate.
    pub version: String,
    /// The command.
    pub command: String,
    /// The day, `YYYY-MM-DD` (UTC).
    pub date: String,
}

impl Provenance {
    /// What holds here and now.
    pub fn here(command: &str) -> Self {
        let threads = rayon::current_num_threads();
        Self {
            machine: format!("{}, {threads} threads", processor()),
            device: String::new(),
            commit: commit(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            command: command.to_string(),
            date: today(),
        }
    }

    /// Processor and device in a line.
    pub fn hardware(&self) -> String {
        match self.device.as_str() {
            "" => self.machine.clone(),
            device => format!("{}; {device}", self.machine),
        }
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return std::env::var("MNEMIC_COMMIT").unwrap_or_default();
    };
    // The tables of results change while results are made; they are no change of the program.
    let tables = ":(top,exclude,glob)models/**/results.csv";
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ":/", tables]);
    if changed.is_some_and(|s| !s.is_empty()) { commit + "+" } else { commit }
}

/// The civil date of the system's clock (algorithm: days since 0000-03-01 in 400-year eras).
fn today() -> String {
    let seconds =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let z = (seconds / 86_400) as i64 + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn says_something_of_everything() {
        let p = super::Provenance::here("mnemic train x.toml");
        assert!(p.machine.contains("threads") && p.date.len() == 10 && p.date.starts_with("20"));
        assert!(!p.version.is_empty() && p.command == "mnemic train x.toml");
    }
}
