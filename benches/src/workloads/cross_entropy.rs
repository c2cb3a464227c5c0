//! Cross-entropy over many classes: forward and backward to the scores.

use anyhow::Result;
use mnemic_kernels::cross_entropy::{CrossEntropy, cross_entropy, plain};

use super::{Cost, F32, Path, Workload, input, targets};
use crate::step::{Objective, Training, Update};

const ROWS: usize = 2048;

pub(super) fn workloads() -> Vec<Workload> {
    [("cross-entropy-2048x10000", 10_000), ("cross-entropy-2048x50257", 50_257)]
        .into_iter()
        .map(|(name, classes)| {
            // Scores read, their gradients written.
            let cost = Cost { flops: 0., bytes: 2. * F32 * (ROWS * classes) as f64 };
            Workload::new(name, 1.5, cost, move |path| step(classes, path))
        })
        .collect()
}

fn step(classes: usize, path: Path) -> Result<Training> {
    let logits = input("logits", &[ROWS, classes], 4.)?;
    let targets = targets("targets", ROWS, classes);
    let inputs = vec![logits.clone()];
    let forward = move || {
        let options = CrossEntropy::default();
        Ok(match path {
            Path::Fused => cross_entropy(&logits, &targets, &options)?,
            Path::Plain => plain::cross_entropy(&logits, &targets, &options)?,
        })
    };
    let (objective, update) = (Objective::Loss, Update::None);
    Ok(Training { vars: Vec::new(), inputs, objective, update, forward: Box::new(forward) })
}
