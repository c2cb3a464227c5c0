//! Heat maps of a page: a table where the values can be read, a drawing where they are many.

use super::{legend, prefix};
use crate::colour::{self, Ramp};
use crate::number;
use crate::text::{clean, escape, shorten, width};
use crate::{HeatMap, Scale};

/// Largest map drawn as a table with printed values.
const TABLE: (usize, usize) = (60, 14);
/// Largest map whose cells are drawn one by one, each with its value on hover; in larger ones
/// neighbours of one colour share a rectangle.
const SINGLE_CELLS: usize = 20_000;
/// Width of a character of a label, and its height, in units of the drawing.
const CHARACTER: (f64, f64) = (6.4, 13.0);

pub(super) fn diverging(map: &HeatMap) -> bool {
    map.scale == Scale::Diverging
}

fn ramp(map: &HeatMap) -> Ramp {
    if diverging(map) { Ramp::Diverging } else { Ramp::Sequential }
}

/// Draws a map that has been validated; `id` is unique on the page.
pub(super) fn heat_map(map: &HeatMap, id: usize, out: &mut String) {
    put!(out, "<section class=\"map\"><h2>{}</h2>\n", escape(&map.title));
    if map.values.is_empty() {
        out.push_str("<p class=\"quiet\">The map has no cells.</p></section>\n");
        return;
    }
    out.push_str("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Heat map\">");
    if map.rows.len() <= TABLE.0 && map.cols.len() <= TABLE.1 {
        table(map, out);
    } else {
        drawing(map, id, out);
    }
    out.push_str("</div>\n<div class=\"key\">");
    let (lo, hi) = (f64::from(map.range().0), f64::from(map.range().1));
    let middle = f64::midpoint(lo, hi);
    // Next to nothing on this scale reads better as nothing.
    let middle = if middle.abs() < 1e-3 * (hi - lo) { 0.0 } else { middle };
    let ticks = [lo, middle, hi].map(number::tick);
    legend(ramp(map), "value", &ticks, out);
    out.push_str("</div>");
    if map.values.iter().any(|v| v.is_nan()) {
        out.push_str("<ul><li><i class=\"box nan\">NaN</i> not a number</li></ul>");
    }
    out.push_str("</div></section>\n");
}

fn class(map: &HeatMap, value: f32, range: (f32, f32)) -> String {
    match number::fraction(value, range) {
        Some(fraction) => format!("{}{}", prefix(ramp(map)), colour::level(fraction)),
        None => "nan".into(),
    }
}

