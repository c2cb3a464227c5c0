//! What is kept of a measurement, and how several runs become one report.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use anyhow::{Context, Result, bail};
use mnemic_benches::arguments::Report;
use serde::{Deserialize, Serialize};

use crate::peak::Peak;
use crate::run::is_compiled;
use crate::step::Checked;
use crate::table;

/// A workload with a number of threads. Times are medians in milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) workload: String,
    pub(crate) threads: usize,
    pub(crate) ours_ms: Option<f64>,
    /// The quartiles of our steps.
    pub(crate) ours_quartiles_ms: Option<(f64, f64)>,
    /// The best of PyTorch's modes, and which it is.
    pub(crate) peer_ms: Option<f64>,
    pub(crate) peer_mode: Option<String>,
    /// The best of the modes without `torch.compile`, and of those with it.
    pub(crate) peer_eager_ms: Option<f64>,
    pub(crate) peer_compile_ms: Option<f64>,
    /// Every mode.
    pub(crate) peer_modes_ms: BTreeMap<String, f64>,
    /// On CUDA, median milliseconds of a step between whose beginning and end the device has nothing else to do, by program.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) alone_ms: BTreeMap<String, f64>,
    /// Plain candle.
    pub(crate) candle_ms: Option<f64>,
    /// PyTorch's time divided by ours.
    pub(crate) ratio: Option<f64>,
    /// The ratio that we want to reach.
    pub(crate) target: f64,
    /// The least time of this machine for the work, divided by ours.
    pub(crate) peak_fraction: Option<f64>,
    /// 10^9 floating-point operations a second, counted in the definition.
    pub(crate) gflops: Option<f64>,
    /// Operations and bytes of a step, counted in the definition.
    pub(crate) flops: f64,
    pub(crate) bytes: f64,
    /// Whether the products are those of 16-bit numbers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) half: bool,
    pub(crate) rounds: usize,
    /// Steps of ours that were timed.
    pub(crate) steps: usize,
    /// What the programs computed: the loss and the norm of the gradients of the first step.
    pub(crate) computed: BTreeMap<String, Checked>,
    /// Modes that could not be measured, and why.
    pub(crate) notes: Vec<String>,
    /// Why nothing was timed.
    pub(crate) error: Option<String>,
}

/// Workloads with a number of threads; a run of the program prints one line for each of its workloads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Date, commit, machine, versions.
    pub(crate) about: BTreeMap<String, String>,
    pub(crate) peak: Peak,
    pub(crate) results: Vec<Record>,
}

/// What is saved: all runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) about: BTreeMap<String, String>,
    pub(crate) peaks: Vec<Peak>,
    pub(crate) results: Vec<Record>,
}

impl Record {
    /// The figures that follow from others.
    pub(crate) fn derive(&mut self, peak: &Peak) {
        let least = |modes: &mut dyn Iterator<Item = (&String, &f64)>| {
            let best = modes.min_by(|a, b| a.1.total_cmp(b.1));
            best.map(|(mode, ms)| (mode.clone(), *ms))
        };
        let best = least(&mut self.peer_modes_ms.iter());
        let eager = least(&mut self.peer_modes_ms.iter().filter(|(mode, _)| !is_compiled(mode)));
        self.peer_eager_ms = eager.map(|(_, ms)| ms);
        let compiled = least(&mut self.peer_modes_ms.iter().filter(|(mode, _)| is_compiled(mode)));
        self.peer_compile_ms = compiled.map(|(_, ms)| ms);
        (self.peer_mode, self.peer_ms) = best.unzip();
        self.ratio = self.peer_ms.zip(self.ours_ms).map(|(peer, ours)| peer / ours);
        self.gflops = self.ours_ms.map(|ms| self.flops / ms / 1e6);
        let least_ms = peak.least_seconds(self.flops, self.bytes, self.half) * 1e3;
        self.peak_fraction = self.ours_ms.map(|ms| least_ms / ms);
    }
}

