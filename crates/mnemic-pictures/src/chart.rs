//! Line charts, on a page and alone.

use crate::number;
use crate::text::{clean, escape, shorten};
use crate::{Curve, Series};

/// Size of the drawing and room around the plot: left, right (names of the lines), top, bottom.
const WIDTH: f64 = 760.0;
const MARGIN: (f64, f64, f64, f64) = (66.0, 190.0, 12.0, 46.0);
/// Colours and dashes of the style sheet, `s0` to `s5`.
const STYLES: usize = 6;
/// Distance between the names at the ends of the lines.
const NAME_HEIGHT: f64 = 17.0;
/// Lines of up to this many points show every point.
const DOTS: usize = 40;
/// Longer lines are thinned to the lowest and highest of each of this many stretches.
const STRETCHES: usize = 800;

/// An axis from data to the drawing.
struct Axis {
    lo: f64,
    hi: f64,
    log: bool,
    /// Whether only whole numbers are marked.
    whole: bool,
    start: f64,
    end: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, log: bool, start: f64, end: f64) -> Option<Self> {
        let (lo, hi) = values.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
        // Also where the distance is too large for a number.
        if lo > hi || !(hi - lo).is_finite() {
            return None;
        }
        let (mut lo, mut hi) = if log { (lo.log10(), hi.log10()) } else { (lo, hi) };
        if hi - lo <= f64::EPSILON * hi.abs().max(lo.abs()) {
            let pad = if log { 0.5 } else { lo.abs().max(1.0) * 0.5 };
            (lo, hi) = (lo - pad, hi + pad);
        }
        Some(Self { lo, hi, log, whole: false, start, end })
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        self.start + (value - self.lo) / (self.hi - self.lo) * (self.end - self.start)
    }

    /// Starts at 0 where that wastes little of the plot, and ends on a round number.
    fn round(mut self) -> Self {
        if self.log {
            return self;
        }
        if self.lo > 0.0 && self.lo < 0.6 * self.hi {
            self.lo = 0.0;
        }
        let step = step(self.hi - self.lo);
        self.lo = (self.lo / step).floor() * step;
        self.hi = (self.hi / step).ceil() * step;
        self
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.log {
            let least = if self.whole { 1.0 } else { 0.0 };
            let step = step(self.hi - self.lo).max(least);
            let first = (self.lo / step - 1e-9).ceil();
            let count = ((self.hi / step + 1e-9).floor() - first).clamp(0.0, 20.0) as usize;
            // Through an integer multiple, so that 0 is 0 and not a rounding error.
            return (0..=count).map(|k| (first + k as f64) * step).collect();
        }
        let (lo, hi) = (self.lo.floor() as i32, self.hi.ceil() as i32);
        let decades = (hi - lo).max(1);
        let parts: &[f64] = match decades {
            1 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            2 | 3 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        (lo..=hi)
            .step_by((decades as usize).div_ceil(8))
            .flat_map(|power| parts.iter().map(move |part| part * 10f64.powi(power)))
            .filter(|v| (self.lo - 1e-9..=self.hi + 1e-9).contains(&v.log10()))
            .collect()
    }
}

/// A round distance (1, 2 or 5 times a power of ten) that divides `span` into four to ten parts.
fn step(span: f64) -> f64 {
    let raw = (span / 5.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(raw.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0].into_iter().find(|n| n * power >= raw * 0.999);
    nice.unwrap_or(10.0) * power
}

/// The colours of a picture that stands alone: those of a page on paper.
const STYLE: &str = "text{font-size:11px;fill:#59626f}.axis,.name{font-size:12px;fill:#1a2029}\
    .head{font-size:14px;font-weight:700;fill:#1a2029}\
    .rule{stroke:#dfe2e6;fill:none}.base{stroke:#8a929d;fill:none}\
    .line{fill:none;stroke-width:2;stroke-linejoin:round}circle{fill:#fdfdfb;stroke-width:1.6;stroke-dasharray:none!important}\
    .s0{stroke:#0b5fa5}.s1{stroke:#b3470f;stroke-dasharray:7 4}.s2{stroke:#21733f;stroke-dasharray:2 3}\
    .s3{stroke:#7b3fa0;stroke-dasharray:9 3 2 3}.s4{stroke:#4d5661;stroke-dasharray:14 4}\
    .s5{stroke:#a8265f;stroke-dasharray:4 2 1 2}";
/// Height of the heading of a picture that stands alone.
const HEAD: f64 = 34.0;

/// Draws a line chart as a standalone SVG picture on a light background, for a README or a slide; `None` where no point of it can
/// be drawn.
///
/// ```
/// use mnemic_pictures::{Curve, Series, curve_svg};
/// let series = vec![Series { name: "train".into(), points: vec![(0.0, 2.9), (1.0, 0.8)] }];
/// let svg = curve_svg(&Curve { title: "Training".into(), series, ..Curve::default() });
/// assert!(svg.is_some_and(|svg| svg.starts_with("<svg xmlns=")));
/// assert_eq!(curve_svg(&Curve::default()), None);
/// ```
pub fn curve_svg(curve: &Curve) -> Option<String> {
    let (body, height) = drawing(curve)?;
    let all = height + HEAD;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {all}\" width=\"{WIDTH}\" \
         height=\"{all}\" role=\"img\" font-family=\"system-ui,'Segoe UI',Helvetica,Arial,sans-serif\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n\
         <rect x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#fdfdfb\" stroke=\"#dfe2e6\"/>\n\
         <text class=\"head\" x=\"18\" y=\"24\">{}</text>\n\
         <g transform=\"translate(0 {HEAD})\">\n{body}</g></svg>\n",
        escape(&description(curve)),
        WIDTH - 1.0,
        all - 1.0,
        escape(&curve.title),
    ))
}

