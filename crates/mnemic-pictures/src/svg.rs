//! One trace as a standalone SVG picture.

use crate::colour::{self, Mode, Ramp, Rgb};
use crate::fold::{self, Fold, Row};
use crate::number;
use crate::text::{clean, escape, pad_left, shorten, shorten_name, width, wrap};
use crate::trace::{Gate, Pass};
use crate::{QaTrace, Result};

/// Advance of a character, which `textLength` enforces whatever the font, and height of a row.
const ADVANCE: f64 = 7.8;
const ROW: f64 = 23.0;
const MARGIN: f64 = 22.0;
/// Width of the cell of a pass and of the bar of an answer.
const CELL: f64 = 58.0;
const BAR: f64 = 180.0;
/// Most characters of a sentence, of an answer, and of a line of text.
const SENTENCE: usize = 64;
const ANSWER: usize = 24;
const ANSWERS: usize = 5;
/// Left out of long stories, as in the terminal.
const FOLD: Fold = Fold { above: 12, threshold: 0.01, context: 1 };

const INK: Rgb = Rgb(0x1a, 0x20, 0x29);
const QUIET: Rgb = Rgb(0x59, 0x62, 0x6f);
const GOLD: Rgb = Rgb(0x9a, 0x52, 0x00);
const GOOD: Rgb = Rgb(0x17, 0x66, 0x3a);
const BAD: Rgb = Rgb(0xb3, 0x26, 0x1e);

/// Draws a trace as a standalone SVG picture on a light background, for a README or a slide.
///
/// Sentences without attention in a long story are left out. The layout does not depend on the
/// fonts of the reader: every text has its width written down.
///
/// # Errors
/// When the trace is inconsistent, see [`QaTrace::validate`].
pub fn svg(trace: &QaTrace) -> Result<String> {
    trace.validate()?;
    let picture = Picture::new(trace);
    let mut body = String::new();
    let height = picture.draw(trace, &mut body);
    let title: Vec<String> =
        [&trace.title, &trace.question].into_iter().map(|t| escape(t)).collect();
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w:.0} {height:.0}\" \
         width=\"{w:.0}\" height=\"{height:.0}\" role=\"img\" font-size=\"13\" \
         font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\">\n\
         <title>{}</title>\n<defs><pattern id=\"nan\" width=\"6\" height=\"6\" \
         patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"6\" height=\"6\" fill=\"#eceef0\"/>\
         <rect width=\"3\" height=\"6\" fill=\"#d5d9de\"/></pattern></defs>\n\
         <rect x=\".5\" y=\".5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"6\" fill=\"#fdfdfb\" \
         stroke=\"#dfe2e6\"/>\n{body}</svg>\n",
        title.join(": "),
        picture.width - 1.0,
        height - 1.0,
        w = picture.width,
    ))
}

/// Columns of the picture.
struct Picture<'a> {
    passes: Vec<Pass<'a>>,
    rows: Vec<Row>,
    digits: usize,
    text_x: f64,
    cells_x: f64,
    width: f64,
}

impl<'a> Picture<'a> {
    fn new(trace: &'a QaTrace) -> Self {
        let passes = Pass::all(trace);
        let rows = fold::rows(trace, &passes, &FOLD);
        let shown = rows.iter().map(|row| match row {
            Row::Sentence(i) => width(&clean(&trace.sentences[*i])).min(SENTENCE),
            Row::Hidden(count) => width(&hidden(*count, &passes)),
        });
        let text = shown.max().unwrap_or(0).max(30);
        let digits = trace.sentences.len().to_string().len();
        let text_x = MARGIN + (digits + 3) as f64 * ADVANCE;
        let cells_x = text_x + (text + 2) as f64 * ADVANCE;
        let width = (cells_x + passes.len() as f64 * CELL + MARGIN).max(460.0);
        Self { passes, rows, digits, text_x, cells_x, width }
    }

