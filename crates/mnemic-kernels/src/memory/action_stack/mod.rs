//! Stacks and lists of numbers that are moved as a whole by soft actions: A. Joulin, T. Mikolov, arXiv 1503.01007 (2015), section 3.
//!
//! Unlike the rows of [`super::stack`], cells have no strengths: every cell is a blend of what each action would leave there. What was never written
//! is -1. Letters: b batch, S stacks, n cells so far, p cells at most, a actions, k cells that are seen.

/// The definitions, in ordinary candle operations.
pub mod plain;
mod scan;
#[cfg(test)]
mod tests;
mod update;

use candle_core::{Result, Tensor, bail};

use crate::fused;

/// What a cell holds that was never written.
pub const EMPTY: f64 = -1.;

/// What the actions move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// The first cell is the top. Actions: PUSH, POP and, where there are three, NO-OP.
    Stack,
    /// A doubly linked list under a head that stays in the middle cell. Actions: INSERT, LEFT, RIGHT and, where there are four, NO-OP.
    List,
}

impl Structure {
    /// How many actions there are, without and with NO-OP.
    pub fn num_actions(self, no_op: bool) -> usize {
        usize::from(no_op)
            + match self {
                Self::Stack => 2,
                Self::List => 3,
            }
    }

    /// The cells of an empty structure: none of a stack, the one under the head of a list.
    pub fn first_cells(self) -> usize {
        match self {
            Self::Stack => 0,
            Self::List => 1,
        }
    }

    /// The cells after a step on `n`, at most `capacity`: one more of a stack, one more on either side of a list.
    pub fn cells_after(self, n: usize, capacity: usize) -> usize {
        match self {
            Self::Stack => (n + 1).min(capacity),
            Self::List if n + 2 <= capacity => n + 2,
            Self::List => n,
        }
    }

    /// The cells after `steps` from an empty structure, at most `capacity`.
    pub(crate) fn cells_at(self, steps: usize, capacity: usize) -> usize {
        match self {
            Self::Stack => steps.min(capacity),
            Self::List => 1 + 2 * steps.min(capacity.saturating_sub(1) / 2),
        }
    }

    /// The cell under the head of `n`.
    pub(crate) fn head(self, n: usize) -> usize {
        match self {
            Self::Stack => 0,
            Self::List => n / 2,
        }
    }

    /// Where the `visible` cells begin, counted from the head: a stack's go down from the top, a list's lie around the head, an even number
    /// with one more on the right.
    pub(crate) fn first_visible(self, visible: usize) -> isize {
        match self {
            Self::Stack => 0,
            Self::List => -(visible.saturating_sub(1) as isize / 2),
        }
    }
}

/// What [`update`] gives.
#[derive(Debug, Clone)]
pub struct Step {
    /// The cells `(b, S, m)`, `m` by [`Structure::cells_after`].
    pub cells: Tensor,
    /// The cells that are seen, `(b, S, k)`.
    pub visible: Tensor,
}

/// A step: `cells (b, S, n)` with `actions (b, S, a)`, which sum to 1, and what is written, `values (b, S)`.
///
/// With `s[i]` = -1 outside of the cells, a stack's become (section 3.2)
///
/// - `s'[0] = PUSH v + POP s[1] + NO-OP s[0]`,
/// - `s'[i] = PUSH s[i-1] + POP s[i+1] + NO-OP s[i]` below,
///
/// and a list's (section 3.3), with `i` counted from the head,
///
/// - `l'[0] = INSERT v + LEFT l[-1] + RIGHT l[1] + NO-OP l[0]`,
/// - `l'[i] = INSERT l[i+1] + …` on the left of the head, so that what was under it moves there,
/// - `l'[i] = INSERT l[i] + …` on the right.
///
/// Only cells that may have been written are kept: a stack gains one a step and a list two, up to `capacity`; what moves further is lost. `visible` is
/// the number k of cells that are seen.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::memory::action_stack::{Structure, update};
/// let empty = Tensor::zeros((1, 1, 0), DType::F64, &Device::Cpu)?;
/// let actions = Tensor::new(&[[[0.7f64, 0.2, 0.1]]], &Device::Cpu)?;
/// let step = update(Structure::Stack, &empty, &actions, &Tensor::new(&[[0.6f64]], &Device::Cpu)?, 200, 2)?;
/// let top = step.visible.to_vec3::<f64>()?[0][0].clone();
/// assert!((top[0] - 0.12).abs() < 1e-12 && top[1] == -1.);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them, a list has an even number of cells, or nothing is seen.
pub fn update(
    structure: Structure,
    cells: &Tensor,
    actions: &Tensor,
    values: &Tensor,
    capacity: usize,
    visible: usize,
) -> Result<Step> {
    let (b, s, n) = cells.dims3()?;
    let a = actions.dims().last().copied().unwrap_or(0);
    let known = [false, true].map(|no_op| structure.num_actions(no_op));
    if actions.dims() != [b, s, a] || !known.contains(&a) || values.dims() != [b, s] {
        bail!(
            "action stack: expected actions ({b}, {s}, {} or {}) and values ({b}, {s}) for cells {:?}, got {:?} and {:?}",
            known[0],
            known[1],
            cells.dims(),
            actions.dims(),
            values.dims()
        );
    }
    let odd = structure == Structure::List && n.is_multiple_of(2);
    if odd || n > capacity || capacity == 0 || visible == 0 {
        bail!(
            "action stack: expected at most {capacity} cells (an odd number of a list) and some to be seen, got {n} and {visible}"
        );
    }
    let inputs = [cells, actions, values];
    if b * s == 0 || !fused::takes(&inputs) {
        return plain::update(structure, cells, actions, values, capacity, visible);
    }
    let op = update::UpdateOp { structure, capacity, visible };
    let mut results = fused::apply(op, &inputs)?;
    let visible = results.pop();
    match (results.pop(), visible) {
        (Some(cells), Some(visible)) => Ok(Step { cells, visible }),
        _ => bail!("action stack: internal error: expected two results"),
    }
}

