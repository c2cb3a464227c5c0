//! `mnemic generate` and `mnemic translate`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::{Result, bail};
use mnemic_tasks::generation::{EarlyStopping, GenerationConfig};
use mnemic_tasks::text::{WriteOptions, Writer, Written};
use serde::Serialize;

use crate::args::{DecodingArgs, GenerateArgs, TextArgs, TranslateArgs};
use crate::output;

/// What was written to a text, for `--json`.
#[derive(Serialize)]
struct Answer<'a> {
    text: &'a str,
    written: &'a [Written],
}

pub(crate) fn generate(args: &GenerateArgs) -> Result<ExitCode> {
    let prompts = super::input::texts(&args.texts.text, args.texts.file.as_deref())?;
    let writer = Writer::causal(&args.texts.model, args.texts.device)?;
    let options = options(&writer.config, &args.how, &args.texts)?;
    let alone = options.config.num_beams == 1 && options.config.num_return_sequences == 1;
    if let [prompt] = prompts.as_slice()
        && alone
        && !args.texts.json
        && !args.no_stream
    {
        stream(&writer, prompt, &options)?;
        return Ok(ExitCode::SUCCESS);
    }
    write(&writer, &prompts, &options, args.texts.json, |prompt, text| format!("{prompt}{text}"))
}

pub(crate) fn translate(args: &TranslateArgs) -> Result<ExitCode> {
    let texts = super::input::texts(&args.texts.text, args.texts.file.as_deref())?;
    let writer = Writer::seq2seq(&args.texts.model, args.texts.device)?;
    let options = options(&writer.config, &args.how, &args.texts)?;
    write(&writer, &texts, &options, args.texts.json, |_, text| text.to_string())
}

/// Shows the text as it comes. Who no longer reads it ends nothing: the text is written to its end, and the error told then.
fn stream(writer: &Writer, prompt: &str, options: &WriteOptions) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut failed = write!(out, "{prompt}").and_then(|()| out.flush()).err();
    writer.stream(prompt, options, &mut |text| {
        if failed.is_none() {
            failed = write!(out, "{text}").and_then(|()| out.flush()).err();
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(writeln!(out)?),
    }
}

/// Writes to all texts and prints what `shown` makes of each and its answers.
fn write(
    writer: &Writer,
    texts: &[String],
    options: &WriteOptions,
    json: bool,
    shown: impl Fn(&str, &str) -> String,
) -> Result<ExitCode> {
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let written = writer.write(&refs, options)?;
    if json {
        let answers = refs.iter().zip(&written);
        let answers: Vec<Answer> =
            answers.map(|(text, written)| Answer { text, written }).collect();
        output::json(&answers)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![];
    for (text, written) in refs.iter().zip(&written) {
        for one in written {
            let line = shown(text, &one.text);
            lines.push(match options.config.num_return_sequences {
                1 => line,
                _ => format!("{:8.4}  {line}", one.score),
            });
        }
    }
    output::print(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The checkpoint's configuration with what was asked for.
fn options(base: &GenerationConfig, how: &DecodingArgs, texts: &TextArgs) -> Result<WriteOptions> {
    let mut config = base.clone();
    if let Some(n) = how.max_new_tokens {
        config.max_new_tokens = Some(n.get());
    }
    if how.greedy {
        (config.do_sample, config.num_beams, config.num_return_sequences) = (false, 1, 1);
    }
    if how.temperature.is_some() || how.top_k.is_some() || how.top_p.is_some() {
        (config.do_sample, config.num_beams) = (true, 1);
    }
    if how.seed.is_some() && !config.do_sample {
        bail!(
            "--seed: the most probable token is taken; expected --temperature, --top-k or --top-p with it"
        );
    }
    config.temperature = how.temperature.unwrap_or(config.temperature);
    config.top_k = how.top_k.unwrap_or(config.top_k);
    config.top_p = how.top_p.unwrap_or(config.top_p);
    config.seed = how.seed.unwrap_or(config.seed);
    if let Some(beams) = how.beams {
        (config.do_sample, config.num_beams) = (false, beams.get());
    }
    if let Some(n) = how.n_best {
        config.num_return_sequences = n.get();
    }
    if config.num_return_sequences > config.num_beams && !config.do_sample {
        let (n, beams) = (config.num_return_sequences, config.num_beams);
        bail!("--n-best {n}: expected at most as many as --beams, {beams}, or samples");
    }
    if (how.length_penalty.is_some() || how.early_stopping) && config.num_beams == 1 {
        bail!("--length-penalty, --early-stopping: expected --beams with them");
    }
    config.length_penalty = how.length_penalty.unwrap_or(config.length_penalty);
    if how.early_stopping {
        config.early_stopping = EarlyStopping::Always;
    }
    config.repetition_penalty = how.repetition_penalty.unwrap_or(config.repetition_penalty);
    config.no_repeat_ngram_size = how.no_repeat_ngrams.unwrap_or(config.no_repeat_ngram_size);
    // Before anything is printed.
    config.validate()?;
    let stop = how.stop.iter().map(|text| text.replace("\\n", "\n")).collect();
    let batch = texts.batch.map_or(8, NonZeroUsize::get);
    Ok(WriteOptions { config, stop, batch })
}
