//! A small problem: a network with dropout that learns a smooth function.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::Init;
use mnemic_layers::Philox;
use mnemic_layers::{Context, ParamStore};
use mnemic_train::optim::{Adam, OptimizerConfig, Sgd};
use mnemic_train::{
    EmaConfig, Error, LossOutput, Phase, Problem, Result, ScheduleConfig, TrainConfig, Validation,
};

pub(crate) const EXAMPLES: usize = 50;
const VALIDATION: usize = 16;

/// `y = w2 tanh(w1 x + b1) + b2` with dropout on the hidden layer.
pub(crate) struct Toy {
    pub(crate) store: ParamStore,
    seed: u64,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    xs: Tensor,
    ys: Tensor,
    /// A batch with this example gives a NaN in the named place.
    pub(crate) poison: Option<(usize, Poison)>,
    /// Ends a phase after this epoch.
    pub(crate) new_phase_after: Option<usize>,
    /// The epochs that ended (the problem's own state).
    pub(crate) ended: Vec<usize>,
    /// Sleeps this long in each batch, so that signals find the process at work.
    pub(crate) pause: std::time::Duration,
    /// Called with the number of each validation epoch, to change its loss.
    pub(crate) validation_loss: Option<fn(usize) -> f64>,
}

#[derive(Clone, Copy)]
pub(crate) enum Poison {
    Loss,
    Gradient,
    Parameter,
}

impl Toy {
    pub(crate) fn new(seed: u64) -> Self {
        let store = ParamStore::new(seed);
        let vb = store.builder(DType::F32, &Device::Cpu);
        let init = Init::Randn { mean: 0., stdev: 0.5 };
        let get = |shape: &[usize], name: &str| vb.get_with_hints(shape, name, init).unwrap();
        let (w1, b1) = (get(&[3, 16], "hidden.weight"), get(&[16], "hidden.bias"));
        let (w2, b2) = (get(&[16, 1], "output.weight"), get(&[1], "output.bias"));
        let n = EXAMPLES + VALIDATION;
        let xs: Vec<f32> =
            Philox::new(99, 0).uniforms(3 * n, -1., 1.).iter().map(|x| *x as f32).collect();
        let ys: Vec<f32> = xs.chunks(3).map(|x| (2. * x[0]).sin() + x[1] * x[2]).collect();
        Self {
            store,
            seed,
            w1,
            b1,
            w2,
            b2,
            xs: Tensor::from_vec(xs, (n, 3), &Device::Cpu).unwrap(),
            ys: Tensor::from_vec(ys, (n, 1), &Device::Cpu).unwrap(),
            poison: None,
            new_phase_after: None,
            ended: vec![],
            pause: std::time::Duration::ZERO,
            validation_loss: None,
        }
    }

    fn forward(&self, xs: &Tensor, ctx: &Context) -> Result<Tensor> {
        let hidden = xs.matmul(&self.w1)?.broadcast_add(&self.b1)?.tanh()?;
        Ok(ctx.dropout(&hidden, 0.2)?.matmul(&self.w2)?.broadcast_add(&self.b2)?)
    }

    pub(crate) fn weights(&self) -> Vec<(String, Vec<u32>)> {
        let bits = |t: &Tensor| -> Vec<u32> {
            let v = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            v.into_iter().map(f32::to_bits).collect()
        };
        self.store.vars().iter().map(|(n, v)| (n.clone(), bits(v))).collect()
    }
}

pub(crate) struct Batch {
    xs: Tensor,
    ys: Tensor,
    indices: Vec<usize>,
}

impl Problem for Toy {
    type Batch = Batch;

    fn store(&self) -> &ParamStore {
        &self.store
    }

    fn train_batches(&self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        let rng = Philox::new(self.seed, epoch as u64);
        let mut order: Vec<usize> = (0..EXAMPLES).collect();
        for i in (1..EXAMPLES).rev() {
            order.swap(i, rng.below(i as u64, i as u64 + 1) as usize);
        }
        Ok(order.chunks(8).map(<[usize]>::to_vec).collect())
    }

