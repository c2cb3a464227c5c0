//! Texts gone on with, and texts made of others.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mnemic_models::transformer::auto::{AutoCausalLm, AutoSeq2SeqLm};
use mnemic_models::{Autoregressive, Context, Padding, Pretrained, TextBatch, from_pretrained};
use serde::Serialize;

use super::attention::{Attention, head_maps};
use super::open;
use super::vocabulary::{Stream, Vocabulary};
use crate::generation::{Finish, GenerationConfig, Generator, Hypothesis, NewToken};
use crate::{Error, Place, Result};

/// New tokens of a text where neither the checkpoint nor the caller says how many.
const NEW_TOKENS: usize = 128;

/// A model that writes, with its vocabulary and the defaults of its checkpoint.
///
/// ```no_run
/// use mnemic_tasks::Place;
/// use mnemic_tasks::text::{WriteOptions, Writer};
/// let writer = Writer::causal("stories260K", Place::Cpu)?;
/// let options = WriteOptions::new(writer.config.clone());
/// let written = writer.write(&["Once upon a time"], &options)?;
/// println!("Once upon a time{}", written[0][0].text);
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    /// The folder of the checkpoint.
    pub path: PathBuf,
    /// How the checkpoint asks to be decoded.
    pub config: GenerationConfig,
    model: Model,
    vocabulary: Vocabulary,
    device: Device,
}

#[derive(Debug)]
enum Model {
    Causal(Box<AutoCausalLm>),
    Seq2Seq(Box<AutoSeq2SeqLm>),
}

/// How to write.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// How tokens are chosen.
    pub config: GenerationConfig,
    /// Texts that end what is written and are not part of it, wherever tokens begin and end. Not with beams.
    pub stop: Vec<String>,
    /// Texts at a time.
    pub batch: usize,
}

impl WriteOptions {
    /// With this configuration, without stop texts, eight texts at a time.
    pub fn new(config: GenerationConfig) -> Self {
        Self { config, stop: vec![], batch: 8 }
    }
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With an end token.
    EndToken,
    /// At a stop text.
    Stop,
    /// At the greatest length.
    Length,
}

/// A text that was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Written {
    /// The text, without the prompt.
    pub text: String,
    /// The sum of the tokens' log-probabilities over their number to the power of the length penalty.
    pub score: f64,
    /// New tokens, the end token included.
    pub tokens: usize,
    /// Why it ends.
    pub ending: Ending,
}

impl Writer {
    /// The language model of a folder or hub id.
    ///
    /// # Errors
    /// When there is none, it is of another kind, or a file is damaged.
    pub fn causal(model: impl AsRef<Path>, place: Place) -> Result<Self> {
        let (path, device) = (open::folder(model.as_ref())?, place.open()?);
        let loaded: Pretrained<AutoCausalLm> = from_pretrained(&path, DType::F32, &device)?;
        let model = Model::Causal(Box::new(loaded.inference_model(DType::F32, &device)?));
        let config = GenerationConfig::from_folder(&path)?;
        let vocabulary = Vocabulary::tokenizers(&path)?;
        Ok(Self { config: lengthened(config), path, model, vocabulary, device })
    }

    /// The encoder-decoder of a folder or hub id.
    ///
    /// # Errors
    /// When there is none, it is of another kind, or a file is damaged.
    pub fn seq2seq(model: impl AsRef<Path>, place: Place) -> Result<Self> {
        let (path, device) = (open::folder(model.as_ref())?, place.open()?);
        let loaded: Pretrained<AutoSeq2SeqLm> = from_pretrained(&path, DType::F32, &device)?;
        let mut config = GenerationConfig::from_folder(&path)?;
        let vocabulary = match Vocabulary::own(&loaded.config) {
            Some(own) => own,
            None => Vocabulary::tokenizers(&path)?,
        };
        if let Some(own) = loaded.config.own_vocabulary() {
            config.decoder_start_token_id.get_or_insert(own.start);
            config.pad_token_id.get_or_insert(0);
            if config.eos_token_id.is_empty() {
                config.eos_token_id = vec![own.end];
            }
        }
        let model = Model::Seq2Seq(Box::new(loaded.inference_model(DType::F32, &device)?));
        Ok(Self { config: lengthened(config), path, model, vocabulary, device })
    }

