//! One process, one number of threads: all chosen workloads, each program in turns.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use mnemic_benches::measure::{Burst, Participant, interleave};
use mnemic_benches::peer::Peer;
use serde_json::{Value, json};

use crate::args::Args;
use crate::decode::{self, Decoder};
use crate::embed::{self, Embedder, Ours, OwnBatches, difference};
use crate::report::{Program, Record, Run};

/// How long the peer may take to load a model, export it, and embed all sentences once.
const PREPARE: Duration = Duration::from_secs(600);
/// Embeddings must not lie further apart.
pub(crate) const TOLERANCE: f64 = 1e-5;

struct Workload {
    name: &'static str,
    about: &'static str,
    work: Work,
    /// What the peer can run it with.
    modes: &'static [&'static str],
}

enum Work {
    /// Sentences, so many at a time.
    Embed(usize),
    Decode,
}

const EMBEDDERS: &[&str] = &["sentence-transformers", "transformers", "onnxruntime"];

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "minilm-b1",
        about: "sentences by all-MiniLM-L6-v2 from text, one at a time",
        work: Work::Embed(1),
        modes: EMBEDDERS,
    },
    Workload {
        name: "minilm-b32",
        about: "sentences by all-MiniLM-L6-v2 from text, sorted by length, 32 at a time",
        work: Work::Embed(32),
        modes: EMBEDDERS,
    },
    Workload {
        name: "gpt2-small-decode",
        about: "greedy tokens of one row by GPT-2 small (random weights) with its cache",
        work: Work::Decode,
        modes: &["transformers", "generate"],
    },
];

/// The text of `--list`.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for workload in WORKLOADS {
        let _ = writeln!(text, "{:<20}{}", workload.name, workload.about);
    }
    text
}

fn select(filter: Option<&str>) -> Result<Vec<&'static Workload>> {
    let parts: Vec<&str> = filter.unwrap_or_default().split(',').map(str::trim).collect();
    let wanted = |workload: &&Workload| parts.iter().any(|part| workload.name.contains(part));
    let chosen: Vec<_> = WORKLOADS.iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "no workload matches; these are there:\n{}", list());
    Ok(chosen)
}

/// Measures and prints one line of JSON for each workload, as soon as it has been measured.
pub(crate) fn run(options: &Args) -> Result<()> {
    let chosen = select(options.common.filter.as_deref())?;
    let mut about = options.common.about();
    about.insert("mnemic".into(), env!("CARGO_PKG_VERSION").into());
    if cfg!(feature = "candle-transformers") {
        about.insert("candle-transformers".into(), "0.11.1".into());
    }
    let mut peer = match options.common.peer() {
        Some((python, script)) => {
            Some(Peer::start(python, script, options.common.threads(), None)?)
        }
        None => None,
    };
    about.extend(peer.iter().flat_map(|peer| peer.versions.clone()));
    let read = decode::bandwidth(options.common.threads());
    about.insert(
        format!("memory read, {} thread(s)", options.common.threads()),
        format!("{read:.1} GB/s"),
    );
    for (index, workload) in chosen.iter().enumerate() {
        eprint!("[{}/{}] {}: ", index + 1, chosen.len(), workload.name);
        let start = Instant::now();
        let mut record = Record::new(workload.name, options.common.threads());
        if let Err(error) = fill(workload, options, &mut peer, &mut record) {
            record.error = Some(format!("{error:#}"));
        }
        eprintln!("{} ({:.0} s)", record.line(), start.elapsed().as_secs_f64());
        let run = Run { about: about.clone(), results: vec![record] };
        println!("{}", serde_json::to_string(&run)?);
    }
    Ok(())
}

fn fill(
    workload: &Workload,
    options: &Args,
    peer: &mut Option<Peer>,
    record: &mut Record,
) -> Result<()> {
    match workload.work {
        Work::Embed(batch) => embedding(workload, batch, options, peer, record),
        Work::Decode => decoding(workload, options, peer, record),
    }
}

fn embedding(
    workload: &Workload,
    batch: usize,
    options: &Args,
    peer: &mut Option<Peer>,
    record: &mut Record,
) -> Result<()> {
    let variable = || std::env::var_os("MNEMIC_MINILM").map(Into::into);
    let folder = options.model.clone().or_else(variable);
    let folder = folder.context("needs `--model FOLDER` or MNEMIC_MINILM: all-MiniLM-L6-v2")?;
    let (sentences, source) = embed::sentences(options.sentences.get())?;
    let texts: Vec<&str> = sentences.iter().map(String::as_str).collect();
    (record.unit, record.units) = ("sentences".into(), texts.len());
    record.notes.push(format!("{} sentences: {source}", texts.len()));

    let encoder = embed::encoder(&folder)?;
    let mut programs: Vec<(&str, Box<dyn Embedder>)> =
        vec![("mnemic", Box::new(Ours(encoder.clone())))];
    #[cfg(feature = "candle-transformers")]
    {
        let candle = crate::candle::Candle::new(&folder, embed::tokenizer(&encoder)?)?;
        programs.push(("candle", Box::new(candle)));
    }
    if batch > 1 {
        programs.insert(1, ("mnemic, its own batches", Box::new(OwnBatches(encoder))));
    }
    let ours = programs[0].1.embed(&texts, batch)?;
    for (name, program) in &programs {
        compare(name, &ours, &program.embed(&texts, batch)?, record)?;
    }
    let request = json!({
        "workload": "embed", "model": folder, "texts": texts, "batch": batch,
    });
    let modes = prepare(workload, &request, peer, record, |mode, answer, record| {
        compare(mode, &ours, &matrix(&answer["embeddings"])?, record)
    })?;
    let texts = &texts;
    let burst = |program: &'static str, it: Box<dyn Embedder>| {
        let once = move |_| {
            let start = Instant::now();
            std::hint::black_box(it.embed(texts, batch)?);
            Ok(start.elapsed().as_secs_f64())
        };
        let burst: Burst<'_> = Box::new(move |steps| (0..steps).map(&once).collect());
        Participant::new(program, false, burst)
    };
    let ours = programs.into_iter().map(|(name, it)| burst(name, it)).collect();
    measure(ours, modes, options, peer, record)
}

