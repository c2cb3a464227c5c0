//! Training steps of machines that read their own results, so that no step can be computed before the last: the Neural Turing Machine
//! and the Differentiable Neural Computer on a copy of 20 vectors, the LSTM with a continuous stack on 80 symbols, and the stack-augmented
//! network on 150.

use anyhow::Result;
use candle_core::{DType, Tensor};
use mnemic_layers::losses::{CrossEntropy, Reduction, bce_with_logits, cross_entropy};
use mnemic_layers::{Context, ParamStore};
use mnemic_models::SequenceModel;
use mnemic_models::memory::dnc::{self, Dnc};
use mnemic_models::memory::neural_stack::{self, NeuralStackLstm};
use mnemic_models::memory::ntm::{Config, Ntm};
use mnemic_models::memory::stack_rnn::{self, StackRnn};

use super::{Cost, F32, Workload, mean_of, targets};
use crate::data;
use crate::step::{Training, Update};

/// Vectors that are copied, and their width.
const COPIED: (usize, usize) = (20, 8);
/// Sequences, steps, input and output symbols.
const STACK: (usize, usize, usize, usize) = (10, 80, 258, 129);
/// Rows, steps, symbols.
const ACTIONS: (usize, usize, usize) = (20, 150, 5);

pub(super) fn workloads() -> Vec<Workload> {
    vec![
        Workload::new("ntm-copy-b1", 20., ntm_cost(1), |_| ntm(1)).without_candle(),
        Workload::new("ntm-copy-b32", 20., ntm_cost(32), |_| ntm(32)).without_candle(),
        Workload::new("dnc-copy-b1", 10., dnc_cost(1), |_| dnc(1)).without_candle(),
        Workload::new("dnc-copy-b16", 10., dnc_cost(16), |_| dnc(16)).without_candle(),
        Workload::new("neural-stack-b10-t80", 10., stack_cost(), |_| stack()).without_candle(),
        Workload::new("stack-rnn-b20-t150", 10., actions_cost(), |_| actions()).without_candle(),
    ]
}

/// Products of controller, heads and memory, forward and backward; the memory is read and written once a step, each way.
fn ntm_cost(b: usize) -> Cost {
    let (vectors, bits) = COPIED;
    let (h, n, w) = (100, 128, 20);
    let steps = b * (2 * vectors + 1);
    let weights = 4 * h * (bits + 1 + w + h) + h * 92;
    let memory = n * w * 8;
    let flops = 3. * 2. * (steps * (weights + memory)) as f64;
    Cost { flops, bytes: F32 * (steps * n * w * 4 + 7 * weights) as f64 }
}

fn ntm(b: usize) -> Result<Training> {
    let store = ParamStore::new(0);
    let (_, bits) = COPIED;
    let model = Ntm::new(&Config::lstm(bits + 1, bits), store.builder(DType::F32, data::device()))?;
    copy(model, &store, b)
}

/// Slots of the DNC.
const SLOTS: usize = 64;

/// Products of controller, interface, memory and links, forward and backward; memory and links are read and written once a step, each way.
fn dnc_cost(b: usize) -> Cost {
    let (vectors, bits) = COPIED;
    let (h, n, w, r) = (64, SLOTS, 16, 4);
    let steps = b * (2 * vectors + 1);
    let weights = 4 * h * (bits + 1 + r * w + h) + h * (w * r + 3 * w + 5 * r + 3);
    let memory = n * w * (2 * r + 4) + n * n * (2 * r + 3);
    let flops = 3. * 2. * (steps * (weights + memory)) as f64;
    Cost { flops, bytes: F32 * (steps * (n * w + n * n) * 4 + 7 * weights) as f64 }
}

fn dnc(b: usize) -> Result<Training> {
    let store = ParamStore::new(0);
    let (_, bits) = COPIED;
    let config = dnc::Config { num_slots: SLOTS, ..dnc::Config::lstm(bits + 1, bits) };
    let model = Dnc::new(&config, store.builder(DType::F32, data::device()))?;
    copy(model, &store, b)
}

