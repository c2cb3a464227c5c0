//! CPU time of a sequence of needle recall in the hierarchical attention encoder, causal self-attention and an LSTM, at several lengths, where
//! the last step or all steps are read. Prints a table. For Linux.
//!
//! `cargo run --release -p mnemic-tasks --example bench_long_range -- --threads 1 --lengths 100,1000,10000`

use std::error::Error;

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

/// Seconds that this process has had on all cores: what counts on a machine that is shared. Linux counts them in hundredths.
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("/proc/self/stat: expected a name in brackets")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.collect::<Result<Vec<_>, _>>()?.iter().sum::<f64>() / 100.)
}

/// Milliseconds that `f` takes.
fn milliseconds(mut f: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    f()?; // warms up
    let (start, mut runs) = (cpu_seconds()?, 0);
    while cpu_seconds()? < start + arg("seconds", 0.5) {
        f()?;
        runs += 1;
    }
    Ok(1000. * (cpu_seconds()? - start) / f64::from(runs))
}

/// Milliseconds a sequence, forward and with its backward pass.
fn times(model: &dyn SequenceModel, inputs: &Tensor, wanted: &[bool]) -> Outcome<(f64, f64)> {
    let b = inputs.dim(0)? as f64;
    let loss = || model.forward(inputs, Some(wanted), &Context::train(1, 1))?.sqr()?.sum_all();
    let forward = milliseconds(|| Ok(loss().map(|_| ())?))?;
    let both = milliseconds(|| Ok(backward(&loss()?).map(|_| ())?))?;
    Ok((forward / b, both / b))
}

fn run() -> Outcome<()> {
    let lengths = arg("lengths", "100,1000,10000".to_string());
    let lengths: Vec<usize> = lengths.split(',').filter_map(|n| n.parse().ok()).collect();
    // All steps of a descent are read one by one, each with the windows that it goes down to brought together.
    let longest: usize = arg("descents-up-to", 1000);
    println!("| model | parameters | steps read | length | ms forward | ms with backward |");
    println!("| --- | ---: | --- | ---: | ---: | ---: |");
    for (name, architecture, changes) in MODELS {
        let config = SequenceConfig::new(architecture, (64, 32), serde_json::from_str(changes)?)?;
        let store = ParamStore::new(1);
        let model = config.build(store.builder(DType::F32, &Device::Cpu))?;
        for read in ["last", "all"] {
            for &length in &lengths {
                if read == "all" && name.contains("descent") && length > longest {
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