    /// Draws everything and returns the height.
    fn draw(&self, trace: &QaTrace, out: &mut String) -> f64 {
        let line = ((self.width - 2.0 * MARGIN) / ADVANCE) as usize;
        let mut y = MARGIN + 12.0;
        put_text(out, MARGIN, y, INK, &shorten(&clean(&trace.title), line, "…"), true);
        let parts = [Some(&trace.model), trace.task.as_ref()];
        let parts: Vec<&str> =
            parts.into_iter().flatten().map(String::as_str).filter(|p| !p.is_empty()).collect();
        if !parts.is_empty() {
            y += 18.0;
            let parts = shorten(&clean(&parts.join(" · ")), line, "…");
            put_text(out, MARGIN, y, QUIET, &parts, false);
        }
        y += 30.0;
        self.header(y, out);
        y += 9.0;
        for row in &self.rows {
            self.row(trace, row, y, out);
            y += ROW;
        }
        if trace.sentences.is_empty() {
            put_text(out, self.text_x, y + 16.0, QUIET, "(no sentences)", false);
            y += ROW;
        }
        y += 14.0;
        y = self.scale(trace, y, out) + 30.0;
        for (n, part) in wrap(&clean(&trace.question), line - 3).iter().enumerate() {
            if n == 0 {
                put_text(out, MARGIN, y, QUIET, "Q:", false);
            }
            put_text(out, MARGIN + 3.0 * ADVANCE, y, INK, part, true);
            y += 20.0;
        }
        answers(trace, y + 2.0, line, out) + MARGIN - 10.0
    }

    fn header(&self, y: f64, out: &mut String) {
        put_text(out, self.text_x, y, QUIET, "sentence", false);
        for (n, pass) in self.passes.iter().enumerate() {
            let name = shorten_name(&clean(pass.name), (CELL / ADVANCE) as usize, "…");
            let x = self.cells_x + (n as f64 + 0.5) * CELL - width(&name) as f64 * ADVANCE / 2.0;
            put_text(out, x, y, QUIET, &name, false);
        }
    }

    fn row(&self, trace: &QaTrace, row: &Row, y: f64, out: &mut String) {
        let base = y + 16.0;
        let i = match row {
            Row::Sentence(i) => *i,
            Row::Hidden(count) => {
                put_text(out, self.text_x, base, QUIET, &hidden(*count, &self.passes), false);
                return;
            }
        };
        let support = trace.supports.contains(&i);
        if support {
            let (x, middle) = (MARGIN + 4.0, y + ROW / 2.0);
            put!(
                out,
                "<path d=\"M{x:.1} {:.1}l5 5-5 5-5-5z\" fill=\"{}\"><title>supporting fact</title>\
                 </path>",
                middle - 5.0,
                GOLD.hex()
            );
        }
        let number = pad_left(&(i + 1).to_string(), self.digits);
        let number_x = MARGIN + ADVANCE * (2 + number.len() - number.trim_start().len()) as f64;
        put_text(out, number_x - 4.0, base, QUIET, number.trim_start(), false);
        let text = shorten(&clean(&trace.sentences[i]), SENTENCE, "…");
        put_text(out, self.text_x, base, INK, &text, support);
        for (n, pass) in self.passes.iter().enumerate() {
            cell(pass, i, self.cells_x + n as f64 * CELL, y, out);
        }
        out.push('\n');
    }

    /// The colour scale and the mark of supporting facts; returns the lower edge.
    fn scale(&self, trace: &QaTrace, y: f64, out: &mut String) -> f64 {
        let mut x = self.text_x;
        if !self.passes.is_empty() && !trace.sentences.is_empty() {
            let score = |p: &Pass<'_>| p.gate == Gate::Score;
            let (lo, hi, what) = match self.passes.iter().filter(|p| score(p)).count() {
                0 => ("0", "1", "weight"),
                n if n == self.passes.len() => ("low", "high", "score"),
                _ => ("0, low", "1, high", "weight, score"),
            };
            let mut say = |text: &str, x: &mut f64| {
                put_text(out, *x, y + 11.0, QUIET, text, false);
                *x += (width(text) + 1) as f64 * ADVANCE;
            };
            say(what, &mut x);
            say(lo, &mut x);
            x = x.round();
            let from = x;
            x += 26.0 * 4.0 + ADVANCE;
            say(hi, &mut x);
            for step in 0..26 {
                let (fill, _) = colour::cell(Ramp::Sequential, 2 * step, Mode::Light);
                put!(
                    out,
                    "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"4\" height=\"12\" \
                     shape-rendering=\"crispEdges\" fill=\"{}\"/>",
                    from + 4.0 * step as f64,
                    fill.hex()
                );
            }
            put!(
                out,
                "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"104\" height=\"12\" fill=\"none\" \
                 stroke=\"#c9cdd3\"/>"
            );
            x += 2.0 * ADVANCE;
        }
        if !trace.supports.is_empty() {
            let gold = GOLD.hex();
            put!(out, "<path d=\"M{:.1} {:.1}l5 5-5 5-5-5z\" fill=\"{gold}\"/>", x, y + 1.5);
            put_text(out, x + 1.5 * ADVANCE, y + 11.0, QUIET, "supporting fact", false);
        }
        out.push('\n');
        y + 12.0
    }
}

