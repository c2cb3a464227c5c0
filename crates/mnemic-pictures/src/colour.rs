//! Colour scales that are even to the eye, safe for colour-blind readers, and fit for print.
//!
//! A scale is a small table in OKLCh (lightness, chroma, hue in degrees) whose lightness changes
//! evenly from end to end, so that order and distance survive any colour blindness and a grey
//! printer. The light scale runs from paper to dark blue, the dark one from background to yellow:
//! in both, a weight of 0 recedes.

/// Steps of a scale; a cell's colour is one of `LEVELS + 1`.
pub(crate) const LEVELS: usize = 50;

/// Points of a sequential scale on light paper.
const LIGHT: [[f64; 3]; 5] = [
    [0.985, 0.012, 105.0],
    [0.820, 0.105, 160.0],
    [0.645, 0.110, 205.0],
    [0.465, 0.125, 250.0],
    [0.290, 0.115, 275.0],
];
/// Points of a sequential scale on a dark background.
const DARK: [[f64; 3]; 5] = [
    [0.255, 0.020, 265.0],
    [0.420, 0.105, 265.0],
    [0.585, 0.110, 225.0],
    [0.750, 0.120, 170.0],
    [0.915, 0.150, 108.0],
];
/// Hues of the two arms of a diverging scale: blue below 0, orange above.
const ARMS: (f64, f64) = (250.0, 55.0);

/// Background of the page in the two modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Light,
    Dark,
}

/// Kind of scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ramp {
    Sequential,
    Diverging,
}

