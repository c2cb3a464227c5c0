//! The attention of episodic memory: how well each fact fits the question and the memory so far.
//!
//! - DMN (Kumar et al. 2015, section 2.3):
//!   `z = [c; m; q; c∘q; c∘m; |c-q|; |c-m|; cᵀW_b q; cᵀW_b m]`, a sigmoid gate a fact.
//! - DMN+ (Xiong et al. 2016, eq. 8-10): `z = [f∘q; f∘m; |f-q|; |f-m|]`, a softmax over the facts.
//!
//! Both score `Z = W_2 tanh(W_1 z + b_1) + b_2`. The terms of `W_1 z` that do not hold the memory
//! are the same in every pass, so they are computed once.

use candle_core::{D, Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_kernels::activation::{sigmoid, tanh};
use mnemic_kernels::concat::{concat, split};
use mnemic_kernels::episodic::{Scorer, episodic_scores};
use mnemic_kernels::interaction::interaction;
use mnemic_kernels::linear::linear as product;
use mnemic_kernels::softmax::{masked_softmax, softmax};

use crate::init::xavier_uniform;
use crate::{Linear, linear};

/// Which features are scored and how gates are made of the scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpisodicKind {
    /// The nine features of DMN; sigmoid gates.
    Dmn,
    /// The four features of DMN+; softmax gates.
    DmnPlus,
}

/// Scores facts against a question and a memory. Letters: b batch, n facts, h hidden size.
///
/// Parameters `w1.weight (h, k)`, `w1.bias (h)`, `w2.weight (1, h)`, `w2.bias (1)`, and
/// `w_b (h, h)` for DMN; `k` is `7h + 2` for DMN and `4h` for DMN+, its columns in the order of the
/// features. Weights start as Xavier uniform, biases at 0.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{EpisodicAttention, EpisodicKind, ParamStore, length_mask};
/// let store = ParamStore::new(0);
/// let vb = store.builder(DType::F32, &Device::Cpu);
/// let attention = EpisodicAttention::new(EpisodicKind::DmnPlus, 4, vb.pp("attention"))?;
/// let facts = Tensor::ones((2, 3, 4), DType::F32, &Device::Cpu)?;
/// let question = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?;
/// let mask = length_mask(&[3, 2], 3, &Device::Cpu)?;
///
/// let prepared = attention.prepare(&facts, &question)?; // once
/// let gates = attention.gates(&prepared, &question, Some(&mask))?; // each pass
/// assert_eq!(gates.to_vec2::<f32>()?[1], [0.5, 0.5, 0.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EpisodicAttention {
    kind: EpisodicKind,
    hidden_size: usize,
    w1: Linear,
    w2: Linear,
    w_b: Option<Tensor>,
}

/// What every pass over the same facts and question shares; from [`EpisodicAttention::prepare`].
#[derive(Debug, Clone)]
pub struct PreparedFacts {
    facts: Tensor,             // (b, n, h)
    projected: Option<Tensor>, // c W_b, (b, n, h)
    fixed: Tensor,             // the terms of W_1 z + b_1 without the memory, (b, n, h)
    memory_weight: Tensor,     // the columns of W_1 that meet the memory, (h, k')
}

impl EpisodicAttention {
    /// The attention over facts of width `hidden_size`.
    ///
    /// # Errors
    /// When the size is 0, or a parameter exists with another shape or type.
    pub fn new(kind: EpisodicKind, hidden_size: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let h = hidden_size;
        if h == 0 {
            bail!("episodic attention: hidden_size must be positive");
        }
        let k = match kind {
            EpisodicKind::Dmn => 7 * h + 2,
            EpisodicKind::DmnPlus => 4 * h,
        };
        let w_b = match kind {
            EpisodicKind::Dmn => Some(vb.get_with_hints((h, h), "w_b", xavier_uniform(h, h))?),
            EpisodicKind::DmnPlus => None,
        };
        let w1 = linear(k, h, true, xavier_uniform(k, h), vb.pp("w1"))?;
        let w2 = linear(h, 1, true, xavier_uniform(h, 1), vb.pp("w2"))?;
        Ok(Self { kind, hidden_size, w1, w2, w_b })
    }

