//! `mnemic embed`, `similarity`, `fill-mask` and `classify`.

use std::process::ExitCode;

use anyhow::Result;
use mnemic_tasks::text::{
    Classified, Embedder, FillMask, FoundEntity, LabelScore, TextClassifier, cosines, nearest,
};
use serde_json::json;

use super::input;
use crate::args::{ClassifyArgs, EmbedArgs, FillMaskArgs, SimilarityArgs, TextArgs};
use crate::output;

/// Characters of a text beside its results.
const SHOWN: usize = 60;

impl TextArgs {
    fn read(&self) -> Result<Vec<String>> {
        input::texts(&self.text, self.file.as_deref())
    }

    fn embedder(&self) -> Result<Embedder> {
        let model = Embedder::open(&self.model, self.device)?;
        Ok(match self.batch {
            Some(batch) => model.with_batch(batch.get()),
            None => model,
        })
    }
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

pub(crate) fn embed(args: &EmbedArgs) -> Result<ExitCode> {
    let texts = args.texts.read()?;
    let vectors = args.texts.embedder()?.embed(&borrowed(&texts))?;
    if args.texts.json {
        let each = texts.iter().zip(&vectors);
        let all: Vec<_> = each.map(|(text, v)| json!({"text": text, "embedding": v})).collect();
        // Not indented: a number a line would be hard to read.
        output::print(&serde_json::to_string(&all)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let line = |v: &Vec<f32>| v.iter().map(f32::to_string).collect::<Vec<_>>().join("\t") + "\n";
    output::print(&vectors.iter().map(line).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn similarity(args: &SimilarityArgs) -> Result<ExitCode> {
    let texts = args.texts.read()?;
    let model = args.texts.embedder()?;
    let vectors = model.embed(&borrowed(&texts))?;
    let Some(query) = &args.query else {
        let scores = cosines(&vectors, &vectors)?;
        match args.texts.json {
            true => output::json(&json!({"texts": texts, "cosines": scores}))?,
            false => output::print(&matrix(&texts, &scores))?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    let asked = model.embed(&[query])?.concat();
    let near = nearest(&asked, &vectors, args.top.get())?;
    if args.texts.json {
        let each = near
            .iter()
            .map(|n| json!({"index": n.index, "score": n.score, "text": texts[n.index]}));
        output::json(&json!({"query": query, "nearest": each.collect::<Vec<_>>()}))?;
    } else {
        let line = |n: &mnemic_tasks::text::Near| format!("{:7.4}  {}\n", n.score, texts[n.index]);
        output::print(&near.iter().map(line).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Cosines of all pairs, the texts by their numbers.
fn matrix(texts: &[String], scores: &[Vec<f32>]) -> String {
    let mut out = String::from("     ");
    (1..=texts.len()).for_each(|i| out.push_str(&format!("{i:>6}")));
    for (i, (row, text)) in scores.iter().zip(texts).enumerate() {
        out.push_str(&format!("\n{:>5}", i + 1));
        row.iter().for_each(|score| out.push_str(&format!("{score:>6.2}")));
        out.push_str(&format!("  {}", shown(text)));
    }
    out
}

/// The beginning of a long text.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

pub(crate) fn fill_mask(args: &FillMaskArgs) -> Result<ExitCode> {
    let texts = args.texts.read()?;
    let mut model = FillMask::open(&args.texts.model, args.texts.device)?;
    if let Some(batch) = args.texts.batch {
        model = model.with_batch(batch.get());
    }
    let filled = model.fill(&borrowed(&texts), args.top.get())?;
    if args.texts.json {
        let each = texts.iter().zip(&filled);
        let all: Vec<_> = each.map(|(text, masks)| json!({"text": text, "masks": masks})).collect();
        output::json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    for (text, masks) in texts.iter().zip(&filled) {
        heading(&mut out, &texts, text);
        for (i, tokens) in masks.iter().enumerate() {
            if masks.len() > 1 {
                out.push_str(&format!("mask {}\n", i + 1));
            }
            for t in tokens {
                out.push_str(&format!("{:7.4}  {}\n", t.probability, t.text));
            }
        }
    }
    output::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn classify(args: &ClassifyArgs) -> Result<ExitCode> {
    let texts = args.texts.read()?;
    let mut model = TextClassifier::open(&args.texts.model, args.texts.device)?;
    if let Some(batch) = args.texts.batch {
        model = model.with_batch(batch.get());
    }
    let found = model.classify(&borrowed(&texts))?;
    if args.texts.json {
        let one = |(text, found): (&String, &Classified)| match found {
            Classified::Labels(labels) => json!({"text": text, "labels": labels}),
            Classified::Entities(entities) => json!({"text": text, "entities": entities}),
        };
        output::json(&texts.iter().zip(&found).map(one).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    for (text, found) in texts.iter().zip(&found) {
        heading(&mut out, &texts, text);
        match found {
            Classified::Labels(labels) => labels.iter().for_each(|l| label(&mut out, l)),
            Classified::Entities(found) if found.is_empty() => out.push_str("(no entities)\n"),
            Classified::Entities(found) => found.iter().for_each(|e| entity(&mut out, e)),
        }
    }
    output::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// The text above its results, where there are several.
fn heading(out: &mut String, texts: &[String], text: &str) {
    if texts.len() > 1 {
        let gap = if out.is_empty() { "" } else { "\n" };
        out.push_str(&format!("{gap}{}\n", shown(text)));
    }
}

fn label(out: &mut String, l: &LabelScore) {
    out.push_str(&format!("{:7.4}  {}\n", l.score, l.label));
}

fn entity(out: &mut String, e: &FoundEntity) {
    let place = format!("{}-{}", e.start, e.end);
    out.push_str(&format!("{:7.4}  {:<16} {place:<9} {}\n", e.score, e.label, e.text));
}
