//! What the recurrent layers share: layers on top of each other, in one direction or both.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_kernels::concat::concat;
use mnemic_kernels::recurrent::{Steps, Weights};

use super::init::Layer;
use super::{RecurrentConfig, RecurrentInit};
use crate::Context;

/// The weights of all layers and directions. A state of `S` tensors (1, or 2 for the LSTM) a layer
/// and direction.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    pub(super) config: RecurrentConfig,
    op: &'static str,
    weights: Vec<Weights>,
}

impl Stack {
    pub(super) fn new(
        op: &'static str,
        gates: usize,
        config: RecurrentConfig,
        init: &RecurrentInit,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        config.validate(op)?;
        let mut weights = Vec::with_capacity(config.num_layers * config.directions());
        for layer in 0..config.num_layers {
            let input_size = if layer == 0 { config.input_size } else { config.output_size() };
            for direction in 0..config.directions() {
                let suffix = format!("_l{layer}{}", ["", "_reverse"][direction]);
                let layer = Layer {
                    op,
                    suffix: &suffix,
                    gates,
                    input_size,
                    hidden_size: config.hidden_size,
                    bias: config.bias,
                };
                weights.push(layer.weights(init, vb)?);
            }
        }
        Ok(Self { config, op, weights })
    }

    /// Runs `scan(inputs, state, weights, steps) -> (output, final state)` over all layers and
    /// directions.
    pub(super) fn run<const S: usize>(
        &self,
        xs: &Tensor,
        state: Option<[&Tensor; S]>,
        lengths: Option<&[usize]>,
        ctx: &Context,
        scan: impl Fn(
            &Tensor,
            Option<&[Tensor; S]>,
            &Weights,
            Steps<'_>,
        ) -> Result<(Tensor, [Tensor; S])>,
    ) -> Result<(Tensor, [Tensor; S])> {
        let (outputs, state) = self.run_apart(xs, state, lengths, ctx, scan)?;
        Ok((join(outputs)?, state))
    }

    /// [`Stack::run`] with the outputs of the last layer's directions apart.
    pub(super) fn run_apart<const S: usize>(
        &self,
        xs: &Tensor,
        state: Option<[&Tensor; S]>,
        lengths: Option<&[usize]>,
        ctx: &Context,
        scan: impl Fn(
            &Tensor,
            Option<&[Tensor; S]>,
            &Weights,
            Steps<'_>,
        ) -> Result<(Tensor, [Tensor; S])>,
    ) -> Result<(Vec<Tensor>, [Tensor; S])> {
        self.check(xs, state.iter().flatten())?;
        let directions = self.config.directions();
        let mut finals: Vec<Vec<Tensor>> = vec![Vec::new(); S];
        let mut below = vec![xs.clone()];
        for (layer, weights) in self.weights.chunks(directions).enumerate() {
            let mut xs = join(std::mem::take(&mut below))?;
            if layer > 0 {
                xs = ctx.dropout(&xs, self.config.dropout)?;
            }
            let mut outputs = Vec::with_capacity(directions);
            for (direction, weights) in weights.iter().enumerate() {
                let initial = match state {
                    Some(state) => {
                        Some(try_each(state, |s| s.get(layer * directions + direction))?)
                    }
                    None => None,
                };
                let steps = Steps { lengths, reverse: direction == 1 };
                let (output, last) = scan(&xs, initial.as_ref(), weights, steps)?;
                outputs.push(output);
                finals.iter_mut().zip(last).for_each(|(all, s)| all.push(s));
            }
            below = outputs;
        }
        let mut finals = finals.into_iter();
        let state = try_each([(); S], |()| Tensor::stack(&finals.next().unwrap_or_default(), 0))?;
        Ok((below, state))
    }

    /// `xs (b, d)` as a sequence of one step, refusing what has no next step.
    pub(super) fn one_step(&self, xs: &Tensor) -> Result<Tensor> {
        if self.config.bidirectional {
            bail!("{}: step needs one direction, the layer has two", self.op);
        }
        if xs.rank() != 2 || xs.dim(1)? != self.config.input_size {
            let d = self.config.input_size;
            bail!("{}: expected a step's input (b, {d}), got {:?}", self.op, xs.dims());
        }
        xs.unsqueeze(1)
    }

    fn check<'a>(&self, xs: &Tensor, states: impl Iterator<Item = &'a &'a Tensor>) -> Result<()> {
        let (op, d) = (self.op, self.config.input_size);
        if xs.rank() != 3 || xs.dim(2)? != d {
            bail!("{op}: expected input (b, t, {d}), got {:?}", xs.dims());
        }
        let expected = [self.weights.len(), xs.dim(0)?, self.config.hidden_size];
        for state in states {
            if state.dims() != expected {
                bail!("{op}: expected a state {expected:?}, got {:?}", state.dims());
            }
        }
        Ok(())
    }
}

/// The directions side by side.
fn join(mut outputs: Vec<Tensor>) -> Result<Tensor> {
    if outputs.len() == 1 { Ok(outputs.remove(0)) } else { concat(&outputs) }
}

fn try_each<A, const S: usize>(
    items: [A; S],
    mut f: impl FnMut(A) -> Result<Tensor>,
) -> Result<[Tensor; S]> {
    let tensors = items.into_iter().map(&mut f).collect::<Result<Vec<_>>>()?;
    tensors.try_into().map_err(|_| candle_core::Error::msg("the number of states changed"))
}