impl Saved {
    fn join(runs: Vec<Run>) -> Self {
        let mut saved = Self::default();
        for run in runs {
            saved.about.extend(run.about);
            if !saved.peaks.iter().any(|peak| peak.threads == run.peak.threads) {
                saved.peaks.push(run.peak);
            }
            saved.results.extend(run.results);
        }
        // The rows of a workload stand together.
        let mut order: Vec<String> = Vec::new();
        for record in &saved.results {
            if !order.contains(&record.workload) {
                order.push(record.workload.clone());
            }
        }
        let place = |record: &Record| order.iter().position(|name| *name == record.workload);
        saved.results.sort_by_key(|record| (place(record), record.threads));
        saved
    }
}

/// Reads runs, one JSON object a line, and prints and writes what they say together.
///
/// # Errors
/// When a line is no run or a file cannot be written; at the end, when a workload failed.
pub(crate) fn report(lines: impl BufRead, to: &Report) -> Result<()> {
    let saved = Saved::join(read(lines)?);
    let markdown = table::markdown(&saved);
    print!("{markdown}");
    let json = serde_json::to_string_pretty(&saved)? + "\n";
    to.json.iter().try_for_each(|path| write(path, &json))?;
    to.markdown.iter().try_for_each(|path| write(path, &markdown))?;
    let failed: Vec<&str> = saved
        .results
        .iter()
        .filter(|record| record.error.is_some())
        .map(|record| record.workload.as_str())
        .collect();
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

fn read(lines: impl BufRead) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for line in lines.lines() {
        let line = line?;
        if !line.trim().is_empty() {
            runs.push(serde_json::from_str(&line).context("a line of the input is no run")?);
        }
    }
    if runs.is_empty() {
        bail!("nothing to report: the input holds no run");
    }
    Ok(runs)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn record(workload: &str, threads: usize) -> Record {
        let mut record = Record {
            workload: workload.into(),
            threads,
            ours_ms: Some(2.),
            peer_modes_ms: [("eager", 5.), ("fused", 4.), ("compile", 3.)]
                .map(|(mode, ms)| (mode.to_owned(), ms))
                .into(),
            target: 1.5,
            flops: 1e8,
            bytes: 1e6,
            ..Record::default()
        };
        let peak = Peak { gflops: 100., gigabytes_per_second: 10., ..Peak::default() };
        record.derive(&peak);
        record
    }

    fn run(threads: usize, names: &[&str]) -> Run {
        Run {
            about: [("threads".to_owned(), threads.to_string())].into(),
            peak: Peak { threads, ..Peak::default() },
            results: names.iter().map(|name| record(name, threads)).collect(),
        }
    }

    #[test]
    fn the_better_mode_counts() {
        let record = record("x", 1);
        assert_eq!((record.peer_mode.as_deref(), record.peer_ms), (Some("compile"), Some(3.)));
        assert_eq!((record.peer_eager_ms, record.peer_compile_ms), (Some(4.), Some(3.)));
        assert_eq!(record.ratio, Some(1.5));
        // 1 ms of arithmetic, 0.1 ms of traffic, 2 ms in all.
        assert_eq!((record.peak_fraction, record.gflops), (Some(0.5), Some(50.)));
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let mut record = Record { ours_ms: Some(1.), ..Record::default() };
        record.derive(&Peak { gflops: 1., gigabytes_per_second: 1., ..Peak::default() });
        assert_eq!((record.ratio, record.peer_mode), (None, None));
        assert_eq!(record.peak_fraction, Some(0.));
    }

    #[test]
    fn runs_survive_json_and_rows_of_a_workload_stand_together() {
        let runs = [run(1, &["gru"]), run(1, &["adam"]), run(2, &["gru", "adam"])];
        let lines: Vec<String> =
            runs.iter().map(|run| serde_json::to_string(run).unwrap()).collect();
        let saved = Saved::join(read(lines.join("\n\n").as_bytes()).unwrap());
        let rows: Vec<(&str, usize)> =
            saved.results.iter().map(|r| (r.workload.as_str(), r.threads)).collect();
        assert_eq!(rows, [("gru", 1), ("gru", 2), ("adam", 1), ("adam", 2)]);
        assert_eq!(saved.results[0].peer_modes_ms["fused"], 4.);
        assert_eq!(saved.peaks.len(), 2);
    }

    #[test]
    fn input_that_is_no_run_is_refused() {
        assert!(read("".as_bytes()).unwrap_err().to_string().contains("no run"));
        assert!(read("{}".as_bytes()).unwrap_err().to_string().contains("no run"));
    }
}
