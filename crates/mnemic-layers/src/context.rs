//! What a forward pass is given besides its inputs: train or evaluation, random numbers, and the watch.

use std::cell::{Cell, RefCell};

use candle_core::{Result, Tensor};
use mnemic_kernels::dropout::dropout;
use mnemic_kernels::rng::Philox;

/// One recorded tensor: an attention map, read or write weighting, gate.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What it is, in field terms: `attention`, `gate`, `read_weights`.
    pub name: String,
    /// The hop, pass, layer or time step it belongs to, counting from 0.
    pub step: usize,
    /// The value, cut from the graph; the batch is its first axis.
    pub value: Tensor,
}

/// Everything recorded in a forward pass, in order.
pub type Trace = Vec<Watched>;

/// The context of one forward pass.
///
/// It is passed down explicitly; layers keep no mode and no state. Dropout masks are a pure function of the seed, the
/// training step and the position of the dropout call within the pass, so a resumed run draws the same masks.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use mnemic_layers::Context;
/// let ctx = Context::eval().watching();
/// ctx.watch("attention", 0, || Tensor::new(&[[0.25f32, 0.75]], &Device::Cpu))?;
/// let trace = ctx.take_trace();
/// assert_eq!((trace[0].name.as_str(), trace[0].step), ("attention", 0));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Context {
    train: Option<(u64, u64)>,
    calls: Cell<u64>,
    trace: Option<RefCell<Trace>>,
}

impl Context {
    /// Evaluation: no dropout, no noise, nothing recorded.
    pub fn eval() -> Self {
        Self { train: None, calls: Cell::new(0), trace: None }
    }

    /// Training step `step` of a run with this seed.
    pub fn train(seed: u64, step: u64) -> Self {
        Self { train: Some((seed, step)), ..Self::eval() }
    }

    /// The same context, recording what is watched.
    pub fn watching(self) -> Self {
        Self { trace: Some(RefCell::default()), ..self }
    }

    /// Whether this is a training pass.
    pub fn is_train(&self) -> bool {
        self.train.is_some()
    }

    /// Whether watched values are recorded.
    pub fn is_watching(&self) -> bool {
        self.trace.is_some()
    }

    /// In training, a random stream that no other call of this or another step gets; in evaluation `None`.
    pub fn rng(&self) -> Option<Philox> {
        let (seed, step) = self.train?;
        let call = self.calls.replace(self.calls.get() + 1);
        // 2^24 draws a step, 2^40 steps; the seed is set apart from that of initial values.
        Some(Philox::new(seed ^ 0x6d6e_656d_6963_0001, (step << 24) | (call & 0xff_ffff)))
    }

    /// Records the value that `f` gives, cut from the graph. When the watch is off, `f` is not called.
    pub fn watch(&self, name: &str, step: usize, f: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if let Some(trace) = &self.trace {
            let value = f()?.detach();
            trace.borrow_mut().push(Watched { name: name.to_string(), step, value });
        }
        Ok(())
    }

    /// What has been recorded so far, leaving the record empty.
    pub fn take_trace(&self) -> Trace {
        self.trace.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// Dropout (Srivastava et al. 2014): zeroes each element with probability `p` and scales the rest by `1/(1-p)`.
    /// The identity in evaluation or at `p = 0`.
    pub fn dropout(&self, xs: &Tensor, p: f64) -> Result<Tensor> {
        if p <= 0. {
            return Ok(xs.clone());
        }
        let Some(rng) = self.rng() else { return Ok(xs.clone()) };
        dropout(xs, p, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn dropout_repeats_and_keeps_the_mean() {
        let xs = Tensor::ones((100, 100), DType::F32, &Device::Cpu).unwrap();
        let run = |step| {
            let ctx = Context::train(5, step);
            let a = ctx.dropout(&xs, 0.3).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let b = ctx.dropout(&xs, 0.3).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (a, b)
        };
        let (a, b) = run(1);
        assert_eq!((a.clone(), b.clone()), run(1));
        assert_ne!(a, b);
        assert_ne!(a, run(2).0);
        let zeros = a.iter().filter(|v| **v == 0.).count() as f64 / 1e4;
        assert!((zeros - 0.3).abs() < 0.02, "{zeros}");
        assert!(a.iter().all(|v| *v == 0. || (*v - 1. / 0.7).abs() < 1e-6));
    }

    #[test]
    fn evaluation_is_the_identity() {
        let xs = Tensor::ones(4, DType::F64, &Device::Cpu).unwrap();
        let ctx = Context::eval();
        assert_eq!(ctx.dropout(&xs, 0.9).unwrap().to_vec1::<f64>().unwrap(), vec![1.; 4]);
        assert!(ctx.rng().is_none() && ctx.take_trace().is_empty());
    }

    #[test]
    fn the_watch_costs_nothing_when_off() {
        Context::eval().watch("x", 0, || candle_core::bail!("must not run")).unwrap();
    }
}