fn hidden(count: usize, passes: &[Pass<'_>]) -> String {
    if passes.iter().any(|p| p.gate == Gate::Score) {
        format!("… {count} sentences below 1% of the scale …")
    } else {
        format!("… {count} sentences with weight < 0.01 …")
    }
}

/// Text whose width is written down: one advance per column.
fn put_text(out: &mut String, x: f64, y: f64, fill: Rgb, text: &str, bold: bool) {
    if text.is_empty() {
        return;
    }
    put!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{}\"{} textLength=\"{:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">{}</text>\n",
        fill.hex(),
        if bold { " font-weight=\"700\"" } else { "" },
        width(text) as f64 * ADVANCE,
        escape(text)
    );
}

fn cell(pass: &Pass<'_>, i: usize, x: f64, y: f64, out: &mut String) {
    let (fill, ink) = match pass.fraction(i) {
        Some(fraction) => {
            let (fill, ink) = colour::cell(Ramp::Sequential, colour::level(fraction), Mode::Light);
            (fill.hex(), ink)
        }
        None => ("url(#nan)".into(), INK),
    };
    let top = pass.top == Some(i);
    put!(
        out,
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{}\" fill=\"{fill}\">\
         <title>sentence {}, {}: {}</title></rect>",
        x + 1.0,
        y + 1.0,
        CELL - 2.0,
        ROW - 2.0,
        i + 1,
        escape(pass.name),
        pass.weights[i]
    );
    if top {
        put!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"{}\" \
             stroke-width=\"1.3\"/>",
            x + 3.0,
            y + 3.0,
            CELL - 6.0,
            ROW - 6.0,
            ink.hex()
        );
    }
    let label = pass.label(i);
    let text_x = x + (CELL - label.len() as f64 * ADVANCE) / 2.0;
    put_text(out, text_x, y + 16.0, ink, &label, top);
}

/// Draws the answers and returns the lower edge.
fn answers(trace: &QaTrace, y: f64, line: usize, out: &mut String) -> f64 {
    let mut y = y;
    let x = MARGIN + 3.0 * ADVANCE;
    put_text(out, MARGIN, y, QUIET, "A:", false);
    if trace.answers.is_empty() {
        put_text(out, x, y, QUIET, "(no answer)", false);
        y += 20.0;
    }
    let gold = |word: &str| Some(word) == trace.expected.as_deref();
    let shown: Vec<(usize, &(String, f64))> =
        trace.answers.iter().enumerate().filter(|(n, a)| *n < ANSWERS || gold(&a.0)).collect();
    let column =
        shown.iter().map(|(_, a)| width(&clean(&a.0)).min(ANSWER)).max().unwrap_or(0) as f64;
    let bar_x = x + (column + 1.5) * ADVANCE;
    for (n, (word, p)) in shown {
        let share = if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) };
        put_text(out, x, y, INK, &shorten(&clean(word), ANSWER, "…"), n == 0);
        put!(
            out,
            "<rect x=\"{bar_x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"11\" fill=\"{}\"/>",
            y - 10.0,
            (share * BAR).max(1.0),
            if n == 0 { "#3f6fa8" } else { "#9db4cf" }
        );
        let value = number::unit(*p);
        put_text(out, bar_x + share * BAR + ADVANCE, y, INK, &value, n == 0);
        y += 19.0;
    }
    if let Some(right) = trace.correct() {
        let text = match (right, trace.expected.as_deref()) {
            (false, Some(gold)) => format!("✗ wrong, expected: {}", clean(gold)),
            _ => "✓ correct".into(),
        };
        let colour = if right { GOOD } else { BAD };
        put_text(out, x, y + 3.0, colour, &shorten(&text, line - 3, "…"), true);
        y += 22.0;
    }
    y
}
