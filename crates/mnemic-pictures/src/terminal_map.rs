//! Heat maps as text for a terminal.

use crate::number;
use crate::terminal::Pen;
use crate::text::{pad, pad_left, width};
use crate::{HeatMap, Result, Scale, TerminalOptions};

/// Five shades, from empty to full, for values at or above the start of the scale.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
const SHADES_ASCII: [char; 5] = [' ', '.', ':', '+', '#'];
/// The same below 0 of a diverging scale, where a shade alone would hide the sign.
const BELOW: [char; 5] = [' ', '-', '=', '≡', '≣'];
const BELOW_ASCII: [char; 5] = [' ', '-', '=', 'n', 'N'];

/// Draws a heat map as text, one character per cell; columns that do not fit continue in a
/// further block. Of the options, `width`, `colour` and `unicode` count.
///
/// # Errors
/// When the map is inconsistent, see [`HeatMap::validate`].
pub fn terminal_heat_map(map: &HeatMap, options: &TerminalOptions) -> Result<String> {
    map.validate()?;
    let pen = Pen::new(options);
    let mut out = String::new();
    pen.line(&mut out, &pen.bold(&pen.shorten(&map.title, pen.width)));
    let axes = format!("rows: {}, columns: {}", map.row_label, map.col_label);
    pen.line(&mut out, &pen.dim(&pen.shorten(&axes, pen.width)));
    if map.values.is_empty() {
        pen.line(&mut out, &pen.dim("(no cells)"));
        return Ok(out);
    }
    let natural = map.rows.iter().map(|r| width(&pen.text(r))).max().unwrap_or(0);
    let label = natural.min(pen.width / 3);
    let per_block = pen.width - label - 3;
    let edge = if pen.unicode { '│' } else { '|' };
    let range = map.range();
    for start in (0..map.cols.len()).step_by(per_block) {
        let end = (start + per_block).min(map.cols.len());
        let names = column_names(map, start, end, &pen);
        pen.line(&mut out, &format!("{}  {}", " ".repeat(label), pen.dim(&names)));
        for (r, name) in map.rows.iter().enumerate() {
            let values = &map.values[r * map.cols.len()..][start..end];
            let cells: String = values.iter().map(|&v| shade(map.scale, v, range, &pen)).collect();
            let name = pad_left(&pen.shorten(name, label), label);
            pen.line(&mut out, &format!("{} {edge}{cells}{edge}", pen.dim(&name)));
        }
    }
    pen.line(&mut out, &pen.dim(&pen.shorten(&legend(map, &pen), pen.width)));
    Ok(out)
}

/// Name of the first column at the left and of the last at the right.
fn column_names(map: &HeatMap, start: usize, end: usize, pen: &Pen) -> String {
    let room = end - start;
    let (first, last) = (pen.text(&map.cols[start]), pen.text(&map.cols[end - 1]));
    if end - start > 1 && width(&first) + 1 + width(&last) <= room {
        format!("{}{last}", pad(&first, room - width(&last)))
    } else {
        pen.shorten(&first, room)
    }
}

fn shade(scale: Scale, value: f32, range: (f32, f32), pen: &Pen) -> char {
    let Some(fraction) = number::fraction(value, range) else {
        return if pen.unicode { '╳' } else { '?' };
    };
    let (above, below) = if pen.unicode { (SHADES, BELOW) } else { (SHADES_ASCII, BELOW_ASCII) };
    let of = |size: f64| (size * 4.0).round().clamp(0.0, 4.0) as usize;
    match scale {
        Scale::Unit | Scale::Auto => above[of(fraction)],
        Scale::Diverging if fraction < 0.5 => below[of(1.0 - 2.0 * fraction)],
        Scale::Diverging => above[of(2.0 * fraction - 1.0)],
    }
}

fn legend(map: &HeatMap, pen: &Pen) -> String {
    let (lo, hi) = map.range();
    let (above, below) = if pen.unicode { (SHADES, BELOW) } else { (SHADES_ASCII, BELOW_ASCII) };
    let scale: String = match map.scale {
        Scale::Unit | Scale::Auto => above.iter().collect(),
        Scale::Diverging => below.iter().skip(1).rev().chain(above.iter()).collect(),
    };
    let nan = if pen.unicode { '╳' } else { '?' };
    let (lo, hi) = (number::tick(f64::from(lo)), number::tick(f64::from(hi)));
    format!("{lo} [{scale}] {hi}   {nan} NaN")
}
