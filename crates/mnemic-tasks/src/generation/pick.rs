//! Choosing among the scores of a row.

use std::cmp::Ordering;

/// Sums are taken over so many numbers at a time.
const CHUNK: usize = 64;

/// Larger scores first, the first place first among equals.
fn order(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// The `k` largest scores above -inf with their places, largest first, the first place first among equals; fewer where there are
/// fewer. One pass: what cannot be among them is compared once.
pub(super) fn largest(scores: &[f32], k: usize) -> Vec<(f32, u32)> {
    let mut kept: Vec<(f32, u32)> = Vec::new();
    let room = (4 * k).max(64);
    let mut floor = f32::NEG_INFINITY;
    for (place, &score) in scores.iter().enumerate() {
        if score > floor {
            kept.push((score, place as u32));
            if kept.len() == room && k > 0 {
                kept.select_nth_unstable_by(k - 1, order);
                kept.truncate(k);
                floor = kept[k - 1].0;
            }
        }
    }
    kept.sort_unstable_by(order);
    kept.truncate(k);
    kept
}

/// The place of the largest score above -inf, the first among equals, with the score.
pub(super) fn argmax(scores: &[f32]) -> Option<(f32, usize)> {
    let max = maximum(scores);
    let place = scores.iter().position(|&score| score == max)?;
    (max > f32::NEG_INFINITY).then_some((max, place))
}

/// The largest score; -inf where there is none.
pub(super) fn maximum(scores: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    // Lanes side by side, which one running maximum would not become.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = scores.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, score);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &score| larger(max, score))
}

/// `exp(x)` for `x` at most 0, to 3e-7 of its value, and 0 below -87. Unlike the standard library's it runs in lanes.
fn exp(x: f32) -> f32 {
    /// Adding it leaves no room for binary places.
    const ROUND: f32 = 12_582_912.;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // exp(x) = 2^n exp(r) with |r| at most log(2) / 2.
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let series = [1. / 720., 1. / 120., 1. / 24., 1. / 6., 0.5, 1., 1.];
    let y = series.iter().fold(0., |sum, term| sum * r + term);
    // The last bits of `shifted` are those of n. Below -87 the result means nothing.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87. { 0. } else { y * power }
}

/// `log(sum(exp(scores)))`; -inf where nothing is above it.
pub(super) fn log_sum_exp(scores: &[f32]) -> f64 {
    let max = maximum(scores);
    if max == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    f64::from(max) + sum_exp(scores, max).ln()
}

/// `sum(exp(scores - max))`.
pub(super) fn sum_exp(scores: &[f32], max: f32) -> f64 {
    // Short sums in 32 bits and in lanes, their sum in 64.
    let short = |scores: &[f32]| {
        let mut lanes = [0.; 16];
        let (chunks, rest) = scores.as_chunks::<16>();
        for chunk in chunks {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *lane += exp(score - max);
            }
        }
        let rest = rest.iter().map(|score| exp(score - max));
        lanes.into_iter().chain(rest).map(f64::from).sum::<f64>()
    };
    scores.chunks(1024).map(short).sum()
}

/// Draws a place with the probabilities `softmax(scores)`: the first whose cumulative probability lies above `u`, in `[0, 1)`.
/// `None` where all scores are -inf.
pub(super) fn draw(scores: &[f32], u: f64) -> Option<usize> {
    let max = maximum(scores);
    if max == f32::NEG_INFINITY {
        return None;
    }
    let weights: Vec<f32> = scores.iter().map(|s| exp(s - max)).collect();
    draw_weighted(&weights, u)
}

/// Draws a place with probabilities in proportion to `weights`; `None` where they are all 0.
pub(super) fn draw_weighted(weights: &[f32], u: f64) -> Option<usize> {
    let sum = |weights: &[f32]| weights.iter().map(|&w| f64::from(w)).sum::<f64>();
    let sums: Vec<f64> = weights.chunks(CHUNK).map(sum).collect();
    let mut rest = u * sums.iter().sum::<f64>();
    let mut last = None;
    for (i, (chunk, sum)) in weights.chunks(CHUNK).zip(sums).enumerate() {
        if sum > 0. && rest >= sum {
            rest -= sum;
            // Where rounding leaves a little behind the last place, that place is taken.
            last = chunk.iter().rposition(|&w| w > 0.).map(|j| CHUNK * i + j);
            continue;
        }
        for (j, &weight) in chunk.iter().enumerate().filter(|(_, w)| **w > 0.) {
            last = Some(CHUNK * i + j);
            rest -= f64::from(weight);
            if rest < 0. {
                return last;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use mnemic_models::Philox;

    const INF: f32 = f32::INFINITY;

    #[test]
    fn the_largest_are_those_of_a_sort() {
        let rng = Philox::new(1, 0);
        for n in [1, 5, 63, 64, 65, 1000] {
            // Few different values, so that many are equal; some are -inf.
            let score = |i| match rng.below(i, 40) {
                0 => -INF,
                v => v as f32 * 0.5,
            };
            let scores: Vec<f32> = (0..n).map(score).collect();
            let mut sorted: Vec<_> = scores.iter().copied().zip(0..).collect();
            sorted.retain(|(score, _)| *score > -INF);
            sorted.sort_by(order);
            for k in [0, 1, 2, 15, 16, 17, 200, 2000] {
                let expected = &sorted[..sorted.len().min(k)];
                assert_eq!(largest(&scores, k), expected, "{k} of {n}");
            }
            let first = sorted.first().map(|&(score, place)| (score, place as usize));
            assert_eq!(argmax(&scores), first);
        }
        assert_eq!(argmax(&[-INF, -INF]), None);
    }

    #[test]
    fn exponentials_are_those_of_the_standard_library() {
        for i in 0..87_000 {
            let x = -i as f32 * 0.001;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3e-7, "exp({x}) is off by {error}");
        }
        assert_eq!([0., -88., -1e9, -INF].map(exp), [1., 0., 0., 0.]);
    }

    #[test]
    fn sums_of_exponentials_stand_large_scores() {
        let scores = [1000., 1000., -INF, 999.];
        let expected = 1000. + (2. + (-1f64).exp()).ln();
        assert!((log_sum_exp(&scores) - expected).abs() < 1e-6);
        assert_eq!(log_sum_exp(&[-INF]), f64::NEG_INFINITY);
    }

    #[test]
    fn a_draw_takes_each_place_for_its_share() {
        let weights: Vec<f32> = (0..200).map(|i| if i % 3 == 0 { 0. } else { 1. }).collect();
        let total = 133.;
        let places: Vec<usize> = (0..200).filter(|i| i % 3 != 0).collect();
        for (n, &place) in places.iter().enumerate() {
            for share in [0.01, 0.5, 0.99] {
                let u = (n as f64 + share) / total;
                assert_eq!(draw_weighted(&weights, u), Some(place));
            }
        }
        assert_eq!(draw_weighted(&weights, 0.), Some(1));
        assert_eq!(draw_weighted(&weights, 1.), Some(199));
        assert_eq!(draw_weighted(&[0., 0.], 0.3), None);
        assert_eq!(draw(&[-INF, 3., -INF], 0.999), Some(1));
        assert_eq!(draw(&[-INF; 3], 0.5), None);
    }
}
