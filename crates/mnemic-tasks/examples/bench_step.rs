//! Time of a DMN+ training epoch (forward, backward, update) on a bAbI file, batches sorted by story length. Prints one JSON line.
//!
//! `cargo run --release -p mnemic-tasks --example bench_step -- --data qa2_two-supporting-facts_train.txt --threads 2`

use std::error::Error;
use std::time::Instant;

use candle_core::{DType, Device};
use mnemic_tasks::babi::to_tensors;
use mnemic_tasks::data::babi::generate::{GeneratorConfig, generate};
use mnemic_tasks::data::babi::{Task, examples, parse_stories};
use mnemic_tasks::data::{Encoded, Vocabulary};
use mnemic_tasks::engine::optim::{Adam, Optimizer, OptimizerConfig};
use mnemic_tasks::engine::{Gradients, on_big_stack};
use mnemic_tasks::models::memory::dmn_plus::{Config, DmnPlus};
use mnemic_tasks::models::{Context, ParamStore, Sizes, StoryModel, answer_loss};

/// As in the binary `mnemic`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The value after `--name`, or the default.
fn arg<T: std::str::FromStr>(name: &str, default: T) -> T {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|a| a == &format!("--{name}"));
    at.and_then(|i| args.get(i + 1)?.parse().ok()).unwrap_or(default)
}

fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (threads, size) = (arg("threads", 2usize), arg("batch", 100usize));
    let (epochs, questions) = (arg("epochs", 3usize), arg("questions", 9000usize));
    let path = arg("data", String::new());
    let stories = if path.is_empty() {
        generate(&GeneratorConfig::new(Task::new(2)?, questions, 1))?
    } else {
        parse_stories(&path, std::io::BufReader::new(std::fs::File::open(&path)?))?
    };
    let mut all = examples(Task::new(2)?, &stories);
    all.truncate(questions);
    let vocabulary = Vocabulary::from_examples(&all)?;
    let data = Encoded::new(&all, &vocabulary, Some(70))?;
    let lengths = data.story_lengths();
    let mut order: Vec<usize> = (0..data.len()).collect();
    order.sort_by_key(|&i| (lengths[i], i));
    let batches = order
        .chunks(size)
        .map(|rows| Ok(to_tensors(&data.batch(rows)?, &Device::Cpu)?))
        .collect::<Result<Vec<_>, Box<dyn Error + Send + Sync>>>()?;
    let pad = data.pad_to();
    let sizes = Sizes {
        vocab_size: vocabulary.len(),
        sentence_len: pad.sentence_len.max(pad.question_len),
        memory_size: 70,
    };
    let store = ParamStore::new(1);
    let model = DmnPlus::new(&Config::dmn_plus(sizes), store.builder(DType::F32, &Device::Cpu))?;
    let vars = store.vars();
    let mut optimizer = Optimizer::new(OptimizerConfig::Adam(Adam::new(0.001)), vars.clone())?;
    let (mut seconds, mut losses, mut step) = (vec![], vec![], 0);
    for epoch in 0..=epochs {
        let (start, mut total) = (Instant::now(), 0.);
        for (batch, answers) in &batches {
            step += 1;
            let logits = model.forward(batch, &Context::train(1, step))?.logits;
            let loss = (answer_loss(&logits, answers)? / answers.len() as f64)?;
            let grads = mnemic_tasks::engine::backward(&loss)?;
            optimizer.step(&Gradients::new(&vars, &grads)?, 0.001)?;
            total += f64::from(loss.to_scalar::<f32>()?);
        }
        // The first epoch warms up.
        if epoch > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
        losses.push(total / batches.len() as f64);
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let line = serde_json::json!({
        "program": "mnemic", "version": env!("CARGO_PKG_VERSION"), "threads": threads, "batch": size,
        "questions": data.len(), "parameters": store.num_parameters(), "epoch_seconds": sorted[sorted.len() / 2], "all_seconds": seconds, "losses": losses,
    });
    println!("{line}");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Before the pool of the training thread, which takes as many threads.
    rayon::ThreadPoolBuilder::new().num_threads(arg("threads", 2)).build_global()?;
    on_big_stack(run)?
}