fn table(map: &HeatMap, out: &mut String) {
    let range = map.range();
    put!(
        out,
        "<table class=\"grid\"><caption>{} (down), {} (across)</caption>\n<thead><tr>\
         <th scope=\"col\" class=\"s\">{}</th>",
        escape(&map.row_label),
        escape(&map.col_label),
        escape(&map.row_label)
    );
    for col in &map.cols {
        put!(out, "<th scope=\"col\" class=\"p\">{}</th>", escape(col));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (row, values) in map.rows.iter().zip(map.values.chunks(map.cols.len())) {
        put!(out, "<tr><th scope=\"row\" class=\"s\">{}</th>", escape(row));
        for (col, &value) in map.cols.iter().zip(values) {
            put!(
                out,
                "<td class=\"w {}\" title=\"{}, {}: {value}\">{}</td>",
                class(map, value, range),
                escape(row),
                escape(col),
                map.label(value)
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>");
}

/// Sizes of a drawing, in its own units.
struct Plan {
    left: f64,
    top: f64,
    cell: (f64, f64),
    size: (f64, f64),
    upright: bool,
}

impl Plan {
    fn new(map: &HeatMap) -> Self {
        let longest = |names: &[String]| {
            names.iter().map(|n| width(&label(n))).max().unwrap_or(0) as f64 * CHARACTER.0
        };
        let (rows, cols) = (map.rows.len() as f64, map.cols.len() as f64);
        let cell = ((880.0 / cols).clamp(0.5, 26.0), (620.0 / rows).clamp(0.5, 22.0));
        let left = 34.0 + longest(&map.rows);
        // Short names of columns stand upright, longer ones at a slant.
        let upright = longest(&map.cols) <= 4.0 * CHARACTER.0;
        let below = if upright { 22.0 } else { 14.0 + 0.77 * longest(&map.cols) };
        let top = 6.0;
        let size = (left + cols * cell.0 + 12.0, top + rows * cell.1 + below + 22.0);
        Self { left, top, cell, size, upright }
    }
}

/// A name short enough for an axis.
fn label(name: &str) -> String {
    shorten(&clean(name), 18, "…")
}

fn drawing(map: &HeatMap, id: usize, out: &mut String) {
    let plan = Plan::new(map);
    let (w, h) = plan.size;
    put!(
        out,
        "<svg class=\"heat\" viewBox=\"0 0 {w:.0} {h:.0}\" width=\"{w:.0}\" height=\"{h:.0}\" \
         role=\"img\" aria-labelledby=\"map-{id}\"><title id=\"map-{id}\">{}: {} rows ({}) by {} \
         columns ({})</title>\n<defs><pattern id=\"hatch-{id}\" width=\"6\" height=\"6\" \
         patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"6\" height=\"6\" class=\"h1\"/><rect width=\"3\" height=\"6\" class=\"h2\"/>\
         </pattern></defs>\n",
        escape(&map.title),
        map.rows.len(),
        escape(&map.row_label),
        map.cols.len(),
        escape(&map.col_label)
    );
    cells(map, &plan, id, out);
    axes(map, &plan, out);
    out.push_str("</svg>");
}

fn cells(map: &HeatMap, plan: &Plan, id: usize, out: &mut String) {
    let range = map.range();
    let single = map.values.len() <= SINGLE_CELLS;
    out.push_str("<g shape-rendering=\"crispEdges\">");
    for (r, values) in map.values.chunks(map.cols.len()).enumerate() {
        let y = plan.top + r as f64 * plan.cell.1;
        let classes: Vec<String> = values.iter().map(|&v| class(map, v, range)).collect();
        let mut c = 0;
        while c < values.len() {
            let same = classes[c..].iter().take_while(|k| **k == classes[c]).count();
            let run = if single { 1 } else { same };
            let x = plan.left + c as f64 * plan.cell.0;
            put!(
                out,
                "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\"",
                plan.cell.0 * run as f64,
                plan.cell.1
            );
            match classes[c].as_str() {
                "nan" => put!(out, " fill=\"url(#hatch-{id})\""),
                class => put!(out, " class=\"{class}\""),
            }
            if single {
                let (row, col) = (escape(&map.rows[r]), escape(&map.cols[c]));
                put!(out, "><title>{row}, {col}: {}</title></rect>", values[c]);
            } else {
                out.push_str("/>");
            }
            c += run;
        }
        out.push('\n');
    }
    out.push_str("</g>\n");
}

fn axes(map: &HeatMap, plan: &Plan, out: &mut String) {
    let (width_, height) =
        (map.cols.len() as f64 * plan.cell.0, map.rows.len() as f64 * plan.cell.1);
    let (left, bottom) = (plan.left, plan.top + height);
    put!(
        out,
        "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width_:.1}\" height=\"{height:.1}\" \
         class=\"frame\"/>\n",
        plan.top
    );
    for (r, name) in map.rows.iter().enumerate().step_by(every(CHARACTER.1, plan.cell.1)) {
        let y = plan.top + (r as f64 + 0.5) * plan.cell.1 + 4.0;
        put!(
            out,
            "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
            left - 5.0,
            escape(&label(name))
        );
    }
    let longest = map.cols.iter().map(|n| width(&label(n))).max().unwrap_or(0) as f64;
    let room = if plan.upright { longest * CHARACTER.0 + 8.0 } else { CHARACTER.1 };
    for (c, name) in map.cols.iter().enumerate().step_by(every(room, plan.cell.0)) {
        let (x, y) = (left + (c as f64 + 0.5) * plan.cell.0, bottom + 14.0);
        let place = if plan.upright {
            format!("x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\"")
        } else {
            format!(
                "transform=\"translate({:.1} {y:.1}) rotate(-50)\" text-anchor=\"end\"",
                x + 3.0
            )
        };
        put!(out, "<text {place}>{}</text>", escape(&label(name)));
    }
    put!(
        out,
        "\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" class=\"axis\">{} →</text>",
        left + width_ / 2.0,
        plan.size.1 - 6.0,
        escape(&map.col_label)
    );
    put!(
        out,
        "<text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\" \
         class=\"axis\">← {}</text>\n",
        plan.top + height / 2.0,
        escape(&map.row_label)
    );
}

/// Every how many cells there is room for a name.
fn every(room: f64, cell: f64) -> usize {
    let least = (room / cell).ceil().max(1.0) as usize;
    // Round steps are easier to count by.
    (0..9)
        .flat_map(|power| [1, 2, 5].map(|step| step * 10_usize.pow(power)))
        .find(|&step| step >= least)
        .unwrap_or(least)
}