/// The maps of [`scan`], in section 3.2's letters; m is the width of the hidden layer. There are no biases.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// P, what the hidden layer sees of the cells, `(m, S k)`, the cells of one stack together.
    pub visible: &'a Tensor,
    /// A, the scores of the actions, `(S a, m)`, those of one stack together in the order of [`Structure`].
    pub actions: &'a Tensor,
    /// D, what is pushed, `(S, m)`.
    pub push: &'a Tensor,
    /// R, what the hidden layer sees of itself, `(m, m)`; without it the stacks are all the memory there is.
    pub recurrent: Option<&'a Tensor>,
}

/// A whole sequence of the network of section 3.2 from empty structures: `embedded (b, t, m)`, `U x_t`, to the hidden layer `(b, t, m)`.
///
/// With [`update`]'s cells `s_t` of each stack and `h_0 = 0`
///
/// - `h_t = σ(U x_t + R h_{t-1} + Σ_s P_s s_{t-1}[0:k])`,
/// - `a_t = softmax(A_s h_t)` and `v_t = σ(D_s h_t)` make `s_t` of `s_{t-1}`.
///
/// `capacity` is the most cells of each, and k, `visible`, the number of them that are seen. All is one operation; for the backward pass it keeps, of
/// every step, the hidden layer, the actions and what is seen, and the cells of about √t steps.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_kernels::memory::action_stack::{Structure, Weights, scan};
/// let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F64, &Device::Cpu);
/// let (visible, actions, push) = (Tensor::ones((1, 3), DType::F64, &Device::Cpu)?, zeros(&[2, 1])?, zeros(&[1, 1])?);
/// let weights = Weights { visible: &visible, actions: &actions, push: &push, recurrent: None };
/// let hidden = scan(Structure::Stack, &zeros(&[1, 2, 1])?, weights, 200, 3)?.flatten_all()?.to_vec1::<f64>()?;
/// // Three empty cells are seen, then after half a push of 0.5 the top is -0.25.
/// let expected = [-3f64, -2.25].map(|x| 1. / (1. + (-x).exp()));
/// assert!(hidden.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-12));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit, naming them, or there is no cell or nothing is seen.
pub fn scan(
    structure: Structure,
    embedded: &Tensor,
    weights: Weights<'_>,
    capacity: usize,
    visible: usize,
) -> Result<Tensor> {
    weights.check(structure, embedded, visible)?;
    if capacity == 0 || visible == 0 {
        bail!("action stack scan: expected cells, some to be seen, got {capacity} and {visible}");
    }
    if embedded.elem_count() == 0 {
        return Ok(embedded.clone());
    }
    let mut inputs = vec![embedded, weights.visible, weights.actions, weights.push];
    inputs.extend(weights.recurrent);
    if !fused::takes(&inputs) {
        return plain::scan(structure, embedded, weights, capacity, visible);
    }
    fused::apply1(scan::ScanOp { structure, capacity, visible }, &inputs)
}

impl Weights<'_> {
    /// Checks that the shapes fit each other.
    fn check(&self, structure: Structure, embedded: &Tensor, k: usize) -> Result<()> {
        let Self { visible, actions, push, recurrent } = *self;
        let (_, _, m) = embedded.dims3()?;
        let s = push.dims().first().copied().unwrap_or(0);
        let known = [false, true].map(|no_op| s * structure.num_actions(no_op));
        let fit = visible.dims() == [m, s * k]
            && known.iter().any(|&a| actions.dims() == [a, m])
            && push.dims() == [s, m]
            && recurrent.is_none_or(|r| r.dims() == [m, m]);
        if !fit || s == 0 {
            bail!(
                "action stack scan: expected P ({m}, {}), A ({} or {}, {m}), D (S > 0, {m}) and R ({m}, {m}) for inputs {:?} and {k} cells seen, got {:?}, {:?}, {:?} and {:?}",
                s * k,
                known[0],
                known[1],
                embedded.dims(),
                visible.dims(),
                actions.dims(),
                push.dims(),
                recurrent.map(Tensor::dims)
            );
        }
        Ok(())
    }
}