fn decoding(
    workload: &Workload,
    options: &Args,
    peer: &mut Option<Peer>,
    record: &mut Record,
) -> Result<()> {
    (record.unit, record.units) = ("tokens".into(), decode::NEW);
    let decoder = Decoder::new()?;
    let request = json!({"workload": "decode", "prompt": decode::PROMPT, "new": decode::NEW});
    let modes = prepare(workload, &request, peer, record, |_, _, _| Ok(()))?;
    let burst: Burst<'_> = Box::new(|steps| (0..steps).map(|_| decoder.write()).collect());
    measure(vec![Participant::new("mnemic", false, burst)], modes, options, peer, record)
}

/// The modes of the peer that are ready to run. That it computes something else is an error; that a mode cannot be had is a note.
fn prepare(
    workload: &Workload,
    request: &Value,
    peer: &mut Option<Peer>,
    record: &mut Record,
    check: impl Fn(&str, &Value, &mut Record) -> Result<()>,
) -> Result<Vec<&'static str>> {
    let Some(peer) = peer else { return Ok(Vec::new()) };
    let mut modes = Vec::new();
    for &mode in workload.modes {
        let mut request = request.clone();
        request["mode"] = mode.into();
        match peer.ask(&request, PREPARE) {
            Ok(answer) => {
                check(mode, &answer, record)?;
                modes.push(mode);
            }
            Err(error) => record.notes.push(format!("{mode}: {error:#}")),
        }
    }
    Ok(modes)
}

fn measure<'a>(
    all: Vec<Participant<'a>>,
    modes: Vec<&'static str>,
    options: &Args,
    peer: &'a mut Option<Peer>,
    record: &mut Record,
) -> Result<()> {
    let shared = peer.as_mut().map(RefCell::new);
    let shared = &shared;
    let mut programs = all;
    for mode in modes {
        let Some(peer) = shared else { continue };
        let burst = move |steps| peer.borrow_mut().run(mode, steps);
        programs.push(Participant::new(mode, false, Box::new(burst)));
    }
    let (times, rounds) = interleave(programs, options.seconds);
    record.rounds = rounds;
    if let Some(peer) = shared {
        peer.borrow_mut().clear()?;
    }
    for times in times {
        match (times.median, times.quartiles) {
            (Some(median), Some(quartiles)) => record.programs.push(Program {
                name: times.name,
                seconds: median,
                quartiles,
                steps: times.steps,
                per_second: record.units as f64 / median,
            }),
            _ => {
                let error = times.error.unwrap_or_else(|| "no time".into());
                record.notes.push(format!("{}: {error}", times.name));
            }
        }
    }
    Ok(())
}

/// Enters how far the embeddings of a program lie from ours; too far is an error.
fn compare(name: &str, ours: &Tensor, theirs: &Tensor, record: &mut Record) -> Result<()> {
    let found = difference(ours, theirs).with_context(|| name.to_owned())?;
    record.differences.insert(name.to_owned(), found);
    // NaN is not within the tolerance either.
    if found <= TOLERANCE {
        return Ok(());
    }
    bail!("the embeddings of {name} and mnemic differ by {found:e}, more than {TOLERANCE:e}")
}

fn matrix(rows: &Value) -> Result<Tensor> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(rows.clone())
        .context("the peer's answer lacks the rows `embeddings`")?;
    Ok(Tensor::new(rows, &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_chosen_by_parts_of_their_names() {
        assert_eq!(select(None).unwrap().len(), WORKLOADS.len());
        let chosen = select(Some("b32, decode")).unwrap();
        let names: Vec<_> = chosen.iter().map(|workload| workload.name).collect();
        assert_eq!(names, ["minilm-b32", "gpt2-small-decode"]);
        assert!(select(Some("bert")).err().unwrap().to_string().contains("minilm-b1"));
    }

    #[test]
    fn embeddings_that_differ_are_refused() {
        let rows = |x: f64| matrix(&json!([[1., 2.], [3., x]])).unwrap();
        let mut record = Record::new("w", 1);
        compare("other", &rows(4.), &rows(4. + 4e-6), &mut record).unwrap();
        assert!(record.differences["other"] > 0.);
        let error = compare("other", &rows(4.), &rows(4.1), &mut record).unwrap_err();
        assert!(error.to_string().contains("other and mnemic differ"), "{error}");
        assert!(compare("other", &rows(4.), &(rows(4.) * f64::NAN).unwrap(), &mut record).is_err());
        assert!(matrix(&Value::Null).is_err());
    }
}
