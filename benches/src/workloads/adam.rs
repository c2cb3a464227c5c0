//! Adam's update alone, on 20 tensors of 500,000 numbers whose gradients stay as they are.

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use mnemic_layers::ParamStore;

use super::{Cost, F32, Path, Workload};
use crate::data;
use crate::step::{Checked, Step, Update, sum_of_squares};

const TENSORS: usize = 20;
const SIZE: usize = 500_000;

pub(super) fn workloads() -> Vec<Workload> {
    // Parameter and two moments read and written, gradient read.
    let cost = Cost { flops: 0., bytes: 7. * F32 * (TENSORS * SIZE) as f64 };
    let workload = Workload::new("adam-10m", 1.5, cost, AdamStep::new);
    vec![Workload { modes: &["default", "foreach", "fused"], ..workload }]
}

struct AdamStep {
    vars: Vec<(String, Var)>,
    grads: GradStore,
    update: Update,
}

impl AdamStep {
    fn new(path: Path) -> Result<Self> {
        let store = ParamStore::new(0);
        let vb = store.builder(candle_core::DType::F32, data::device());
        let mut sum: Option<Tensor> = None;
        for i in 0..TENSORS {
            let p = vb.get(SIZE, &format!("p{i}"))?;
            // The gradient of Σ p g is g.
            let term = (p * data::tensor(&format!("g{i}"), SIZE, 0.01)?)?.sum_all()?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        data::fill(&store)?;
        let grads = match sum {
            Some(sum) => mnemic_kernels::backward(&sum)?,
            None => anyhow::bail!("no parameters"),
        };
        let update = match path {
            Path::Fused => Update::adam(&store)?,
            Path::Plain => Update::candle_adam(&store)?,
        };
        Ok(Self { vars: store.vars(), grads, update })
    }
}

impl Step for AdamStep {
    /// How far the first step goes, and the norm of the gradients.
    fn check(&mut self) -> Result<Checked> {
        let copy = |(_, var): &(String, Var)| var.as_tensor().copy();
        let before = self.vars.iter().map(copy).collect::<candle_core::Result<Vec<_>>>()?;
        self.run()?;
        let (mut moved, mut gradient) = (0., 0.);
        for ((_, var), before) in self.vars.iter().zip(&before) {
            moved += sum_of_squares(&(var.as_tensor() - before)?)?;
            gradient += self.grads.get(var).map_or(Ok(0.), sum_of_squares)?;
        }
        Ok(Checked { value: moved.sqrt(), gradient: gradient.sqrt() })
    }

    fn run(&mut self) -> Result<()> {
        self.update.apply(&self.vars, &self.grads)
    }
}
