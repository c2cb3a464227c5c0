//! Continuous stacks, queues and double-ended queues: E. Grefenstette, K. M. Hermann, M. Suleyman, P. Blunsom, arXiv 1506.02516 (2015),
//! section 3.
//!
//! Every pushed vector has a strength. Popping takes strength away from one end; a reading takes the vectors at an end whose strengths
//! come to 1. Letters: b batch, n rows so far (the bottom first), m width of a vector.

/// The definitions, in ordinary candle operations.
pub mod plain;
mod read;
mod step;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// At which ends rows are pushed, popped and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// Pushed, popped and read at the top.
    Stack,
    /// Pushed at the top; popped and read at the bottom.
    Queue,
    /// All of it at both ends.
    Deque,
}

/// An end of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Top,
    Bottom,
}

impl Structure {
    /// The ends that are read: two of a deque, the top first.
    pub fn readings(self) -> usize {
        self.read_ends().len()
    }

    /// The rows that a step adds: two of a deque, one of them at the bottom.
    pub fn rows_per_step(self) -> usize {
        self.readings()
    }

    /// The ends that are popped and read, in this order.
    pub(crate) fn read_ends(self) -> &'static [End] {
        match self {
            Self::Stack => &[End::Top],
            Self::Queue => &[End::Bottom],
            Self::Deque => &[End::Top, End::Bottom],
        }
    }
}

/// What [`step`] gives.
#[derive(Debug, Clone)]
pub struct Step {
    /// The strengths `(b, n + 1)`, of a deque `(b, n + 2)`.
    pub strengths: Tensor,
    /// How much of each row is read, of the same shape: from the one end, or of a deque from the top and from the bottom.
    pub weights: Vec<Tensor>,
}

/// A step: pop, then push, then read. `strengths (b, n)`, bottom first, `commands (b, 2)` with the strengths to push and to pop, in [0, 1];
/// of a deque `(b, 4)` with push and pop at the top, then push and pop at the bottom.
///
/// From the top (eq. 2 and 3; from the bottom, the sums are over j < i, eq. 4 and 5), `d` pushed and `u` popped:
///
/// - `s'_i = max(0, s_i - max(0, u - Σ_{j>i} s_j))`, and `d` for the new row;
/// - `w_i = min(s'_i, max(0, 1 - Σ_{j>i} s'_j))`.
///
/// A deque pops at the top first, then at the bottom, then pushes at both (eq. 6-9). Where the two sides of a minimum or maximum are equal, the
/// gradient is that of the left one.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::memory::stack::{Structure, step};
/// let empty = Tensor::zeros((1, 0), DType::F32, &Device::Cpu)?;
/// let one = step(Structure::Stack, &empty, &Tensor::new(&[[0.8f32, 0.]], &Device::Cpu)?)?;
/// let two = step(Structure::Stack, &one.strengths, &Tensor::new(&[[0.5f32, 0.1]], &Device::Cpu)?)?;
/// assert_eq!(two.weights[0].to_vec2::<f32>()?, [[0.5, 0.5]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them.
pub fn step(structure: Structure, strengths: &Tensor, commands: &Tensor) -> Result<Step> {
    let (b, _) = strengths.dims2()?;
    let expected = [b, 2 * structure.rows_per_step()];
    if commands.dims() != expected {
        bail!("stack step: expected commands {expected:?}, got {:?}", commands.dims());
    }
    if b == 0 || !fused::takes(&[strengths, commands]) {
        return plain::step(structure, strengths, commands);
    }
    let mut results = fused::apply(step::StepOp { structure }, &[strengths, commands])?;
    let strengths = results.remove(0);
    Ok(Step { strengths, weights: results })
}

/// The weighted sum `r = Σ_i w_i v_i` of rows of `(b, m)`, with weights `(b, n)`. A row whose weight is 0 throughout the batch is not
/// touched and not kept, and neither it nor its weights get a gradient: [`step`] would pass none on.
///
/// # Errors
/// When there is no row, or the shapes do not fit, naming them.
pub fn read(weights: &Tensor, rows: &[Tensor]) -> Result<Tensor> {
    let (b, n) = weights.dims2()?;
    let Some(first) = rows.first() else { bail!("stack read: there is no row") };
    let m = first.dim(candle_core::D::Minus1)?;
    let odd = rows.iter().find(|row| row.dims() != [b, m]);
    if n != rows.len() || odd.is_some() {
        let got = odd.unwrap_or(first).dims();
        bail!("stack read: expected {n} rows ({b}, {m}), got {} and {got:?}", rows.len());
    }
    if b * m == 0 || !weights.device().is_cpu() || !fused::takes(&[weights, first]) {
        return plain::read(weights, rows);
    }
    let active = read::active(weights)?;
    let inputs: Vec<&Tensor> =
        std::iter::once(weights).chain(active.iter().filter_map(|&i| rows.get(i))).collect();
    if !fused::takes(&inputs) {
        bail!("stack read: expected rows of one type and device");
    }
    fused::apply1(read::ReadOp { active: active.clone(), width: m }, &inputs)
}