    /// What follows each text, or what is made of it: as many hypotheses each as the configuration asks for, the best first.
    ///
    /// # Errors
    /// When a text is empty or too long, or the options do not fit together.
    pub fn write(&self, texts: &[&str], options: &WriteOptions) -> Result<Vec<Vec<Written>>> {
        self.run(texts, options, &mut |_| {})
    }

    /// As [`write`](Self::write) with one text and one hypothesis, shown to `on_text` piece by piece, whole letters only.
    ///
    /// # Errors
    /// Those of `write`, and with beams or several hypotheses.
    pub fn stream(
        &self,
        text: &str,
        options: &WriteOptions,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Written> {
        if options.config.num_beams > 1 || options.config.num_return_sequences > 1 {
            let reason = "expected one beam and one text to stream, beams change their past";
            return Err(Error::generation("stream", reason));
        }
        let written = self.run(&[text], options, on_text)?;
        let first = written.into_iter().flatten().next();
        first.ok_or_else(|| Error::generation("stream", "nothing was written"))
    }

    /// What the model attends to in a text; an encoder-decoder also in what it writes to it, as its configuration has it.
    pub(super) fn attention(&self, text: &str) -> Result<Attention> {
        let ids = self.ids(text, &self.config)?;
        let source =
            TextBatch::from_rows(std::slice::from_ref(&ids), 0, Padding::Right, &self.device)?;
        let ctx = Context::eval().watching();
        let read = self.vocabulary.names(&ids, false);
        let (architecture, kinds, written) = match &self.model {
            Model::Causal(model) => {
                model.forward(&source, &ctx)?;
                (model.architecture(), vec![("Self-attention", "attention")], vec![])
            }
            Model::Seq2Seq(model) => {
                let config = GenerationConfig { num_return_sequences: 1, ..self.config.clone() };
                let generated = Generator::new(model.as_ref(), config)?.generate(&source)?;
                let start = self.config.decoder_start_token_id.or(self.config.bos_token_id);
                let new = generated.sequences().into_iter().flatten();
                let target: Vec<u32> = start.into_iter().chain(new).collect();
                let written = self.vocabulary.names(&target, true);
                let target = TextBatch::from_rows(&[target], 0, Padding::Right, &self.device)?;
                model.forward(&source, &target, &ctx)?;
                let kinds = vec![
                    ("Encoder", "attention"),
                    ("Decoder", "decoder_attention"),
                    ("From what is written to what is read", "cross_attention"),
                ];
                (model.architecture(), kinds, written)
            }
        };
        let trace = ctx.take_trace();
        let mut maps = vec![];
        for (title, name) in kinds {
            let layers: Vec<Tensor> =
                trace.iter().filter(|w| w.name == name).map(|w| w.value.clone()).collect();
            if !layers.is_empty() {
                let rows = if name == "attention" { &read } else { &written };
                let cols = if name == "decoder_attention" { &written } else { &read };
                maps.push(head_maps(title, rows, cols, &layers)?);
            }
        }
        if maps.is_empty() {
            return Err(Error::request(format!("{architecture}: this model has no attention")));
        }
        Ok(Attention { architecture: architecture.to_string(), tokens: read, maps })
    }

    fn run(
        &self,
        texts: &[&str],
        options: &WriteOptions,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Vec<Vec<Written>>> {
        if options.stop.iter().any(String::is_empty) {
            return Err(Error::generation("stop", "expected texts that are not empty"));
        }
        if !options.stop.is_empty() && options.config.num_beams > 1 {
            return Err(Error::generation("stop", "expected one beam, beams change their past"));
        }
        let mut written = Vec::with_capacity(texts.len());
        for (i, texts) in texts.chunks(options.batch.max(1)).enumerate() {
            let first = (i * options.batch) as u64;
            written.extend(match &self.model {
                Model::Causal(model) => {
                    self.chunk(model.as_ref(), texts, first, options, on_text)?
                }
                Model::Seq2Seq(model) => {
                    self.chunk(model.as_ref(), texts, first, options, on_text)?
                }
            });
        }
        Ok(written)
    }

    /// The ids of a text; a language model may begin with nothing but the token that texts begin with.
    fn ids(&self, text: &str, config: &GenerationConfig) -> Result<Vec<u32>> {
        let ids = self.vocabulary.encode(text)?;
        match (ids.is_empty(), config.bos_token_id) {
            (false, _) => Ok(ids),
            (true, Some(bos)) => Ok(vec![bos]),
            (true, None) => {
                let reason = "expected a text that is not empty: the model has no token that texts begin with";
                Err(Error::request(reason))
            }
        }
    }

    fn chunk<M: Autoregressive>(
        &self,
        model: &M,
        texts: &[&str],
        first: u64,
        options: &WriteOptions,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Vec<Vec<Written>>> {
        let config = &options.config;
        let rows: Vec<Vec<u32>> =
            texts.iter().map(|text| self.ids(text, config)).collect::<Result<_>>()?;
        let (side, prompts) = match model.is_encoder_decoder() {
            true => (Padding::Right, vec![vec![]; rows.len()]),
            false => (Padding::Left, rows.clone()),
        };
        let batch = TextBatch::from_rows(&rows, self.vocabulary.pad_id(), side, &self.device)?;
        let generator = Generator::new(model, config.clone())?.first_row(first);
        if config.num_beams > 1 {
            let generated = generator.generate(&batch)?;
            let rows = generated.rows.into_iter().zip(&prompts);
            return rows.map(|(row, prompt)| self.texts(row, prompt)).collect();
        }
        let samples = config.num_return_sequences.max(1);
        let mut readers = Vec::with_capacity(rows.len() * samples);
        for prompt in &prompts {
            for _ in 0..samples {
                readers.push(Reader::new(self.vocabulary.stream(prompt)?, &options.stop));
            }
        }
        let mut failed = None;
        let on_token = |token: &NewToken| {
            let Some(reader) = readers.get_mut(token.row * samples + token.sample) else {
                return ControlFlow::Continue(());
            };
            match reader.step(token.id, on_text) {
                Ok(true) => ControlFlow::Break(()),
                Ok(false) => ControlFlow::Continue(()),
                Err(e) => {
                    failed.get_or_insert(e);
                    ControlFlow::Break(())
                }
            }
        };
        let generated = generator.stream(&batch, on_token)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let mut readers = readers.into_iter();
        let row = |hypotheses: Vec<Hypothesis>| {
            hypotheses
                .into_iter()
                .zip(readers.by_ref())
                .map(|(hypothesis, reader)| {
                    let (text, stopped) = reader.finish(on_text)?;
                    Ok(written(text, &hypothesis, stopped))
                })
                .collect::<Result<Vec<Written>>>()
        };
        generated.rows.into_iter().map(row).collect()
    }

    /// The texts of hypotheses that are complete.
    fn texts(&self, hypotheses: Vec<Hypothesis>, prompt: &[u32]) -> Result<Vec<Written>> {
        let text = |hypothesis: Hypothesis| {
            let mut reader = Reader::new(self.vocabulary.stream(prompt)?, &[]);
            for &id in &hypothesis.ids {
                reader.step(id, &mut |_| {})?;
            }
            let (text, stopped) = reader.finish(&mut |_| {})?;
            Ok(written(text, &hypothesis, stopped))
        };
        hypotheses.into_iter().map(text).collect()
    }
}

/// The configuration with a length that lets texts end by themselves, where the checkpoint names none.
fn lengthened(config: GenerationConfig) -> GenerationConfig {
    match (config.max_length, config.max_new_tokens) {
        (None, None) => GenerationConfig { max_new_tokens: Some(NEW_TOKENS), ..config },
        _ => config,
    }
}

fn written(text: String, hypothesis: &Hypothesis, stopped: bool) -> Written {
    let ending = match hypothesis.finish {
        _ if stopped => Ending::Stop,
        Finish::EndToken => Ending::EndToken,
        Finish::Length => Ending::Length,
        Finish::StopSequence | Finish::Stopped => Ending::Stop,
    };
    Written { text, score: hypothesis.score, tokens: hypothesis.ids.len(), ending }
}

/// Makes text of tokens until a stop text is there.
struct Reader<'a> {
    stream: Stream<'a>,
    stop: &'a [String],
    text: String,
    /// How much of the text was shown.
    shown: usize,
    stopped: bool,
}

impl<'a> Reader<'a> {
    fn new(stream: Stream<'a>, stop: &'a [String]) -> Self {
        Self { stream, stop, text: String::new(), shown: 0, stopped: false }
    }

    /// Takes a token; whether a stop text is there.
    fn step(&mut self, id: u32, on_text: &mut dyn FnMut(&str)) -> Result<bool> {
        let piece = self.stream.step(id)?;
        self.take(&piece);
        // What may become a stop text waits.
        let end = if self.stopped { self.text.len() } else { self.text.len() - self.begun() };
        self.show(end, on_text);
        Ok(self.stopped)
    }

    fn take(&mut self, piece: &str) {
        if self.stopped {
            return;
        }
        self.text.push_str(piece);
        let place = self.stop.iter().filter_map(|stop| self.text.find(stop.as_str())).min();
        if let Some(place) = place {
            self.text.truncate(place);
            self.stopped = true;
        }
    }

    /// The bytes at the end of the text that a stop text begins with.
    fn begun(&self) -> usize {
        let begins = |stop: &String| {
            let places = stop.char_indices().map(|(place, _)| place).rev();
            places.into_iter().find(|&n| self.text.ends_with(&stop[..n])).unwrap_or(0)
        };
        self.stop.iter().map(begins).max().unwrap_or(0)
    }

    fn show(&mut self, end: usize, on_text: &mut dyn FnMut(&str)) {
        if end > self.shown {
            on_text(&self.text[self.shown..end]);
            self.shown = end;
        }
    }

    fn finish(mut self, on_text: &mut dyn FnMut(&str)) -> Result<(String, bool)> {
        let stream = std::mem::replace(&mut self.stream, Stream::Done);
        let piece = stream.finish()?;
        self.take(&piece);
        self.show(self.text.len(), on_text);
        Ok((self.text, self.stopped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of pieces, for texts without a tokenizer.
    fn read(pieces: &[&str], stop: &[&str]) -> (Vec<String>, String, bool) {
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut reader = Reader::new(Stream::Done, &stop);
        let mut shown = vec![];
        for piece in pieces {
            reader.take(piece);
            let end =
                if reader.stopped { reader.text.len() } else { reader.text.len() - reader.begun() };
            reader.show(end, &mut |text| shown.push(text.to_string()));
            if reader.stopped {
                break;
            }
        }
        let (text, stopped) = reader.finish(&mut |text| shown.push(text.to_string())).unwrap();
        (shown, text, stopped)
    }

    #[test]
    fn stop_texts_may_lie_across_tokens() {
        let (shown, text, stopped) = read(&["one. ", "The", " E", "nd", " more"], &["The End"]);
        assert_eq!((shown.concat(), text.as_str(), stopped), ("one. ".into(), "one. ", true));
        let (shown, text, stopped) = read(&["The", " E", "cho"], &["The End", "xx"]);
        assert_eq!(shown, ["The Echo"]);
        assert_eq!((text.as_str(), stopped), ("The Echo", false));
        // What waited is shown at the end.
        let (shown, ..) = read(&["ab", "The"], &["The End"]);
        assert_eq!(shown, ["ab", "The"]);
        let (_, text, _) = read(&["aéb", "éc"], &["bé"]);
        assert_eq!(text, "aé");
    }
}
