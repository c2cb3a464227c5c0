//! Traces as text for a terminal.

use crate::fold::{self, Fold, Row};
use crate::number;
use crate::text::{clean, pad, pad_left, shorten, shorten_name, width, wrap};
use crate::trace::{Gate, Pass};
use crate::{QaTrace, Result};

/// Narrower terminals are drawn as this wide.
const MIN_WIDTH: usize = 24;
/// Weights that print as `.00` are faint.
const FAINT: f64 = 0.005;

/// How a picture is drawn in a terminal.
///
/// ```
/// use mnemic_pictures::TerminalOptions;
///
/// let options = TerminalOptions { width: 72, colour: true, ..TerminalOptions::default() };
/// assert!(options.unicode);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TerminalOptions {
    /// Columns that no line exceeds; below 24 it is taken as 24. Default 100.
    pub width: usize,
    /// Whether ANSI colour and bold are used. Default false.
    pub colour: bool,
    /// Whether anything but ASCII is printed; without it, other characters of the story become
    /// `?`. Default true.
    pub unicode: bool,
    /// Whether every sentence of a long story is shown. Default false.
    pub all: bool,
    /// Sentences of a long story are left out when all their weights are below this; for
    /// [`Gate::Score`] it is a fraction of the way from the lowest to the highest score.
    /// Default 0.01.
    pub threshold: f32,
    /// Neighbours shown around every sentence that is not left out. Default 1.
    pub context: usize,
    /// Stories of up to this many sentences are always shown complete. Default 12.
    pub fold_above: usize,
    /// Answers shown; an expected answer further down is added. Default 5.
    pub answers: usize,
}

impl Default for TerminalOptions {
    fn default() -> Self {
        Self {
            width: 100,
            colour: false,
            unicode: true,
            all: false,
            threshold: 0.01,
            context: 1,
            fold_above: 12,
            answers: 5,
        }
    }
}

/// Draws a trace as text: a table of sentences with one bar per pass, the question, the answers.
///
/// Gold supports are marked with `◆` (`*` in ASCII), the highest weight of a pass is bold where
/// colour is on. Runs of sentences in a long story that no pass attends to are left out. Passes
/// that do not fit side by side continue in a further table. Every line ends in `\n` and has no
/// trailing spaces.
///
/// # Errors
/// When the trace is inconsistent, see [`QaTrace::validate`].
pub fn terminal(trace: &QaTrace, options: &TerminalOptions) -> Result<String> {
    trace.validate()?;
    let pen = Pen::new(options);
    let passes = Pass::all(trace);
    let mut out = String::new();
    pen.line(&mut out, &pen.bold(&heading(trace, &pen)));
    if trace.sentences.is_empty() {
        pen.line(&mut out, &pen.dim("  (no sentences)"));
    } else {
        story(trace, &passes, options, &pen, &mut out);
    }
    question(trace, options, &pen, &mut out);
    Ok(out)
}

/// Glyphs and ANSI styles.
pub(crate) struct Pen {
    pub(crate) width: usize,
    colour: bool,
    pub(crate) unicode: bool,
}

impl Pen {
    pub(crate) fn new(options: &TerminalOptions) -> Self {
        Self {
            width: options.width.max(MIN_WIDTH),
            colour: options.colour,
            unicode: options.unicode,
        }
    }

    /// Cleans text and keeps it to ASCII where asked.
    pub(crate) fn text(&self, text: &str) -> String {
        let text = clean(text);
        if self.unicode {
            return text;
        }
        text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
    }

    pub(crate) fn ellipsis(&self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }

    pub(crate) fn shorten(&self, text: &str, max: usize) -> String {
        shorten(&self.text(text), max, self.ellipsis())
    }

    /// Adds a line without trailing spaces.
    pub(crate) fn line(&self, out: &mut String, line: &str) {
        out.push_str(line.trim_end());
        out.push('\n');
    }

    fn style(&self, code: &str, text: &str) -> String {
        if self.colour && !text.trim().is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.into()
        }
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.style("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.style("2", text)
    }

    fn gold(&self, text: &str) -> String {
        self.style("33", text)
    }

    /// A bar and its value: strong for the highest, faint for next to nothing.
    fn weight(&self, text: &str, top: bool, faint: bool) -> String {
        let code = match (top, faint) {
            (true, _) => "1;36",
            (false, true) => "2",
            (false, false) => "36",
        };
        self.style(code, text)
    }

