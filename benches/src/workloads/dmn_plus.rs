//! A training step of DMN+: batch 100, h 80, 3 passes, 20 or 64 sentences of 7 words.

use anyhow::Result;
use candle_core::DType;
use mnemic_layers::ParamStore;
use mnemic_models::memory::dmn_plus::{Config, DmnPlus};

use super::memn2n::{Stories, train};
use super::{Cost, F32, LAUNCH_BOUND, Workload};
use crate::data;
use crate::step::Training;

const H: usize = 80;
const PASSES: usize = 3;

pub(super) fn workloads() -> Vec<Workload> {
    let stories = |n| Stories { b: 100, n, words: 7, asked: 5, vocabulary: 40 };
    [("dmn-plus-n20", stories(20)), ("dmn-plus-n64", stories(64))]
        .into_iter()
        .map(|(name, stories)| {
            let new = Workload::new(name, 3., cost(stories), move |_| step(stories));
            Workload { modes: LAUNCH_BOUND, ..new.recurrent().without_candle() }
        })
        .collect()
}

/// The products of the GRUs, the attention (the half of its features that holds no memory once) and the updates.
fn cost(stories: Stories) -> Cost {
    let Stories { b, n, asked, vocabulary, words } = stories;
    let (facts, rows, h, passes) = ((b * n) as f64, b as f64, H as f64, PASSES as f64);
    let gru = |rows: f64| rows * 6. * h * h;
    let attention = facts * (2. * h * h * (1. + passes) + passes * h);
    let attention_gru = facts * 2. * h * h + passes * facts * 2. * h * h;
    let updates = passes * rows * 3. * h * h + rows * 2. * h * vocabulary as f64;
    let products = 2. * gru(facts) + gru(rows * asked as f64) + attention + attention_gru + updates;
    let parameters = 3. * (6. * h * h + 6. * h) + 4. * h * h + 4. * h * h + passes * 3. * h * h;
    let gathered = facts * words as f64 * h;
    Cost { flops: 3. * 2. * products, bytes: F32 * (2. * gathered + 7. * parameters) }
}

fn step(stories: Stories) -> Result<Training> {
    let store = ParamStore::new(0);
    let config =
        Config { hidden_size: H, passes: PASSES, dropout: 0., ..Config::dmn_plus(stories.sizes()) };
    let model = DmnPlus::new(&config, store.builder(DType::F32, data::device()))?;
    train(model, &store, stories)
}
