//! What commands print, and how errors read.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Result;
use mnemic_tasks::babi::TestResult;
use mnemic_tasks::pictures::{QaTrace, TerminalOptions, terminal};

/// The chain of an error in one line, without saying a cause twice (many messages end with theirs).
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether the error is that nobody reads our output any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Prints to standard output; an error instead of a panic when it is closed.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// How pictures are drawn on this terminal.
pub(crate) fn terminal_options(all: bool) -> TerminalOptions {
    let width = terminal_size::terminal_size().map_or(100, |(w, _)| usize::from(w.0));
    let stdout = std::io::stdout();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    TerminalOptions {
        width: width.clamp(40, 120),
        colour: stdout.is_terminal() && !plain,
        all,
        ..TerminalOptions::default()
    }
}

/// Draws a trace.
pub(crate) fn draw(trace: &QaTrace, all: bool) -> Result<()> {
    print(&terminal(trace, &terminal_options(all))?)
}

/// The tests as a table, with the mean where there are several.
pub(crate) fn tests_table(tests: &[TestResult]) -> String {
    let mut out = format!("{:>5} {:>10} {:>9} {:>9}\n", "task", "questions", "error %", "paper %");
    for t in tests {
        let paper = t.paper_percent.map_or_else(|| "-".to_string(), |p| format!("{p:.1}"));
        let line =
            format!("{:>5} {:>10} {:>9.1} {paper:>9}\n", t.task, t.questions, t.error_percent);
        out.push_str(&line);
    }
    if tests.len() > 1 {
        let mean = tests.iter().map(|t| t.error_percent).sum::<f64>() / tests.len() as f64;
        out.push_str(&format!("{:>5} {:>10} {mean:>9.1}\n", "mean", ""));
    }
    out
}

/// Writes a page and says so.
pub(crate) fn write_page(path: &Path, html: &str) -> Result<()> {
    mnemic_tasks::write_text(path, html)?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