    fn verdict(&self, right: bool, text: &str) -> String {
        self.style(if right { "32" } else { "31" }, text)
    }

    fn support(&self) -> &'static str {
        if self.unicode { "◆" } else { "*" }
    }

    /// A bar of `columns`, padded with spaces; eighths of a column where the terminal has them.
    fn bar(&self, fraction: f64, columns: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let bar = if self.unicode {
            let eighths = (fraction * (8 * columns) as f64).round() as usize;
            format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
        } else {
            "#".repeat((fraction * columns as f64).round() as usize)
        };
        pad(&bar, columns)
    }
}

fn heading(trace: &QaTrace, pen: &Pen) -> String {
    let parts: Vec<&str> = [Some(&trace.title), Some(&trace.model), trace.task.as_ref()]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    pen.shorten(&parts.join(if pen.unicode { " · " } else { " - " }), pen.width)
}

/// Columns of the table, measured in characters.
struct Layout {
    digits: usize,
    text: usize,
    bar: usize,
    value: usize,
    /// Passes side by side.
    panel: usize,
}

impl Layout {
    /// Marker, number and the spaces after them.
    fn fixed(digits: usize) -> usize {
        2 + digits + 2
    }

    /// Width of a pass without the two spaces before it.
    fn cell(bar: usize, value: usize) -> usize {
        bar + usize::from(bar > 0) + value
    }

    /// Long bars if the text fits beside them, else shorter text, else shorter bars, else fewer
    /// passes side by side.
    fn new(total: usize, digits: usize, natural: usize, value: usize, passes: usize) -> Self {
        let room = total - Self::fixed(digits).min(total);
        let bars = |bar: usize| passes * (2 + Self::cell(bar, value));
        let build = |bar: usize, panel: usize| {
            let text = room.saturating_sub(panel * (2 + Self::cell(bar, value))).min(natural);
            Self { digits, text, bar, value, panel }
        };
        if let Some(bar) = (6..=10).rev().find(|&bar| natural + bars(bar) <= room) {
            return build(bar, passes);
        }
        let least = natural.min(if total >= 60 { 32 } else { 12 });
        if let Some(bar) = (3..=8).rev().find(|&bar| least + bars(bar) <= room) {
            return build(bar, passes);
        }
        let bar = if room >= least + 2 + Self::cell(4, value) { 4 } else { 0 };
        let panel = room.saturating_sub(least) / (2 + Self::cell(bar, value));
        build(bar, panel.clamp(1, passes.max(1)))
    }
}

fn story(
    trace: &QaTrace,
    passes: &[Pass<'_>],
    options: &TerminalOptions,
    pen: &Pen,
    out: &mut String,
) {
    let fold = Fold {
        above: if options.all { usize::MAX } else { options.fold_above },
        threshold: f64::from(options.threshold),
        context: options.context,
    };
    let rows = fold::rows(trace, passes, &fold);
    let shown =
        || rows.iter().filter_map(|r| if let Row::Sentence(i) = r { Some(*i) } else { None });
    let natural = shown().map(|i| width(&pen.text(&trace.sentences[i]))).max().unwrap_or(0);
    let value = passes.iter().flat_map(|p| shown().map(|i| p.label(i).len())).max().unwrap_or(3);
    let digits = trace.sentences.len().to_string().len();
    let layout = Layout::new(pen.width, digits, natural.max("sentence".len()), value, passes.len());
    let panels: Vec<&[Pass<'_>]> = match passes {
        [] => vec![&[]],
        some => some.chunks(layout.panel).collect(),
    };
    for (n, panel) in panels.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        header(panel, &layout, pen, out);
        for row in &rows {
            match row {
                Row::Sentence(i) => sentence(trace, *i, panel, &layout, pen, out),
                Row::Hidden(count) => hidden(*count, passes, options.threshold, &layout, pen, out),
            }
        }
    }
}

