//! `bench-pretrained`: sentence embeddings by all-MiniLM-L6-v2, and decoding by a model in the size of GPT-2 small; `cargo xtask bench
//! pretrained` runs it in turns with its peer, `peers/pretrained.py`.
//!
//! One JSON object a part and program: `{"part", "program", "threads", …}`, with medians in milliseconds (`*_ms`) or in tokens a second
//! (`*_per_second`), and the first numbers of two embeddings, so that one sees that all compute the same.

mod candle;
mod decode;
mod embed;

use anyhow::{Context as _, Result, bail};

/// As in the binary `mnemic`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Embeds texts and decodes, and prints how fast.
struct Args {
    /// The folder of all-MiniLM-L6-v2; no embeddings where there is none.
    model: Option<String>,
    /// A file of one text a line.
    sentences: String,
    threads: usize,
    /// Seconds of each measurement.
    seconds: f64,
    /// Only this part.
    part: Option<String>,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            model: None,
            sentences: "benches/peers/sentences.txt".into(),
            threads: 1,
            seconds: 3.,
            part: None,
        };
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag}: expected a value"))?;
            let bad = || format!("{flag} {value}: not a number");
            match flag.as_str() {
                "--model" => parsed.model = Some(value),
                "--sentences" => parsed.sentences = value,
                "--threads" => parsed.threads = value.parse().with_context(bad)?,
                "--seconds" => parsed.seconds = value.parse().with_context(bad)?,
                "--part" if ["embed", "decode"].contains(&value.as_str()) => {
                    parsed.part = Some(value);
                }
                "--part" => bail!("--part {value}: expected embed or decode"),
                _ => bail!("{flag}: expected --model, --sentences, --threads, --seconds or --part"),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, part: &str) -> bool {
        self.part.as_deref().is_none_or(|wanted| wanted == part)
    }
}

fn main() -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    if args.wants("embed") {
        let model = args.model.as_deref();
        let model = model.context("--model: expected the folder of all-MiniLM-L6-v2")?;
        let text = std::fs::read_to_string(&args.sentences).context(args.sentences.clone())?;
        let sentences: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        embed::embed(model, &sentences, args.threads, args.seconds)?;
    }
    if args.wants("decode") {
        decode::decode(args.threads)?;
    }
    Ok(())
}
