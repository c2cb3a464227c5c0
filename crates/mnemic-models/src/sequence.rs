//! Models that read a vector and give one at every step: what learns algorithms.

use candle_core::{Result, Tensor, bail};
use mnemic_layers::{Context, stack, unbind};

/// A model from sequences of vectors to sequences of scores.
pub trait SequenceModel {
    /// Width of the inputs.
    fn input_size(&self) -> usize;

    /// Width of the outputs.
    fn output_size(&self) -> usize;

    /// The scores (before a sigmoid) of `inputs (b, t, input_size)` at the steps that are `wanted` (all where `None`), `(b, steps, output_size)`. A
    /// step sees no later input, so padding at the end changes nothing before it.
    ///
    /// # Errors
    /// When the shapes do not fit, or no step is wanted.
    fn forward(&self, inputs: &Tensor, wanted: Option<&[bool]>, ctx: &Context) -> Result<Tensor>;
}

/// Checks that the inputs of `model` are `(b, t, width)`, and gives b and t.
pub(crate) fn check_inputs(model: &str, inputs: &Tensor, width: usize) -> Result<(usize, usize)> {
    match inputs.dims() {
        &[b, t, got] if got == width => Ok((b, t)),
        got => bail!("{model}: expected inputs (b, t, {width}), got {got:?}"),
    }
}

/// What a step gives at the wanted ones of the steps of `xs (b, t, i)`, side by side: `(b, steps, f)`.
pub(crate) fn step_through(
    xs: &Tensor,
    wanted: Option<&[bool]>,
    mut step: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let wanted = wanted_steps(wanted, xs.dim(1)?)?;
    let mut given = Vec::with_capacity(wanted.len());
    for (x, wanted) in unbind(xs)?.iter().zip(wanted) {
        let features = step(x)?;
        if wanted {
            given.push(features);
        }
    }
    stack(&given)
}

/// The wanted ones of the steps of `features (b, t, f)`, side by side: `(b, steps, f)`.
pub(crate) fn take_steps(features: &Tensor, wanted: Option<&[bool]>) -> Result<Tensor> {
    let steps = wanted_steps(wanted, features.dim(1)?)?;
    if !steps.contains(&false) {
        return Ok(features.clone());
    }
    step_through(features, wanted, |x| Ok(x.clone()))
}

/// The steps that are wanted of `t`, checked.
pub(crate) fn wanted_steps(wanted: Option<&[bool]>, t: usize) -> Result<Vec<bool>> {
    let wanted = wanted.map_or_else(|| vec![true; t], <[bool]>::to_vec);
    if wanted.len() != t || !wanted.contains(&true) {
        bail!("sequence model: expected {t} steps of which some are wanted, got {wanted:?}");
    }
    Ok(wanted)
}