fn header(panel: &[Pass<'_>], layout: &Layout, pen: &Pen, out: &mut String) {
    let mut line = format!("  {}  ", pad_left("#", layout.digits));
    line.push_str(&pad(&pen.shorten("sentence", layout.text), layout.text));
    for pass in panel {
        let columns = Layout::cell(layout.bar, layout.value);
        let name = shorten_name(&pen.text(pass.name), columns, pen.ellipsis());
        line.push_str(&format!("  {}", pad(&name, columns)));
    }
    pen.line(out, &pen.dim(line.trim_end()));
}

fn sentence(
    trace: &QaTrace,
    i: usize,
    panel: &[Pass<'_>],
    layout: &Layout,
    pen: &Pen,
    out: &mut String,
) {
    let support = trace.supports.contains(&i);
    let mut line = if support { format!("{} ", pen.gold(pen.support())) } else { "  ".into() };
    line.push_str(&pen.dim(&pad_left(&(i + 1).to_string(), layout.digits)));
    line.push_str("  ");
    let text = pad(&pen.shorten(&trace.sentences[i], layout.text), layout.text);
    line.push_str(&text);
    for pass in panel {
        let mut cell = match pass.fraction(i) {
            Some(fraction) => pen.bar(fraction, layout.bar),
            None => " ".repeat(layout.bar),
        };
        if layout.bar > 0 {
            cell.push(' ');
        }
        cell.push_str(&pad_left(&pass.label(i), layout.value));
        line.push_str("  ");
        line.push_str(&pen.weight(&cell, pass.top == Some(i), pass.fraction(i) < Some(FAINT)));
    }
    pen.line(out, &line);
}

fn hidden(
    count: usize,
    passes: &[Pass<'_>],
    threshold: f32,
    layout: &Layout,
    pen: &Pen,
    out: &mut String,
) {
    let what = if passes.iter().any(|p| p.gate == Gate::Score) {
        format!("below {}% of the scale", number::tick(f64::from(threshold) * 100.0))
    } else {
        format!("with weight < {}", number::tick(f64::from(threshold)))
    };
    let dots = pen.ellipsis();
    let line = format!("{dots} {count} sentences {what} {dots}");
    let indent = Layout::fixed(layout.digits);
    let line = pen.shorten(&line, pen.width - indent);
    pen.line(out, &format!("{}{}", " ".repeat(indent), pen.dim(&line)));
}

fn question(trace: &QaTrace, options: &TerminalOptions, pen: &Pen, out: &mut String) {
    out.push('\n');
    for (n, line) in wrap(&pen.text(&trace.question), pen.width - 3).iter().enumerate() {
        let label = if n == 0 { "Q: " } else { "   " };
        pen.line(out, &format!("{}{line}", pen.bold(label)));
    }
    if trace.answers.is_empty() {
        pen.line(out, &format!("{}{}", pen.bold("A: "), pen.dim("(no answer)")));
    }
    let expected = trace.expected.as_deref();
    let shown = |n: usize, word: &str| n < options.answers.max(1) || Some(word) == expected;
    let answers: Vec<(usize, &str, f64)> = trace
        .answers
        .iter()
        .enumerate()
        .filter(|(n, (word, _))| shown(*n, word))
        .map(|(n, (word, p))| (n, word.as_str(), *p))
        .collect();
    // "A: ", the answer, two spaces, a bar (shorter where it is narrow), a space, the value.
    let bar = if pen.width >= 40 { 10 } else { 4 };
    let natural = answers.iter().map(|(_, word, _)| width(&pen.text(word))).max().unwrap_or(0);
    let value = answers.iter().map(|(_, _, p)| number::unit(*p).len()).max().unwrap_or(0);
    let column = natural.min(pen.width.saturating_sub(3 + 2 + bar + 1 + value));
    for (n, word, probability) in answers {
        let label = if n == 0 { pen.bold("A: ") } else { "   ".into() };
        let fraction = if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) };
        let word = pad(&pen.shorten(word, column), column);
        let value = format!("{} {}", pen.bar(fraction, bar), number::unit(probability));
        let weight = pen.weight(&value, n == 0, false);
        pen.line(out, &format!("{label}{word}  {weight}"));
    }
    if let Some(line) = verdict(trace, pen) {
        pen.line(out, &line);
    }
}

fn verdict(trace: &QaTrace, pen: &Pen) -> Option<String> {
    let right = trace.correct()?;
    let symbol = match (right, pen.unicode) {
        (true, true) => "✓ ",
        (false, true) => "✗ ",
        (_, false) => "",
    };
    let text = match (right, trace.expected.as_deref()) {
        (false, Some(gold)) => format!("{symbol}wrong, expected: {gold}"),
        _ => format!("{symbol}correct"),
    };
    Some(format!("   {}", pen.verdict(right, &pen.shorten(&text, pen.width - 3))))
}
