//! Fits a small network to a function, with a progress bar; Ctrl-C saves, and starting it again goes on.
//!
//! ```sh
//! cargo run -p mnemic-train --example regression -- /tmp/regression
//! ```

use candle_core::{DType, Device, Tensor};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::Philox;
use mnemic_layers::{Context, ParamStore};
use mnemic_train::{
    Interrupt, LossOutput, Problem, ProgressBar, Result, TrainConfig, Trainer, Validation,
};

/// y = w2 tanh(w1 x + b1), fitted to sin(3 x).
struct Regression {
    store: ParamStore,
    weights: [Tensor; 3],
    seed: u64,
}

const EXAMPLES: usize = 2000;

impl Regression {
    fn new(seed: u64) -> Result<Self> {
        let store = ParamStore::new(seed);
        let vb: VarBuilder = store.builder(DType::F32, &Device::Cpu);
        let init = Init::Randn { mean: 0., stdev: 1. };
        let weights = [
            vb.get_with_hints((1, 32), "hidden.weight", init)?,
            vb.get_with_hints(32, "hidden.bias", init)?,
            vb.get_with_hints((32, 1), "output.weight", Init::Const(0.))?,
        ];
        Ok(Self { store, weights, seed })
    }

    /// Points `(b, 1)` and values `(b, 1)` of these examples; the validation examples follow the training examples.
    fn points(&self, indices: &[usize]) -> Result<(Tensor, Tensor)> {
        let rng = Philox::new(1, 0);
        let xs: Vec<f32> =
            indices.iter().map(|i| 4. * rng.uniform(*i as u64) as f32 - 2.).collect();
        let ys: Vec<f32> = xs.iter().map(|x| (3. * x).sin()).collect();
        let column = |v: Vec<f32>| Tensor::from_vec(v, (indices.len(), 1), &Device::Cpu);
        Ok((column(xs)?, column(ys)?))
    }

    /// Mean squared error, and the number of points that are off by more than 0.1.
    fn errors(&self, (xs, ys): &(Tensor, Tensor)) -> Result<(Tensor, f64)> {
        let [w1, b1, w2] = &self.weights;
        let diff = (xs.matmul(w1)?.broadcast_add(b1)?.tanh()?.matmul(w2)? - ys)?;
        let far = diff.abs()?.gt(0.1)?.to_dtype(DType::F64)?.sum_all()?.to_scalar()?;
        Ok((diff.sqr()?.mean_all()?, far))
    }
}

impl Problem for Regression {
    type Batch = (Tensor, Tensor);

    fn store(&self) -> &ParamStore {
        &self.store
    }

    fn train_batches(&self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        let rng = Philox::new(self.seed, epoch as u64);
        let mut order: Vec<usize> = (0..EXAMPLES).collect();
        order.sort_by_key(|i| rng.bits(*i as u64));
        Ok(order.chunks(50).map(<[usize]>::to_vec).collect())
    }

    fn load_batch(&self, indices: &[usize]) -> Result<Self::Batch> {
        self.points(indices)
    }

    fn loss(&self, batch: &Self::Batch, _: &Context) -> Result<LossOutput> {
        let (loss, far) = self.errors(batch)?;
        Ok(LossOutput::new(loss, batch.0.dim(0)?).with("error", far))
    }

    fn validate(&self) -> Result<Validation> {
        let held_out: Vec<usize> = (EXAMPLES..EXAMPLES + 500).collect();
        let (loss, far) = self.errors(&self.points(&held_out)?)?;
        let loss = f64::from(loss.to_scalar::<f32>()?);
        Ok(Validation::new(loss).with("error", far / 500.))
    }
}

fn main() -> Result<()> {
    let default = || std::env::temp_dir().join("mnemic-regression");
    let run_dir = std::env::args_os().nth(1).map_or_else(default, Into::into);
    // Recipes hold the same in TOML.
    let config: TrainConfig = serde_json::from_value(serde_json::json!({
        "epochs": 40,
        "optimizer": {"name": "adam", "lr": 0.02},
        "schedule": {"name": "cosine", "total": 40 * 40, "warmup": 20},
        "stop_when": {"metric": "error", "below": 0.0, "epochs": 2},
    }))
    .map_err(mnemic_train::Error::problem)?;
    let trainer = Trainer::new(config)?.with_interrupt(Interrupt::on_signals()?);
    let report = trainer.fit(&mut Regression::new(0)?, &run_dir, &mut ProgressBar::new())?;
    println!("{:?} after {} epochs; see {}", report.stopped, report.epochs, run_dir.display());
    if let Some(validation) = report.best_validation {
        println!("best validation loss {:.5}", validation.loss);
    }
    Ok(())
}
