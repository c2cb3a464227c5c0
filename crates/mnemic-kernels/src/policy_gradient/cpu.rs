//! The fused CPU path. Rows are few and short: no threads.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::lanes::softmax_row;
use crate::real::Real;

/// Logits `(n, actions)` to a scalar.
pub(super) struct PolicyOp {
    pub(super) chosen: Vec<usize>,
    pub(super) advantages: Vec<f64>,
    pub(super) entropy: f64,
}

/// The probabilities of a row, and their logarithms; 0 for those of what is never done.
fn row<T: Real>(logits: &[T]) -> (Vec<T>, Vec<T>) {
    let all = match logits {
        [z] => vec![T::ZERO, *z],
        _ => logits.to_vec(),
    };
    let mut p = all.clone();
    let sum = softmax_row(&mut p, None);
    let log = |(&x, &p): (&T, &T)| if p > T::ZERO { x - sum } else { T::ZERO };
    let logs = all.iter().zip(&p).map(log).collect();
    (p, logs)
}

/// `-H`.
fn negentropy<T: Real>(p: &[T], logs: &[T]) -> f64 {
    p.iter().zip(logs).map(|(p, log)| p.to_f64() * log.to_f64()).sum()
}

impl FusedOp for PolicyOp {
    const NAME: &'static str = "policy gradient";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let mut loss = 0.;
        let rows = x[0].data.chunks_exact(x[0].dims[1]);
        for (logits, (&action, &advantage)) in rows.zip(self.chosen.iter().zip(&self.advantages)) {
            let (p, logs) = row(logits);
            loss -= advantage * logs[action].to_f64();
            loss += self.entropy * negentropy(&p, &logs);
        }
        Ok((vec![(vec![T::from_f64(loss)], vec![])], ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let x = pass.inputs[0];
        let grad = pass.grads[0].map_or(0., |g| g.data[0].to_f64());
        let mut out = Vec::with_capacity(x.data.len());
        let rows = x.data.chunks_exact(x.dims[1]);
        for (logits, (&action, &advantage)) in rows.zip(self.chosen.iter().zip(&self.advantages)) {
            let (p, logs) = row(logits);
            let spread = negentropy(&p, &logs);
            let d = |i: usize| {
                let (p, log) = (p[i].to_f64(), logs[i].to_f64());
                let taken = if i == action { p - 1. } else { p };
                T::from_f64(grad * (advantage * taken + self.entropy * p * (log - spread)))
            };
            // A single logit is the second of two.
            out.extend((p.len() - logits.len()..p.len()).map(d));
        }
        Ok(vec![Some(out)])
    }
}
