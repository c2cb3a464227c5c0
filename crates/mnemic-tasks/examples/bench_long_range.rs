//! Time of a sequence of needle recall in the hierarchical attention encoder, causal self-attention and an LSTM, at several lengths. Prints a
//! table.
//!
//! `cargo run --release -p mnemic-tasks --example bench_long_range -- --threads 1 --lengths 100,1000,10000`

use std::error::Error;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use mnemic_tasks::data::algorithms::Algorithm;
use mnemic_tasks::engine::{backward, on_big_stack};
use mnemic_tasks::models::{Context, ParamStore, SequenceConfig, SequenceModel};

/// As in the binary `mnemic`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The models of the recipes of needle recall, and a tree of more levels.
const MODELS: [(&str, &str, &str); 6] = [
    (
        "hierarchical, descent",
        "hierarchical-attention",
        r#"{"readout": "descent", "conv_width": 2}"#,
    ),
    (
        "hierarchical, descent, beam 4",
        "hierarchical-attention",
        r#"{"readout": "descent", "beam": 4, "conv_width": 2}"#,
    ),
    (
        "hierarchical, flat, r = 4",
        "hierarchical-attention",
        r#"{"readout": "flat", "summaries": 4, "conv_width": 2}"#,
    ),
    (
        "hierarchical, flat, b = 16, Lv = 3",
        "hierarchical-attention",
        r#"{"readout": "flat", "branching": 16, "levels": 3, "conv_width": 2}"#,
    ),
    ("causal self-attention", "causal-self-attention", r#"{"conv_width": 2}"#),
    ("LSTM", "lstm-transducer", r#"{"hidden_size": 96, "num_layers": 1}"#),
];

/// The value after `--name`, or the default.
fn arg<T: std::str::FromStr>(name: &str, default: T) -> T {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|a| a == &format!("--{name}"));
    at.and_then(|i| args.get(i + 1)?.parse().ok()).unwrap_or(default)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Milliseconds a sequence, forward and with its backward pass.
fn times(model: &dyn SequenceModel, inputs: &Tensor, wanted: &[bool]) -> Outcome<(f64, f64)> {
    let (mut forward, mut both) = (vec![], vec![]);
    let budget = Instant::now();
    let (b, runs) = (inputs.dim(0)?, arg("runs", 5usize));
    for run in 0..=runs {
        let start = Instant::now();
        let scores = model.forward(inputs, Some(wanted), &Context::train(1, 1))?;
        let done = start.elapsed().as_secs_f64();
        let loss = scores.sqr()?.sum_all()?;
        backward(&loss)?;
        // The first one warms up, unless one alone takes long.
        if run > 0 || done > 5. {
            forward.push(done);
            both.push(start.elapsed().as_secs_f64());
        }
        if budget.elapsed().as_secs_f64() > 60. && !both.is_empty() {
            break;
        }
    }
    let each = |seconds| 1000. * median(seconds) / b as f64;
    Ok((each(forward), each(both)))
}

fn run() -> Outcome<()> {
    let lengths = arg("lengths", "100,1000,10000".to_string());
    let lengths: Vec<usize> = lengths.split(',').filter_map(|n| n.parse().ok()).collect();
    // All steps of a descent that is exact cost as much as attention to everything, without its kernel's savings in memory.
    let longest: usize = arg("all-up-to", 10_000);
    println!("| model | parameters | steps read | length | ms forward | ms with backward |");
    println!("| --- | ---: | --- | ---: | ---: | ---: |");
    for (name, architecture, changes) in MODELS {
        let config = SequenceConfig::new(architecture, (64, 32), serde_json::from_str(changes)?)?;
        let store = ParamStore::new(1);
        let model = config.build(store.builder(DType::F32, &Device::Cpu))?;
        for read in ["last", "all"] {
            for &length in &lengths {
                if read == "all" && (length > longest || name.ends_with("descent") && length > 1000)
                {
                    continue;
                }
                let b = (2000 / length).max(1);
                let batch = Algorithm::named("needle-recall")?.at(&[length])?.batch(b, 1, 0)?;
                let inputs = Tensor::from_vec(batch.inputs, (b, length, 64), &Device::Cpu)?;
                let wanted = if read == "all" { vec![true; length] } else { batch.scored };
                let (forward, both) = times(&model, &inputs, &wanted)?;
                let parameters = store.num_parameters();
                println!(
                    "| {name} | {parameters} | {read} | {length} | {forward:.2} | {both:.2} |"
                );
            }
        }
    }
    Ok(())
}

fn main() -> Outcome<()> {
    // Before the pool of the training thread, which takes as many threads.
    rayon::ThreadPoolBuilder::new().num_threads(arg("threads", 1)).build_global()?;
    on_big_stack(run)?
}