    fn load_batch(&self, indices: &[usize]) -> Result<Batch> {
        std::thread::sleep(self.pause);
        let ids: Vec<u32> = indices.iter().map(|i| *i as u32).collect();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let (xs, ys) = (self.xs.index_select(&ids, 0)?, self.ys.index_select(&ids, 0)?);
        Ok(Batch { xs, ys, indices: indices.to_vec() })
    }

    fn loss(&self, batch: &Batch, ctx: &Context) -> Result<LossOutput> {
        let diff = (self.forward(&batch.xs, ctx)? - &batch.ys)?;
        let mut loss = diff.sqr()?.mean_all()?;
        let wrong = diff.abs()?.ge(0.25)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        if let Some((example, poison)) = self.poison
            && batch.indices.contains(&example)
        {
            loss = match poison {
                Poison::Loss => (loss * f64::NAN)?,
                // The root of 0: a finite value with an infinite slope, times 0.
                Poison::Gradient => {
                    let zero = (&self.w2 - self.w2.detach())?;
                    (loss + zero.sqr()?.sum_all()?.sqrt()?)?
                }
                Poison::Parameter => {
                    let bad = (self.b1.zeros_like()? / 0.)?;
                    self.store.get("hidden.bias").expect("there").set(&bad)?;
                    (self.forward(&batch.xs, ctx)? - &batch.ys)?.sqr()?.mean_all()?
                }
            };
        }
        Ok(LossOutput::new(loss, batch.indices.len()).with("error", wrong))
    }

    fn validate(&self) -> Result<Validation> {
        let xs = self.xs.narrow(0, EXAMPLES, VALIDATION)?;
        let diff =
            (self.forward(&xs, &Context::eval())? - self.ys.narrow(0, EXAMPLES, VALIDATION)?)?;
        let loss = f64::from(diff.sqr()?.mean_all()?.to_scalar::<f32>()?);
        let wrong = diff.abs()?.ge(0.25)?.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?;
        let loss = self.validation_loss.map_or(loss, |f| f(self.ended.len()));
        Ok(Validation::new(loss).with("error", wrong))
    }

    fn end_epoch(&mut self, epoch: usize, _: &Validation) -> Result<Phase> {
        self.ended.push(epoch);
        Ok(if self.new_phase_after == Some(epoch) { Phase::New } else { Phase::Same })
    }

    fn state(&self) -> serde_json::Value {
        self.ended.clone().into()
    }

    fn load_state(&mut self, state: &serde_json::Value) -> Result<()> {
        self.ended = serde_json::from_value(state.clone()).map_err(Error::problem)?;
        Ok(())
    }

    fn fingerprint(&self) -> String {
        "toy 1".into()
    }

    fn describe_batch(&self, indices: &[usize]) -> String {
        format!("points {indices:?}")
    }
}

/// Everything that has a state: Adam, plateau, moving average, accumulation, early stopping.
pub(crate) fn full_config(epochs: usize) -> TrainConfig {
    let optimizer = OptimizerConfig::Adam(Adam { amsgrad: true, ..Adam::new(0.01) });
    let mut config = TrainConfig::new(epochs, optimizer);
    config.seed = 3;
    config.schedule =
        ScheduleConfig::Plateau { factor: 0.5, patience: 0, threshold: 0.05, min_lr: 1e-4 };
    config.clip.global_norm = Some(0.5);
    config.accumulate = 2;
    config.ema = Some(EmaConfig { decay: 0.95, warmup: true });
    config.patience = Some(1000);
    config.checkpoint_every_steps = Some(1);
    config.log_every = 1;
    config
}

pub(crate) fn plain_config(epochs: usize) -> TrainConfig {
    TrainConfig::new(epochs, OptimizerConfig::Sgd(Sgd::new(0.05)))
}

/// The lines of `metrics.jsonl` without what depends on the clock.
pub(crate) fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    let parse = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let object = value.as_object_mut().expect("an object");
        object.remove("seconds");
        object.remove("examples_per_second");
        value
    };
    text.lines().map(parse).collect()
}