/// Draws a curve; `id` is unique on the page.
pub(crate) fn chart(curve: &Curve, id: usize, out: &mut String) {
    put!(out, "<section><h2>{}</h2>\n", escape(&curve.title));
    let Some((body, height)) = drawing(curve) else {
        out.push_str(
            "<p class=\"quiet\">The curve has no points that can be drawn.</p></section>\n",
        );
        return;
    };
    legend(&curve.series, out);
    put!(
        out,
        "<div class=\"plot\">\
         <svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"chart-{id}\">\
         <title id=\"chart-{id}\">{}</title>\n{body}</svg></div></section>\n",
        escape(&description(curve)),
    );
}

/// What the chart shows, in words.
fn description(curve: &Curve) -> String {
    let names: Vec<&str> = curve.series.iter().map(|s| s.name.as_str()).collect();
    let (title, x, y) = (&curve.title, &curve.x_label, &curve.y_label);
    format!("{title}: {y} over {x}; lines: {}", names.join(", "))
}

/// Axes, lines and their names, and the height; `None` where no point can be drawn.
fn drawing(curve: &Curve) -> Option<(String, f64)> {
    let drawable =
        |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite() && (!curve.log_y || p.1 > 0.0);
    let points = || curve.series.iter().flat_map(|s| s.points.iter()).filter(drawable);
    let height = (curve.series.len() as f64 * NAME_HEIGHT + 80.0).max(320.0);
    let (left, right, top, bottom) = (MARGIN.0, WIDTH - MARGIN.1, MARGIN.2, height - MARGIN.3);
    let mut x = Axis::new(points().map(|p| p.0), false, left, right)?;
    x.whole = points().all(|p| p.0.fract() == 0.0);
    let y = Axis::new(points().map(|p| p.1), curve.log_y, bottom, top)?.round();
    let mut out = String::new();
    frame(curve, &x, &y, height, &mut out);
    for (n, series) in curve.series.iter().enumerate() {
        line(series, n, &x, &y, &mut out);
    }
    line_names(&curve.series, &x, &y, (top, bottom), &mut out);
    Some((out, height))
}

/// Names above the chart, shown on a phone in place of those at the ends of the lines.
fn legend(series: &[Series], out: &mut String) {
    out.push_str("<ul class=\"names\">");
    for (n, series) in series.iter().enumerate() {
        put!(
            out,
            "<li><svg viewBox=\"0 0 26 8\" aria-hidden=\"true\"><path class=\"line s{}\" \
             d=\"M0 4h26\"/></svg>{}</li>",
            n % STYLES,
            escape(&series.name)
        );
    }
    out.push_str("</ul>\n");
}

fn frame(curve: &Curve, x: &Axis, y: &Axis, height: f64, out: &mut String) {
    let (left, right, top, bottom) = (x.start, x.end, y.end, y.start);
    for tick in y.ticks() {
        let at = y.place(tick);
        put!(
            out,
            "<path class=\"rule\" d=\"M{left} {at:.1}H{right}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            number::tick(tick)
        );
    }
    put!(out, "\n<path class=\"base\" d=\"M{left} {bottom}H{right}\"/>");
    for tick in x.ticks() {
        let at = x.place(tick);
        put!(
            out,
            "<path class=\"base\" d=\"M{at:.1} {bottom}v5\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            number::tick(tick)
        );
    }
    let log = if curve.log_y { ", log scale" } else { "" };
    put!(
        out,
        "\n<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" transform=\"translate(15 {:.1}) rotate(-90)\" \
         text-anchor=\"middle\">{}{log}</text>\n",
        f64::midpoint(left, right),
        height - 6.0,
        escape(&curve.x_label),
        f64::midpoint(top, bottom),
        escape(&curve.y_label)
    );
}

/// Points in the drawing, broken where one cannot be drawn.
fn segments<'a>(series: &'a Series, y: &Axis) -> Vec<&'a [(f64, f64)]> {
    let drawable = |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite() && (!y.log || p.1 > 0.0);
    series.points.split(|p| !drawable(p)).filter(|s| !s.is_empty()).collect()
}

