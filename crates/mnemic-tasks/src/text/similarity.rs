//! How alike vectors are.

use std::cmp::Ordering;

use serde::Serialize;

use crate::{Error, Result};

/// The cosine of the angle between each of `xs` (rows) and each of `ys` (columns): `x·y / (|x| |y|)`, and 0 where one is all zeros.
///
/// ```
/// use mnemic_tasks::text::cosines;
/// let found = cosines(&[vec![3., 4.]], &[vec![6., 8.], vec![0., 1.], vec![0., 0.]])?;
/// assert_eq!(found, [[1., 0.8, 0.]]);
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
///
/// # Errors
/// When the vectors are not all of one width.
pub fn cosines(xs: &[Vec<f32>], ys: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
    let width = xs.iter().chain(ys).map(Vec::len).next().unwrap_or(0);
    if let Some(other) = xs.iter().chain(ys).find(|v| v.len() != width) {
        let got = other.len();
        return Err(Error::request(format!(
            "similarity: expected vectors of width {width}, got one of {got}"
        )));
    }
    let lengths = |vs: &[Vec<f32>]| vs.iter().map(|v| dot(v, v).sqrt()).collect::<Vec<_>>();
    let (of_x, of_y) = (lengths(xs), lengths(ys));
    let cosine = |x: &[f32], n: f64, (y, m): (&Vec<f32>, &f64)| {
        let scale = n * m;
        if scale > 0. { (dot(x, y) / scale) as f32 } else { 0. }
    };
    let row = |(x, &n): (&Vec<f32>, &f64)| ys.iter().zip(&of_y).map(|y| cosine(x, n, y)).collect();
    Ok(xs.iter().zip(&of_x).map(row).collect())
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// A vector near a query.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Near {
    /// Its place among the vectors, from 0.
    pub index: usize,
    /// The cosine.
    pub score: f32,
}

/// The `top` vectors nearest to a query, the nearest first, the first among equals.
///
/// # Errors
/// As [`cosines`].
pub fn nearest(query: &[f32], vectors: &[Vec<f32>], top: usize) -> Result<Vec<Near>> {
    let scores = cosines(&[query.to_vec()], vectors)?.concat();
    let mut near: Vec<Near> =
        scores.into_iter().enumerate().map(|(index, score)| Near { index, score }).collect();
    near.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
    near.truncate(top);
    Ok(near)
}