    /// Computes what does not depend on the memory, for `facts` `(b, n, h)` and `question`
    /// `(b, h)`.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn prepare(&self, facts: &Tensor, question: &Tensor) -> Result<PreparedFacts> {
        let h = self.hidden_size;
        if facts.rank() != 3 || facts.dim(2)? != h {
            bail!("episodic attention: expected facts (b, n, {h}), got {:?}", facts.dims());
        }
        check_vector("question", question, facts)?;
        let features = interaction(facts, question)?; // (b, n, 2h)
        let (fixed, memory_columns, projected) = match &self.w_b {
            None => {
                // f ∘ q, f ∘ m, |f - q|, |f - m|
                let [a, b, c, d] = four(split(self.w1.weight(), &[h; 4])?)?;
                let fixed = product(&features, &concat(&[a, c])?, self.w1.bias())?;
                let facts = facts.clone();
                let memory_weight = concat(&[b, d])?;
                return Ok(PreparedFacts { facts, projected: None, fixed, memory_weight });
            }
            Some(w_b) => {
                let projected = apply(facts, &w_b.t()?)?; // (b, n, h)
                let bilinear = inner(&projected, question)?; // (b, n, 1)
                let z = concat(&[facts.clone(), features, bilinear])?;
                let columns = self.columns(&[(0, h), (3 * h, h), (5 * h, h), (7 * h, 1)])?;
                let q = apply(question, &self.columns(&[(2 * h, h)])?)?; // (b, h)
                let fixed = product(&z, &columns, self.w1.bias())?;
                let fixed = fixed.broadcast_add(&q.unsqueeze(1)?)?;
                (fixed, vec![(4 * h, h), (6 * h, h), (7 * h + 1, 1)], Some(projected))
            }
        };
        let memory_weight = self.columns(&memory_columns)?;
        Ok(PreparedFacts { facts: facts.clone(), projected, fixed, memory_weight })
    }

    /// The scores `Z` `(b, n)` of the facts, given `memory` `(b, h)`, before the sigmoid or
    /// softmax. Padded facts get one too.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn scores(&self, prepared: &PreparedFacts, memory: &Tensor) -> Result<Tensor> {
        check_vector("memory", memory, &prepared.facts)?;
        if let (None, Some(bias)) = (&prepared.projected, self.w2.bias()) {
            let scorer = Scorer { inner: &prepared.memory_weight, outer: self.w2.weight(), bias };
            return episodic_scores(&prepared.facts, memory, &prepared.fixed, scorer);
        }
        let features = interaction(&prepared.facts, memory)?; // (b, n, 2h)
        let inner_layer = match &prepared.projected {
            None => (apply(&features, &prepared.memory_weight)? + &prepared.fixed)?,
            Some(projected) => {
                let z = concat(&[features, inner(projected, memory)?])?;
                let h = self.hidden_size;
                let m = apply(memory, &self.columns(&[(h, h)])?)?; // (b, h)
                (apply(&z, &prepared.memory_weight)?.broadcast_add(&m.unsqueeze(1)?)?
                    + &prepared.fixed)?
            }
        };
        self.w2.forward(&tanh(&inner_layer)?)?.squeeze(D::Minus1)
    }

    /// The gates `(b, n)` of one pass: `σ(Z)` for DMN, the softmax of `Z` over the facts for DMN+.
    /// Facts where `mask` (u8 `(b, n)`) is 0 get the gate 0 and do not enter the softmax.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn gates(
        &self,
        prepared: &PreparedFacts,
        memory: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let scores = self.scores(prepared, memory)?;
        match (self.kind, mask) {
            (EpisodicKind::DmnPlus, None) => softmax(&scores),
            (EpisodicKind::DmnPlus, Some(mask)) => masked_softmax(&scores, mask),
            (EpisodicKind::Dmn, None) => sigmoid(&scores),
            (EpisodicKind::Dmn, Some(mask)) => {
                if mask.dims() != scores.dims() {
                    bail!("episodic attention: mask {:?} for {:?}", mask.dims(), scores.dims());
                }
                mask.where_cond(&sigmoid(&scores)?, &scores.zeros_like()?)
            }
        }
    }

    /// Columns of `W_1` given as (start, length), side by side.
    fn columns(&self, ranges: &[(usize, usize)]) -> Result<Tensor> {
        let parts = ranges.iter().map(|&(start, len)| self.w1.weight().narrow(1, start, len));
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)
    }
}

fn four(parts: Vec<Tensor>) -> Result<[Tensor; 4]> {
    let error = |_| candle_core::Error::msg("episodic attention: internal error: not four parts");
    parts.try_into().map_err(error)
}

/// The inner product of every fact with a vector of its row, `(b, n, 1)`.
fn inner(facts: &Tensor, vector: &Tensor) -> Result<Tensor> {
    facts.matmul(&vector.unsqueeze(2)?)
}

/// `xs Wᵀ` of `xs` `(…, k)` and `W (h, k)`, as one product.
fn apply(xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
    product(xs, weight, None)
}

fn check_vector(name: &str, vector: &Tensor, facts: &Tensor) -> Result<()> {
    let (b, _, h) = facts.dims3()?;
    if vector.dims() != [b, h] {
        bail!("episodic attention: expected the {name} ({b}, {h}), got {:?}", vector.dims());
    }
    Ok(())
}
