//! The Markdown that a person reads.

use std::fmt::Write as _;

use crate::record::{Record, Saved};

/// Machine, table, notes.
pub(crate) fn markdown(saved: &Saved) -> String {
    let mut text = String::from("# Kernels and training steps\n\n");
    for (key, value) in &saved.about {
        let _ = writeln!(text, "- {key}: {value}");
    }
    for peak in &saved.peaks {
        let half = peak.half_gflops.map_or_else(String::new, |rate| {
            format!(", {rate:.0} GFLOP/s (bf16 product of size {})", peak.half_gemm_size)
        });
        let _ = writeln!(
            text,
            "- peak {}: {:.0} GFLOP/s (f32 product of size {}){half}, {:.1} GB/s (copy of {} MiB, read and written)",
            place(&saved.about, peak.threads),
            peak.gflops,
            peak.gemm_size,
            peak.gigabytes_per_second,
            peak.copy_mib
        );
    }
    text.push_str("\nMedian milliseconds of a step, measured in turns.");
    if saved.about.contains_key(CARD) {
        text.push_str(" Steps follow each other without waiting for the device.");
    }
    text.push_str("\n\n");
    text.push_str(
        "| workload | threads | mnemic | PyTorch (mode) | candle | PyTorch / mnemic | target | of peak |\n",
    );
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for record in &saved.results {
        let _ = writeln!(text, "{}", row(record));
    }
    let notes = notes(&saved.results);
    if !notes.is_empty() {
        text.push_str("\nNotes:\n\n");
        notes.iter().for_each(|note| text.push_str(&format!("- {note}\n")));
    }
    text
}

/// The key of the GPU's name in what is said of a run.
pub(crate) const CARD: &str = "GPU";

fn place(about: &std::collections::BTreeMap<String, String>, count: usize) -> String {
    match about.get(CARD) {
        Some(_) => "of the GPU".into(),
        None => format!("with {}", threads(count)),
    }
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".into() } else { format!("{count} threads") }
}

fn row(record: &Record) -> String {
    let peer = match (record.peer_ms, &record.peer_mode) {
        (Some(ms), Some(mode)) => format!("{} ({mode})", milliseconds(ms)),
        _ => "–".into(),
    };
    let cells = [
        record.workload.clone(),
        record.threads.to_string(),
        shown(record.ours_ms, milliseconds),
        peer,
        shown(record.candle_ms, milliseconds),
        shown(record.ratio, |ratio| format!("{ratio:.2}")),
        record.target.to_string(),
        shown(record.peak_fraction, |part| format!("{:.0} %", part * 100.)),
    ];
    format!("| {} |", cells.join(" | "))
}

fn shown(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".into(), show)
}

/// Three digits that matter.
pub(crate) fn milliseconds(ms: f64) -> String {
    let digits = if ms < 1. {
        3
    } else if ms < 10. {
        2
    } else if ms < 100. {
        1
    } else {
        0
    };
    format!("{ms:.digits$}")
}

fn notes(records: &[Record]) -> Vec<String> {
    let mut notes = Vec::new();
    for record in records {
        let place = format!("{}, {}", record.workload, threads(record.threads));
        notes
            .extend(record.error.iter().map(|error| format!("{place}: **not measured**: {error}")));
        notes.extend(record.notes.iter().map(|note| format!("{place}: {note}")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peak::Peak;

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let record = Record {
            workload: "gru".into(),
            threads: 2,
            ours_ms: Some(12.34),
            peer_ms: Some(24.68),
            peer_mode: Some("eager".into()),
            ratio: Some(2.),
            target: 1.5,
            peak_fraction: Some(0.456),
            ..Record::default()
        };
        assert_eq!(row(&record), "| gru | 2 | 12.3 | 24.7 (eager) | – | 2.00 | 1.5 | 46 % |");
    }

    #[test]
    fn times_keep_three_digits() {
        let shown = [0.12345, 1.2345, 12.345, 123.45, 1234.5].map(milliseconds);
        assert_eq!(shown, ["0.123", "1.23", "12.3", "123", "1234"]);
    }

    #[test]
    fn the_text_names_machine_peak_and_failures() {
        let failed = Record {
            workload: "lstm".into(),
            threads: 1,
            error: Some("the losses differ".into()),
            notes: vec!["compile: no answer".into()],
            ..Record::default()
        };
        let peak = Peak {
            threads: 1,
            gflops: 120.,
            gemm_size: 1024,
            gigabytes_per_second: 9.5,
            copy_mib: 256,
            ..Peak::default()
        };
        let saved = Saved {
            about: [("commit".to_owned(), "abc".to_owned())].into(),
            peaks: vec![peak],
            results: vec![failed],
        };
        let text = markdown(&saved);
        for part in [
            "- commit: abc\n",
            "1 thread: 120 GFLOP/s (f32 product of size 1024), 9.5 GB/s (copy of 256 MiB",
            "| lstm | 1 | – | – | – | – | 0 | – |",
            "lstm, 1 thread: **not measured**: the losses differ",
            "lstm, 1 thread: compile: no answer",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
