//! Greedy decoding of one row by a model in the size of GPT-2 small, with random weights and its caches; prints one JSON object, as the peer
//! `peers/decode.py` does.
//!
//! `cargo run --release -p mnemic-benches --example decode -- --threads 2 --prompt 16 --new 64 --runs 3`

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use mnemic_layers::{Context, ParamStore};
use mnemic_models::transformer::gpt2::{Config, Gpt2LmHead};
use mnemic_models::{Autoregressive, Padding, TextBatch};
use rayon::prelude::*;
use serde_json::json;

// candle makes a new tensor for every result.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Args {
    threads: usize,
    prompt: usize,
    new: usize,
    runs: usize,
}

impl Args {
    fn read() -> Result<Self> {
        let mut args = Self { threads: 1, prompt: 16, new: 64, runs: 3 };
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            let place = match name.as_str() {
                "--threads" => &mut args.threads,
                "--prompt" => &mut args.prompt,
                "--new" => &mut args.new,
                "--runs" => &mut args.runs,
                _ => bail!("{name}: expected --threads, --prompt, --new or --runs"),
            };
            let value = words.next().with_context(|| format!("{name} needs a number"))?;
            *place = value.parse().with_context(|| format!("{name} {value}: not a number"))?;
        }
        let positions = Config::small().n_positions;
        ensure!(args.prompt > 0 && args.new > 1 && args.runs > 0, "numbers must be positive");
        ensure!(args.prompt + args.new <= positions, "there are {positions} positions");
        Ok(args)
    }
}

fn main() -> Result<()> {
    let args = Args::read()?;
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let config = Config::small();
    let store = ParamStore::new(0);
    // Its parameters are drawn here; the model that writes records nothing for gradients.
    Gpt2LmHead::new(&config, store.builder(DType::F32, &Device::Cpu))?;
    let model = Gpt2LmHead::new(&config, store.frozen(DType::F32, &Device::Cpu))?;
    let prompt = (1..=args.prompt as u32).map(|i| i * 97 % config.vocab_size as u32).collect();
    let batch = TextBatch::from_rows(&[prompt], 0, Padding::Left, &Device::Cpu)?;
    write(&model, &batch, args.new)?; // warms up
    let mut runs =
        (0..args.runs).map(|_| write(&model, &batch, args.new)).collect::<Result<Vec<f64>>>()?;
    let result = json!({
        "bench": "decode",
        "program": format!("mnemic {}", env!("CARGO_PKG_VERSION")),
        "threads": args.threads,
        "prompt": args.prompt,
        "new": args.new,
        "parameters": store.num_parameters(),
        "tokens_per_second": runs.iter().map(|r| round(*r)).collect::<Vec<f64>>(),
        "median": round(median(&mut runs)),
        "best": round(runs.iter().copied().fold(0., f64::max)),
        "read_gb_per_second": round(bandwidth(args.threads)),
    });
    println!("{result}");
    Ok(())
}

/// Tokens a second after the prompt.
fn write(model: &Gpt2LmHead, batch: &TextBatch, new: usize) -> Result<f64> {
    let ctx = Context::eval();
    let mut state = model.start(batch, &ctx)?;
    let mut ids = best(&model.step(batch.input_ids(), &mut state, &ctx)?)?;
    let start = Instant::now();
    for _ in 1..new {
        ids = best(&model.step(&ids, &mut state, &ctx)?)?;
    }
    Ok((new - 1) as f64 / start.elapsed().as_secs_f64())
}

/// The token of the highest score, `(1, 1)`.
fn best(logits: &Tensor) -> Result<Tensor> {
    let scores = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &score) in scores.iter().enumerate() {
        if score > best.1 {
            best = (i, score);
        }
    }
    Ok(Tensor::new(&[[best.0 as u32]], &Device::Cpu)?)
}

fn round(x: f64) -> f64 {
    (x * 100.).round() / 100.
}

fn median(xs: &mut [f64]) -> f64 {
    xs.sort_by(f64::total_cmp);
    (xs[(xs.len() - 1) / 2] + xs[xs.len() / 2]) / 2.
}

/// How fast half a gigabyte is read, the best of five times: each token reads as much.
fn bandwidth(threads: usize) -> f64 {
    let data: Vec<u64> = (0..1u64 << 26).collect();
    let part = data.len().div_ceil(threads.max(1));
    let read = || {
        let start = Instant::now();
        let sum = data.par_chunks(part).map(xor).reduce(|| 0, |a, b| a ^ b);
        std::hint::black_box(sum);
        data.len() as f64 * 8e-9 / start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| read()).fold(0., f64::max)
}

/// Many chains, so that no read waits for a sum.
fn xor(xs: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    for xs in xs.as_chunks::<32>().0 {
        lanes.iter_mut().zip(xs).for_each(|(l, x)| *l ^= x);
    }
    lanes.into_iter().fold(0, |a, b| a ^ b)
}
