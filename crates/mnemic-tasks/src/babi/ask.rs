//! A trained model that answers questions and shows what it attended to.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use mnemic_data::babi::Example;
use mnemic_data::{Encoded, Vocabulary};
use mnemic_models::{
    AnyStoryModel, Context, ModelConfig, Pretrained, StoryModel, Trace, from_pretrained, softmax,
};
use mnemic_pictures::{Gate, PassTrace, QaTrace};

use super::problem::to_tensors;
use super::run::{TestResult, tests};
use crate::babi::BabiData;
use crate::recipe::Recipe;
use crate::{Error, Place, Result};

/// A trained bAbI model with its vocabulary and the recipe that it came from.
pub struct BabiModel {
    /// The folder.
    pub path: PathBuf,
    /// The model's config.
    pub config: ModelConfig,
    /// Its words and answers.
    pub vocabulary: Vocabulary,
    /// How it was trained.
    pub recipe: Recipe,
    pub(super) device: Device,
    pub(super) model: AnyStoryModel,
}

impl BabiModel {
    /// Opens a model's folder, or a run's, whose chosen model is in `model/`, on the CPU.
    ///
    /// # Errors
    /// When a file is missing or damaged or does not fit the others, naming it.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_on(path, Place::Cpu)
    }

    /// [`BabiModel::open`] on a device.
    ///
    /// # Errors
    /// Also when there is no such device.
    pub fn open_on(path: &Path, place: Place) -> Result<Self> {
        let device = place.open()?;
        let inner = path.join("model");
        let path = if inner.join("config.json").exists() { inner } else { path.to_path_buf() };
        if !path.join("config.json").exists() {
            return Err(Error::request(format!(
                "{}: no config.json here or in model/: expected a folder that `mnemic train` wrote",
                path.display()
            )));
        }
        let loaded: Pretrained = from_pretrained(&path, DType::F32, &device)?;
        let file = path.join("vocab.json");
        let text = std::fs::read_to_string(&file).map_err(Error::io(&file))?;
        let vocabulary = Vocabulary::from_json(&text)
            .map_err(|e| Error::request(format!("{}: {e}", file.display())))?;
        if vocabulary.len() != loaded.config.vocab_size() {
            return Err(Error::request(format!(
                "{}: {} words, but the model's vocab_size is {}",
                file.display(),
                vocabulary.len(),
                loaded.config.vocab_size()
            )));
        }
        let recipe = Recipe::read(&path.join("recipe.toml"), &[])?;
        let (config, model) = (loaded.config, loaded.model);
        Ok(Self { path, config, vocabulary, recipe, device, model })
    }

    /// Tests the model on the test data of its recipe. `data` is where official files lie.
    ///
    /// # Errors
    /// When the data cannot be read or holds words that the model does not know.
    pub fn test(&self, data: Option<&Path>) -> Result<Vec<TestResult>> {
        let loaded = BabiData::load_with(&self.recipe.data, data, Some(&self.vocabulary))?;
        tests(&self.recipe, &self.model, &loaded, &self.device)
    }

    /// Answers the question of an example; with probabilities, the `answers` best first, and the attention of every pass.
    ///
    /// # Errors
    /// When the example holds a word that the model does not know, naming it and near ones.
    pub fn ask(&self, example: &Example, answers: usize) -> Result<QaTrace> {
        let mut unlabelled = example.clone();
        // The answer is only shown, so one that the model does not know is no error.
        unlabelled.answer.clear();
        let encoded =
            Encoded::new(&[unlabelled], &self.vocabulary, self.recipe.data.max_sentences)?;
        let (batch, _) = to_tensors(&encoded.batch(&[0])?, &self.device)?;
        let ctx = Context::eval().watching();
        let logits = self.model.forward(&batch, &ctx)?.logits;
        let probabilities = softmax(&logits)?.squeeze(0)?.to_vec1::<f32>()?;
        let mut ranked: Vec<(String, f64)> = probabilities
            .iter()
            .enumerate()
            .skip(1)
            .filter_map(|(i, &p)| Some((self.vocabulary.word(i as u32)?.to_string(), f64::from(p))))
            .collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(answers);
        let sentences = example_sentences(example);
        Ok(QaTrace {
            title: example.question.join(" ") + "?",
            model: self.config.architecture().to_string(),
            task: example.task.map(|t| format!("task {}: {}", t.number(), t.title())),
            question: example.question.join(" ") + "?",
            expected: (!example.answer.is_empty()).then(|| example.answer.clone()),
            supports: example.supports.clone(),
            passes: passes(&ctx.take_trace(), sentences.len(), self.gate())?,
            answers: ranked,
            sentences,
        })
    }

    fn gate(&self) -> Gate {
        match self.config.architecture() {
            "dmn" | "entnet" => Gate::Sigmoid,
            _ => Gate::Softmax,
        }
    }
}

/// The statements of an example as text.
pub fn example_sentences(example: &Example) -> Vec<String> {
    example.statements.iter().map(|s| s.join(" ")).collect()
}

/// The recorded attention of one story, one entry a pass. Sentences that the model no longer kept get the weight 0.
fn passes(trace: &Trace, sentences: usize, gate: Gate) -> Result<Vec<PassTrace>> {
    let mut passes = Vec::new();
    for watched in trace.iter().filter(|w| w.name == "attention") {
        let kept = watched.value.squeeze(0)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let kept = &kept[..kept.len().min(sentences)];
        let mut weights = vec![0.; sentences - kept.len()];
        weights.extend_from_slice(kept);
        passes.push(PassTrace { name: format!("pass {}", watched.step + 1), weights, gate });
    }
    Ok(passes)
}