/// Vectors, a delimiter, and the vectors again.
fn copy(
    model: impl SequenceModel + Send + 'static,
    store: &ParamStore,
    b: usize,
) -> Result<Training> {
    let (vectors, bits) = COPIED;
    let steps = 2 * vectors + 1;
    data::fill(store)?;
    let copied = data::ids("bits", b * vectors * bits, 0, 2);
    let copied: Vec<f32> = copied.into_iter().map(|bit| bit as f32).collect();
    let mut inputs = vec![0f32; b * steps * (bits + 1)];
    for (i, vector) in copied.chunks_exact(bits).enumerate() {
        let at = (i / vectors * steps + i % vectors) * (bits + 1);
        inputs[at..at + bits].copy_from_slice(vector);
    }
    for row in 0..b {
        inputs[(row * steps + vectors) * (bits + 1) + bits] = 1.;
    }
    let inputs = Tensor::from_vec(inputs, (b, steps, bits + 1), data::device())?;
    let wanted: Vec<bool> = (0..steps).map(|step| step > vectors).collect();
    let copied = Tensor::from_vec(copied, (b, vectors, bits), data::device())?;
    let update = Update::adam(store)?;
    Ok(Training::of(store, update, move || {
        let scores = model.forward(&inputs, Some(&wanted), &Context::train(0, 0))?;
        mean_of(bce_with_logits(&scores, &copied, Reduction::Sum)?, b)
    }))
}

/// Products of the controller and of what it emits; rows are read by few at a time.
fn stack_cost() -> Cost {
    let (b, t, i, o) = STACK;
    let (e, h, m) = (64, 256, 256);
    let weights = 4 * h * (e + m + h) + h * (m + h + 2);
    let flops = 3. * 2. * (b * t * (weights + i * e) + b * t / 2 * h * o) as f64;
    Cost { flops, bytes: F32 * 7. * (weights + i * e + h * o) as f64 }
}

fn stack() -> Result<Training> {
    let (b, t, i, o) = STACK;
    let store = ParamStore::new(0);
    let config = neural_stack::Config::stack(i, o);
    let model = NeuralStackLstm::new(&config, store.builder(DType::F32, data::device()))?;
    data::fill(&store)?;
    let mut inputs = vec![0f32; b * t * i];
    for (row, id) in inputs.chunks_exact_mut(i).zip(data::ids("symbols", b * t, 0, i as u32)) {
        row[id as usize] = 1.;
    }
    let inputs = Tensor::from_vec(inputs, (b, t, i), data::device())?;
    let wanted: Vec<bool> = (0..t).map(|step| step >= t / 2).collect();
    let answers = targets("answers", b * t / 2, o);
    let options = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
    let update = Update::adam(&store)?;
    Ok(Training::of(&store, update, move || {
        let scores = model.forward(&inputs, Some(&wanted), &Context::train(0, 0))?;
        mean_of(cross_entropy(&scores.flatten_to(1)?, &answers, &options)?, b)
    }))
}

/// Products of the hidden layer, and three products and two sums a cell; cells come one by one.
fn actions_cost() -> Cost {
    let (b, t, i) = ACTIONS;
    let (m, s) = (40, 10);
    let weights = m * (2 * i + 5 * s);
    let cells = s * t / 2;
    let flops = 3. * (b * t * (2 * weights + 6 * cells)) as f64;
    Cost { flops, bytes: F32 * (b * t * cells * 4 + 7 * weights) as f64 }
}

fn actions() -> Result<Training> {
    let (b, t, i) = ACTIONS;
    let store = ParamStore::new(0);
    let config = stack_rnn::Config::stack(i, i);
    let model = StackRnn::new(&config, store.builder(DType::F32, data::device()))?;
    data::fill(&store)?;
    let mut inputs = vec![0f32; b * t * i];
    for (row, id) in inputs.chunks_exact_mut(i).zip(data::ids("symbols", b * t, 0, i as u32)) {
        row[id as usize] = 1.;
    }
    let inputs = Tensor::from_vec(inputs, (b, t, i), data::device())?;
    let answers = targets("answers", b * t, i);
    let options = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
    let update = Update::adam(&store)?;
    Ok(Training::of(&store, update, move || {
        let scores = model.forward(&inputs, None, &Context::train(0, 0))?;
        mean_of(cross_entropy(&scores.flatten_to(1)?, &answers, &options)?, b)
    }))
}
