//! One trace of a page: the story with its weights, the question, the answers.

use super::legend;
use crate::QaTrace;
use crate::colour::{self, Ramp};
use crate::number;
use crate::text::escape;
use crate::trace::{Gate, Pass};

/// Answers shown; the expected one is added where it is further down.
const ANSWERS: usize = 8;
/// Tables with more passes scroll sideways instead of having a heading that stays in view.
const WIDE: usize = 8;

/// What an example is called.
pub(super) fn name(trace: &QaTrace) -> &str {
    if trace.title.is_empty() { "untitled" } else { &trace.title }
}

/// Right or wrong by symbol and word.
pub(super) fn verdict(trace: &QaTrace) -> String {
    match (trace.correct(), trace.expected.as_deref()) {
        (Some(true), _) => "<span class=\"good\">✓ correct</span>".into(),
        (Some(false), Some(gold)) => {
            format!("<span class=\"bad\">✗ wrong</span>, expected <b>{}</b>", escape(gold))
        }
        _ => "<span class=\"quiet\">not known</span>".into(),
    }
}

pub(super) fn example(trace: &QaTrace, number: usize, open: bool, out: &mut String) {
    let passes = Pass::all(trace);
    put!(
        out,
        "<details class=\"example\"{}><summary><b>{}</b> <span class=\"quiet\">{}</span></summary>\n\
         <div class=\"body\" id=\"example-{number}\">\n",
        if open { " open" } else { "" },
        escape(name(trace)),
        [Some(&trace.model), trace.task.as_ref()]
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .map(|part| escape(part))
            .collect::<Vec<_>>()
            .join(" · ")
    );
    out.push_str("<div class=\"qa\">\n");
    put!(out, "<p class=\"q\"><span class=\"k\">Question</span>{}</p>\n", escape(&trace.question));
    answers(trace, out);
    out.push_str("</div>\n<div class=\"story\">\n");
    if trace.sentences.is_empty() {
        out.push_str("<p class=\"quiet\">The story has no sentences.</p>\n");
    } else {
        grid(trace, &passes, out);
        legends(trace, &passes, out);
    }
    out.push_str("</div>\n</div></details>\n");
}

fn answers(trace: &QaTrace, out: &mut String) {
    if trace.answers.is_empty() {
        out.push_str("<p class=\"quiet\">The model gave no answer.</p>\n");
    } else {
        out.push_str(
            "<table class=\"answers\"><caption>Answers by probability</caption><thead class=\"sr\">\
             <tr><th scope=\"col\">Answer</th><th scope=\"col\">Bar</th>\
             <th scope=\"col\">Probability</th></tr></thead><tbody>\n",
        );
    }
    let expected = trace.expected.as_deref();
    let (mut others, mut rest) = (0, 0.0);
    for (n, (word, p)) in trace.answers.iter().enumerate() {
        let gold = Some(word.as_str()) == expected;
        if n >= ANSWERS && !gold {
            others += 1;
            rest += p;
            continue;
        }
        let share = if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) * 100.0 };
        let mark =
            if gold { " <span class=\"good\" title=\"expected answer\">✓</span>" } else { "" };
        put!(
            out,
            "<tr{}><th scope=\"row\">{}{mark}</th><td class=\"bar\">\
             <span style=\"width:{share:.1}%\"></span></td><td class=\"num\" title=\"{p}\">{}</td></tr>\n",
            if n == 0 { " class=\"first\"" } else { "" },
            escape(word),
            number::unit(*p)
        );
    }
    if !trace.answers.is_empty() {
        out.push_str("</tbody></table>\n");
    }
    if others > 0 {
        let rest = number::unit(rest);
        put!(out, "<p class=\"quiet\">{others} more, together {rest}</p>\n");
    }
    if expected.is_some() {
        put!(out, "<p class=\"verdict\">{}</p>\n", verdict(trace));
    }
}

fn grid(trace: &QaTrace, passes: &[Pass<'_>], out: &mut String) {
    let wide = passes.len() > WIDE;
    if wide {
        out.push_str(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Attention weights\">",
        );
    }
    put!(
        out,
        "<table class=\"grid\"><caption>Attention: sentences in story order (down), \
         passes (across)</caption>\n<thead>"
    );
    out.push_str("<tr><th scope=\"col\">#</th><th scope=\"col\" class=\"s\">Sentence</th>");
    for pass in passes {
        put!(out, "<th scope=\"col\" class=\"p\">{}</th>", escape(pass.name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (i, text) in trace.sentences.iter().enumerate() {
        let support = trace.supports.contains(&i);
        let mark = if support {
            "<span class=\"gold\" title=\"supporting fact\" role=\"img\" \
             aria-label=\"supporting fact\">◆</span>"
        } else {
            ""
        };
        put!(
            out,
            "<tr{}><td class=\"n\">{mark}{}</td><th scope=\"row\" class=\"s\">{}</th>",
            if support { " class=\"fact\"" } else { "" },
            i + 1,
            escape(text)
        );
        for pass in passes {
            cell(pass, i, out);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>");
    out.push_str(if wide { "</div>\n" } else { "\n" });
}

fn cell(pass: &Pass<'_>, i: usize, out: &mut String) {
    let class = match pass.fraction(i) {
        Some(fraction) => format!("c{}", colour::level(fraction)),
        None => "nan".into(),
    };
    let top = pass.top == Some(i);
    put!(
        out,
        "<td class=\"w {class}{}\" title=\"sentence {}, {}: {}{}\">{}</td>",
        if top { " top" } else { "" },
        i + 1,
        escape(pass.name),
        pass.weights[i],
        if top { " (highest of the pass)" } else { "" },
        pass.label(i)
    );
}

fn legends(trace: &QaTrace, passes: &[Pass<'_>], out: &mut String) {
    if passes.is_empty() {
        return;
    }
    out.push_str("<div class=\"key\">");
    let unit: Vec<Gate> = [Gate::Softmax, Gate::Sigmoid]
        .into_iter()
        .filter(|gate| passes.iter().any(|p| p.gate == *gate))
        .collect();
    if !unit.is_empty() {
        let name = match unit[..] {
            [Gate::Softmax] => "softmax weight",
            [Gate::Sigmoid] => "sigmoid gate",
            _ => "softmax weight or sigmoid gate",
        };
        let ticks = ["0", ".25", ".5", ".75", "1"].map(String::from);
        legend(Ramp::Sequential, name, &ticks, out);
        out.push_str("</div>");
    }
    for pass in passes.iter().filter(|p| p.gate == Gate::Score) {
        let name = format!("score of {}", escape(pass.name));
        let (lo, hi) = (f64::from(pass.range.0), f64::from(pass.range.1));
        let ticks = [lo, f64::midpoint(lo, hi), hi].map(number::short);
        legend(Ramp::Sequential, &name, &ticks, out);
        out.push_str("</div>");
    }
    out.push_str("<ul><li><i class=\"box\">.9</i> highest of its pass</li>");
    if !trace.supports.is_empty() {
        out.push_str("<li><span class=\"gold\">◆</span> supporting fact (gold)</li>");
    }
    if passes.iter().any(|p| p.weights.iter().any(|w| w.is_nan())) {
        out.push_str("<li><i class=\"box nan\">NaN</i> not a number</li>");
    }
    out.push_str("</ul></div>\n");
}
