//! Self-contained HTML pages.

mod heads;
mod map;
mod trace;

use crate::chart;
use crate::colour::{self, LEVELS, Mode, Ramp};
use crate::text::escape;
use crate::{Facts, QaTrace, Result, Section};

const STYLE: &str = include_str!("style.css");
/// Pages of up to this many examples open them all, longer ones the first few.
const OPEN_ALL: usize = 6;
const OPEN_FIRST: usize = 2;

/// Builds an HTML page that needs no network and no font of its own, and no script but for the one of its maps of heads, which is in it.
///
/// Order of the page: heading, facts, training curves, the traces (one collapsible part each, with
/// a table of contents before them where there are several), maps of heads, heat maps. It follows the reader's
/// light or dark mode (`<html data-theme="dark">` forces one), fits a phone and prints in light
/// colours. All text is escaped.
///
/// ```
/// use mnemic_pictures::{Facts, page};
///
/// let facts = Facts { title: "Run".into(), rows: vec![("seed".into(), "7".into())] };
/// let html = page("Demo", "what the model reads", &[], &[facts.into()])?;
/// assert!(html.starts_with("<!doctype html>"));
/// # Ok::<(), mnemic_pictures::Error>(())
/// ```
///
/// # Errors
/// When a trace or a map is inconsistent, see [`QaTrace::validate`], [`HeatMap::validate`](crate::HeatMap::validate) and
/// [`HeadMaps::validate`](crate::HeadMaps::validate).
pub fn page(
    title: &str,
    subtitle: &str,
    traces: &[QaTrace],
    sections: &[Section],
) -> Result<String> {
    traces.iter().try_for_each(QaTrace::validate)?;
    let mut out = String::new();
    head(title, sections, &mut out);
    put!(out, "<header><h1>{}</h1>", escape(title));
    if !subtitle.is_empty() {
        put!(out, "<p class=\"sub\">{}</p>", escape(subtitle));
    }
    out.push_str("</header>\n<main>\n");
    for section in sections {
        if let Section::Facts(section) = section {
            facts(section, &mut out);
        }
    }
    for (n, section) in sections.iter().enumerate() {
        if let Section::Curve(curve) = section {
            chart::chart(curve, n, &mut out);
        }
    }
    if !traces.is_empty() {
        examples(traces, &mut out);
    }
    for (n, section) in sections.iter().enumerate() {
        if let Section::HeadMaps(section) = section {
            section.validate()?;
            heads::heads(section, n, &mut out)?;
        }
    }
    for (n, section) in sections.iter().enumerate() {
        if let Section::HeatMap(section) = section {
            section.validate()?;
            map::heat_map(section, n, &mut out);
        }
    }
    out.push_str("</main>\n");
    if sections.iter().any(has_heads) {
        put!(out, "<script>\n{}</script>\n", heads::SCRIPT);
    }
    out.push_str("</body>\n</html>\n");
    Ok(out)
}

fn has_heads(section: &Section) -> bool {
    matches!(section, Section::HeadMaps(_))
}

fn head(title: &str, sections: &[Section], out: &mut String) {
    put!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}",
        escape(title)
    );
    if sections.iter().any(has_heads) {
        out.push_str(heads::STYLE);
    }
    ramp_style(Ramp::Sequential, out);
    let diverging = |s: &Section| matches!(s, Section::HeatMap(m) if map::diverging(m));
    if sections.iter().any(diverging) {
        ramp_style(Ramp::Diverging, out);
    }
    out.push_str("</style>\n</head>\n<body>\n");
}

/// Prefix of the classes of a scale: `c0` to `c50`, `d0` to `d50`.
fn prefix(ramp: Ramp) -> char {
    match ramp {
        Ramp::Sequential => 'c',
        Ramp::Diverging => 'd',
    }
}

/// One class per level; a browser without `light-dark()` keeps the light colours.
fn ramp_style(ramp: Ramp, out: &mut String) {
    for level in 0..=LEVELS {
        let (light, ink) = colour::cell(ramp, level, Mode::Light);
        let (dark, dark_ink) = colour::cell(ramp, level, Mode::Dark);
        let [l, li, d, di] = [light, ink, dark, dark_ink].map(colour::Rgb::hex);
        put!(
            out,
            ".{}{level}{{background:{l};color:{li};fill:{l};background:light-dark({l},{d});\
             color:light-dark({li},{di});fill:light-dark({l},{d})}}\n",
            prefix(ramp)
        );
    }
}

fn facts(facts: &Facts, out: &mut String) {
    put!(out, "<section class=\"facts\"><h2>{}</h2>\n<table>", escape(&facts.title));
    for (name, value) in &facts.rows {
        put!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), escape(value));
    }
    out.push_str("</table></section>\n");
}

fn examples(traces: &[QaTrace], out: &mut String) {
    let (known, right) = traces
        .iter()
        .filter_map(QaTrace::correct)
        .fold((0, 0), |(n, r), c| (n + 1, r + usize::from(c)));
    let plural = if traces.len() == 1 { "" } else { "s" };
    put!(out, "<section><h2>{} example{plural}", traces.len());
    if known > 1 {
        put!(out, " <span class=\"quiet\">{right} of {known} answered correctly</span>");
    }
    out.push_str("</h2>\n");
    if traces.len() > 1 {
        contents(traces, out);
    }
    for (n, example) in traces.iter().enumerate() {
        let open = traces.len() <= OPEN_ALL || n < OPEN_FIRST;
        trace::example(example, n + 1, open, out);
    }
    out.push_str("</section>\n");
}

/// The table of contents. Its links open a closed example: browsers open the `<details>` around
/// the target of a link.
fn contents(traces: &[QaTrace], out: &mut String) {
    out.push_str(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"All examples\">\
         <table class=\"contents\"><thead><tr><th scope=\"col\">Example</th>\
         <th scope=\"col\">Question</th><th scope=\"col\">Answer</th>\
         <th scope=\"col\">Result</th></tr></thead><tbody>\n",
    );
    for (n, trace) in traces.iter().enumerate() {
        put!(
            out,
            "<tr><th scope=\"row\"><a href=\"#example-{}\">{}</a></th><td>{}</td><td>{}</td>\
             <td>{}</td></tr>\n",
            n + 1,
            escape(trace::name(trace)),
            escape(&trace.question),
            escape(trace.answer().unwrap_or("")),
            trace::verdict(trace)
        );
    }
    out.push_str("</tbody></table></div>\n");
}

/// A colour scale with labels under it: 26 steps, and the values at both ends and between.
fn legend(ramp: Ramp, name: &str, ticks: &[String], out: &mut String) {
    put!(out, "<div class=\"legend\"><span class=\"k\">{}</span><div><div class=\"strip\">", name);
    for level in (0..=LEVELS).step_by(2) {
        put!(out, "<i class=\"{}{level}\"></i>", prefix(ramp));
    }
    out.push_str("</div><div class=\"ticks\">");
    for tick in ticks {
        put!(out, "<span>{tick}</span>");
    }
    out.push_str("</div></div>");
}
