//! A reader with attention learns to name the word after a marker, on padded sequences of different
//! lengths, and shows where it looks.
//!
//! `cargo run -p mnemic-layers --example follow_the_marker`

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::rng::Philox;
use mnemic_layers::losses::{CrossEntropy, cross_entropy};
use mnemic_layers::{
    Context, Embedding, Gru, Linear, ParamStore, RecurrentConfig, dot_attention, init, length_mask,
    linear,
};

const MARKER: u32 = 9;
const VOCAB: usize = 10; // 0 is padding, 1 to 8 are words
const LONGEST: usize = 10;
const BATCH: usize = 32;

struct Batch {
    ids: Tensor, // (b, t)
    lengths: Vec<usize>,
    answers: Vec<i64>,
}

/// Random words with one marker, 3 to 10 in number.
fn batch(seed: u64, step: u64, device: &Device) -> Result<Batch> {
    let (mut ids, mut lengths, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..BATCH as u64 {
        let rng = Philox::new(seed, step * BATCH as u64 + row);
        let length = 3 + rng.below(0, LONGEST as u64 - 2) as usize;
        let marker = rng.below(1, length as u64 - 1) as usize;
        let mut words: Vec<u32> =
            (0..length as u64).map(|i| 1 + rng.below(2 + i, 8) as u32).collect();
        words[marker] = MARKER;
        answers.push(i64::from(words[marker + 1]));
        words.resize(LONGEST, 0);
        ids.extend(words);
        lengths.push(length);
    }
    Ok(Batch { ids: Tensor::from_vec(ids, (BATCH, LONGEST), device)?, lengths, answers })
}

/// Keys are the states of a bidirectional GRU, values the words, the query one learned vector.
struct Reader {
    words: Embedding,
    gru: Gru,
    query: Tensor,
    answer: Linear,
}

impl Reader {
    fn new(vb: VarBuilder<'_>) -> Result<Self> {
        let cfg = RecurrentConfig { bidirectional: true, ..RecurrentConfig::new(16, 16) };
        Ok(Self {
            words: Embedding::new(VOCAB, 16, init::normal(1.), Some(0), vb.pp("words"))?,
            gru: Gru::new(cfg, vb.pp("gru"))?,
            query: vb.get_with_hints((1, 32), "query", Init::Randn { mean: 0., stdev: 0.02 })?,
            answer: linear(16, VOCAB, true, init::xavier_uniform(16, VOCAB), vb.pp("answer"))?,
        })
    }

    fn forward(&self, batch: &Batch, ctx: &Context) -> Result<Tensor> {
        let words = ctx.dropout(&self.words.forward(&batch.ids)?, 0.1)?; // (b, t, d)
        let (b, t, _) = words.dims3()?;
        let keys = self.gru.forward(&words, None, Some(&batch.lengths), ctx)?.output;
        let query = self.query.broadcast_as((b, 32))?;
        let mask = length_mask(&batch.lengths, t, words.device())?;
        let (weights, output) = dot_attention(&query, &keys, &words, Some(&mask), false)?;
        ctx.watch("attention", 0, || Ok(weights))?;
        self.answer.forward(&output)
    }
}

fn main() -> Result<()> {
    let (seed, device) = (1, Device::Cpu);
    let store = ParamStore::new(seed);
    let reader = Reader::new(store.builder(DType::F32, &device))?;
    let vars = store.vars().into_iter().map(|(_, var)| var).collect();
    let mut optimizer = AdamW::new(vars, ParamsAdamW { lr: 0.01, ..Default::default() })?;
    for step in 0..600 {
        let batch = batch(seed, step, &device)?;
        let logits = reader.forward(&batch, &Context::train(seed, step))?;
        let loss = cross_entropy(&logits, &batch.answers, &CrossEntropy::default())?;
        optimizer.backward_step(&loss)?;
        if step % 100 == 99 {
            println!("step {step:3}  loss {:.4}", loss.to_scalar::<f32>()?);
        }
    }

    let test = batch(seed + 1, 0, &device)?;
    let ctx = Context::eval().watching();
    let logits = reader.forward(&test, &ctx)?;
    let answers = logits.argmax(1)?.to_vec1::<u32>()?;
    let right = answers.iter().zip(&test.answers).filter(|(a, b)| i64::from(**a) == **b).count();
    println!("\n{right} of {BATCH} new sequences right. Where it looks, in percent:\n");
    for watched in ctx.take_trace() {
        let weights = watched.value.to_vec2::<f32>()?;
        let ids = test.ids.to_vec2::<u32>()?;
        for row in 0..4 {
            let words = ids[row].iter().zip(&weights[row]).take(test.lengths[row]);
            for (id, weight) in words {
                let word = if *id == MARKER { "*".to_string() } else { id.to_string() };
                print!(" {word}:{:<3}", (weight * 100.).round());
            }
            println!(" -> {}", answers[row]);
        }
    }
    Ok(())
}
