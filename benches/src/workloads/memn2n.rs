//! A training step of MemN2N: 50 sentences of 11 words, d 20, 3 hops, adjacent tying, position and temporal encoding.

use anyhow::Result;
use candle_core::{DType, Tensor};
use mnemic_layers::{Context, ParamStore};
use mnemic_models::memory::memn2n::{Config, MemN2N};
use mnemic_models::{HostIds, Sizes, StoryBatch, StoryModel};

use super::{Cost, F32, LAUNCH_BOUND, Workload, mean_of};
use crate::data;
use crate::step::{Training, Update};

/// Stories without padding, as `kernels_workloads.py` has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stories {
    pub(super) b: usize,
    pub(super) n: usize,
    pub(super) words: usize,
    pub(super) asked: usize,
    pub(super) vocabulary: usize,
}

const STORIES: Stories = Stories { b: 32, n: 50, words: 11, asked: 6, vocabulary: 180 };
const D: usize = 20;
const HOPS: usize = 3;

pub(super) fn workloads() -> Vec<Workload> {
    let new = Workload::new("memn2n-b32", 10., cost(), |_| step()).without_candle();
    vec![Workload { modes: LAUNCH_BOUND, ..new }]
}

/// The rows of the tables that the words name, forward and backward; parameters and Adam's moments.
fn cost() -> Cost {
    let Stories { b, n, words, asked, vocabulary } = STORIES;
    let tables = (HOPS + 1) as f64;
    let d = D as f64;
    let gathered = (b * (n * words * (HOPS + 1) + asked)) as f64 * d;
    let parameters = tables * ((vocabulary + n) as f64) * d;
    let hops = 2. * HOPS as f64 * (b * n) as f64 * d;
    let answer = (b * vocabulary) as f64 * d;
    let flops = 3. * 2. * (hops + answer) + 2. * 2. * gathered;
    Cost { flops, bytes: F32 * (2. * gathered + 7. * parameters) }
}

impl Stories {
    /// The batch and its answers.
    pub(super) fn batch(&self) -> Result<(StoryBatch, Vec<u32>)> {
        let Self { b, n, words, asked, vocabulary } = *self;
        let high = vocabulary as u32;
        let ids = |name: &str, shape: &[usize]| {
            let ids = data::ids(name, shape.iter().product(), 1, high);
            Tensor::from_vec(ids, shape, data::device())
        };
        let batch = StoryBatch {
            story: ids("story", &[b, n, words])?,
            story_lengths: vec![n; b],
            sentence_lengths: vec![words; b * n],
            question: ids("question", &[b, asked])?,
            question_lengths: vec![asked; b],
            supports: Vec::new(),
            host: HostIds::default(),
        };
        batch.validate()?;
        Ok((batch, data::ids("answers", b, 1, high)))
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes { vocab_size: self.vocabulary, sentence_len: self.words, memory_size: self.n }
    }
}

/// A step of Adam on the mean loss of a model that answers questions.
pub(super) fn train(
    model: impl StoryModel + Send + 'static,
    store: &ParamStore,
    stories: Stories,
) -> Result<Training> {
    data::fill(store)?;
    let (batch, answers) = stories.batch()?;
    let update = Update::adam(store)?;
    Ok(Training::of(store, update, move || {
        mean_of(model.loss(&batch, &answers, &Context::train(0, 0))?, stories.b)
    }))
}

fn step() -> Result<Training> {
    let store = ParamStore::new(0);
    let config = Config { hops: HOPS, embedding_dim: D, ..Config::pe(STORIES.sizes()) };
    let model = MemN2N::new(&config, store.builder(DType::F32, data::device()))?;
    train(model, &store, STORIES)
}