/// A colour in sRGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rgb(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl Rgb {
    pub(crate) fn hex(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    /// Relative luminance of WCAG 2.2.
    fn luminance(self) -> f64 {
        let linear = |byte: u8| {
            let c = f64::from(byte) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }

    /// Contrast ratio of WCAG 2.2, from 1 to 21.
    pub(crate) fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// Colour of text on this background with a contrast of at least 4.5.
    ///
    /// The two softer inks fail on mid tones; there the better of black and white has at least
    /// `sqrt(1.05 / 0.05)` = 4.58.
    pub(crate) fn ink(self) -> Self {
        let (white, black) = (Self(255, 255, 255), Self(0, 0, 0));
        let inks = [Self(0x16, 0x1b, 0x24), Self(0xf4, 0xf6, 0xf8)];
        if let Some(&ink) = inks.iter().find(|ink| self.contrast(**ink) >= 6.0) {
            return ink;
        }
        if self.contrast(white) >= self.contrast(black) { white } else { black }
    }

    /// Quieter text for cells without weight.
    fn quiet_ink(self, mode: Mode) -> Self {
        let quiet = match mode {
            Mode::Light => Self(0x6b, 0x72, 0x80),
            Mode::Dark => Self(0x97, 0xa1, 0xb0),
        };
        if self.contrast(quiet) >= 4.5 { quiet } else { self.ink() }
    }
}

/// Background and ink of one level.
pub(crate) fn cell(ramp: Ramp, level: usize, mode: Mode) -> (Rgb, Rgb) {
    let background = background(ramp, level, mode);
    let quiet = match ramp {
        Ramp::Sequential => level == 0,
        Ramp::Diverging => 2 * level == LEVELS,
    };
    let ink = if quiet { background.quiet_ink(mode) } else { background.ink() };
    (background, ink)
}

fn background(ramp: Ramp, level: usize, mode: Mode) -> Rgb {
    let t = level.min(LEVELS) as f64 / LEVELS as f64;
    match ramp {
        Ramp::Sequential => {
            let table = if mode == Mode::Light { &LIGHT } else { &DARK };
            let place = t * (table.len() - 1) as f64;
            let i = (place as usize).min(table.len() - 2);
            let f = place - i as f64;
            let mix = |k: usize| table[i][k] + f * (table[i + 1][k] - table[i][k]);
            oklch(mix(0), mix(1), mix(2))
        }
        Ramp::Diverging => {
            let size = (2.0 * t - 1.0).abs();
            let hue = if t < 0.5 { ARMS.0 } else { ARMS.1 };
            match mode {
                Mode::Light => oklch(0.98 - 0.52 * size, 0.14 * size, hue),
                Mode::Dark => oklch(0.26 + 0.54 * size, 0.13 * size, hue),
            }
        }
    }
}

/// The level of a place on the scale, `fraction` in `[0, 1]`.
pub(crate) fn level(fraction: f64) -> usize {
    (fraction.clamp(0.0, 1.0) * LEVELS as f64).round() as usize
}

/// OKLCh to sRGB (Ottosson 2020, "A perceptual color space for image processing"), with the chroma
/// lowered until the colour exists on a screen.
fn oklch(lightness: f64, chroma: f64, hue: f64) -> Rgb {
    let mut chroma = chroma;
    loop {
        let linear =
            oklab(lightness, chroma * hue.to_radians().cos(), chroma * hue.to_radians().sin());
        let inside = linear.iter().all(|c| (-1e-4..=1.0 + 1e-4).contains(c));
        if inside || chroma < 1e-3 {
            let [r, g, b] = linear.map(encode);
            return Rgb(r, g, b);
        }
        chroma *= 0.97;
    }
}

/// OKLab to linear sRGB.
fn oklab(l: f64, a: f64, b: f64) -> [f64; 3] {
    let cone = |x: f64| x * x * x;
    let long = cone(l + 0.396_337_777_4 * a + 0.215_803_757_3 * b);
    let medium = cone(l - 0.105_561_345_8 * a - 0.063_854_172_8 * b);
    let short = cone(l - 0.089_484_177_5 * a - 1.291_485_548_0 * b);
    [
        4.076_741_662_1 * long - 3.307_711_591_3 * medium + 0.230_969_929_2 * short,
        -1.268_438_004_6 * long + 2.609_757_401_1 * medium - 0.341_319_396_5 * short,
        -0.004_196_086_3 * long - 0.703_418_614_7 * medium + 1.707_614_701_0 * short,
    ]
}

/// Linear to gamma-encoded sRGB.
fn encode(c: f64) -> u8 {
    let c = c.clamp(0.0, 1.0);
    let c = if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
    (c * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(Ramp, Mode); 4] = [
        (Ramp::Sequential, Mode::Light),
        (Ramp::Sequential, Mode::Dark),
        (Ramp::Diverging, Mode::Light),
        (Ramp::Diverging, Mode::Dark),
    ];

    /// OKLab of an sRGB colour, by the published forward matrices.
    fn lab(rgb: Rgb) -> [f64; 3] {
        let [r, g, b] = [rgb.0, rgb.1, rgb.2].map(|byte| {
            let c = f64::from(byte) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        let l = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
        let m = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
        let s = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
        [
            0.210_454_255_3 * l + 0.793_617_785_0 * m - 0.004_072_046_8 * s,
            1.977_998_495_1 * l - 2.428_592_205_0 * m + 0.450_593_709_9 * s,
            0.025_904_037_1 * l + 0.782_771_766_2 * m - 0.808_675_766_0 * s,
        ]
    }

    #[test]
    fn text_is_readable_on_every_level() {
        for (ramp, mode) in ALL {
            for level in 0..=LEVELS {
                let (background, ink) = cell(ramp, level, mode);
                let contrast = background.contrast(ink);
                assert!(contrast >= 4.5, "{ramp:?} {mode:?} level {level}: {contrast:.2}");
            }
        }
        // Any other background, such as those of a future scale.
        for grey in 0..=255 {
            let background = Rgb(grey, grey, grey);
            assert!(background.contrast(background.ink()) >= 4.5, "{grey}");
        }
    }

    #[test]
    fn equal_steps_look_equal() {
        for mode in [Mode::Light, Mode::Dark] {
            let labs: Vec<_> =
                (0..=LEVELS).map(|l| lab(background(Ramp::Sequential, l, mode))).collect();
            // Over five levels at a time, as single steps suffer from rounding to bytes.
            let steps: Vec<f64> = labs
                .windows(6)
                .map(|w| (0..3).map(|k| (w[5][k] - w[0][k]).powi(2)).sum::<f64>().sqrt())
                .collect();
            let (lo, hi) = steps.iter().fold((f64::MAX, 0.0f64), |(a, b), &s| (a.min(s), b.max(s)));
            assert!(hi / lo < 1.6, "{mode:?}: steps from {lo:.4} to {hi:.4}");
            // Lightness alone keeps the order, so a colour-blind reader and a grey printer do too.
            let sign = if mode == Mode::Light { -1.0 } else { 1.0 };
            for pair in labs.windows(2) {
                let step = sign * (pair[1][0] - pair[0][0]);
                assert!((0.008..0.020).contains(&step), "{mode:?}: {step}");
            }
        }
    }

    #[test]
    fn known_colours() {
        assert_eq!(oklch(1.0, 0.0, 0.0), Rgb(255, 255, 255));
        assert_eq!(oklch(0.0, 0.0, 0.0), Rgb(0, 0, 0));
        // sRGB red in OKLCh, as published with CSS Color 4.
        assert_eq!(oklch(0.62796, 0.25768, 29.234), Rgb(255, 0, 0));
        assert_eq!(Rgb(0, 0, 0).contrast(Rgb(255, 255, 255)), 21.0);
    }
}
