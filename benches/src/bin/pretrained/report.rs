//! What is kept of a measurement, and how several runs become one report.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead;

use anyhow::{Context, Result, bail};
use mnemic_benches::arguments::Report;
use serde::{Deserialize, Serialize};

/// A workload with a number of threads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) workload: String,
    pub(crate) threads: usize,
    /// What is counted, and how many of it a step has.
    pub(crate) unit: String,
    pub(crate) units: usize,
    /// Ours first.
    pub(crate) programs: Vec<Program>,
    /// How far the embeddings of each program lie from ours, at most.
    pub(crate) differences: BTreeMap<String, f64>,
    pub(crate) rounds: usize,
    pub(crate) notes: Vec<String>,
    /// Why nothing was timed.
    pub(crate) error: Option<String>,
}

/// The times of a program. A step is a pass over all sentences, or the writing of all tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    /// The median of the steps.
    pub(crate) seconds: f64,
    pub(crate) quartiles: (f64, f64),
    pub(crate) steps: usize,
    /// Sentences or tokens.
    pub(crate) per_second: f64,
}

/// A run of the program prints one for each of its workloads; what is saved joins all of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Date, commit, machine, versions.
    pub(crate) about: BTreeMap<String, String>,
    pub(crate) results: Vec<Record>,
}

impl Record {
    pub(crate) fn new(workload: &str, threads: usize) -> Self {
        Self { workload: workload.into(), threads, ..Self::default() }
    }

    /// What the progress says.
    pub(crate) fn line(&self) -> String {
        if let Some(error) = &self.error {
            return format!("not measured: {error}");
        }
        let shown = |program: &Program| format!("{} {:.1}/s", program.name, program.per_second);
        self.programs.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

/// Reads runs, one JSON object a line, and prints and writes what they say together.
///
/// # Errors
/// When a line is no run or a file cannot be written; at the end, when a workload failed.
pub(crate) fn report(lines: impl BufRead, to: &Report) -> Result<()> {
    let mut all = Run::default();
    for line in lines.lines() {
        let run: Run = serde_json::from_str(&line?).context("a line of the input is no run")?;
        all.about.extend(run.about);
        all.results.extend(run.results);
    }
    let names: Vec<String> = all.results.iter().map(|record| record.workload.clone()).collect();
    // The rows of a workload stand together.
    let place = |record: &Record| names.iter().position(|name| *name == record.workload);
    all.results.sort_by_key(|record| (place(record), record.threads));
    let markdown = markdown(&all);
    print!("{markdown}");
    let json = serde_json::to_string_pretty(&all)? + "\n";
    let texts = to.json.iter().map(|path| (path, &json));
    for (path, text) in texts.chain(to.markdown.iter().map(|path| (path, &markdown))) {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failed = all.results.iter().filter(|record| record.error.is_some());
    let failed: Vec<&str> = failed.map(|record| record.workload.as_str()).collect();
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

/// Machine, table, notes.
fn markdown(run: &Run) -> String {
    let mut text = String::from("# Pretrained models\n\n");
    for (key, value) in &run.about {
        let _ = writeln!(text, "- {key}: {value}");
    }
    text.push_str(
        "\nMedian seconds of a step (all sentences, or all tokens), measured in turns; quartiles; sentences or tokens a second; the time\n\
         divided by ours; the largest difference of an embedding from ours, compared before anything was timed.\n\n\
         | workload | threads | program | seconds | quartiles | a second | time / ours | difference |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for record in &run.results {
        record.programs.iter().for_each(|program| text.push_str(&row(record, program)));
    }
    let mut notes = Vec::new();
    for record in &run.results {
        let failed = record.error.iter().map(|error| format!("**not measured**: {error}"));
        for note in failed.chain(record.notes.iter().cloned()) {
            notes.push(format!("- {}, {} thread(s): {note}\n", record.workload, record.threads));
        }
    }
    if !notes.is_empty() {
        text.push_str("\nNotes:\n\n");
        text.extend(notes);
    }
    text
}

fn row(record: &Record, program: &Program) -> String {
    let ours = record.programs.iter().find(|program| program.name == "mnemic");
    let ratio =
        ours.map_or_else(|| "–".into(), |ours| format!("{:.2}", program.seconds / ours.seconds));
    let difference = record.differences.get(&program.name).filter(|_| program.name != "mnemic");
    let difference = difference.map_or_else(|| "–".into(), |found| format!("{found:.1e}"));
    format!(
        "| {} | {} | {} | {:.3} | {:.3}–{:.3} | {:.1} | {ratio} | {difference} |\n",
        record.workload,
        record.threads,
        program.name,
        program.seconds,
        program.quartiles.0,
        program.quartiles.1,
        program.per_second,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, seconds: f64) -> Program {
        let quartiles = (seconds, seconds);
        Program { name: name.into(), seconds, quartiles, steps: 5, per_second: 10. / seconds }
    }

    #[test]
    fn a_row_says_how_a_program_compares_with_ours() {
        let mut record = Record::new("minilm-b1", 2);
        record.programs = vec![program("mnemic", 2.), program("candle", 5.)];
        record.differences = [("candle".into(), 2e-7), ("mnemic".into(), 0.)].into();
        let rows: Vec<_> = record.programs.iter().map(|p| row(&record, p)).collect();
        assert_eq!(rows[0], "| minilm-b1 | 2 | mnemic | 2.000 | 2.000–2.000 | 5.0 | 1.00 | – |\n");
        assert!(rows[1].ends_with("| 2.0 | 2.50 | 2.0e-7 |\n"), "{}", rows[1]);
        assert_eq!(record.line(), "mnemic 5.0/s, candle 2.0/s");
    }

    #[test]
    fn runs_are_joined_and_failures_named() {
        let mut good = Record::new("a", 1);
        good.programs = vec![program("mnemic", 1.)];
        let mut bad = Record::new("b", 1);
        bad.error = Some("no model".into());
        let about = BTreeMap::from([("commit".to_owned(), "abc".to_owned())]);
        let lines: Vec<String> = [bad, good]
            .into_iter()
            .map(|record| Run { about: about.clone(), results: vec![record] })
            .map(|run| serde_json::to_string(&run).unwrap())
            .collect();
        let file = std::env::temp_dir().join(format!("mnemic-report-{}.md", std::process::id()));
        let to = Report { markdown: vec![file.clone()], ..Report::default() };
        let error = report(lines.join("\n").as_bytes(), &to).unwrap_err().to_string();
        assert_eq!(error, "not measured: b");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(text.contains("- commit: abc\n") && text.contains("| a | 1 | mnemic |"));
        assert!(text.contains("- b, 1 thread(s): **not measured**: no model\n"));
    }
}
