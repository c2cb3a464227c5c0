//! Cross-entropy of a linear layer's scores on CUDA, a block of rows at a time: products by cuBLAS, and the scores become their
//! gradients in place.

use candle_core::{DType, Result, Tensor};

use super::cuda::{Targets, scaled};
use super::{CrossEntropy, IGNORE, Reduction};
use crate::cuda::{DeviceOp, Pass, column_sums};

/// Bytes of scores that are held at a time.
const BYTES: usize = 512 << 20;

pub(super) struct LinearOp {
    targets: Targets,
    /// How many rows count, and how many there are.
    kept: usize,
    rows: usize,
    /// The places of the rows that count, where some do not.
    places: Option<Tensor>,
    /// Which operands get a gradient.
    wanted: Vec<bool>,
}

/// The gradients of hidden states, weight and bias.
type Gradients = Vec<Option<Tensor>>;

impl LinearOp {
    pub(super) fn new(ids: &[i64], options: &CrossEntropy, operands: &[&Tensor]) -> Result<Self> {
        let device = operands[0].device();
        let counted: Vec<i64> = ids.iter().copied().filter(|&y| y != IGNORE).collect();
        let wanted = operands.iter().map(|t| t.track_op()).collect();
        let (kept, rows) = (counted.len(), ids.len());
        let (targets, places) = if kept == rows || kept == 0 {
            (Targets::new(ids, options, device)?, None)
        } else {
            let places = (0..rows).filter(|&i| ids[i] != IGNORE).map(|i| i as u32);
            let places = Tensor::from_vec(places.collect::<Vec<_>>(), kept, device)?;
            (Targets::new(&counted, options, device)?, Some(places))
        };
        Ok(Self { targets, kept, rows, places, wanted })
    }

    /// The loss where no row counts.
    fn nothing(&self, like: &Tensor) -> Result<Tensor> {
        let (dtype, device) = (like.dtype(), like.device());
        match self.targets.reduction {
            Reduction::None => Tensor::zeros(self.rows, dtype, device),
            Reduction::Sum => Tensor::zeros((), dtype, device),
            Reduction::Mean => Tensor::full(f32::NAN, (), device)?.to_dtype(dtype),
        }
    }

    /// Losses and statistics of the rows and, where `grads` says how the losses count, the gradients of the operands.
    fn run(&self, inputs: &[Tensor], grads: Option<Grads<'_>>) -> Result<(Tensor, Gradients)> {
        let (weight, bias) = (&inputs[1], inputs.get(2));
        let v = weight.dim(0)?;
        let hidden = match &self.places {
            Some(places) => inputs[0].index_select(places, 0)?,
            None => inputs[0].clone(),
        };
        let (n, rows) = (self.kept, self.targets.kept()?);
        let blocks = n.div_ceil((BYTES / weight.dtype().size_in_bytes() / v).max(256));
        let block = n.div_ceil(blocks);
        let mut sums = Sums { wanted: &self.wanted, hidden: vec![], weight: None, bias: None };
        for first in (0..n).step_by(block) {
            let part = hidden.narrow(0, first, block.min(n - first))?;
            let scores = part.matmul(&weight.t()?)?;
            self.targets.forward(&scores, bias, &rows, first)?;
            if let Some(Grads { grads, divisor }) = grads {
                let both = [&scores, &scores];
                self.targets.gradient(both, bias, &rows, grads, divisor, first)?;
                sums.add(&scores, &part, weight)?;
            }
        }
        let gradients = match grads {
            Some(_) => sums.finish(inputs, self.places.as_ref())?,
            None => vec![None; inputs.len()],
        };
        Ok((rows, gradients))
    }
}

/// The gradients of the losses, or 1, and what they are divided by.
#[derive(Clone, Copy)]
struct Grads<'a> {
    grads: Option<&'a Tensor>,
    divisor: Option<&'a Tensor>,
}

/// The blocks' parts of the gradients.
struct Sums<'a> {
    wanted: &'a [bool],
    hidden: Vec<Tensor>,
    /// In f32 where there are several blocks.
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Sums<'_> {
    fn add(&mut self, d_scores: &Tensor, hidden: &Tensor, weight: &Tensor) -> Result<()> {
        let more = |sum: Option<Tensor>, part: Tensor| match sum {
            None => Ok(Some(part)),
            Some(sum) => (sum.to_dtype(DType::F32)? + part.to_dtype(DType::F32)?).map(Some),
        };
        if self.wanted[0] {
            self.hidden.push(d_scores.matmul(weight)?);
        }
        if self.wanted[1] {
            self.weight = more(self.weight.take(), d_scores.t()?.matmul(hidden)?)?;
        }
        if self.wanted.get(2) == Some(&true) {
            self.bias = more(self.bias.take(), column_sums(d_scores, DType::F32)?)?;
        }
        Ok(())
    }

    fn finish(self, inputs: &[Tensor], places: Option<&Tensor>) -> Result<Gradients> {
        let dtype = inputs[0].dtype();
        let hidden = match (self.hidden.len(), places) {
            (0, _) => None,
            (_, None) => Some(Tensor::cat(&self.hidden, 0)?),
            (_, Some(places)) => {
                let part = Tensor::cat(&self.hidden, 0)?;
                Some(inputs[0].zeros_like()?.index_add(places, &part, 0)?)
            }
        };
        let own = |t: Option<Tensor>| t.map(|t| t.to_dtype(dtype)).transpose();
        let mut gradients = vec![hidden, own(self.weight)?];
        if inputs.len() > 2 {
            gradients.push(own(self.bias)?);
        }
        Ok(gradients)
    }
}

impl DeviceOp for LinearOp {
    const NAME: &'static str = "mnemic-linear-cross-entropy";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], grad: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        if self.kept == 0 {
            return Ok((vec![self.nothing(&inputs[0])?], vec![]));
        }
        let early = grad && self.targets.reduction != Reduction::None;
        let divisor = if early { self.targets.divisor()? } else { None };
        let grads = early.then_some(Grads { grads: None, divisor: divisor.as_ref() });
        let (rows, gradients) = self.run(inputs, grads)?;
        let dtype = inputs[0].dtype();
        let (mut loss, _) = self.targets.reduce(&rows, dtype)?;
        if self.targets.reduction == Reduction::None
            && let Some(places) = &self.places
        {
            let zeros = Tensor::zeros(self.rows, dtype, loss.device())?;
            loss = zeros.index_add(places, &loss, 0)?;
        }
        Ok((vec![loss], gradients.into_iter().flatten().collect()))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = &pass.grads[0] else { return Ok(vec![None; pass.inputs.len()]) };
        if self.kept == 0 {
            return pass.inputs.iter().map(|x| x.zeros_like().map(Some)).collect();
        }
        if self.targets.reduction == Reduction::None {
            let grad = match &self.places {
                Some(places) => grad.index_select(places, 0)?,
                None => grad.clone(),
            };
            let grads = Grads { grads: Some(&grad), divisor: None };
            return Ok(self.run(pass.inputs, Some(grads))?.1);
        }
        // Only the gradients that are wanted were saved.
        let mut saved = pass.saved.iter();
        let mut next = |&wanted: &bool| match if wanted { saved.next() } else { None } {
            Some(g) => scaled(g, grad).map(Some),
            None => Ok(None),
        };
        self.wanted.iter().map(&mut next).collect()
    }
}
