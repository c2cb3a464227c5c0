//! The arithmetic of one row of scores, shared by both operations, and how the rows' losses are joined.

use candle_core::Result;

use super::{CrossEntropy, IGNORE, Reduction, weights};
use crate::real::Real;
use crate::rows::{infinity, map, map2, max, sum, sum2, update};

/// Targets and options.
pub(super) struct Targets {
    pub(super) ids: Vec<i64>,
    pub(super) reduction: Reduction,
    smoothing: f64,
    weights: Option<Vec<f64>>,
}

impl Targets {
    pub(super) fn new(ids: &[i64], options: &CrossEntropy) -> Result<Self> {
        Ok(Self {
            ids: ids.to_vec(),
            reduction: options.reduction,
            smoothing: options.label_smoothing,
            weights: weights(options)?,
        })
    }

    /// What the losses are divided by: `Σ w_y` for the mean.
    pub(super) fn divisor(&self) -> f64 {
        if self.reduction != Reduction::Mean {
            return 1.;
        }
        let kept = self.ids.iter().filter(|&&y| y != IGNORE);
        kept.map(|&y| self.weights.as_ref().map_or(1., |w| w[y as usize])).sum()
    }

    /// The losses of the rows joined, in the order of the rows, and the result's shape.
    pub(super) fn reduce<T: Real>(&self, losses: Vec<T>) -> (Vec<T>, Vec<usize>) {
        if self.reduction == Reduction::None {
            let n = losses.len();
            return (losses, vec![n]);
        }
        let total: f64 = losses.iter().map(|l| l.to_f64()).sum();
        (vec![T::from_f64(total / self.divisor())], vec![])
    }

    /// The gradient of each row's loss, given that of the result.
    pub(super) fn row_grads<T: Real>(&self, grad: &[T]) -> Vec<T> {
        match (self.reduction, grad) {
            (Reduction::None, _) => grad.to_vec(),
            (_, [grad]) => {
                vec![T::from_f64(grad.to_f64() / self.divisor()); self.ids.len()]
            }
            _ => vec![T::ZERO; self.ids.len()],
        }
    }

    /// The terms of the loss over `classes` in the type of the scores.
    pub(super) fn terms<T: Real>(&self, classes: usize) -> Terms<T> {
        let share = self.smoothing / classes as f64;
        let total = self.weights.as_ref().map_or(classes as f64, |w| w.iter().sum());
        let convert = |w: &Vec<f64>| w.iter().map(|&w| T::from_f64(w)).collect();
        Terms {
            hard: T::from_f64(1. - self.smoothing),
            share: T::from_f64(share),
            soft: T::from_f64(share * total),
            weights: self.weights.as_ref().map(convert),
        }
    }
}

/// The largest score of a row `m`, and `Σ exp(x - m)`: 0 for a row of `-inf`, NaN where a score is NaN.
#[derive(Clone, Copy)]
pub(super) struct Stats<T> {
    pub(super) top: T,
    pub(super) sum: T,
}

impl<T: Real> Stats<T> {
    #[inline(always)]
    pub(super) fn of(x: &[T]) -> Self {
        let top = max(x);
        if top == infinity(-1.) {
            let dead = x.iter().all(|&x| x == top);
            return Self { top, sum: if dead { T::ZERO } else { T::NAN } };
        }
        Self { top, sum: sum(x, |x| (x - top).exp_()) }
    }
}

/// The loss of a row: `(hard w_y + soft) log Σ exp(x - m) - hard w_y (x_y - m) - share Σ w (x - m)`.
pub(super) struct Terms<T> {
    /// `1 - ε`.
    hard: T,
    /// `ε / C`.
    share: T,
    /// `ε / C Σ w`.
    soft: T,
    weights: Option<Vec<T>>,
}

impl<T: Real> Terms<T> {
    /// `(1 - ε) w_y`.
    #[inline(always)]
    fn hard(&self, y: usize) -> T {
        self.weights.as_ref().map_or(self.hard, |w| self.hard * w[y])
    }

    #[inline(always)]
    pub(super) fn loss(&self, x: &[T], y: i64, stats: Stats<T>) -> T {
        let Stats { top, sum: total } = stats;
        if y == IGNORE {
            return T::ZERO;
        }
        if total == T::ZERO {
            return infinity(1.);
        }
        let y = y as usize;
        let log_sum = T::from_f64(total.to_f64().ln());
        let mut loss = self.hard(y) * (log_sum - (x[y] - top));
        if self.share != T::ZERO {
            let all = match &self.weights {
                None => sum(x, |x| x - top),
                Some(w) => sum2(x, w, |x, w| w * (x - top)),
            };
            loss += self.soft * log_sum - self.share * all;
        }
        loss
    }

    /// The gradient of the loss times `grad`: `(hard w_y + soft) p - share w - hard w_y [y]`.
    #[inline(always)]
    pub(super) fn gradient(&self, dx: &mut [T], x: &[T], y: i64, stats: Stats<T>, grad: T) {
        let Stats { top, sum: total } = stats;
        if y == IGNORE || total == T::ZERO {
            return dx.fill(T::ZERO);
        }
        let (scale, share) = self.scale(y, total, grad);
        match &self.weights {
            _ if share == T::ZERO => map(dx, x, |x| (x - top).exp_() * scale),
            None => map(dx, x, |x| (x - top).exp_() * scale - share),
            Some(w) => map2(dx, x, w, |x, w| (x - top).exp_() * scale - share * w),
        }
        dx[y as usize] -= grad * self.hard(y as usize);
    }

    /// [`Self::gradient`] in place of the scores.
    #[inline(always)]
    pub(super) fn gradient_in_place(&self, x: &mut [T], y: i64, stats: Stats<T>, grad: T) {
        let Stats { top, sum: total } = stats;
        if y == IGNORE || total == T::ZERO {
            return x.fill(T::ZERO);
        }
        let (scale, share) = self.scale(y, total, grad);
        match &self.weights {
            None => update(x, |x| (x - top).exp_() * scale - share),
            Some(w) => {
                update(x, |x| (x - top).exp_() * scale);
                x.iter_mut().zip(w).for_each(|(x, w)| *x -= share * *w);
            }
        }
        x[y as usize] -= grad * self.hard(y as usize);
    }

    /// What `exp(x - m)` is multiplied by, and what is subtracted for smoothing.
    #[inline(always)]
    fn scale(&self, y: i64, total: T, grad: T) -> (T, T) {
        (grad * (self.hard(y as usize) + self.soft) / total, grad * self.share)
    }
}
