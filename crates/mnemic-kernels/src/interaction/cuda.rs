//! The CUDA path: both features in one pass, and both gradients in one.

use candle_core::{Result, Tensor};

use crate::cuda::{DeviceOp, Launch, Pass, blocks, empty, empty_like, suffix};

/// Operands: facts `(b, n, h)`, vectors `(b, h)`.
pub(super) struct InteractionOp;

impl DeviceOp for InteractionOp {
    const NAME: &'static str = "interaction";
    const HALF: bool = true;

    fn forward(&self, inputs: &[Tensor], _: bool) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let (b, n, h) = inputs[0].dims3()?;
        let (dtype, device) = (inputs[0].dtype(), inputs[0].device());
        let z = empty((b, n, 2 * h), dtype, device)?;
        Launch::new("interaction", format!("interaction_forward_{}", suffix(dtype)?))
            .grid(blocks(b * n * h), 1, 1)
            .block(256)
            .tensor(&inputs[0])
            .tensor(&inputs[1])
            .tensor(&z)
            .int(b)?
            .int(n)?
            .int(h)?
            .run(device)?;
        Ok((vec![z], vec![]))
    }

    fn backward(&self, pass: Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let [facts, vectors] = [0, 1].map(|i| &pass.inputs[i]);
        let Some(grad) = &pass.grads[0] else { return Ok(vec![None; 2]) };
        let (b, n, h) = facts.dims3()?;
        let (d_facts, d_vectors) = (empty_like(facts)?, empty_like(vectors)?);
        Launch::new("interaction", format!("interaction_backward_{}", suffix(facts.dtype())?))
            .grid(b, h.div_ceil(32), 1)
            .block(256)
            .tensor(facts)
            .tensor(vectors)
            .tensor(grad)
            .tensor(&d_facts)
            .tensor(&d_vectors)
            .int(n)?
            .int(h)?
            .run(facts.device())?;
        Ok(vec![Some(d_facts), Some(d_vectors)])
    }
}
