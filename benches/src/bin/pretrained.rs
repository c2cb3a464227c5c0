//! `bench-pretrained`: sentence embeddings by all-MiniLM-L6-v2, one text at a time and 32 together.
//!
//! `bench-pretrained --model FOLDER [--sentences FILE] [--threads 2] [--seconds 3]` prints the median and the least time in milliseconds as
//! JSON, with the first numbers of two embeddings, so that one sees that the peer (`peers/pretrained.py`) computes the same. The least time
//! is what counts on a machine that others use, too.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Device, Tensor};
use mnemic_models::transformer::sentence::SentenceEncoder;

/// As in the binary `mnemic`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Args {
    model: String,
    sentences: String,
    threads: usize,
    seconds: f64,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            model: String::new(),
            sentences: "benches/peers/sentences.txt".into(),
            threads: 2,
            seconds: 3.,
        };
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag}: expected a value"))?;
            match flag.as_str() {
                "--model" => parsed.model = value,
                "--sentences" => parsed.sentences = value,
                "--threads" => parsed.threads = value.parse()?,
                "--seconds" => parsed.seconds = value.parse()?,
                _ => bail!("unknown flag {flag}"),
            }
        }
        if parsed.model.is_empty() {
            bail!("--model: expected the folder of all-MiniLM-L6-v2");
        }
        Ok(parsed)
    }
}

fn main() -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let encoder = SentenceEncoder::from_folder(&args.model, DType::F32, &Device::Cpu)?;
    let tokenizer = encoder.tokenizer().context("no tokenizer")?;
    let text = std::fs::read_to_string(&args.sentences).context(args.sentences.clone())?;
    let sentences: Vec<&str> = text.lines().collect();

    let batch = tokenizer.encode_batch(&sentences, &Device::Cpu)?;
    let ones = sentences.iter().map(|s| tokenizer.encode_batch(&[s], &Device::Cpu));
    let ones = ones.collect::<Result<Vec<_>, _>>()?;
    let each = |embed: &dyn Fn(usize) -> Result<Tensor>| {
        // Times by sentence, each one as often as the others.
        median(args.seconds, sentences.len(), &|i| embed(i % sentences.len()))
    };
    let one = each(&|i| Ok(encoder.encode(&ones[i])?))?;
    let one_text = each(&|i| Ok(encoder.embed(&[sentences[i]])?))?;
    let many = median(args.seconds, 3, &|_| Ok(encoder.encode(&batch)?))?;
    let many_text = median(args.seconds, 3, &|_| Ok(encoder.embed(&sentences)?))?;
    let check = encoder.encode(&batch)?.to_vec2::<f32>()?;
    let report = serde_json::json!({
        "threads": args.threads,
        "tokens": batch.dims()?,
        "embed_1_ms": one,
        "embed_32_ms": many,
        "text_1_ms": one_text,
        "text_32_ms": many_text,
        "check": [check[0][..4], check[31][..4]],
    });
    println!("{report}");
    Ok(())
}

/// The median and the least time in milliseconds of at least `least` calls and `seconds`, after a tenth of them to warm up.
fn median(seconds: f64, least: usize, call: &dyn Fn(usize) -> Result<Tensor>) -> Result<[f64; 2]> {
    let mut times = Vec::new();
    for share in [0.1, 1.] {
        times.clear();
        let begun = Instant::now();
        let limit = Duration::from_secs_f64(seconds * share);
        while times.len() < least || begun.elapsed() < limit {
            let start = Instant::now();
            std::hint::black_box(call(times.len())?);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok([times[times.len() / 2], times[0]])
}