/// Keeps the shape of a long line: of every stretch its lowest and its highest point.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * STRETCHES {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for stretch in points.chunks(points.len().div_ceil(STRETCHES)) {
        let (mut lo, mut hi) = (0, 0);
        for (i, p) in stretch.iter().enumerate() {
            if p.1 < stretch[lo].1 {
                lo = i;
            }
            if p.1 > stretch[hi].1 {
                hi = i;
            }
        }
        kept.push(stretch[lo.min(hi)]);
        if lo != hi {
            kept.push(stretch[lo.max(hi)]);
        }
    }
    kept
}

fn line(series: &Series, n: usize, x: &Axis, y: &Axis, out: &mut String) {
    let style = n % STYLES;
    let mut path = String::new();
    let mut dots = String::new();
    for segment in segments(series, y) {
        for (i, p) in thin(segment).iter().enumerate() {
            let command = if i == 0 { 'M' } else { 'L' };
            put!(path, "{command}{:.1} {:.1}", x.place(p.0), y.place(p.1));
        }
        // A single point between gaps has no line, so it is always drawn.
        if series.points.len() <= DOTS || segment.len() == 1 {
            for p in segment {
                put!(
                    dots,
                    "<circle class=\"s{style}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\">\
                     <title>{}: {} at {}</title></circle>",
                    x.place(p.0),
                    y.place(p.1),
                    escape(&series.name),
                    p.1,
                    p.0
                );
            }
        }
    }
    if !path.is_empty() {
        put!(out, "<path class=\"line s{style}\" d=\"{path}\"/>{dots}\n");
    }
}

/// Names at the ends of the lines, pushed apart where the lines meet.
fn line_names(series: &[Series], x: &Axis, y: &Axis, (top, bottom): (f64, f64), out: &mut String) {
    let mut names: Vec<(f64, usize)> = series
        .iter()
        .enumerate()
        .filter_map(|(n, s)| {
            let last = *segments(s, y).last()?.last()?;
            Some((y.place(last.1), n))
        })
        .collect();
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut at = top;
    for name in &mut names {
        name.0 = name.0.max(at);
        at = name.0 + NAME_HEIGHT;
    }
    let mut at = bottom;
    for name in names.iter_mut().rev() {
        name.0 = name.0.min(at);
        at = name.0 - NAME_HEIGHT;
    }
    for (at, n) in names {
        let (from, style) = (x.end + 12.0, n % STYLES);
        put!(
            out,
            "<path class=\"line sample s{style}\" d=\"M{from:.1} {at:.1}h26\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}<title>{}</title></text>\n",
            from + 32.0,
            at + 4.0,
            escape(&shorten(&clean(&series[n].name), 24, "…")),
            escape(&series[n].name)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_steps() {
        for (span, want) in [(1.0, 0.2), (10.0, 2.0), (7.0, 2.0), (100.0, 20.0), (0.03, 0.01)] {
            let got = step(span);
            assert!((got / want - 1.0).abs() < 1e-9, "{span}: expected {want}, got {got}");
        }
    }

    #[test]
    fn ticks_lie_on_the_axis() {
        for (values, log) in [
            (vec![0.0, 60.0], false),
            (vec![-3.0, -3.0], false),
            (vec![1e-9, 1e9], true),
            (vec![0.5, 0.7], true),
            (vec![2.0, 2.0], true),
            (vec![0.1, 30.0], true),
        ] {
            let axis = Axis::new(values.iter().copied(), log, 0.0, 100.0).unwrap().round();
            let ticks = axis.ticks();
            assert!((2..=14).contains(&ticks.len()), "{values:?}: {ticks:?}");
            for tick in ticks {
                assert!((-0.01..=100.01).contains(&axis.place(tick)), "{values:?}: {tick}");
            }
        }
        assert!(Axis::new([].into_iter(), false, 0.0, 1.0).is_none());
    }

    #[test]
    fn epochs_are_marked_by_whole_numbers() {
        let series = |points: Vec<(f64, f64)>| Series { name: "error".into(), points };
        let curve = |points| Curve { series: vec![series(points)], ..Curve::default() };
        let whole = curve_svg(&curve(vec![(1.0, 9.0), (2.0, 4.0), (3.0, 2.0)])).unwrap();
        assert!(whole.contains(">2</text>") && !whole.contains(">1.5</text>"));
        let parts = curve_svg(&curve(vec![(1.0, 9.0), (2.5, 4.0), (3.0, 2.0)])).unwrap();
        assert!(parts.contains(">1.5</text>"));
    }

    #[test]
    fn thinning_keeps_the_extremes() {
        let mut points: Vec<(f64, f64)> =
            (0..50_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        points[31_337].1 = 99.0;
        points[4_000].1 = -99.0;
        let kept = thin(&points);
        assert!(kept.len() <= 2 * STRETCHES);
        assert!(kept.contains(&(31_337.0, 99.0)) && kept.contains(&(4_000.0, -99.0)));
        assert!(kept.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
